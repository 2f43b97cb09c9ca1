"""What the host has to have for packets to be forwarded, and the addresses that a plan means."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from pathlib import Path
from typing import Final

from scistream.addresses import Endpoint
from scistream.engines.base import Plan, Route
from scistream.engines.holders import who_listens
from scistream.engines.nft_table import Door
from scistream.engines.probing import STATUS, privilege_shortfall
from scistream.engines.processes import bind_failure, is_in_use, plain_ip
from scistream.errors import Code, SciStreamError

__all__ = ["doors", "forwarding_shortfall", "require_forwarding", "require_free", "shortfall"]

_SYSTEM: Final = Path("/proc/sys")
_FORWARDING: Final = {"ip": "net.ipv4.ip_forward", "ip6": "net.ipv6.conf.all.forwarding"}
_FAMILIES: Final = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def shortfall(status: Path = STATUS, system: Path = _SYSTEM) -> str:
    """What this process or this host lacks for any forwarding, in a sentence; empty where nothing is missing."""
    if words := privilege_shortfall(status):
        return words
    lacking = [forwarding_shortfall(family, system) for family in _FORWARDING]
    return lacking[0] if all(lacking) else ""


def forwarding_shortfall(family: str, system: Path = _SYSTEM) -> str:
    """What keeps this host from forwarding packets of `ip` or `ip6`; empty where nothing does."""
    name = _FORWARDING[family]
    try:
        is_on = system.joinpath(*name.split(".")).read_text().strip() != "0"
    except OSError:
        return f"this host has no {'IPv4' if family == 'ip' else 'IPv6'}"
    version = "IPv4" if family == "ip" else "IPv6"
    return "" if is_on else f"this host forwards no {version} packets: switch it on with sysctl -w {name}=1"


def require_forwarding(engine: str, found: tuple[Door, ...]) -> None:
    """Refuse what this host cannot forward.

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    for door in found:
        if reason := _unreachable(door) or ("" if _is_local(door) else forwarding_shortfall(door.family)):
            raise SciStreamError(Code.ENGINE_CANNOT, engine=engine, reason=reason)


def _unreachable(door: Door) -> str:
    target, entry_point = Endpoint(str(door.target), door.target_port), Endpoint(str(door.address), door.port)
    if door.target.is_multicast or door.target.is_unspecified or door.target.is_reserved:
        return f"target {target} is no host's address"
    if door.target.is_loopback and not door.address.is_loopback:
        return f"target {target} is this gateway's loopback, to which nothing is forwarded: name an outer address of it"
    if door.address.is_loopback and not door.target.is_loopback:
        return f"entry point {entry_point} is this gateway's loopback, from which nothing is forwarded to {target}"
    return ""


def _is_local(door: Door) -> bool:
    with socket.socket(_FAMILIES[door.family], socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(door.target), 0))
        except OSError:
            return False
    return True


def require_free(plan: Plan) -> None:
    """Refuse entry points that somebody listens on, or that are not this host's; a reservation is no hindrance.

    Raises:
        SciStreamError: ENTRY_POINT_IN_USE, LISTEN_ADDRESS_FOREIGN.
    """
    for route in plan.routes:
        error = bind_failure(route.entry_point, plan.transport)
        if error is None:
            continue
        address = str(route.entry_point)
        if is_in_use(error):
            holder = who_listens(route.entry_point, plan.transport) or "a process that holds it and does not listen"
            raise SciStreamError(Code.ENTRY_POINT_IN_USE, entry_point=address, process=holder)
        raise SciStreamError(Code.LISTEN_ADDRESS_FOREIGN, address=address, reason=error.strerror or str(error))


async def doors(engine: str, plan: Plan) -> tuple[Door, ...]:
    """The plan's entry points and targets by IP address, names resolved; each pair of one family.

    Raises:
        SciStreamError: ENGINE_CANNOT, CONFIGURATION_REJECTED.
    """
    return tuple([await _door(engine, plan, route) for route in plan.routes])


async def _door(engine: str, plan: Plan, route: Route) -> Door:
    entry_point = (await _addresses(engine, plan, route.entry_point))[0]
    targets = await _addresses(engine, plan, route.target)
    # A name may have addresses of both families.
    target = next((each for each in targets if each.version == entry_point.version), None)
    if target is None:
        ends = f"{route.entry_point} is IPv{entry_point.version}, {route.target} is IPv{targets[0].version}"
        reason = f"entry point {ends}: it rewrites addresses within one IP version only"
        raise SciStreamError(Code.ENGINE_CANNOT, engine=engine, reason=reason)
    return Door(entry_point, route.entry_point.port, target, route.target.port)


async def _addresses(engine: str, plan: Plan, endpoint: Endpoint) -> list[_Address]:
    if endpoint.ip is not None:
        return [endpoint.ip]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        output = f"{endpoint.host}: {error.strerror or errno.errorcode.get(error.errno or 0, 'not found')}"
        raise SciStreamError(Code.CONFIGURATION_REJECTED, engine=engine, uid=plan.uid, output=output) from None
    return [plain_ip(str(each[4][0])) for each in found]
