"""HAProxy and Nginx with TLS, source lists and UDP: what is rendered, and what is read of what they tell."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from pathlib import Path

import pytest
from cryptography import x509

from scistream.addresses import Endpoint, Network
from scistream.certificates.sessions import gateway_name
from scistream.engines import ENGINES, Installation, Plan, Route
from scistream.engines.base import Handshake
from scistream.engines.haproxy import HAProxy, _handshake
from scistream.engines.host import Host
from scistream.engines.marks import ProcessMark
from scistream.engines.nginx import Nginx
from scistream.engines.processes import Listener, parse_listeners
from scistream.engines.texts import SecretText
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import MOCK_UID, Direction, Encryption, Transport, Uid

UID = Uid("bd9f1a7e-04d7-11f0-b44c-946dae415862")
KEY = bytes(range(SESSION_KEY_SIZE))
HOST = Host(cores=4, descriptors=65536, pipe_bytes=64 << 20, must_stay_root=False, memory=16 << 30)
VERSIONS = {"haproxy": "2.6.12", "nginx": "1.22.1"}
ROUTE = Route(Endpoint("127.0.10.1", 21000), Endpoint("192.0.2.7", 5074))
SOURCES: tuple[Network, ...] = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))
CLIENT: Peer = (ipaddress.ip_address("192.0.2.7"), 54008)
NAMES = list(VERSIONS)

every_tls = pytest.mark.parametrize("name", NAMES)


def make_plan(
    direction: Direction = Direction.INBOUND,
    *,
    uid: Uid = UID,
    key: bytes | None = KEY,
    directory: Path = Path("/state"),
    encryption: Encryption = Encryption.TLS,
    transport: Transport = Transport.TCP,
    sources: tuple[Network, ...] = (),
) -> Plan:
    return Plan(uid, direction, (ROUTE,), directory, uid, key, transport, sources, encryption=encryption)


def files(name: str, plan: Plan, host: Host = HOST, version: str | None = None) -> dict[Path, str]:
    installation = Installation(Path("/usr/sbin", name), version or VERSIONS[name], host=host)
    return dict(ENGINES[name].render(plan, installation))


def conf(name: str, plan: Plan, host: Host = HOST, version: str | None = None) -> str:
    return files(name, plan, host, version)[plan.path("conf")]


def line(text: str, beginning: str) -> str:
    (found,) = re.findall(rf"^ *({re.escape(beginning)}.*)$", text, re.MULTILINE)
    return str(found)


def test_u03_haproxy_proves_itself_and_wants_proof_at_the_inbound_end() -> None:
    text = conf("haproxy", make_plan())
    bind = line(text, "bind ")
    assert bind.startswith(f"bind 127.0.10.1:21000 ssl crt {UID}.pem ca-file {UID}.ca verify required ")
    assert " ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256:" in bind
    assert line(text, "server ") == "server target 192.0.2.7:5074"


def test_u03_haproxy_proves_itself_and_wants_proof_at_the_outbound_end() -> None:
    text = conf("haproxy", make_plan(Direction.OUTBOUND))
    server = line(text, "server ")
    assert server.startswith(f"server target 192.0.2.7:5074 ssl crt {UID}.pem ca-file {UID}.ca verify required ")
    assert f" verifyhost {gateway_name(UID, Direction.INBOUND)} " in server
    assert " ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256:" in server
    assert line(text, "bind ") == "bind 127.0.10.1:21000"


@pytest.mark.parametrize(
    ("direction", "prefix"), [(Direction.INBOUND, "ssl_"), (Direction.OUTBOUND, "proxy_ssl_")], ids=["in", "out"]
)
def test_u03_nginx_proves_itself_and_wants_proof(direction: Direction, prefix: str) -> None:
    text = conf("nginx", make_plan(direction))
    anchor = "ssl_client_certificate" if direction is Direction.INBOUND else "proxy_ssl_trusted_certificate"
    wanted = "ssl_verify_client on;" if direction is Direction.INBOUND else "proxy_ssl_verify on;"
    for words in (
        f"{prefix}certificate {UID}.pem;",
        f"{prefix}certificate_key {UID}.pem;",
        f"{prefix}protocols TLSv1.3;",
        f"{prefix}conf_command Ciphersuites TLS_AES_128_GCM_SHA256:",
        f"{anchor} {UID}.ca;",
        wanted,
    ):
        assert f"    {words}" in text
    assert ("proxy_ssl on;" in text) == (direction is Direction.OUTBOUND)
    assert (" ssl so_keepalive=on;" in text) == (direction is Direction.INBOUND)
    named = f"proxy_ssl_name {gateway_name(UID, Direction.INBOUND)};"
    assert (named in text) == (direction is Direction.OUTBOUND)


@every_tls
@pytest.mark.parametrize("direction", list(Direction))
def test_u02_suites_encrypt_and_authenticate_and_sessions_are_not_taken_up_again(
    name: str, direction: Direction
) -> None:
    text = conf(name, make_plan(direction))
    suites = re.findall(r"TLS_[A-Z0-9_]+", text)
    assert suites == ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    cures = {
        ("haproxy", Direction.INBOUND): ["no-tls-tickets", "tune.ssl.cachesize 0"],
        ("haproxy", Direction.OUTBOUND): ["no-ssl-reuse"],
        ("nginx", Direction.INBOUND): ["ssl_session_cache off;", "ssl_session_tickets off;"],
        ("nginx", Direction.OUTBOUND): ["proxy_ssl_session_reuse off;"],
    }
    assert [words for words in cures[name, direction] if words not in text] == []


@every_tls
def test_u03_without_encryption_there_are_no_certificates(name: str) -> None:
    plan = make_plan(encryption=Encryption.NONE, key=None)
    made = files(name, plan)
    assert list(made) == [plan.path("conf")]
    assert "ssl" not in made[plan.path("conf")].replace("httpclient.ssl", "")


@every_tls
def test_u01_each_end_has_its_own_certificate_under_the_same_authority(name: str) -> None:
    ends = [make_plan(direction) for direction in Direction]
    made = [files(name, plan) for plan in ends]
    roots, leaves = (
        [x509.load_pem_x509_certificate(end[plan.path(kind)].encode()) for plan, end in zip(ends, made, strict=True)]
        for kind in ("ca", "pem")
    )
    assert roots[0].public_key() == roots[1].public_key()
    assert leaves[0].public_key() != leaves[1].public_key()
    for root, leaf in zip(roots, leaves, strict=True):
        leaf.verify_directly_issued_by(root)


@every_tls
def test_u05_secrets_are_in_their_files_only(name: str) -> None:
    plan = make_plan()
    made = files(name, plan)
    secret = {plan.path("pem"), plan.path("psk")}
    assert {path for path, text in made.items() if "PRIVATE" in text or KEY.hex() in text} == secret
    assert all(isinstance(made[path], SecretText) for path in secret)
    # Who starts the data server again finds the key there.
    assert made[plan.path("psk")] == f"{UID}:{KEY.hex()}\n"


@every_tls
def test_u06_no_key_and_the_published_uid_carry_nothing(name: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        files(name, make_plan(key=None))
    assert caught.value.code is Code.SESSION_KEY_MISSING
    with pytest.raises(SciStreamError) as caught:
        files(name, make_plan(uid=Uid(MOCK_UID)))
    assert caught.value.code is Code.UID_PUBLISHED


@every_tls
@pytest.mark.parametrize("encryption", [Encryption.TLS_PSK, Encryption.LEGACY_PSK])
def test_an_encryption_that_it_does_not_have_is_refused_by_name(name: str, encryption: Encryption) -> None:
    with pytest.raises(SciStreamError, match=f"does not carry tcp with encryption {encryption.value}") as caught:
        files(name, make_plan(encryption=encryption))
    assert caught.value.code is Code.ENGINE_CANNOT


@every_tls
def test_u63_udp_is_plain_or_refused(name: str) -> None:
    with pytest.raises(SciStreamError, match=r"UDP goes unencrypted|does not carry udp") as caught:
        files(name, make_plan(transport=Transport.UDP))
    assert caught.value.code is Code.ENGINE_CANNOT


def test_u63_nginx_carries_udp_without_what_only_tcp_has() -> None:
    text = conf("nginx", make_plan(transport=Transport.UDP, encryption=Encryption.NONE, sources=SOURCES))
    assert line(text, "listen ") == "listen 127.0.10.1:21000 udp reuseport rcvbuf=8m sndbuf=8m;"
    assert "proxy_timeout 10m;" in text
    for word in ("keepalive", "half_close", "proxy_responses", "ssl"):
        assert word not in text
    assert "deny all;" in text


def test_u03_haproxys_source_list_comes_before_the_proof_where_there_is_one() -> None:
    acls = "".join(f"    acl sources src {network}\n" for network in SOURCES)
    encrypted = conf("haproxy", make_plan(sources=SOURCES))
    assert f"{acls}    # Strangers are not even spoken to" in encrypted
    assert "    tcp-request connection reject unless sources\n" in encrypted
    for plan in (
        make_plan(Direction.OUTBOUND, sources=SOURCES),
        make_plan(encryption=Encryption.NONE, sources=SOURCES),
    ):
        assert f"{acls}    tcp-request content reject unless sources\n" in conf("haproxy", plan)
    assert "sources" not in conf("haproxy", make_plan())


@pytest.mark.parametrize("direction", list(Direction))
def test_u03_nginxs_source_list_ends_with_nobody(direction: Direction) -> None:
    text = conf("nginx", make_plan(direction, sources=SOURCES))
    assert "    allow 192.0.2.0/24;\n    allow 2001:db8::/32;\n    deny all;\n" in text
    assert "deny" not in conf("nginx", make_plan(direction))


@pytest.mark.parametrize(
    ("memory", "descriptors", "size"),
    [(64 << 30, 65536, 512), (16 << 30, 65536, 512), (8 << 30, 65536, 256), (2 << 30, 65536, 64), (1 << 28, 65536, 32)],
)
def test_buffers_of_slow_readers_keep_to_a_part_of_the_memory(memory: int, descriptors: int, size: int) -> None:
    host = Host(2, descriptors, None, must_stay_root=False, memory=memory)
    text = conf("haproxy", make_plan(), host)
    assert f"tune.bufsize {size << 10}\n" in text
    connections = int(line(text, "maxconn ").split()[1])
    assert connections * (size << 10) <= memory / 8 or size == 32
    assert f"proxy_buffer_size {size}k;" in conf("nginx", make_plan(), host)


@pytest.mark.parametrize("direction", list(Direction))
def test_u44_an_encrypted_idle_stream_is_not_cut(direction: Direction) -> None:
    text = conf("haproxy", make_plan(direction))
    assert "timeout server 24d" in text
    # The client's time bounds the handshake; the tunnel's takes its place.
    inbound = direction is Direction.INBOUND
    assert ("timeout tunnel 24d" in text) == inbound
    assert ("timeout client 24d" in text) == (not inbound)
    assert ("timeout client 10s" in text) == inbound
    assert "proxy_timeout 24d;" in conf("nginx", make_plan(direction))
    assert ("ssl_handshake_timeout 10s;" in conf("nginx", make_plan(direction))) == inbound


def test_an_older_haproxy_is_not_asked_for_words_that_it_does_not_have() -> None:
    assert "err_str" not in conf("haproxy", make_plan(), version="2.4.22")
    assert "%[fc_err_str]" in conf("haproxy", make_plan())


def test_haproxys_refused_peers_are_strangers_at_either_end_and_those_kept_out() -> None:
    answer = (
        "# pxname,svname,scur,stot,bin,bout,dreq,dcon,dses,-,ssl_sess,ssl_failed_handshake,\n"
        "route-1,FRONTEND,1,4,10,20,1,2,3,-,4,5,\n"
        "route-1,target,1,4,10,20,0,,,-,4,6,\n"
        "<HTTPCLIENT>,<HTTPSCLIENT>,0,0,0,0,0,,,-,7,7,\n"
    )
    assert HAProxy().read_traffic(answer) == Traffic(1, 4, 10, 20, 17)


def test_haproxy_tells_of_its_last_handshake() -> None:
    words = [
        "proc.cipher: type=str value=<TLS_AES_128_GCM_SHA256>",
        "proc.subject: type=str value=</O=SciStream inbound gateway/CN=4a5b>",
        "proc.fingerprint: type=str value=<0EB4>",
    ]
    told = Handshake("TLS_AES_128_GCM_SHA256", "/O=SciStream inbound gateway/CN=4a5b (SHA-256 0eb4)")
    assert _handshake("\n".join(words) + "\n\n") == told
    for answer in ("Variable not found.\n" * 3, "", words[0]):
        assert _handshake(answer) is None


def ledger_line(verdict: str, status: int = 200, size: int = 7, cipher: str = "TLS_AES_128_GCM_SHA256") -> str:
    return f"192.0.2.7 54008 {size} 9 {status} 77*16 {cipher} ddfc {verdict}|CN=4a5b,O=SciStream outbound gateway\n"


def test_nginx_tells_of_an_encrypted_connection_in_several_lines() -> None:
    accepted: dict[str, list[Peer]] = {}
    own: Peer = (ipaddress.ip_address("2001:db8::1"), 40000)

    def count(words: str) -> Count:
        return Nginx().count(make_plan(), words, accepted)

    note = "2026/11/23 05:41:50 [info] 77#77:"
    assert count(f"{note} *16 client 192.0.2.7:54008 connected to 127.0.10.1:21000\n") == Count(Traffic())
    assert count(f"{note} *17 client [::1]:5 connected to 127.0.10.1:21000\n") == Count(Traffic())
    assert count(f"{note} *16 proxy [2001:db8::1]:40000 connected to [2001:db8::7]:5074\n") == Count(Traffic())
    assert accepted["77*16"] == [CLIENT, own]
    assert count(f"{note} *16 upstream disconnected, bytes from/to client:7/9\n") == Count(Traffic())
    assert count(ledger_line("SUCCESS")) == Count(Traffic(0, 1, 7, 9, 0), [CLIENT, own])
    assert list(accepted) == ["77*17"]


@pytest.mark.parametrize("verdict", ["NONE", "FAILED:unable to verify the first certificate", "-"])
def test_u01_nginx_counts_who_did_not_prove_itself(verdict: str) -> None:
    refused = Count(Traffic(0, 0, 0, 9, 1), [CLIENT])
    assert Nginx().count(make_plan(), ledger_line(verdict, 500, 0), {}) == refused
    # The outbound end's clients are applications, which prove nothing.
    assert Nginx().count(make_plan(Direction.OUTBOUND), ledger_line("-"), {}) == Count(Traffic(0, 1, 7, 9, 0), [CLIENT])


def test_u01_nginx_counts_impostors() -> None:
    words = "upstream SSL certificate verify error: (21:x) while SSL handshaking to upstream, client: 192.0.2.7"
    line = f"2026/11/23 05:41:53 [error] 7#7: *3 {words}\n"
    assert Nginx().count(make_plan(Direction.OUTBOUND), line, {}) == Count(Traffic(refused_peers=1))


def test_nginxs_ledger_may_have_lines_that_were_cut() -> None:
    for words in ("192.0.2.7 540", "", "192.0.2.7 54008 7 9 200 77*16 TLS"):
        with pytest.raises(ValueError, match="no line"):
            Nginx().count(make_plan(), words, {})


def test_nginx_tells_of_the_last_handshake_that_succeeded(tmp_path: Path) -> None:
    plan = make_plan(directory=tmp_path)

    def told() -> Handshake | None:
        return asyncio.run(Nginx().handshake(plan, ProcessMark(1, 1)))

    assert told() is None
    ledger = plan.path("traffic")
    ledger.write_text(ledger_line("FAILED:x") + "2026/11/23 05:41:50 [info] 77#77: *16 client sent no required\n")
    assert told() is None
    lines = [ledger_line("SUCCESS", cipher="OLD"), ledger_line("SUCCESS"), ledger_line("NONE", cipher="(NONE)")]
    ledger.write_text("x" * 70000 + "\n" + "".join(lines) + "192.0.2.7 54")
    assert told() == Handshake("TLS_AES_128_GCM_SHA256", "CN=4a5b,O=SciStream outbound gateway (SHA-1 ddfc)")


def test_u63_bound_udp_sockets_are_read_whatever_their_order() -> None:
    table = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref pointer\n",
        "  10: 0A0A007F:5208 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 11 2 0 0\n",
        "  11: 0A0A007F:5208 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 2 0 0\n",
    ]
    found = [Listener(ipaddress.ip_address("127.0.10.10"), 21000, 12)]
    assert list(parse_listeners(table, "07")) == found
    assert list(parse_listeners(table)) == []
