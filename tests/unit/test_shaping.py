"""What the programs are told for a session's rate, and what is read from their answers."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
from pathlib import Path

import pytest

from scistream.addresses import Endpoint
from scistream.engines import probing, shaping_tools
from scistream.engines.base import Plan, Route
from scistream.engines.shaping_cgroups import Cgroup, Slot, entering, find_mount
from scistream.engines.shaping_devices import (
    Device,
    Root,
    bits,
    free_priorities,
    held,
    read_classes,
    read_devices,
    read_roots,
    read_routes,
    release,
    towards_clients,
)
from scistream.engines.shaping_marks import (
    Priorities,
    chain_of,
    mark,
    read_cgroups,
    read_priorities,
    read_slots,
    rebuild,
    unmark,
)
from scistream.engines.shaping_tools import Tools
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport, Uid

UID = Uid("4f8583bc-a4d3-11ee-9fd6-034d1fcbd7c3")
FIRST = Priorities("5c1e:2", "5c1e:3")
PLACE = Cgroup(Path("/sys/fs/cgroup/system.slice/s2cs.service/scistream-0011aabb-x"), 3)
LO = Device("lo", "loopback", ("127.0.0.1", "::1"))
LAN = Device("eth0", "ether", ("198.51.100.1", "2001:db8::1", "fe80::1"))
WAN = Device("eth1", "ether", ("198.18.1.1",))
BRIDGED = Device("veth7", "ether", ("fe80::7",))
HOST = (LO, LAN, WAN, BRIDGED)


def _plan(
    rate: int = 100_000,
    direction: Direction = Direction.INBOUND,
    encryption: Encryption = Encryption.NONE,
    transport: Transport = Transport.TCP,
) -> Plan:
    routes = tuple(Route(Endpoint("198.51.100.1", port), Endpoint("198.18.1.2", 5074)) for port in (5101, 5100))
    return Plan(UID, direction, routes, Path("/var/lib/x"), UID, None, transport, (), rate, encryption=encryption)


def test_a_control_server_is_told_from_others_by_its_directory() -> None:
    one, other = Slot.of(_plan()), Slot(Slot.instance_of(Path("/var/lib/y")), UID)
    assert one.stem == other.stem
    assert one.name != other.name
    assert chain_of(one) == f"s-{one.instance}-{UID}"


def test_the_mount_of_cgroup_2_alone_and_beside_cgroup_1() -> None:
    alone = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    hybrid = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert find_mount(alone) == Path("/sys/fs/cgroup")
    assert find_mount(hybrid) == Path("/sys/fs/cgroup/unified")
    assert find_mount("") is None


def test_a_sessions_cgroup_lies_below_the_control_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, mounts = tmp_path / "cgroup", tmp_path / "mountinfo"
    own.write_text("12:memory:/elsewhere\n0::/system.slice/s2cs.service\n")
    mounts.write_text("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    monkeypatch.setattr("scistream.engines.shaping_cgroups._OWN", own)
    monkeypatch.setattr("scistream.engines.shaping_cgroups._MOUNTS", mounts)
    found = Cgroup.of(Slot("0011aabb", "x"))
    assert found == PLACE
    assert found.name == "system.slice/s2cs.service/scistream-0011aabb-x"
    mounts.write_text("29 23 0:26 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n")
    with pytest.raises(OSError, match="cgroup v2 is not mounted below /sys/fs/cgroup"):
        Cgroup.of(Slot("0011aabb", "x"))


def test_a_command_enters_the_cgroup_only_where_there_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "of", lambda slot: PLACE)
    command = ["/usr/sbin/haproxy", "-f", "a file"]
    assert entering(_plan(rate=0), command) == command
    assert entering(_plan(), command)[-4:] == [str(PLACE.path / "cgroup.procs"), *command]


def test_a_session_is_one_transaction_that_changes_nothing_the_second_time() -> None:
    lines = mark(_plan(), FIRST, PLACE).splitlines()
    chain = f"inet scistream_rates {chain_of(Slot.of(_plan()))}"
    answers, rest = (line for line in lines if line.startswith(f"add rule {chain} "))
    assert answers.endswith("meta l4proto tcp th sport { 5100, 5101 } meta priority set 5c1e:3 return")
    assert rest.endswith("meta priority set 5c1e:2")
    assert lines.index(f"flush chain {chain}") < lines.index(answers) < lines.index(rest)
    assert f'cgroups {{ "{PLACE.name}" : goto {chain_of(Slot.of(_plan()))} }}' in lines[-1]
    assert "add rule inet scistream_rates level-3 socket cgroupv2 level 3 vmap @cgroups" in lines


def test_rules_in_the_kernel_have_a_chain_and_no_cgroup() -> None:
    text = mark(_plan(transport=Transport.UDP), FIRST, None)
    assert "meta l4proto udp" in text
    assert "cgroup" not in text


def test_a_session_is_taken_out_by_its_cgroup_or_around_it() -> None:
    slot = Slot.of(_plan())
    by_cgroup = unmark(slot, PLACE).splitlines()
    assert by_cgroup[0] == f'delete element inet scistream_rates cgroups {{ "{PLACE.name}" }}'
    around = rebuild(slot, {PLACE.name: "s-00000000-other", "gone": chain_of(slot)}).splitlines()
    assert around[1:3] == [
        "flush map inet scistream_rates cgroups",
        f'add element inet scistream_rates cgroups {{ "{PLACE.name}" : goto s-00000000-other }}',
    ]
    assert by_cgroup[-1] == around[-1] == f"delete chain inet scistream_rates {chain_of(slot)}"
    assert "add element" not in rebuild(slot, {})


def _rule(chain: str, number: str) -> dict[str, object]:
    mangle = {"mangle": {"key": {"meta": {"key": "priority"}}, "value": number}}
    return {"rule": {"chain": chain, "expr": [{"match": {}}, mangle]}}


def test_the_kernel_remembers_each_sessions_classes() -> None:
    chain = chain_of(Slot("0011aabb", "x.inbound"))
    rules = [{"metainfo": {}}, {"chain": {"name": chain}}, _rule(chain, "5c1e:3"), _rule(chain, "5c1e:2")]
    others = [{"chain": {"name": "level-3"}}, {"chain": {"name": "s-0011aabb-y"}}]
    assert read_priorities(json.dumps({"nftables": rules})) == FIRST
    assert read_priorities(json.dumps({"nftables": rules[:2]})) is None
    found = read_slots(json.dumps({"nftables": [*rules, *others]}))
    assert found == {Slot("0011aabb", "x.inbound"): FIRST, Slot("0011aabb", "y"): None}


def test_the_map_of_cgroups() -> None:
    elements = [["a/b", {"goto": {"target": "s-1"}}], [101, {"goto": {"target": "s-2"}}]]
    answer = json.dumps({"nftables": [{"metainfo": {}}, {"map": {"elem": elements}}]})
    assert read_cgroups(answer) == {"a/b": "s-1", "101": "s-2"}
    assert read_cgroups('{"nftables": [{"map": {}}]}') == {}


def test_devices_as_ip_tells_them() -> None:
    addresses = [{"family": "inet", "local": "198.18.1.1"}, {"family": "inet6", "local": "fe80::1"}]
    answer = json.dumps([{"ifname": "tun0", "link_type": "none", "addr_info": addresses}, {}])
    assert read_devices(answer) == [Device("tun0", "none", ("198.18.1.1", "fe80::1"))]


def test_a_route_look_up_that_fails_says_nothing() -> None:
    assert read_routes('[{"dst":"198.18.1.2","dev":"eth1"}]\n[{"type":"local","dev":"lo"}]\n') == {"eth1", "lo"}
    assert read_routes("") == set()


@pytest.mark.parametrize(
    ("bound", "names"),
    [
        (["198.51.100.1"], {"lo", "eth0"}),
        (["198.51.100.1", "198.18.1.1"], {"lo", "eth0", "eth1"}),
        (["0.0.0.0"], {"lo", "eth0", "eth1"}),  # noqa: S104
        (["::"], {"lo", "eth0", "eth1"}),
        (["127.0.0.5"], {"lo"}),
        (["198.51.100.99"], {"lo", "eth0", "eth1"}),
    ],
)
def test_devices_towards_clients(bound: list[str], names: set[str]) -> None:
    assert towards_clients(HOST, bound) == names


def test_an_address_of_the_loopback_device_is_reached_through_all_others() -> None:
    service = Device("lo", "loopback", ("127.0.0.1", "198.51.100.200"))
    assert towards_clients((service, LAN, WAN), ["198.51.100.200"]) == {"lo", "eth0", "eth1"}


@pytest.mark.parametrize(
    ("kind", "handle", "ours", "default"),
    [("htb", "5c1e:", True, False), ("mq", "0:", False, True), ("noqueue", "0:", False, True), ("fq", "8001:", 0, 0)],
)
def test_whose_a_root_qdisc_is(kind: str, handle: str, ours: bool, default: bool) -> None:
    answer = [{"kind": kind, "handle": handle, "dev": "eth0", "root": True}, {"kind": "pfifo", "dev": "eth0"}]
    (root,) = read_roots(json.dumps(answer)).values()
    assert root == Root(kind, handle)
    assert (root.is_ours, root.is_default) == (ours, default)


def test_numbers_that_are_taken_are_not_given_again() -> None:
    answer = (
        "class htb 5c1e:2 root leaf 8001: prio 0 rate 1Gbit ceil 1Gbit burst 2500000b cburst 2500000b \n"
        "class htb 5c1e:fffe root leaf 8002: prio 0 rate 1Kbit ceil 1Kbit burst 4096b cburst 4096b \n"
        "class htb 1:4 root prio 0 rate 1Kbit \n"
    )
    assert read_classes(answer) == {2, 0xFFFE}
    assert free_priorities({2, 0xFFFE}) == Priorities("5c1e:4", "5c1e:5")
    assert free_priorities({5, 3}) == Priorities("5c1e:6", "5c1e:7")
    assert free_priorities(()) == FIRST
    assert free_priorities(range(0x10000)) is None


def test_a_rate_is_one_of_application_bytes() -> None:
    assert bits(_plan(transport=Transport.UDP)) == (100_000_000, 100_000_000)
    # Headers that TCP has more than UDP; half a per cent, not the 4.6 that all headers are.
    plain = bits(_plan())[0]
    assert 100_000_000 < plain < 100_500_000
    # TLS's own bytes, where they are: in front of the inbound end, behind the outbound one.
    inbound, outbound = (bits(_plan(direction=each, encryption=Encryption.TLS)) for each in Direction)
    assert inbound == outbound[::-1]
    assert inbound[0] == plain < inbound[1] < 1.002 * plain


def test_classes_on_each_device_and_the_root_only_where_it_is_missing() -> None:
    lines = held((LO, LAN), {"lo"}, _plan(), FIRST, forwarded=False).splitlines()
    roots = [line for line in lines if line.startswith("qdisc add")]
    assert roots == ["qdisc add dev eth0 root stab overhead -42 linklayer ethernet handle 5c1e: htb default 0 r2q 1000"]
    classes = [line for line in lines if line.startswith("class replace")]
    assert [line.split()[3:8] for line in classes] == [
        [device, "parent", "5c1e:", "classid", number] for device in ("lo", "eth0") for number in ("5c1e:2", "5c1e:3")
    ]
    assert all("rate 100300000bit ceil 100300000bit burst 250750 cburst 250750" in line for line in classes)
    assert sum(line.endswith("pfifo limit 10000") for line in lines) == 4


def test_packets_on_their_way_through_wait_a_tenth_of_a_second_at_most() -> None:
    text = held((WAN,), (), _plan(rate=1_000_000, transport=Transport.UDP), FIRST, forwarded=True)
    assert text.count("bfifo limit 12500000") == 2
    # Room for a few of the kernel's packets of 64 KiB.
    assert held((WAN,), (), _plan(rate=1), FIRST, forwarded=True).count("bfifo limit 262144") == 2


def test_a_device_without_a_link_header() -> None:
    assert "stab overhead -28 " in held((Device("tun0", "none", ()),), (), _plan(), FIRST, forwarded=True)


def test_classes_are_taken_off_every_device() -> None:
    assert release(["lo", "eth0"], ["5c1e:2", "5c1e:3"]).splitlines() == [
        "class del dev lo classid 5c1e:2",
        "class del dev lo classid 5c1e:3",
        "class del dev eth0 classid 5c1e:2",
        "class del dev eth0 classid 5c1e:3",
    ]


def test_a_user_needs_the_capability_for_the_programs_it_runs() -> None:
    everything, nothing = "000001ffffffffff", "0000000000000000"
    status = "Name:\ts2cs\nCapEff:\t{}\nCapBnd:\t000001ffffffffff\nCapAmb:\t{}\n"
    assert probing.is_privileged(status.format(everything, nothing), root=True)
    assert not probing.is_privileged(status.format(everything, nothing), root=False)
    assert probing.is_privileged(status.format(everything, "0000000000001000"), root=False)
    assert not probing.is_privileged(status.format("000001ffffffefff", nothing), root=True)


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping_tools, "find_program", lambda names: None if "tc" in names else Path("/bin/true"))
    assert shaping_tools.shortfall(by_cgroup=True) == "there is no program tc (package iproute2)"


def test_a_missing_capability_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("CapEff:\t0\nCapAmb:\t0\n")
    monkeypatch.setattr(shaping_tools, "find_program", lambda names: Path("/bin/true"))
    monkeypatch.setattr(probing, "STATUS", status)
    words = shaping_tools.shortfall(by_cgroup=False)
    assert words.startswith("the control server has not the capability CAP_NET_ADMIN")


def test_what_cannot_be_kept_is_said_in_the_engines_name() -> None:
    error = Tools("HAProxy").cannot("it cannot be kept to a rate here: there is no program tc (package iproute2)")
    assert isinstance(error, SciStreamError)
    assert error.code is Code.ENGINE_CANNOT
    assert "HAProxy cannot do what was asked: it cannot be kept to a rate here: there is no program tc" in str(error)


def test_addresses_of_one_link_serve_nobody_else() -> None:
    assert [device.name for device in HOST if device.serves] == ["lo", "eth0", "eth1"]
    assert ipaddress.ip_address(BRIDGED.addresses[0]).is_link_local


class Refusing:
    """An address that somebody has already."""

    def bind(self, address: bytes) -> None:
        raise OSError(98, "Address already in use")


@pytest.mark.parametrize("holder", ["a stranger", "one of ours"])
def test_u57_a_local_user_who_may_change_no_rule_keeps_nobody_from_it(monkeypatch, holder):
    async def taken() -> int:
        looks = []

        async def sleep(pause: float) -> None:
            looks.append(pause)
            if len(looks) > 50:
                raise TimeoutError

        monkeypatch.setattr(shaping_tools, "_is_held", lambda: holder == "one of ours")
        monkeypatch.setattr(shaping_tools.asyncio, "sleep", sleep)
        await shaping_tools._take(Refusing())
        return len(looks)

    if holder == "a stranger":
        assert asyncio.run(taken()) == shaping_tools._DOUBTS
    else:
        with pytest.raises(TimeoutError):
            asyncio.run(taken())


def test_the_lock_is_held_by_a_listener_of_root_or_of_this_user_alone(monkeypatch):
    name = f"\0scistream-test-{os.getpid()}".encode()
    monkeypatch.setattr(shaping_tools, "_LOCK", name)
    assert not shaping_tools._is_held()
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(name)
        # Who does not listen is none of ours.
        assert not shaping_tools._is_held()
        holder.listen()
        assert shaping_tools._is_held()
        monkeypatch.setattr(shaping_tools.os, "geteuid", lambda: 4711)
        assert shaping_tools._is_held() is (os.getuid() == 0)
