# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules between the variables of one host, each a function that yields what it finds wrong."""

from __future__ import annotations

import collections.abc as c
import posixpath
import typing as t

from ansible_collections.scistream.core.plugins.plugin_utils._inventory import (
    Host,
    Problem,
    Said,
    as_int,
    is_true,
)
from ansible_collections.scistream.core.plugins.plugin_utils._spellings import (
    read_allowed_target,
    read_duration,
    read_endpoint,
    read_host,
    read_ip,
    read_network,
    read_port_range,
    read_via,
    read_web_address,
    words_of,
)

__all__ = ["OF_ALL", "OF_GATEWAYS", "clash", "is_loopback"]

_GLOBUS = "https://auth.globus.org"
_FIRST_FREE_PORT = 1024
_LAST_PORT = 65535
_TARGET = "[SUBJECT=]NETWORK[:PORTS] or [SUBJECT=]NAME[:PORTS], such as 198.51.100.0/24:5000-5999"
_TIME = "a number of seconds, or a time such as 90s, 30m or 8h"
# A state directory is given to a user, and removed with all that it holds: it is none of these, ...
_NOT_REMOVED = frozenset(
    {
        *(".", "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc"),
        *("/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var"),  # noqa: S108
        *("/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp"),  # noqa: S108
    }
)
# ... nothing right below these, ...
_OTHERS = frozenset({"/home", "/usr"})
# ... and none that holds these or lies in them: configuration, library and audit.
_BESIDE = ("/etc/scistream", "/opt/scistream", "/var/log/scistream", "~/.config/scistream", "~/.local/share/scistream")
_PEERS = ("control_server_firewall_peers", "scistream_peers")
_STREAM_PEERS = ("control_server_firewall_stream_peers", *_PEERS)


def _unevaluated(host: Host) -> c.Iterator[Problem]:
    for name, reason in host.errors.items():
        wanted = f"something that can be evaluated ({reason})"
        yield Problem(host.name, name, "an expression", wanted, "Set what it refers to, or correct it")


def _spelled(
    host: Host, names: tuple[str, ...], read: c.Callable[[str], t.Any], wanted: str, step: str
) -> c.Iterator[Problem]:
    """Each word of the first of these variables that is set, as a reader takes it."""
    said = host.said(*names)
    for word in words_of(said.value):
        try:
            read(word)
        except ValueError as error:
            yield host.problem(said, f"{wanted} ({error})", step)


def _addresses(host: Host) -> c.Iterator[Problem]:
    step = "Correct the address"
    for names in (
        ("control_server_listen_address", "scistream_listen_address"),
        ("control_server_control_address", "scistream_control_address"),
        ("control_server_metrics_ip", "scistream_metrics_ip"),
    ):
        yield from _spelled(host, names, read_ip, "an IP address of this host, or 0.0.0.0 or ::", step)
    for name in ("scistream_address", "scistream_facility_address"):
        yield from _spelled(host, (name,), read_host, "an IP address or a name", step)
    wanted = "addresses and networks such as 198.51.100.0/24"
    for peers in (_PEERS, _STREAM_PEERS):
        yield from _spelled(host, peers, lambda word: read_network(word, strict=False), wanted, step)


def _ways(host: Host) -> c.Iterator[Problem]:
    """How modules on the controller and the facility's own clients reach it."""
    wanted, step = "HOST:PORT or [IPv6]:PORT", "Correct the address of its control server"
    for name in ("scistream_control_server", "scistream_client_control_server"):
        # A port that is none is told of by its own name.
        if as_int(host.control_port.value) is not None or not host.text(name).endswith(f":{host.control_port.text}"):
            yield from _spelled(host, (name,), lambda word: read_endpoint(word, 5000), wanted, step)
    patience = host.said("scistream_timeout")
    if patience.text.lstrip("-").replace(".", "", 1).isdigit() and float(patience.text) <= 0:
        yield host.problem(patience, "a number of seconds above 0", "Correct the number, or take it out for 30")
    said = host.said("scistream_via")
    if said.text:
        try:
            read_via(said.text)
        except ValueError as error:
            # The value may hold a password.
            seen = Problem(
                host.name, said.variable, "no such address", f"ssh://USER@HOST[:PORT] ({error})", "Correct it"
            )
            yield seen


def _behind_ssh(host: Host) -> c.Iterator[Problem]:
    """A control server on loopback is reached from its own host: through SSH, unless that is the controller."""
    asked, way = host.said("scistream_control_server"), host.said("scistream_via")
    if not asked.text or host.is_local or not is_loopback(host.control_address.text):
        return
    since = f"since {host.control_address.variable} is {host.control_address.text}"
    try:
        called, _port = read_endpoint(asked.text, 5000)
    except ValueError:
        return
    if not (called == "localhost" or is_loopback(called)):
        wanted = f"{host.control_address.text}:{host.control_port.text}, {since}"
        yield host.problem(asked, wanted, "Name it as the gateway itself does, with scistream_via for the way there")
    if not way.text:
        step = "Name the user and the host that SSH leads to, or another address for the control port"
        yield host.problem(way, f"ssh://USER@HOST, {since}, which the gateway alone reaches", step)


def is_loopback(text: str) -> bool:
    try:
        return read_ip(text).is_loopback
    except ValueError:
        return False


def _ports(host: Host) -> c.Iterator[Problem]:
    """Ports are ports, and the entry points' are nobody else's."""
    for said in (host.control_port, host.metrics_port):
        number, least = as_int(said.value), 0 if said.variable == host.metrics_port.variable else 1
        if number is not None and not least <= number <= _LAST_PORT:
            yield host.problem(said, f"a port from {least} to {_LAST_PORT}", "Name another port")
    try:
        first, last = read_port_range(host.port_range.text)
    except ValueError as error:
        yield host.problem(host.port_range, f"FIRST-LAST ({error})", "Write the lower port first, as in 5100-5200")
        return
    for said, address in ((host.control_port, host.control_address), (host.metrics_port, host.metrics_address)):
        number = as_int(said.value)
        if number and first <= number <= last and clash(address.text, host.listen_address.text):
            wanted = f"a port outside of {host.port_range.variable}, which is {first}-{last}"
            yield host.problem(said, wanted, "Name another port, or another range")
    if as_int(host.control_port.value) == as_int(host.metrics_port.value) and clash(
        host.metrics_address.text, host.control_address.text
    ):
        wanted = f"another port than {host.control_port.variable}"
        yield host.problem(host.metrics_port, wanted, "Name another port for the metrics")


def clash(one: str, other: str) -> bool:
    """Whether two listen addresses of one machine meet: they are one, or one of them is a wildcard."""
    try:
        first, second = read_ip(one), read_ip(other)
    except ValueError:
        return False
    if first == second or (first.is_unspecified and second.is_unspecified):
        return True
    # The wildcard of IPv6 has the addresses of IPv4 as well.
    wide = next((each for each in (first, second) if each.is_unspecified), None)
    return wide is not None and (wide.version == 6 or first.version == second.version)


def _privileged_ports(host: Host) -> c.Iterator[Problem]:
    if host.scope.text != "user":
        return
    low = host.port_range.text.partition("-")[0]
    for said, number in ((host.control_port, as_int(host.control_port.value)), (host.port_range, as_int(low))):
        if number and number < _FIRST_FREE_PORT:
            wanted = f"above {_FIRST_FREE_PORT - 1}, since {host.scope.variable} is user, who may not listen below"
            yield host.problem(said, wanted, "Name higher ports, or set scistream_scope: system")


def _scope(host: Host) -> c.Iterator[Problem]:
    if host.scope.text == "process" and not host.is_local:
        how = host.text("ansible_connection", default="ssh")
        wanted = f"system or user, since the host is reached by {how}; a process runs on the controller's own machine"
        yield host.problem(host.scope, wanted, "Take it out (system is the default), or set ansible_connection: local")


def _engines(host: Host) -> c.Iterator[Problem]:
    """The engine that is used is among those that are installed."""
    installed = host.said("data_server_engines", "scistream_engines")
    engine, names = host.engine, words_of(installed.value)
    if names and engine.text and engine.text not in names:
        wanted = f"a list with {engine.text} in it, which {engine.variable} names"
        yield host.problem(installed, wanted, f"Add {engine.text}, or name another engine")


def _plain_engines(host: Host) -> c.Iterator[Problem]:
    """The kernel forwards packets as they are, and needs to be told to by somebody who may."""
    if host.engine.text != "nftables":
        return
    for name in ("stream_encryption", "demo_encryption"):
        said = host.said(name)
        if said.text and said.text != "none":
            wanted = f"none, since {host.engine.variable} is nftables, which encrypts nothing"
            yield host.problem(said, wanted, "Take another engine (haproxy), or say encryption none")
    if host.scope.text == "user":
        wanted = "another engine, since scope user has no CAP_NET_ADMIN and nftables needs it"
        yield host.problem(host.engine, wanted, "Take haproxy, nginx or stunnel, or set scistream_scope: system")


def _root_only(host: Host) -> c.Iterator[Problem]:
    """What changes the host's network takes root."""
    firewall = host.said("control_server_firewall", "scistream_firewall")
    rates = host.said("control_server_rates", "scistream_rates", default=False)
    scope = f"{host.scope.variable} is {host.scope.text}, without root"
    for said, scopes in ((firewall, {"process", "user"}), (rates, {"user"})):
        if is_true(said.value) and host.scope.text in scopes:
            yield host.problem(said, f"false, since {scope}", "Take it out, or set scistream_scope: system")
    if not is_true(firewall.value):
        yield from _peers_without_a_wall(host, firewall)
        return
    for names in (_PEERS, _STREAM_PEERS):
        peers = host.said(*names)
        if not words_of(peers.value):
            wanted = f"those who may reach the gateway, since {firewall.variable} is true"
            yield host.problem(peers, wanted, f"Name their networks, or set {firewall.variable}: false")


def _peers_without_a_wall(host: Host, firewall: Said) -> c.Iterator[Problem]:
    """Who lists peers means to keep others off; who says false as well knows that it does not."""
    peers = host.said(*_STREAM_PEERS)
    if words_of(peers.value) and not firewall.text:
        wanted = f"said, since {peers.variable} names who may reach the gateway, and everyone may while it is not true"
        step = f"Set it to true, or to false where another firewall does it; or take {peers.variable} out"
        yield Problem(host.name, firewall.variable, "not set", wanted, step)


def _old_clients(host: Host) -> c.Iterator[Problem]:
    said = host.said("control_server_old_clients", "scistream_old_clients", default="refuse")
    if said.text == "legacy-psk" and host.engine.text != "stunnel":
        wanted = (
            f"refuse or plain, since {host.engine.variable} is {host.engine.text} and the deployed key is Stunnel's"
        )
        yield host.problem(said, wanted, "Take the engine stunnel, or refuse the deployed clients")


def _authentication(host: Host) -> c.Iterator[Problem]:
    """Tokens, or the open door by its name; and not both."""
    if host.text("control_server_state", "scistream_state", default="started") != "started":
        return
    open_door = host.said("control_server_insecure_no_auth", "scistream_insecure_no_auth", default=False)
    name = host.said("control_server_client_id", "scistream_client_id", default="")
    secret = host.said("control_server_client_secret", "scistream_client_secret", default="")
    if is_true(open_door.value) and secret.text:
        step = f"Take one of the two out: {secret.variable} checks tokens, {open_door.variable} lets everyone in"
        yield host.problem(open_door, f"false, since {secret.variable} is set", step)
    elif not is_true(open_door.value) and not secret.text:
        step = f"Set it with scistream_client_id; or {open_door.variable}: true, where all who reach the port may enter"
        yield host.problem(secret, "the secret that tokens are checked with", step)
    if secret.text and not name.text:
        step = f"Name the control server's identity at the provider; {secret.variable} is nothing without it"
        yield host.problem(name, "the identity that the secret belongs to", step)
    if secret.text:
        yield from _providers(host)


def _providers(host: Host) -> c.Iterator[Problem]:
    provider = host.said("control_server_provider", "scistream_provider", default=_GLOBUS)
    wanted, step = "an address that tokens may travel to, https://...", "Correct the address"
    for name in ("provider", "introspection_url"):
        names = (f"control_server_{name}", f"scistream_{name}")
        yield from _spelled(host, names, read_web_address, wanted, step)
    scope = host.said("control_server_token_scope", "scistream_token_scope", default="")
    if provider.text.rstrip("/") != _GLOBUS and not scope.text:
        wanted = f"the scope that tokens need, since {provider.variable} is not Globus"
        yield host.problem(scope, wanted, "Set scistream_token_scope")
    plain = host.said("control_server_insecure_plain_text", default=False)
    if is_true(plain.value):
        yield host.problem(plain, "false, since tokens would be readable on their way", "Take it out")


def _targets(host: Host) -> c.Iterator[Problem]:
    names = ("control_server_allowed_targets", "scistream_allowed_targets")
    yield from _spelled(host, names, read_allowed_target, _TARGET, "Correct the target")


def _times(host: Host) -> c.Iterator[Problem]:
    for name in ("hello_timeout", "lease", "longest_lease", "quarantine"):
        yield from _spelled(host, (f"control_server_{name}",), read_duration, _TIME, "Correct the time")
    usual, longest = (host.said(f"control_server_{name}", default="unlimited") for name in ("lease", "longest_lease"))
    try:
        most, asked = read_duration(longest.text), read_duration(usual.text)
    except ValueError:
        return
    if most and asked > most:
        wanted = f"no longer than {longest.variable}, which is {longest.text}"
        yield host.problem(usual, wanted, "Shorten the one, or lengthen the other")


def _removable(host: Host) -> c.Iterator[Problem]:
    said = host.state_directory
    if not _is_own(said.text):
        wanted = "a directory of its own, since the state absent removes all of it"
        yield host.problem(said, wanted, "Name another one, such as /var/lib/scistream")


def _is_own(text: str) -> bool:
    """Whether a directory can be the control server's alone, however it is spelled."""
    place = posixpath.normpath(text or "/")
    # Two at the beginning are left alone by normpath.
    place = f"/{place.lstrip('/')}" if place.startswith("/") else place
    beside = any(f"{one}/".startswith(f"{other}/") for each in _BESIDE for one, other in ((place, each), (each, place)))
    is_home = place.startswith("~") and "/" not in place
    is_shared = is_home or place in _NOT_REMOVED or posixpath.dirname(place) in _OTHERS
    return not (is_shared or beside or ".." in text.split("/"))


def _own_certificates(host: Host) -> c.Iterator[Problem]:
    """The site's own files come as a pair."""
    for one, other in (
        ("certificates_site_certificate", "certificates_site_private_key"),
        ("control_server_certificate", "control_server_private_key"),
    ):
        pair = [host.said(one), host.said(other)]
        for said, partner in (pair, pair[::-1]):
            if not said.text and partner.text:
                wanted = f"the file that belongs to {partner.variable}"
                yield host.problem(Said(said.variable, None), wanted, f"Set it, or take {partner.variable} out")


def _path_facts(host: Host) -> c.Iterator[Problem]:
    """Buffers are computed of two figures, or of none."""
    pair = [host.said("tuning_bandwidth_gbps", default=0), host.said("tuning_rtt_ms", default=0)]
    for said, partner in (pair, pair[::-1]):
        number = said.text if said.text not in {"", "0", "0.0"} else ""
        if partner.text not in {"", "0", "0.0"} and not number:
            wanted = f"a figure above 0, since {partner.variable} is {partner.text} and buffers follow from both"
            yield host.problem(said, wanted, "Set both, or none")


OF_ALL: t.Final = (_path_facts,)
OF_GATEWAYS: t.Final = (
    _addresses,
    _authentication,
    _behind_ssh,
    _engines,
    _old_clients,
    _own_certificates,
    _plain_engines,
    _ports,
    _privileged_ports,
    _removable,
    _root_only,
    _scope,
    _targets,
    _times,
    _unevaluated,
    _ways,
)
