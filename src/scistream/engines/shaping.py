"""Keeps a session to its rate, for every engine alike: `plan.rate` kb/s of application bytes, each way.

Each direction of a session, to the targets and back to the clients, is an HTB class of that rate, on every device that
its packets leave by; all of its connections share it. A packet gets its class by its priority: where it comes from a
process, the process's cgroup and the source port decide (`shaping_marks`), and rules in the kernel set it themselves.
Where one direction's packets leave by more than one device (targets on two networks), each device holds the rate for
itself. What is not of any session passes the root qdisc at once.

The kernel's own state is the only record: which numbers are taken, which devices have our root qdisc (its number is
5c1e:), which sessions there are. So it outlives the control server, and several control servers of one host share it.
A root qdisc that somebody chose is never replaced; the kernel's own comes back when the last session has ended.

For a proxy: `await limit(...)`, start what `entering(...)` gives, end it, `await unlimit(...)`. For rules in the
kernel: the same with `forwarded=True` and no process; set the priorities that `limit` gives in a hook behind routing
(forward, postrouting: before, the kernel sets a forwarded packet's priority by its type of service). At a control
server's start: `await sweep(...)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterable
from pathlib import Path
from typing import Final

from scistream.engines import shaping_cgroups, shaping_devices, shaping_tools
from scistream.engines.base import Plan
from scistream.engines.shaping_cgroups import Cgroup, Slot, entering
from scistream.engines.shaping_devices import Device, Root
from scistream.engines.shaping_marks import (
    TABLE,
    Priorities,
    chain_of,
    mark,
    read_cgroups,
    read_priorities,
    read_slots,
    rebuild,
    unmark,
)
from scistream.engines.shaping_tools import Tools, alone

__all__ = ["Priorities", "entering", "limit", "missing", "sweep", "unlimit"]

# Always among a session's devices.
_LOOPBACK: Final = "lo"


def missing(*, forwarded: bool = False) -> str:
    """Why no session of this control server can be kept to a rate here and now; empty where it can. Cheap.

    Args:
        forwarded: asked for rules in the kernel, which need no cgroup.
    """
    words = shaping_tools.shortfall(by_cgroup=not forwarded) or ("" if forwarded else shaping_cgroups.shortfall())
    return f"it cannot be kept to a rate here: {words}" if words else ""


async def limit(plan: Plan, engine: str, *, forwarded: bool = False) -> Priorities:
    """Have the session's packets held to `plan.rate`; again, with another rate or target, it changes what is there.

    Call it before the data server starts, after a retarget, and whenever somebody may have flushed the host's rules.

    Args:
        plan: the session; `plan.rate` is not 0.
        engine: the engine's title, for errors.
        forwarded: rules in the kernel carry it, and set the priorities themselves.

    Raises:
        SciStreamError: ENGINE_CANNOT, where something is missing, or a device has a root qdisc that somebody chose;
            nothing is left then of what was not there before.
    """
    tools = Tools(engine)
    if words := await asyncio.to_thread(missing, forwarded=forwarded):
        raise tools.cannot(words)
    devices = await _devices(tools, plan)
    async with alone(tools):
        before = await _recorded(tools, Slot.of(plan))
        priorities = before or shaping_devices.free_priorities(await _taken(tools))
        roots = await _roots(tools)
        _require_free(tools, devices, roots)
        if priorities is None:
            raise tools.cannot("it cannot be kept to a rate: a device can have no more classes")
        async with _undone(tools, Slot.of(plan), priorities, new=before is None):
            await _hold(tools, plan, priorities, devices, roots, forwarded=forwarded)
    return priorities


async def unlimit(plan: Plan, engine: str) -> None:
    """Take a session's classes, marks and cgroup away, when its data server has ended; again, nothing.

    Raises:
        SciStreamError: ENGINE_CANNOT, where tc or nft does not run.
    """
    tools = Tools(engine)
    async with alone(tools):
        await _release(tools, Slot.of(plan))


async def sweep(directory: Path, stems: Callable[[], Container[str]]) -> None:
    """Take away what a control server that died has left: sessions in `directory` that are none of `stems`.

    `stems` are asked for when no session can be limited meanwhile: one that is being started is to be among them. Does
    nothing where no session can be kept to a rate.

    Raises:
        SciStreamError: ENGINE_CANNOT, where tc or nft does not run.
    """
    if shaping_tools.shortfall(by_cgroup=False):
        return
    tools, instance = Tools("s2cs"), Slot.instance_of(directory)
    async with alone(tools):
        known, there = await _known(tools), stems()
        for slot in {*known, *shaping_cgroups.left_over(instance)}:
            if slot.instance == instance and slot.stem not in there:
                await _release(tools, slot)
        await _taken(tools)


async def _hold(  # noqa: PLR0913 - what was found out, each once
    tools: Tools,
    plan: Plan,
    priorities: Priorities,
    devices: Collection[Device],
    roots: dict[str, Root],
    *,
    forwarded: bool,
) -> None:
    """Classes first: a number without its class would let packets pass, and one without a chain is swept."""
    ours = {name for name, root in roots.items() if root.is_ours}
    batch = shaping_devices.held(devices, ours, plan, priorities, forwarded=forwarded)
    await tools.run("tc", "-batch", "-", text=batch)
    cgroup = None if forwarded else _place(tools, plan)
    await tools.run("nft", "-f", "-", text=mark(plan, priorities, cgroup))


def _place(tools: Tools, plan: Plan) -> Cgroup:
    try:
        cgroup = Cgroup.of(Slot.of(plan))
        cgroup.path.mkdir(exist_ok=True)
    except OSError as error:
        raise tools.cannot(
            f"it cannot be kept to a rate: its cgroup cannot be made: {error.strerror or error}"
        ) from None
    return cgroup


@contextlib.asynccontextmanager
async def _undone(tools: Tools, slot: Slot, priorities: Priorities, *, new: bool) -> AsyncIterator[None]:
    """Undo what a failure or a cancellation leaves half done."""
    try:
        yield
    except BaseException:
        if new:
            await asyncio.shield(_release(tools, slot, priorities))
        raise


def _require_free(tools: Tools, devices: Iterable[Device], roots: dict[str, Root]) -> None:
    for device in devices:
        root = roots.get(device.name)
        if root is not None and not (root.is_ours or root.is_default):
            reason = f"device {device.name} has a root qdisc of its own ({root.kind} {root.handle})"
            raise tools.cannot(f"it cannot be kept to a rate: {reason}, which is not ours to replace")


async def _devices(tools: Tools, plan: Plan) -> list[Device]:
    """The devices that the session's packets leave by."""
    found = shaping_devices.read_devices(await tools.run("ip", "-j", "address", "show", "up"))
    targets = await _addresses({route.target.host for route in plan.routes})
    bound = await _addresses({route.entry_point.host for route in plan.routes})
    asked = {*targets, *(str(network[0]) for network in plan.sources)}
    batch = "".join(f"route get {address}\n" for address in sorted(asked))
    names = shaping_devices.read_routes(await tools.try_all("ip", "-j", "-force", "-batch", "-", text=batch))
    names |= shaping_devices.towards_clients(found, bound)
    return [device for device in found if device.name in names or device.name == _LOOPBACK]


async def _addresses(hosts: Iterable[str]) -> set[str]:
    """The IP addresses of hosts; one without any is the engine's to complain of."""
    loop, found = asyncio.get_running_loop(), set()
    for host in hosts:
        with contextlib.suppress(OSError):
            for answer in await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                found.add(str(ipaddress.ip_address(str(answer[4][0]).partition("%")[0])))
    return found


async def _recorded(tools: Tools, slot: Slot) -> Priorities | None:
    answer = await tools.look("nft", "-j", "list", "chain", *TABLE.split(), chain_of(slot))
    return read_priorities(answer) if answer else None


async def _known(tools: Tools) -> dict[Slot, Priorities | None]:
    answer = await tools.look("nft", "-j", "-t", "list", "table", *TABLE.split())
    return read_slots(answer) if answer else {}


async def _taken(tools: Tools) -> set[int]:
    """The numbers of all sessions' classes.

    Classes that no session has go: a control server ended between two commands, or somebody flushed the rules.
    """
    known, ours = await asyncio.gather(_known(tools), _ours(tools))
    numbers = [number for each in known.values() if each for number in (each.to_targets, each.to_clients)]
    taken = {int(number.partition(":")[2], 16) for number in numbers}
    orphans = set().union(*await asyncio.gather(*(_classes(tools, name) for name in ours))) - taken
    if orphans:
        await _drop(tools, ours, [f"5c1e:{number:x}" for number in sorted(orphans)])
    return taken


async def _ours(tools: Tools) -> list[str]:
    return [name for name, root in (await _roots(tools)).items() if root.is_ours]


async def _roots(tools: Tools) -> dict[str, Root]:
    return shaping_devices.read_roots(await tools.run("tc", "-j", "qdisc", "show"))


async def _classes(tools: Tools, device: str) -> set[int]:
    return shaping_devices.read_classes(await tools.look("tc", "class", "show", "dev", device) or "")


async def _release(tools: Tools, slot: Slot, priorities: Priorities | None = None) -> None:
    """Take a session away: its chain first, since numbers without a chain are swept, and chains without are not."""
    recorded = await _recorded(tools, slot)
    if recorded is not None:
        await _unmark(tools, slot)
    # A cgroup in which something still runs stays, and is swept.
    shaping_cgroups.remove(slot)
    if found := recorded or priorities:
        await _drop(tools, await _ours(tools), [found.to_targets, found.to_clients])
    else:
        # Somebody may have flushed its rules.
        await _taken(tools)


async def _unmark(tools: Tools, slot: Slot) -> None:
    with contextlib.suppress(OSError):
        cgroup = Cgroup.of(slot)
        if cgroup.path.is_dir() and await tools.look("nft", "-f", "-", text=unmark(slot, cgroup)) is not None:
            return
    if await tools.look("nft", "-f", "-", text=unmark(slot, None)) is not None:
        return
    known = read_cgroups(await tools.look("nft", "-j", "list", "map", *TABLE.split(), "cgroups") or '{"nftables": []}')
    there = {path: chain for path, chain in known.items() if not path.isdigit()}
    await tools.run("nft", "-f", "-", text=rebuild(slot, there))


async def _drop(tools: Tools, ours: Collection[str], numbers: Collection[str]) -> None:
    """Take classes off devices, our root qdisc off those where they were the last, and with the last one the table."""
    await tools.try_all("tc", "-force", "-batch", "-", text=shaping_devices.release(ours, numbers))
    left = await asyncio.gather(*(_classes(tools, name) for name in ours))
    empty = [name for name, classes in zip(ours, left, strict=True) if not classes]
    if empty:
        await tools.try_all(
            "tc", "-force", "-batch", "-", text="".join(f"qdisc del dev {name} root\n" for name in empty)
        )
    if len(empty) == len(ours):
        await tools.look("nft", "delete", "table", *TABLE.split())
