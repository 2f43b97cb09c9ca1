"""Playbooks open_stream, close_stream and status, by real runs of Ansible against real control servers."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from ansible_runs import ROOT, Run, run_play, run_playbook
from pages import attributes_of, elements_of
from scistream.addresses import Endpoint
from scistream.client import ControlServer, Session, connect
from scistream.protocol import operations_pb2 as wire
from scistream.protocol.operations_pb2_grpc import OperationsServicer, add_OperationsServicer_to_server

_FROM, _TO, _NOBODY = "127.0.60.1", "127.0.60.2", "127.0.60.9"
_PORT, _PORTS = 24600, "24610-24619"
_ENDS = {"stream_name": "beam", "stream_from": "gateway_a", "stream_to": "gateway_b"}
_OPEN = "Open what of the stream is not there as wished"
_CLOSE = "Release what of the stream is there"
_TOKEN = "hunter2-at-gateway-a"
_LONG = 240

ControlServers = Callable[..., Any]


@pytest.fixture
def gateways(control_server_factory: ControlServers, tmp_path: Path) -> Site:
    """A site with two gateways: gateway_a (outbound) and gateway_b (inbound)."""
    return Site(tmp_path, control_server_factory).start()


class Site:
    """An inventory of its own, and the control servers of its gateways."""

    def __init__(self, directory: Path, factory: ControlServers) -> None:
        self.directory = directory
        self.factory = factory
        self.servers: dict[str, Any] = {}
        self.hosts: dict[str, dict[str, Any]] = {}

    def start(self, **more: Any) -> Site:
        for name, address in (("gateway_a", _FROM), ("gateway_b", _TO)):
            self.add(name, self.factory(address=address, port=_PORT, port_range=_PORTS, **more))
        return self

    def add(self, name: str, server: Any, **variables: Any) -> None:
        self.servers[name] = server
        certificate = str(server.certificate)
        told = {"scistream_control_server": server.endpoint, "scistream_server_certificate": certificate}
        self.hosts[name] = told | {"scistream_timeout": 20} | variables

    def run(self, playbook: str, *options: str, **variables: Any) -> Run:
        """Run a playbook; variables go as a user's `-e` does, lists and numbers as JSON."""
        inventory = self.directory / "hosts.yml"
        facilities = {"facility_a": {"hosts": {"gateway_a": {}}}, "facility_b": {"hosts": {"gateway_b": {}}}}
        groups = {"gateways": {"hosts": self.hosts}, **facilities}
        inventory.write_text(yaml.safe_dump({"all": {"children": groups}}))
        given = ("-e", json.dumps(variables)) if variables else ()
        options = ("-i", str(inventory), *given, *options)
        return run_playbook(ROOT / f"playbooks/{playbook}.yml", directory=self.directory, options=options)

    def open(self, *options: str, **variables: Any) -> Run:
        return self.run("open_stream", *options, **_ENDS | variables)

    def close(self, *options: str, **variables: Any) -> Run:
        return self.run("close_stream", *options, **_ENDS | variables)

    def sessions(self, name: str) -> list[Session]:
        server = self.servers[name]
        with connect(ControlServer(Endpoint.parse(server.endpoint), server.certificate)) as connection:
            return list(connection.list_sessions())

    @property
    def kept_tickets(self) -> list[Path]:
        return list((self.directory / "home/.local/state/scistream/tickets").glob("*"))


def opened(run: Run) -> Any:
    assert run.code == 0, run.output
    return run.named(_OPEN)


def said(run: Run, task: str) -> str:
    """What a task told, as it stands: the terminal folds it."""
    return "\n".join(run.named(task)["msg"])


def refused(run: Run) -> str:
    """Why a run did not open anything, without the way in which it is printed."""
    assert run.code != 0, run.output
    (failed,) = [one for one in run.results if one.outcome == "failed"]
    return str(failed["msg"])


@pytest.mark.timeout(_LONG)
def test_a_stream_opens_carries_bytes_and_closes_each_once(gateways: Site, echo_target: Any, round_trip: Any) -> None:
    targets = {"stream_targets": [echo_target.endpoint]}
    predicted = opened(gateways.open("--check", "--diff", **targets))
    assert predicted.changed
    assert predicted["actions"] == {"inbound": "opened", "outbound": "opened"}
    assert predicted["stream"]["uid"] is None
    assert gateways.sessions("gateway_a") == gateways.sessions("gateway_b") == []
    assert gateways.kept_tickets == []

    gateways.hosts["gateway_a"]["scistream_token"] = _TOKEN
    run = gateways.open("--diff", "-vvv", **targets)
    done = opened(run)
    assert _TOKEN not in run.output
    assert done["actions"] == {"inbound": "opened", "outbound": "opened"}
    (entry_point,) = done["stream"]["entry_points"]
    assert entry_point.startswith(f"{_FROM}:")
    words = said(run, "Say where the application connects to")
    assert f"Applications connect to {entry_point}" in words
    assert "outbound, gateway_a" in words
    assert "════▶" in words
    assert done["stream"]["encryption"] == "tls"
    assert done["stream"]["inbound"]["entry_points"] == done["stream"]["outbound"]["targets"]
    data = bytes(range(256)) * 400
    assert round_trip(entry_point, data) == data
    (ticket,) = gateways.kept_tickets
    assert stat.S_IMODE(ticket.stat().st_mode) == 0o600
    assert json.loads(ticket.read_text())["key"] not in run.output

    for again in (gateways.open(**targets), gateways.open("--check", **targets)):
        same = opened(again)
        assert not same.changed
        assert same["diff"]["before"] == same["diff"]["after"] == {}
        assert same["stream"]["entry_points"] == [entry_point]

    foretold = gateways.close("--check", "--diff")
    assert foretold.code == 0, foretold.output
    assert foretold.named(_CLOSE)["actions"] == {"inbound": "released", "outbound": "released"}
    assert len(gateways.sessions("gateway_a")) == 1
    gone = gateways.close("--diff")
    assert gone.code == 0, gone.output
    assert gone.named(_CLOSE)["diff"] == foretold.named(_CLOSE)["diff"]
    assert gateways.sessions("gateway_a") == gateways.sessions("gateway_b") == gateways.kept_tickets == []
    again = gateways.close()
    assert again.code == 0, again.output
    assert not again.named(_CLOSE).changed


@pytest.mark.timeout(_LONG)
def test_what_differs_is_changed_and_what_is_lost_is_opened_anew(
    gateways: Site, echo_target: Any, round_trip: Any
) -> None:
    first = opened(gateways.open(stream_targets=["127.0.60.100:5074"]))
    moved = opened(gateways.open(stream_targets=echo_target.endpoint))
    assert moved["actions"] == {"inbound": "retargeted", "outbound": "none"}
    assert any(words.startswith("inbound: targets 127.0.60.100:5074, not") for words in moved["differences"])
    (entry_point,) = moved["stream"]["entry_points"]
    assert [entry_point] == first["stream"]["entry_points"]
    assert round_trip(entry_point, b"moved") == b"moved"

    # Who lost the ticket has lost the key: both ends have to learn another one.
    (ticket,) = gateways.kept_tickets
    ticket.unlink()
    foretold = opened(gateways.open("--check", stream_targets=echo_target.endpoint))
    anew = opened(gateways.open(stream_targets=echo_target.endpoint))
    assert anew["actions"] == foretold["actions"] == {"inbound": "reopened", "outbound": "reopened"}
    assert "outbound: its key is another" in anew["differences"]
    assert round_trip(anew["stream"]["entry_points"][0], b"anew") == b"anew"
    assert not opened(gateways.open(stream_targets=echo_target.endpoint)).changed

    with connect(_control_server(gateways.servers["gateway_a"])) as connection:
        connection.release(anew["stream"]["uid"])
    half = opened(gateways.open(stream_targets=echo_target.endpoint))
    assert half["actions"] == {"inbound": "none", "outbound": "opened"}
    assert round_trip(half["stream"]["entry_points"][0], b"half") == b"half"


def _control_server(server: Any) -> ControlServer:
    return ControlServer(Endpoint.parse(server.endpoint), server.certificate)


@pytest.mark.timeout(_LONG)
def test_where_the_second_end_fails_the_first_is_released_again(
    control_server_factory: ControlServers, tmp_path: Path, echo_target: Any
) -> None:
    site = Site(tmp_path, control_server_factory)
    site.add("gateway_a", control_server_factory(address=_FROM, port=_PORT, port_range="24610"))
    site.add("gateway_b", control_server_factory(address=_TO, port=_PORT, port_range=_PORTS))
    with socket.create_server((_FROM, 24610)):
        words = refused(site.open(stream_targets=[echo_target.endpoint]))
    assert words.startswith(f"outbound end (gateway_a, {_FROM}:{_PORT}): ")
    assert "The inbound end, which had been opened for it, was released again." in words
    assert site.sessions("gateway_b") == site.kept_tickets == []


@pytest.mark.timeout(_LONG)
def test_what_the_outbound_end_cannot_is_found_before_anything_is_touched(
    control_server_factory: ControlServers, tmp_path: Path, echo_target: Any
) -> None:
    site = Site(tmp_path, control_server_factory)
    site.add("gateway_a", control_server_factory(address=_FROM, port=_PORT, port_range=_PORTS))
    site.add("gateway_b", control_server_factory(address=_TO, port=_PORT, port_range=_PORTS, engine="stunnel"))
    words = refused(site.open(stream_targets=[echo_target.endpoint]))
    assert words.startswith(f"outbound end (gateway_a, {_FROM}:{_PORT}): ")
    assert "tls-psk" in words
    assert "released again" not in words
    words = refused(site.open(stream_targets=[echo_target.endpoint], stream_engine="nginx"))
    assert "nginx was asked for" in words
    gone = site.servers.pop("gateway_a")
    gone.end()
    words = refused(site.open(stream_targets=[echo_target.endpoint]))
    assert f"cannot connect to control server {_FROM}:{_PORT}" in words
    assert site.sessions("gateway_b") == site.kept_tickets == []


@pytest.mark.timeout(_LONG)
def test_an_end_that_is_gone_does_not_keep_the_other_from_being_released(gateways: Site, echo_target: Any) -> None:
    opened(gateways.open(stream_targets=[echo_target.endpoint]))
    gateways.servers["gateway_a"].end()
    words = refused(gateways.close())
    assert words.startswith(f"outbound end (gateway_a, {_FROM}:{_PORT}): cannot connect")
    assert words.endswith("The inbound end was seen to all the same.")
    assert gateways.sessions("gateway_b") == []
    gateways.servers["gateway_a"].start()
    run = gateways.close()
    assert run.code == 0, run.output
    assert run.named(_CLOSE)["actions"] == {"inbound": "none", "outbound": "released"}
    assert gateways.sessions("gateway_a") == []


@pytest.mark.timeout(_LONG)
def test_two_facilities_open_one_end_each_with_a_ticket(
    control_server_factory: ControlServers, tmp_path: Path, echo_target: Any, round_trip: Any
) -> None:
    here, there = (Site(tmp_path / name, control_server_factory) for name in ("a", "b"))
    for site in (here, there):
        site.directory.mkdir()
    here.add("gateway_a", control_server_factory(address=_FROM, port=_PORT, port_range=_PORTS))
    # It listens on all addresses: what others reach it by, only its site can tell.
    everywhere = "0.0.0.0"  # noqa: S104 - what is tested
    wide = control_server_factory(address=everywhere, port=24650, port_range="24660-24669", names=(everywhere, _TO))
    there.add("gateway_b", wide, scistream_address="127.0.60.5", scistream_control_server=f"{_TO}:24650")
    ticket = str(tmp_path / "beam.ticket")
    half = {"stream_ticket": ticket}
    inbound = half | {"stream_name": "beam", "stream_to": "gateway_b"}
    outbound = half | {"stream_from": "gateway_a"}

    run = there.run("open_stream", stream_targets=echo_target.endpoint, **inbound)
    first = opened(run)
    assert first["actions"] == {"inbound": "opened", "outbound": None}
    assert f"Hand {ticket} to the other facility" in said(run, "Say where the application connects to")
    assert json.loads(Path(ticket).read_text())["entry_points"] == ["127.0.60.5:24660"]
    assert not opened(there.run("open_stream", stream_targets=echo_target.endpoint, **inbound)).changed

    second = opened(here.run("open_stream", **outbound))
    assert second["actions"] == {"inbound": None, "outbound": "opened"}
    assert second["stream"]["uid"] == first["stream"]["uid"]
    assert second["stream"]["name"] == "beam"
    assert round_trip(second["stream"]["entry_points"][0], b"over") == b"over"
    assert not opened(here.run("open_stream", **outbound)).changed

    for site, words in ((here, outbound), (there, inbound)):
        run = site.run("close_stream", **words)
        assert run.code == 0, run.output
        assert run.named(_CLOSE).changed
    assert not Path(ticket).exists()
    missing = refused(here.run("open_stream", **outbound))
    assert missing.startswith("ticket: ")
    assert ticket in missing


# Variables that are wrong together, and what is said of each of them.
_WRONG = [
    (
        {
            "stream_from": "gateway_x",
            "stream_to": "gateway_y",
            "stream_name": 7,
            "stream_targets": ["a:b:c"],
            "stream_connections": "many",
            "stream_rate": "10 Gb/s",
            "stream_lease": "a shift",
            "stream_encryption": "ssl",
            "stream_transport": "sctp",
            "stream_engine": "envoy",
        },
        [
            "stream_from is gateway_x, and is to be a gateway of the inventory: one of gateway_a, gateway_b. Correct",
            "stream_to is gateway_y, and is to be a gateway of the inventory: one of gateway_a, gateway_b. Correct it,",
            "stream_name is 7, and is to be a text of 1 to 128 characters. Put it in quotes.",
            "stream_targets is ['a:b:c'], and is to be a list of HOST:PORT or [IPv6]:PORT. Correct the address.",
            "stream_connections is many, and is to be a number from 1 to 1024. Correct it.",
            "stream_rate is 10 Gb/s, and is to be a number of kb/s. Correct it, or leave it out for no rate.",
            "stream_lease is a shift, and is to be a time such as 90, 30m, 8h or unlimited. Correct it.",
            "stream_encryption is ssl, and is to be tls or none. Leave it out for tls.",
            "stream_transport is sctp, and is to be tcp or udp. Leave it out for tcp.",
            "stream_engine is envoy, and is to be haproxy, nftables, nginx or stunnel. Leave it out",
        ],
    ),
    (
        dict.fromkeys(("stream_from", "stream_to", "stream_name", "stream_targets")),
        [
            "stream_from and stream_to are not set. Name the gateway that the application connects to with -e",
            "stream_name is not set, and is to be the name of the stream. Say -e stream_name=NAME;",
            "stream_ticket is not set, and is to be the file that the facility of the inbound end handed over",
        ],
    ),
    (
        {"stream_targets": None, "stream_transport": "udp"},
        [
            "stream_targets is not set, and is to be the addresses behind gateway_b that the stream leads to, each",
            "stream_transport is udp and stream_encryption is tls, and no engine encrypts UDP. Say",
        ],
    ),
    ({"stream_targets": 5074}, ["stream_targets is 5074, and is to be a list of HOST:PORT or [IPv6]:PORT."]),
]


@pytest.fixture
def paper_site(tmp_path: Path) -> Site:
    """A site whose gateways nobody has to ask: nothing is touched before the variables are checked."""
    site = Site(tmp_path, lambda **_: None)
    for name in ("gateway_a", "gateway_b"):
        site.hosts[name] = {"scistream_control_server": f"{_NOBODY}:{_PORT}", "scistream_timeout": 5}
    return site


@pytest.mark.timeout(_LONG)
def test_a_wrong_variable_is_named_with_what_it_is_to_be(paper_site: Site) -> None:
    for wrong, sentences in _WRONG:
        told = {"stream_targets": ["127.0.60.100:5074"], **_ENDS, **wrong}
        words = refused(paper_site.run("open_stream", **{name: one for name, one in told.items() if one is not None}))
        for sentence in sentences:
            assert sentence in words, sentence
    paper_site.hosts["gateway_a"].pop("scistream_control_server")
    missing = refused(paper_site.open(stream_targets=["127.0.60.100:5074"]))
    assert missing.startswith("gateway_a: scistream_control_server is not set, and is to be HOST:PORT")
    drain = refused(paper_site.close(stream_drain="a while"))
    assert "stream_drain is a while, and is to be a number of seconds." in drain
    sources = paper_site.hosts["gateway_a"] | {"scistream_control_server": f"{_NOBODY}:{_PORT}"}
    paper_site.hosts["gateway_a"] = sources
    words = refused(paper_site.open(stream_targets=["127.0.60.100:5074"], stream_sources=["10.0.0.7/8"]))
    assert words.startswith("from: ")
    assert "has host bits set" in words


def test_stream_info_sees_what_is_there(gateways: Site, echo_target: Any, tmp_path: Path) -> None:
    ends = {
        option: {"control_server": server.endpoint, "server_certificate": str(server.certificate)}
        for option, server in (("from", gateways.servers["gateway_a"]), ("to", gateways.servers["gateway_b"]))
    }
    info = {"name": "before", "scistream.core.stream_info": {"name": "beam", **ends}}
    run = run_play(
        [
            info,
            {"scistream.core.stream": {"name": "beam", "targets": [echo_target.endpoint], **ends}},
            {**info, "name": "after"},
            {"name": "unnamed", "scistream.core.stream_info": {"name": "other", **ends}},
            {"scistream.core.stream": {"name": "beam", "state": "absent", **ends}},
        ],
        directory=tmp_path,
    )
    assert run.code == 0, run.output
    assert run.named("before")["stream"] is run.named("unnamed")["stream"] is None
    seen = run.named("after")["stream"]
    assert (seen["name"], seen["state"], seen["targets"]) == ("beam", "active", [echo_target.endpoint])
    assert seen["inbound"]["direction"] == "inbound"
    assert seen["outbound"]["targets"] == seen["inbound"]["entry_points"]


_HOSTILE = "</td><script>alert('{{ 7 * 7 }}')</script><img src=x onerror=alert(1)>\x1b[2J\"'&"


class HostileControlServer(OperationsServicer):
    """A control server that another facility wrote: it says what hurts whoever shows it."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"{_NOBODY}:{port}"
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4), options=(("grpc.so_reuseport", 0),))
        add_OperationsServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.endpoint)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        self._server.start()
        try:
            yield
        finally:
            self._server.stop(grace=None).wait()

    def GetServerFacts(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return wire.ServerFacts(
            version=_HOSTILE,
            listen_address=_HOSTILE,
            port_range=_HOSTILE,
            ports_free=1,
            engine=_HOSTILE,
            engines=[wire.Engine(name=_HOSTILE, installed=True, version=_HOSTILE, encryptions=[_HOSTILE])],
            authentication=_HOSTILE,
            certificate_names=[_HOSTILE],
            certificate_expires=4e9,
            warnings=[_HOSTILE],
            old_clients=_HOSTILE,
        )

    def ListSessions(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        words = dict.fromkeys(("state", "engine", "encryption", "owner", "failure", "cipher", "peer"), _HOSTILE)
        addresses = {"entry_points": ["127.0.60.9:1"], "targets": ["127.0.60.9:2"]}
        failed = wire.Session(uid="hostile", direction="inbound", warnings=[_HOSTILE], **words | addresses)
        return wire.ListSessionsReply(sessions=[failed])


def await_cipher(gateways: Site) -> None:
    """A control server asks its data servers every few seconds what they agreed on."""
    deadline = time.monotonic() + 30
    while not all(session.cipher for name in ("gateway_a", "gateway_b") for session in gateways.sessions(name)):
        assert time.monotonic() < deadline, "no cipher was told"
        time.sleep(0.2)


@pytest.mark.timeout(_LONG)
def test_the_status_tells_of_all_gateways_and_writes_one_page(
    gateways: Site, echo_target: Any, round_trip: Any, tmp_path: Path
) -> None:
    stream = opened(gateways.open(stream_targets=[echo_target.endpoint]))["stream"]
    round_trip(stream["entry_points"][0], b"some bytes")
    await_cipher(gateways)
    gateways.hosts["gateway_gone"] = {"scistream_control_server": f"{_NOBODY}:24699"}
    gateways.hosts["gateway_unset"] = {}
    hostile = HostileControlServer(24698)
    gateways.hosts["hostile"] = {"scistream_control_server": hostile.endpoint, "scistream_insecure_plain_text": True}
    page = tmp_path / "pages" / "status.html"
    page.parent.mkdir()
    with hostile.serving():
        checked = gateways.run("status", "--check", status_page=str(page))
        assert checked.code == 0, checked.output
        assert not page.exists()
        run = gateways.run("status", status_page=str(page))
        strict = gateways.run("status", status_page="", status_strict=True)
        limited = gateways.run("status", "--limit", "gateway_a", status_page="", status_strict=True)

    assert run.code == 0, run.output
    assert not any(one.changed for one in run.results)
    report = run.named("Ask all control servers")
    told = {gateway["name"]: gateway for gateway in report["gateways"]}
    assert [name for name, gateway in told.items() if not gateway["reached"]] == ["gateway_gone", "gateway_unset"]
    assert told["gateway_gone"]["failure"]["code"] == "CONTROL_SERVER_UNREACHABLE"
    assert told["gateway_unset"]["failure"]["code"] == "BAD_CONFIGURATION"
    assert told["gateway_a"]["facility"] == "facility_a"
    assert told["gateway_a"]["sessions"][0]["name"] == "beam"
    for words in (
        f"gateway_gone: cannot connect to control server {_NOBODY}:24699",
        "gateway_a: whoever reaches its control port may do everything: authentication is off",
        "gateway_b: deployed clients are served unencrypted: old_clients is plain",
        "1 of 10 used (24610-24619), 9 free",
        f"stream beam ({stream['uid']})",
        "lease no end",
    ):
        assert words in said(run, "Say what there is"), words
    assert "\x1b[2J" not in run.output
    assert "alert('49')" not in run.output

    html = page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert_harmless(html)
    for words in ("gateway_gone", "beam", stream["uid"], stream["entry_points"][0], "TLS_AES", "<svg", "alert("):
        assert words in html, words
    assert "{{ 7 * 7 }}" in html

    assert strict.code != 0
    assert "gateway_gone: cannot connect" in strict.output
    assert limited.code == 0, limited.output
    assert "gateway_gone" not in limited.output


def assert_harmless(html: str) -> None:
    """Nothing of the page is executed or loaded: all tags are the template's own."""
    loading = {
        "script",
        "img",
        "iframe",
        "link",
        "object",
        "embed",
        "base",
        "form",
        "a",
        "image",
        "use",
        "foreignobject",
    }
    assert elements_of(html) & loading == set()
    attributes = attributes_of(html)
    assert not [name for name in attributes if name.startswith("on") or name in {"src", "href", "style", "xlink:href"}]
    assert "default-src 'none'; style-src 'unsafe-inline'" in attributes["content"]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
