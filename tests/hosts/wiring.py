"""The networks: bridges in a namespace of their own, and a cable from each host to each of its networks.

A cable's two ends are made in the namespace of the bridges: `p1-wan` stays there, in the bridge `wan`; `h1-wan` goes to
host 1 when that boots, and is called `wan` there. When the host is off, its end lies in the namespace of the bridges
again. So each boot has a network namespace as the kernel makes it: rules, queues and settings of the last one are gone,
as on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .plan import NETWORKS, OUTER_ADDRESS, SSH, HostPlan, Plan
from .programs import HostsError, run

__all__ = ["build", "connect", "is_connected", "links_left", "namespaces_left", "plug", "tear_down", "unplug"]

_NAMED = Path("/run/netns")
# A new namespace takes these from the machine's own, which may forward.
_ALONE = ("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")


def build(plan: Plan) -> None:
    """Bridges, cables and the outer link.

    Raises:
        HostsError: the kernel does not permit it, or other hosts have these addresses in this network.
    """
    _have_addresses(plan)
    run(["ip", "netns", "add", plan.switches])
    _tell(plan.switches, (line for network in NETWORKS for line in _bridge(network)))
    _tell(plan.switches, (line for host in plan.hosts for network in host.addresses for line in _cable(host, network)))
    outer = plan.outer_link
    run(["ip", "link", "add", outer, "type", "veth", "peer", "name", "outer", "netns", plan.switches])
    run(["ip", "link", "set", outer, "alias", f"SciStream's test hosts of {plan.place}"[:255]])
    _tell(plan.switches, [f"link set outer master {SSH} up"])
    run(["ip", "address", "add", f"{OUTER_ADDRESS}/24", "dev", outer])
    run(["ip", "link", "set", outer, "up"])


def _have_addresses(plan: Plan) -> None:
    there = json.loads(run(["ip", "-json", "address", "show", "to", OUTER_ADDRESS]))
    names = [link["ifname"] for link in there if "ifname" in link]
    if not names:
        return
    (link,) = json.loads(run(["ip", "-json", "link", "show", names[0]]))
    raise HostsError(
        f"{OUTER_ADDRESS} is in use by {names[0]} ({link.get('ifalias', 'not of these tests')}), so that the hosts of"
        f" {plan.place} cannot have it: take those down, or give yours a network of their own with `unshare --net`."
    )


def _bridge(network: str) -> Iterable[str]:
    return f"link add {network} type bridge mcast_snooping 0", f"link set {network} up"


def _cable(host: HostPlan, network: str) -> Iterable[str]:
    port = _port(host, network)
    return f"link add {port} type veth peer name {_parked(host, network)}", f"link set {port} master {network} up"


def plug(plan: Plan, host: HostPlan) -> None:
    """A new network namespace for a host that boots, with its cables in it.

    Raises:
        HostsError: the kernel does not permit it, or the bridges are gone.
    """
    unplug(plan, host)
    namespace = plan.namespace(host)
    run(["ip", "netns", "add", namespace])
    run(["ip", "netns", "exec", namespace, "sysctl", "--quiet", "--write", *_ALONE])
    _tell(
        plan.switches,
        (f"link set {_parked(host, network)} netns {namespace} name {network}" for network in host.addresses),
    )
    addresses = (
        line
        for network, address in host.addresses.items()
        for line in (f"address add {address}/24 brd + dev {network}", f"link set {network} up")
    )
    _tell(namespace, ["link set lo up", *addresses])


def unplug(plan: Plan, host: HostPlan) -> None:
    """Pull a host's cables, all at once, and give up its network namespace.

    Raises:
        HostsError: the bridges are gone.
    """
    namespace = plan.namespace(host)
    if not (_NAMED / namespace).exists():
        return
    there = {link["ifname"] for link in json.loads(run(["ip", "-json", "-netns", namespace, "link", "show"]))}
    _tell(
        namespace,
        (
            f"link set {network} netns {plan.switches} name {_parked(host, network)}"
            for network in host.addresses
            if network in there
        ),
    )
    run(["ip", "netns", "delete", namespace])


def connect(plan: Plan, host: HostPlan, network: str, *, up: bool) -> None:
    """Pull the cable of a host out of the switch, or put it back. The host sees that its interface has no carrier.

    Raises:
        HostsError: the host is not in this network.
    """
    if network not in host.addresses:
        raise HostsError(f"{host.name} is not in the network {network}: take one of {', '.join(host.addresses)}.")
    _tell(plan.switches, [f"link set {_port(host, network)} {'up' if up else 'down'}"])


def is_connected(plan: Plan, host: HostPlan, network: str) -> bool:
    (port,) = json.loads(run(["ip", "-json", "-netns", plan.switches, "link", "show", _port(host, network)]))
    return "UP" in port["flags"]


def tear_down(plan: Plan) -> None:
    """Remove all of it, as far as it is there. Processes in the namespaces have ended before.

    Raises:
        HostsError: something cannot be removed.
    """
    for link in links_left(plan):
        run(["ip", "link", "delete", link])
    for namespace in namespaces_left(plan):
        run(["ip", "netns", "delete", namespace])


def links_left(plan: Plan) -> list[str]:
    return [
        link["ifname"]
        for link in json.loads(run(["ip", "-json", "link", "show"]))
        if link.get("ifname") == plan.outer_link
    ]


def namespaces_left(plan: Plan) -> list[str]:
    return sorted(each.name for each in _NAMED.glob(f"{plan.prefix}-*"))


def _port(host: HostPlan, network: str) -> str:
    return f"p{host.index}-{network}"


def _parked(host: HostPlan, network: str) -> str:
    return f"h{host.index}-{network}"


def _tell(namespace: str, lines: Iterable[str]) -> None:
    run(["ip", "-netns", namespace, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))
