"""The rules between an inventory's variables, without Ansible: what each of them says, and what none of them minds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.scistream.core.plugins.action import inventory_check as action
from ansible_collections.scistream.core.plugins.modules import inventory_check as module
from ansible_collections.scistream.core.plugins.plugin_utils import _spellings as spellings
from ansible_collections.scistream.core.plugins.plugin_utils._fleet_rules import Groups, problems
from ansible_collections.scistream.core.plugins.plugin_utils._inventory import Host
from ansible_collections.scistream.core.plugins.plugin_utils._options import SITE, Roles, is_echo, is_secret

from scistream.addresses import Endpoint, PortRange
from scistream.control_server.allowed_targets import AllowedTargets
from scistream.durations import parse_duration
from scistream.errors import SciStreamError

_ROOT = Path(__file__).parent.parent.parent
_ROLES = Roles(_ROOT)
# A table of nftables.
_NO_VARIABLES = {"scistream_gateway"}
_SITE_VARIABLE = re.compile(r"\bscistream_[a-z0-9_]+\b(?!\()")
_FINE = {"scistream_insecure_no_auth": True, "ansible_host": "198.18.10.21", "scistream_address": "198.18.12.2"}
_TOKENS = {"scistream_insecure_no_auth": False, "scistream_client_id": "gw", "scistream_client_secret": "***"}


def gateway(name: str = "gateway_a", *groups: str, **variables: Any) -> Host:
    told = {**_FINE, **variables}
    return Host(name, frozenset({"gateways", *groups}), told, {}, frozenset(told))


def sentences(*hosts: Host, own: tuple[str, ...] = ()) -> list[str]:
    return [problem.sentence for problem in problems(hosts, _ROLES, Groups(), own)]


def test_a_gateway_that_says_little_is_fine() -> None:
    assert sentences(gateway()) == []


def test_two_gateways_of_two_facilities_are_fine() -> None:
    one = gateway("gateway_a", "facility_a", scistream_control_server="198.18.12.2:5000")
    two = gateway(
        "gateway_b",
        "facility_b",
        ansible_host="198.18.10.22",
        scistream_address="198.18.12.3",
        scistream_control_server="198.18.12.3:5000",
    )
    assert sentences(one, two) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"scistream_engine": "haprxy"}, "scistream_engine is haprxy, and is to be one of haproxy, nftables, nginx,"),
        ({"scistream_engine": "haprxy"}, "Probably haproxy is meant."),
        ({"scistream_engines": ["nginx", "squid"]}, "scistream_engines is nginx, squid, and is to be one of"),
        (
            {"scistream_engine": "nginx", "scistream_engines": ["haproxy"]},
            "scistream_engines is haproxy, and is to be a list with nginx in it, which scistream_engine names.",
        ),
        (
            {"scistream_engine": "nftables", "stream_encryption": "tls"},
            "stream_encryption is tls, and is to be none, since scistream_engine is nftables, which encrypts nothing.",
        ),
        (
            {"scistream_firewall": True},
            "scistream_peers is not set, and is to be those who may reach the gateway, since",
        ),
        (
            {"scistream_firewall": True, "scistream_peers": ["198.18.0/8"]},
            "scistream_peers is 198.18.0/8, and is to be",
        ),
        (
            {"scistream_firewall": True, "scistream_peers": "198.18.12.2/24", "scistream_scope": "user"},
            "scistream_firewall is True, and is to be false, since scistream_scope is user, without root.",
        ),
        ({"scistream_rates": True, "scistream_scope": "user"}, "scistream_rates is True, and is to be false, since"),
        ({"scistream_engines": ["nftables"], "scistream_scope": "user"}, "scistream_engine is nftables, and is to be"),
        ({"scistream_engine": "nftables", "scistream_scope": "user"}, "scope user has no CAP_NET_ADMIN"),
        ({"scistream_scope": "process"}, "scistream_scope is process, and is to be system or user, since the host is"),
        ({"scistream_control_port": "five"}, "scistream_control_port is five, and is to be a whole number."),
        ({"scistream_control_port": 70000}, "and is to be a port from 1 to 65535."),
        ({"scistream_control_port": 5150}, "a port outside of scistream_port_range, which is 5100-5200."),
        (
            {"control_server_metrics_port": 5120, "control_server_metrics_ip": "::"},
            "control_server_metrics_port is 5120, and is to be a port outside of scistream_port_range",
        ),
        (
            {"control_server_metrics_port": 5000},
            "control_server_metrics_port is 5000, and is to be another port than scistream_control_port.",
        ),
        ({"scistream_port_range": "5200-5100"}, "is 5200-5100, and is to be FIRST-LAST (it runs backwards)."),
        ({"scistream_scope": "user", "scistream_control_port": 500}, "who may not listen below."),
        ({"scistream_insecure_no_auth": False}, "scistream_client_secret is not set, and is to be the secret"),
        ({"scistream_client_secret": "***"}, "scistream_insecure_no_auth is True, and is to be false, since"),
        ({**_TOKENS, "scistream_client_id": ""}, "scistream_client_id is not set, and is to be the identity"),
        ({**_TOKENS, "scistream_provider": "http://idp.example"}, "it does not begin with https://"),
        ({**_TOKENS, "scistream_provider": "https://idp.example"}, "scistream_token_scope is not set"),
        ({**_TOKENS, "control_server_insecure_plain_text": True}, "since tokens would be readable on their way."),
        ({"scistream_allowed_targets": ["198.51.100.0/99"]}, "scistream_allowed_targets is 198.51.100.0/99"),
        ({"scistream_allowed_targets": "=198.51.100.7"}, "has no subject before the ="),
        ({"scistream_listen_address": "gateway.example"}, "'gateway.example' is not an IP address"),
        ({"scistream_control_address": "localhost"}, "'localhost' is not an IP address"),
        (
            {"scistream_control_address": "127.0.0.1", "scistream_control_server": "198.18.10.21:5000"},
            "scistream_control_server is 198.18.10.21:5000, and is to be 127.0.0.1:5000, since scistream_control",
        ),
        (
            {"scistream_control_address": "127.0.0.1", "scistream_control_server": "127.0.0.1:5000"},
            "scistream_via is not set, and is to be ssh://USER@HOST, since scistream_control_address is 127.0.0.1,",
        ),
        (
            {"scistream_control_address": "198.18.12.2", "scistream_control_port": 5150},
            "a port outside of scistream_port_range, which is 5100-5200.",
        ),
        ({"scistream_address": "198.18.12.256"}, "is neither a name nor an IP address"),
        ({"scistream_address": ["198.18.12.2", "198.18.12.3"]}, "and is to be one text, and no list."),
        (
            {"scistream_facility_address": "198.18.11.256"},
            "scistream_facility_address is 198.18.11.256, and is to be an",
        ),
        ({"scistream_facility_address": {"lan": "198.18.11.2"}}, "and is to be one text, and no list."),
        ({"scistream_timeout": "soon"}, "scistream_timeout is soon, and is to be a number."),
        ({"scistream_timeout": 0}, "scistream_timeout is 0, and is to be a number of seconds above 0."),
        ({"scistream_tuning": "perhaps"}, "scistream_tuning is perhaps, and is to be true or false."),
        (
            {"scistream_client_control_server": "gw:x"},
            "scistream_client_control_server is gw:x, and is to be HOST:PORT",
        ),
        (
            {"scistream_peers": ["198.18.12.0/24"]},
            "scistream_firewall is not set, and is to be said, since scistream_peers names who may reach the gateway",
        ),
        ({"scistream_control_server": "2001:db8::1"}, "an IPv6 address needs brackets"),
        ({"scistream_via": "gateway.example"}, "scistream_via is no such address, and is to be ssh://USER@HOST[:PORT]"),
        ({"scistream_via": "ssh://me:hunter2@gw"}, "it holds a password; keys and the agent are what counts"),
        ({"scistream_old_clients": "legacy-psk"}, "is to be refuse or plain, since scistream_engine is haproxy"),
        ({"control_server_lease": "8 hours"}, "control_server_lease is 8 hours, and is to be a number of seconds"),
        (
            {"control_server_lease": "8h", "control_server_longest_lease": "1h"},
            "control_server_lease is 8h, and is to be no longer than control_server_longest_lease, which is 1h.",
        ),
        ({"control_server_certificate": "/site.crt"}, "control_server_private_key is not set, and is to be the file"),
        ({"tuning_rtt_ms": 40}, "tuning_bandwidth_gbps is 0, and is to be a figure above 0, since tuning_rtt_ms is 40"),
        ({"scistream_control_prot": 5001}, "scistream_control_prot is a variable that no role and no playbook knows"),
        ({"scistream_control_prot": 5001}, "and is to be scistream_control_port. Correct the name;"),
        ({"control_server_verbos": True}, "and is to be control_server_verbose."),
        ({"control_server_verbose": "perhaps"}, "is perhaps, and is to be true or false."),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(variables: dict[str, Any], words: str) -> None:
    told = sentences(gateway(**variables))
    assert any(words in sentence for sentence in told), told
    assert all(sentence.startswith("gateway_a: ") and sentence.endswith(".") for sentence in told)
    assert "hunter2" not in " ".join(told)


_STATE = (
    "is to be a directory of its own, since the state absent removes all of it. Name another one, such as /var/lib/"
)


@pytest.mark.parametrize(
    "place",
    [
        *("", "/", "~", "~/.", "~alice", "/var/", "//etc", "/etc/.", "/etc//", "/var/lib", "/var/log", "/boot", "/mnt"),
        *("/usr", "/usr/local", "/home", "/home/alice", "/root", "/opt", "/srv", "/run", "/var/lib/scistream/../../x"),
        *("/etc/scistream", "/etc/scistream/state", "/opt/scistream", "//opt/./scistream/state", "/var/log/scistream"),
        *("~/.config", "~/.config/scistream", "~/.local", "~/.local/share/scistream/state"),
    ],
)
def test_what_holds_more_than_sessions_is_no_state_directory(place: str) -> None:
    (told,) = sentences(gateway(scistream_state_directory=place))
    assert _STATE in told
    assert "scistream_state_directory" in told


@pytest.mark.parametrize(
    "place",
    ["/var/lib/scistream", "/srv/b/", "/home/alice/gateway", "/opt/scistream-state", "/etc/gateway", "~/.scistream"],
)
def test_a_directory_of_its_own_is_one(place: str) -> None:
    assert sentences(gateway(scistream_state_directory=place)) == []


def test_everything_is_told_at_once() -> None:
    one = gateway(scistream_engine="squid", scistream_port_range="2-1")
    two = gateway("gateway_b", ansible_host="gw-b", scistream_address="nowhere!", scistream_insecure_no_auth=False)
    told = sentences(one, two)
    assert [sentence.partition(" is ")[0] for sentence in told] == [
        "gateway_a: scistream_engine",
        "gateway_a: scistream_port_range",
        "gateway_b: scistream_address",
        "gateway_b: scistream_client_secret",
    ]


def test_two_gateways_at_one_address_are_one_too_many() -> None:
    (told,) = sentences(gateway(), gateway("gateway_b", ansible_host="198.18.10.22"))
    assert told.startswith("gateway_b: scistream_address is 198.18.12.2, and is to be another address than that of")
    assert "gateway_a, which has it with control port 5000" in told


def test_a_facility_calls_two_gateways_by_two_addresses() -> None:
    def two(**other: Any) -> list[str]:
        theirs = {"ansible_host": "198.18.10.22", "scistream_address": "198.18.12.3", **other}
        return sentences(
            gateway("gateway_a", "facility_a", scistream_facility_address="10.0.0.1"),
            gateway("gateway_b", str(theirs.pop("facility", "facility_a")), **theirs),
        )

    (told,) = two(scistream_facility_address="10.0.0.1")
    assert told.startswith(
        "gateway_b: scistream_facility_address is 10.0.0.1, and is to be another address than those of gateway_a"
    )
    (told,) = two(scistream_facility_address="198.18.12.2", facility="facility_b")
    assert told.startswith("gateway_b: scistream_facility_address is 198.18.12.2, and is to be another address")
    assert two(scistream_facility_address="10.0.0.1", facility="facility_b") == []
    assert two(scistream_facility_address="198.18.12.3") == []


def test_peers_without_a_firewall_are_fine_where_that_is_said() -> None:
    assert sentences(gateway(scistream_peers=["198.18.12.0/24"], scistream_firewall=False)) == []


def test_one_mistake_is_told_once() -> None:
    variables = {"scistream_control_port": "five", "scistream_control_server": "198.18.10.21:five"}
    (told,) = sentences(gateway(**variables))
    assert told == "gateway_a: scistream_control_port is five, and is to be a whole number. Correct the value."


def test_one_machine_has_one_control_server_of_the_system() -> None:
    (told,) = sentences(gateway(), gateway("gateway_b", scistream_address="198.18.12.3"))
    assert told.startswith(
        "gateway_b: ansible_host is 198.18.10.21, and is to be another machine than that of gateway_a"
    )


def test_two_gateways_of_one_machine_share_nothing() -> None:
    local = {"ansible_connection": "local", "scistream_listen_address": "127.0.1.1"}
    told = sentences(gateway(**local), gateway("gateway_b", **local | {"scistream_port_range": "5150-5250"}))
    assert [sentence.split(", and ")[0] for sentence in told] == [
        "gateway_b: scistream_control_port is 5000",
        "gateway_b: scistream_port_range is 5150-5250",
        "gateway_b: scistream_state_directory is ~/.scistream",
    ]
    metrics = {
        "scistream_state_directory": "/srv/b",
        "scistream_control_port": 5300,
        "scistream_port_range": "5301-5400",
    }
    (told,) = sentences(
        gateway(**local),
        gateway("gateway_b", **local | metrics, scistream_metrics_ip="127.0.1.1", scistream_metrics_port=5150),
    )
    assert told.startswith(
        "gateway_b: scistream_metrics_port is 5150, and is to be apart from scistream_port_range of gateway_a, which is"
    )
    apart = {"scistream_listen_address": "127.0.2.1", "scistream_state_directory": "/srv/b"}
    assert sentences(gateway(**local), gateway("gateway_b", **local | apart)) == []


def test_one_control_server_is_not_named_twice_unless_the_ways_differ() -> None:
    ways = [{"ansible_host": f"gw{n}", "scistream_address": f"198.18.12.{n}"} for n in (2, 3)]
    here = {"scistream_control_server": "127.0.0.1:5000"}
    (told,) = sentences(gateway(**ways[0] | here), gateway("gateway_b", **ways[1] | here))
    assert "scistream_control_server is 127.0.0.1:5000, and is to be another control server than that of" in told
    hops = [{"scistream_via": f"ssh://gw{n}"} for n in (2, 3)]
    assert sentences(gateway(**ways[0] | here | hops[0]), gateway("gateway_b", **ways[1] | here | hops[1])) == []


def test_a_control_server_behind_ssh_may_have_any_port_that_its_entry_points_have_elsewhere() -> None:
    behind = {"scistream_control_address": "127.0.0.1", "scistream_via": "ssh://operator@gateway.example"}
    assert sentences(gateway(**behind, scistream_control_server="127.0.0.1:5000")) == []
    assert sentences(gateway(**behind, scistream_control_server="localhost:5000")) == []
    here = {"scistream_listen_address": "198.18.12.2", "scistream_control_port": 5150}
    assert sentences(gateway(**behind, **here, scistream_control_server="127.0.0.1:5150")) == []
    local = {"scistream_control_address": "127.0.0.1", "ansible_connection": "local"}
    assert sentences(gateway(**local, scistream_control_server="127.0.0.1:5000")) == []


def test_clients_of_a_control_server_behind_ssh_are_told_to_name_their_way() -> None:
    behind = {
        "scistream_control_address": "127.0.0.1",
        "scistream_control_server": "127.0.0.1:5000",
        "scistream_via": "ssh://operator@gateway.example",
    }
    groups, gateways = frozenset({"clients", "facility_a"}), [gateway("gateway_a", "facility_a", **behind)]
    (told,) = sentences(*gateways, Host("instrument", groups))
    assert told == (
        "instrument: user_client_via is not set, and is to be ssh://USER@HOST, since scistream_control_address of "
        "gateway_a is 127.0.0.1, which it alone reaches. Name the SSH host that leads there, or "
        "scistream_client_control_server of gateway_a."
    )
    for way in ({"user_client_via": "ssh://gateway.lan"}, {"user_client_control_server": "proxy.lan:5000"}):
        assert sentences(*gateways, Host("instrument", groups, way)) == []
    called = gateway("gateway_a", "facility_a", **behind, scistream_client_control_server="proxy.lan:5000")
    assert sentences(called, Host("instrument", groups)) == []
    # The gateway may be a client of its own.
    own = gateways[0]
    assert sentences(Host(own.name, own.groups | {"clients"}, own.variables)) == []


def test_every_host_is_in_one_facility_where_there_are_facilities() -> None:
    lost = Host("compute", frozenset({"clients"}))
    (told,) = sentences(gateway("gateway_a", "facility_a"), lost)
    assert told.startswith("compute: its facility's group is none of them, and is to be one group facility_NAME.")
    (told,) = sentences(gateway("gateway_a", "facility_a", "facility_b"))
    assert "is facility_a, facility_b, and is to be one group" in told


def test_a_gateway_that_leaves_need_not_fit() -> None:
    assert sentences(gateway(scistream_state="absent", scistream_port_range="2-1", scistream_insecure_no_auth="")) == []


def test_what_cannot_be_evaluated_is_told_of_gateways() -> None:
    host = Host("gateway_a", frozenset({"gateways"}), _FINE, {"scistream_operators": "'staff' is undefined"})
    (told,) = sentences(host)
    assert told.startswith(
        "gateway_a: scistream_operators is an expression, and is to be something that can be evaluated"
    )
    assert "('staff' is undefined)" in told


def test_a_variable_of_the_sites_own_is_none_of_our_business() -> None:
    assert sentences(gateway(scistream_beamline="7-BM", certificates_of_the_site="here")) == []
    assert sentences(gateway(scistream_engine_="x"), own=("scistream_engine_",)) == []


def test_a_secret_is_known_by_its_name() -> None:
    assert is_secret("scistream_token")
    assert is_secret("control_server_client_secret")
    assert not is_secret("scistream_insecure_plain_text_token")


def test_the_action_takes_what_its_documentation_says() -> None:
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    told = {name: {key: each[key] for key in each if key != "description"} for name, each in options.items()}
    assert told == action._ARGUMENTS


def test_every_variable_of_the_whole_site_is_known_with_its_kind() -> None:
    known = {option.twin for option in _ROLES.options} | {option.name for option in SITE} | _NO_VARIABLES
    assert {name: files for name, files in used_variables().items() if name not in known} == {}


def used_variables() -> dict[str, list[str]]:
    """All `scistream_...` that roles, playbooks and inventories evaluate or set, and where."""
    found: dict[str, list[str]] = {}
    for top in ("roles", "playbooks", "inventory"):
        for path in sorted((_ROOT / top).rglob("*")):
            for name in _SITE_VARIABLE.findall(_read(path)):
                found.setdefault(name, []).append(str(path.relative_to(_ROOT)))
    return found


def _read(path: Path) -> str:
    """A file of YAML without what is not Ansible's; of a template, what is evaluated."""
    if path.suffix == ".yml" and "meta" not in path.parts:
        return re.sub(r"(?m)^\s*#.*$", "", path.read_text())
    return " ".join(re.findall(r"\{[{%].*?[%}]\}", path.read_text(), re.DOTALL)) if path.suffix == ".j2" else ""


def test_an_expression_that_passes_on_is_no_word_of_its_own() -> None:
    defaults = [yaml.safe_load(path.read_text()) for path in _ROOT.glob("roles/*/defaults/main.yml")]
    passed = {name: text for each in defaults for name, text in each.items() if is_echo(text)}
    assert passed["control_server_port"] == "{{ scistream_control_port | default(5000) }}"
    assert set(passed) >= {option.name for option in _ROLES.options if option.twin}
    assert not is_echo("{{ ansible_host }}:5000")
    assert not is_echo(5000)


def test_the_roles_are_read_from_their_own_files() -> None:
    assert {"control_server_port", "tuning_rtt_ms", "preflight_own_variables"} <= _ROLES.names
    assert {option.name for option in _ROLES.options} >= _ROLES.names
    twins = {option.name: option.twin for option in _ROLES.options}
    assert twins["control_server_port"] == "scistream_control_port"


_TARGETS = ["198.51.100.7", "198.51.100.0/24:5000-5999", "me@x=db.example:5432", "[2001:db8::/32]:5000", "2001:db8::1"]
_NO_TARGETS = ["", "=x", "198.51.100.0/99", "198.51.100.7/24", "a b", "x:0", "x:2-1", "[2001:db8::/32]:99999"]


@pytest.mark.parametrize("text", [*_TARGETS, *_NO_TARGETS])
def test_allowed_targets_are_read_as_the_library_reads_them(text: str) -> None:
    assert _accepts(spellings.read_allowed_target, text) == _accepts(lambda word: AllowedTargets((word,)), text)


@pytest.mark.parametrize("text", ["90", "90s", "1h30m", "unlimited", "8 h", "", "1m1h", "1.5", "-3", "x"])
def test_times_are_read_as_the_library_reads_them(text: str) -> None:
    assert _accepts(spellings.read_duration, text) == _accepts(parse_duration, text)


@pytest.mark.parametrize("text", ["5100-5200", "5100", "2-1", "", "0-9", "1-70000", "a-b", "5100 - 5200"])
def test_port_ranges_are_read_as_the_library_reads_them(text: str) -> None:
    assert _accepts(spellings.read_port_range, text) == _accepts(PortRange.parse, text)


@pytest.mark.parametrize(
    "text", ["gw:5000", "198.18.1.1:1", "[2001:db8::1]:5", "2001:db8::1", "gw", ":5", "gw:x", "udp://gw:5", "1.2.3:5"]
)
def test_addresses_are_read_as_the_library_reads_them(text: str) -> None:
    assert _accepts(spellings.read_endpoint, text) == _accepts(Endpoint.parse, text)


@pytest.mark.parametrize(
    ("text", "read"),
    [("ssh://me@gw", ("me", "gw", 22)), ("ssh://gw:2222", ("", "gw", 2222)), ("ssh://me@[2001:db8::1]:22/", None)],
)
def test_a_way_is_user_host_and_port(text: str, read: tuple[str, str, int] | None) -> None:
    assert spellings.read_via(text) == (read or ("me", "2001:db8::1", 22))


def _accepts(read: Any, text: str) -> bool:
    try:
        read(text)
    except (ValueError, SciStreamError):
        return False
    return True
