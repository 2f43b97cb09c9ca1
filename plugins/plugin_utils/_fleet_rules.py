# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules between hosts, and all rules together."""

from __future__ import annotations

import collections
import collections.abc as c
import contextlib
import dataclasses
import itertools

from ansible_collections.scistream.core.plugins.plugin_utils._host_rules import (
    OF_ALL,
    OF_GATEWAYS,
    clash,
    is_loopback,
)
from ansible_collections.scistream.core.plugins.plugin_utils._inventory import Host, Problem, Said, as_int
from ansible_collections.scistream.core.plugins.plugin_utils._options import SITE, Roles, kinds, near_misses
from ansible_collections.scistream.core.plugins.plugin_utils._spellings import read_endpoint, read_port_range

__all__ = ["Groups", "problems"]

_FACILITY = "facility_"


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups of the inventory that mean something here."""

    gateways: str = "gateways"
    clients: str = "clients"


def problems(hosts: c.Sequence[Host], roles: Roles, groups: Groups, own: c.Collection[str] = ()) -> list[Problem]:
    """All that is wrong, in the order of the hosts; of one variable of a host, the first that was found.

    Args:
        hosts: of the play.
        roles: what the roles take.
        groups: which hosts are gateways.
        own: the site's own variables, which are no mistakes whatever they are called.
    """
    gateways = [host for host in hosts if groups.gateways in host.groups]
    found = [problem for host in hosts for problem in _of_host(host, roles, groups, own)]
    serving = [host for host in gateways if not host.is_leaving]
    found += [*_same_machine(serving), *_same_address(serving), *_same_facility_address(serving)]
    found += [*_facilities(hosts, groups), *_closed_to_clients(hosts, serving, groups)]
    order = {host.name: number for number, host in enumerate(hosts)}
    first = {(each.host, each.variable): each for each in reversed(found)}
    return sorted(first.values(), key=lambda each: (order[each.host], each.variable))


def _of_host(host: Host, roles: Roles, groups: Groups, own: c.Collection[str]) -> c.Iterator[Problem]:
    yield from kinds(host, (*roles.options, *SITE))
    yield from near_misses(host, roles, own)
    for rule in OF_ALL:
        yield from rule(host)
    if groups.gateways in host.groups and not host.is_leaving:
        for rule in OF_GATEWAYS:
            yield from rule(host)


def _pairs(hosts: c.Iterable[Host], key: c.Callable[[Host], str]) -> c.Iterator[tuple[Host, Host]]:
    """The pairs of hosts with one key; those without a key pair with nobody."""
    together = collections.defaultdict(list)
    for host in hosts:
        together[key(host)].append(host)
    for name, group in together.items():
        if name:
            yield from itertools.combinations(group, 2)


def _machine(host: Host) -> str:
    """The machine that it is, as far as the inventory tells."""
    if host.is_local:
        return "the controller"
    address = host.text("ansible_host", default=host.name)
    return f"{address}:{host.text('ansible_port', default='22')}"


def _same_machine(hosts: c.Iterable[Host]) -> c.Iterator[Problem]:
    """Two gateways of one machine meet nowhere."""
    for one, other in _pairs(hosts, _machine):
        if one.scope.text == other.scope.text == "system":
            wanted = f"another machine than that of {one.name}: with scope system, a machine has one control server"
            said = other.said("ansible_host", default=other.name)
            yield other.problem(said, wanted, "Correct the address, or run the two with scope user or process")
            continue
        yield from _same_directory(one, other)
        yield from _same_ports(one, other)


def _same_directory(one: Host, other: Host) -> c.Iterator[Problem]:
    mine, theirs = other.state_directory, one.state_directory
    same_user = one.text("ansible_user") == other.text("ansible_user")
    if mine.text == theirs.text and (same_user or not mine.text.startswith("~")):
        yield other.problem(mine, f"another directory than that of {one.name}", "Give each gateway its own")


def _same_ports(one: Host, other: Host) -> c.Iterator[Problem]:
    """What one of them listens on is not the other's."""
    for said, address, ports in _listening(other):
        for theirs, place, taken in _listening(one):
            if clash(address, place) and ports.start < taken.stop and taken.start < ports.stop:
                wanted = f"apart from {theirs.variable} of {one.name}, which is {theirs.text} on {place} as well"
                yield other.problem(said, wanted, "Name other ports, or another listen address")


def _listening(host: Host) -> c.Iterator[tuple[Said, str, range]]:
    """Each variable that names ports, where these are listened on, and the ports."""
    for said, address in ((host.control_port, host.control_address), (host.metrics_port, host.metrics_address)):
        if number := as_int(said.value):
            yield said, address.text, range(number, number + 1)
    with contextlib.suppress(ValueError):
        first, last = read_port_range(host.port_range.text)
        yield host.port_range, host.listen_address.text, range(first, last + 1)


def _same_address(hosts: c.Sequence[Host]) -> c.Iterator[Problem]:
    """Two machines are reached at two addresses."""
    for one, other in _pairs(hosts, _served):
        if _machine(one) != _machine(other):
            wanted = f"another address than that of {one.name}, which has it with control port {one.control_port.text}"
            yield other.problem(other.said("scistream_address"), wanted, "Correct the address of one of the two")
    for one, other in _pairs(hosts, _asked):
        said = other.said("scistream_control_server")
        wanted = f"another control server than that of {one.name}"
        yield other.problem(said, wanted, "Correct the address of one of the two")


def _same_facility_address(hosts: c.Sequence[Host]) -> c.Iterator[Problem]:
    """What a gateway is called within its facility, no other one is called there, nor from outside."""
    for one, other in itertools.permutations(hosts, 2):
        called = _served_within(other)
        # Two facilities may have one private address, each in its own network.
        together = hosts.index(one) < hosts.index(other) and _facilities_of(one) == _facilities_of(other)
        taken = {_served(one), _served_within(one) if together else ""} - {""}
        if called in taken and _machine(one) != _machine(other):
            wanted = f"another address than those of {one.name}, which has it with control port {one.control_port.text}"
            yield other.problem(
                other.said("scistream_facility_address"), wanted, "Correct the address of one of the two"
            )


def _served_within(host: Host) -> str:
    address = host.text("scistream_facility_address")
    return f"{address.lower()} {host.control_port.text}" if address else ""


def _served(host: Host) -> str:
    address = host.text("scistream_address")
    return f"{address.lower()} {host.control_port.text}" if address else ""


def _facilities_of(host: Host) -> list[str]:
    return sorted(group for group in host.groups if group.startswith(_FACILITY))


def _asked(host: Host) -> str:
    said = host.text("scistream_control_server")
    if not said:
        return ""
    try:
        return f"{host.text('scistream_via')} {read_endpoint(said, 5000)}"
    except ValueError:
        return ""


def _closed_to_clients(hosts: c.Sequence[Host], serving: c.Sequence[Host], groups: Groups) -> c.Iterator[Problem]:
    """A control server on loopback is reached by no other host of its facility, unless a way there is said."""
    for host in hosts:
        if groups.clients not in host.groups or host.is_leaving or host.text("user_client_control_server"):
            continue
        gateway, way = _neighbour(host, serving), host.said("user_client_via")
        if gateway is None or way.text or gateway.text("scistream_client_control_server"):
            continue
        closed = gateway.control_address
        if is_loopback(closed.text) and _machine(gateway) != _machine(host):
            wanted = (
                f"ssh://USER@HOST, since {closed.variable} of {gateway.name} is {closed.text}, which it alone reaches"
            )
            step = f"Name the SSH host that leads there, or scistream_client_control_server of {gateway.name}"
            yield host.problem(way, wanted, step)


def _neighbour(host: Host, serving: c.Sequence[Host]) -> Host | None:
    """The gateway whose control server role user_client takes for the host."""
    named, mine = host.text("user_client_gateway"), _facilities_of(host)
    near = (each for each in serving if each.name == named or (not named and _facilities_of(each) == mine))
    return next(near, None)


def _facilities(hosts: c.Sequence[Host], groups: Groups) -> c.Iterator[Problem]:
    """Where there are facilities, each host is in one."""
    mine = {host.name: _facilities_of(host) for host in hosts}
    if not any(mine.values()):
        return
    for host in hosts:
        if groups.gateways in host.groups or groups.clients in host.groups:
            yield from _facility(host, mine[host.name])


def _facility(host: Host, facilities: c.Sequence[str]) -> c.Iterator[Problem]:
    if len(facilities) == 1:
        return
    seen = ", ".join(facilities) if facilities else "none of them"
    step = f"Add the host to the group of its facility ({_FACILITY}NAME), and to no other"
    yield Problem(host.name, "its facility's group", seen, f"one group {_FACILITY}NAME", step)
