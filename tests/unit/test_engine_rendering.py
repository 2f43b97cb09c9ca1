"""What the engines render. Pure functions of a plan and an installation: nothing here runs or listens."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from cryptography import x509

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Installation, Plan, Route, find_engine
from scistream.engines.abilities import Wishes
from scistream.engines.host import Host
from scistream.engines.proxy import Proxy
from scistream.engines.texts import fill, without_places
from scistream.errors import Code, SciStreamError
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Uid

UID = Uid("bd9f1a7e-04d7-11f0-b44c-946dae415862")
KEY = bytes(range(SESSION_KEY_SIZE))
HOST = Host(cores=4, descriptors=65536, pipe_bytes=64 << 20, must_stay_root=False)
VERSIONS = {"haproxy": "2.6.12", "nginx": "1.22.1", "stunnel": "5.68"}

HAPROXY_SAYS = """[NOTICE]   (77) : haproxy version is 2.6.12-1+deb12u2
[NOTICE]   (77) : path to executable is /usr/sbin/haproxy
[ALERT]    (77) : config : [/home/u/.scistream/test.conf:15] : 'server s' : could not resolve 'no-such-host.invalid'.
"""
NGINX_SAYS = """nginx: [warn] something in /home/u/.scistream/test.conf:2
nginx: [emerg] host not found in upstream "no-such-host.invalid:5074" in /home/u/.scistream/test.conf:15
nginx: configuration file /home/u/.scistream/test.conf test failed
"""


PROXIES = {name: engine for name, engine in ENGINES.items() if isinstance(engine, Proxy)}


def make_plan(
    *routes: tuple[str, str],
    direction: Direction = Direction.INBOUND,
    key: bytes | None = KEY,
    encryption: Encryption = Encryption.NONE,
) -> Plan:
    pairs = routes or (("127.0.10.1:21000", "192.0.2.7:5074"),)
    made = tuple(Route(Endpoint.parse(entry), Endpoint.parse(target)) for entry, target in pairs)
    return Plan(UID, direction, made, Path("/state"), UID, key, encryption=encryption)


def files_of(name: str, plan: Plan, host: Host = HOST, version: str | None = None) -> dict[Path, str]:
    """What the engine renders; without encryption, where it can do without."""
    encryptions = PROXIES[name].encryptions
    if plan.encryption not in encryptions:
        plan = dataclasses.replace(plan, encryption=encryptions[0])
    installation = Installation(Path("/usr/sbin", name), version or VERSIONS[name], host=host)
    return dict(PROXIES[name].render(plan, installation))


def render(name: str, plan: Plan, host: Host = HOST, version: str | None = None) -> str:
    return files_of(name, plan, host, version)[plan.path("conf")]


def to(target: Endpoint) -> Route:
    return Route(Endpoint("127.0.10.1", 21000), target)


every_engine = pytest.mark.parametrize("name", list(PROXIES))


@every_engine
def test_u04_binds_the_entry_points_address(name: str) -> None:
    text = render(name, make_plan(("127.0.10.1:21000", "192.0.2.7:5074"), ("127.0.10.1:21001", "192.0.2.8:5074")))
    bound = re.findall(r"^\s*(?:bind|listen|accept =) ([\d.:]+)", text, re.MULTILINE)
    assert bound == ["127.0.10.1:21000", "127.0.10.1:21001"]


@every_engine
def test_u07_a_newline_never_reaches_a_configuration(name: str) -> None:
    for host in (
        "192.0.2.7\nglobal",
        "192.0.2.7\n",
        "\n192.0.2.7",
        "a b",
        "a;b",
        "a}b",
        "a{{b",
        'a"b',
        "a#b",
        "a\\b",
        "$a",
    ):
        # Neither through the parser nor past it.
        for build in (lambda host=host: Endpoint.parse(f"{host}:80"), lambda host=host: to(Endpoint(host, 80))):
            with pytest.raises(SciStreamError) as caught:
                build()
            assert caught.value.code is Code.BAD_ADDRESS
    text = render(name, make_plan(("127.0.10.1:21000", "Target-1.Example.ORG:5074")))
    assert "target-1.example.org:5074" in text
    assert "Target" not in text


def test_u07_only_canonical_addresses_make_a_route() -> None:
    for host in ("0:0:0:0:0:0:0:1", "EXAMPLE.org", "[::1]"):
        with pytest.raises(SciStreamError, match=r"canonical form|needs brackets|not an address"):
            to(Endpoint(host, 80))


def test_u08_a_stem_is_the_uid_and_nothing_else() -> None:
    plan = make_plan()
    both = Plan(UID, Direction.OUTBOUND, plan.routes, plan.directory, f"{UID}.outbound", encryption=Encryption.NONE)
    assert both.path("log") == Path(f"/state/{UID}.outbound.log")
    for stem in ("../x", f"{UID}.inbound", "", f"{UID}/x"):
        with pytest.raises(SciStreamError) as caught:
            Plan(UID, Direction.OUTBOUND, plan.routes, plan.directory, stem, encryption=Encryption.NONE)
        assert caught.value.code is Code.BAD_UID


def test_u32_a_plan_has_routes() -> None:
    with pytest.raises(SciStreamError) as caught:
        Plan(UID, Direction.INBOUND, (), Path("/state"), UID, encryption=Encryption.NONE)
    assert caught.value.code is Code.NO_TARGETS


@pytest.mark.parametrize(
    ("name", "entry_point", "target"),
    [
        ("haproxy", "bind [::1]:21000\n", "server target [2001:db8::7]:5074\n"),
        ("nginx", "listen [::1]:21000 so_keepalive=on;", "proxy_pass [2001:db8::7]:5074;"),
        ("stunnel", "accept = ::1:21000\n", "connect = 2001:db8::7:5074\n"),
    ],
)
def test_u58_ipv6_as_each_engine_writes_it(name: str, entry_point: str, target: str) -> None:
    text = render(name, make_plan(("[::1]:21000", "[2001:DB8:0::7]:5074")))
    assert entry_point in text
    assert target in text


@pytest.mark.parametrize(("name", "words"), [("haproxy", "bind [::]:21000 v6only"), ("stunnel", "a:IPV6_V6ONLY=1")])
def test_u04_all_ipv6_addresses_do_not_mean_ipv4(name: str, words: str) -> None:
    assert words in render(name, make_plan(("[::]:21000", "192.0.2.7:5074")))
    assert words not in render(name, make_plan(("[::1]:21000", "192.0.2.7:5074")))


def test_haproxy_splices_with_all_three_options() -> None:
    text = render("haproxy", make_plan())
    for option in ("splice-auto", "splice-request", "splice-response"):
        assert f"option {option}\n" in text


def test_u72_haproxy_3_0_does_not_splice() -> None:
    assert "splice" not in render("haproxy", make_plan(), version="3.0.0").replace("HAProxy splices", "")
    assert "splice-auto" in render("haproxy", make_plan(), version="3.2.1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("haproxy", ["timeout client 24d", "timeout server 24d", "option clitcpka", "option srvtcpka"]),
        ("nginx", ["proxy_timeout 24d;", "so_keepalive=on", "proxy_socket_keepalive on;"]),
        ("stunnel", ["TIMEOUTidle = 2073600", "socket = l:SO_KEEPALIVE=1", "socket = r:SO_KEEPALIVE=1"]),
    ],
)
def test_u44_an_idle_stream_is_not_cut(name: str, words: list[str]) -> None:
    text = render(name, make_plan())
    assert [word for word in words if word not in text] == []


def test_u72_nginx_keeps_half_closed_connections_or_refuses() -> None:
    assert "proxy_half_close on;" in render("nginx", make_plan())
    with pytest.raises(
        SciStreamError, match=r"half-closed connections need 1\.21\.4 or newer, and this is 1\.18\.0"
    ) as e:
        render("nginx", make_plan(), version="1.18.0")
    assert e.value.code is Code.ENGINE_CANNOT


@pytest.mark.parametrize(
    ("descriptors", "connections", "pipes"), [(1 << 20, 4096, 256), (65536, 4096, 256), (1024, 319, 128), (256, 31, 32)]
)
def test_haproxy_asks_for_no_more_descriptors_than_there_are(descriptors: int, connections: int, pipes: int) -> None:
    text = render("haproxy", make_plan(), Host(4, descriptors, None, must_stay_root=False))
    assert f"maxconn {connections}\n" in text
    assert f"maxpipes {pipes}\n" in text


@pytest.mark.parametrize(
    ("pipe_bytes", "size"), [(None, 1 << 20), (64 << 20, 256 << 10), (1 << 30, 1 << 20), (1 << 20, 64 << 10)]
)
def test_haproxys_pipes_keep_the_users_bound(pipe_bytes: int | None, size: int) -> None:
    text = render("haproxy", make_plan(), Host(4, 65536, pipe_bytes, must_stay_root=False))
    assert f"tune.pipesize {size}\n" in text


def test_haproxy_starts_with_more_cores_than_it_has_threads() -> None:
    assert "nbthread 64\n" in render("haproxy", make_plan(), Host(256, 65536, None, must_stay_root=False))


def test_nginx_changes_no_user_where_root_may_not() -> None:
    assert "user root root;" in render("nginx", make_plan(), Host(4, 65536, None, must_stay_root=True))
    assert "user " not in render("nginx", make_plan()).replace("the user", "")


def test_nginx_loads_its_stream_module_where_it_is_a_file() -> None:
    plan = make_plan()
    installation = Installation(Path("/usr/sbin/nginx"), "1.22.1", (Path("/opt/modules/ngx_stream_module.so"),), HOST)
    text = dict(PROXIES["nginx"].render(plan, installation))[plan.path("conf")]
    assert 'load_module "/opt/modules/ngx_stream_module.so";' in text
    assert "load_module" not in render("nginx", plan)


def test_u02_stunnel_speaks_tls_1_3_and_one_aead_suite() -> None:
    text = render("stunnel", make_plan())
    assert "sslVersionMin = TLSv1.3\n" in text
    assert "ciphersuites = TLS_AES_128_GCM_SHA256\n" in text
    assert "NULL" not in text


def test_u05_the_key_is_in_the_key_file_only() -> None:
    plan = make_plan(direction=Direction.OUTBOUND)
    files = files_of("stunnel", plan)
    assert files.pop(plan.path("psk")) == f"{UID}:{KEY.hex()}\n"
    assert KEY.hex() not in "".join(files.values())
    assert KEY.hex() not in repr(plan)
    assert repr(KEY) not in repr(plan)


def test_u01_the_outbound_side_trusts_no_certificate() -> None:
    plan = make_plan(direction=Direction.OUTBOUND)
    anchors = [files_of("stunnel", plan)[plan.path("ca")] for _ in range(2)]
    assert "verifyChain = yes\n" in render("stunnel", plan)
    assert f"CAfile = {UID}.ca\n" in render("stunnel", plan)
    assert "PRIVATE" not in anchors[0]
    keys = [x509.load_pem_x509_certificate(anchor.encode()).public_key() for anchor in anchors]
    assert keys[0] != keys[1]


def test_u06_stunnel_carries_nothing_without_a_key() -> None:
    with pytest.raises(SciStreamError, match=r"no key came with session bd9f1a7e.*Stunnel") as caught:
        render("stunnel", make_plan(key=None))
    assert caught.value.code is Code.SESSION_KEY_MISSING


def test_a_short_key_makes_no_plan() -> None:
    with pytest.raises(ValueError, match="size"):
        make_plan(key=b"short")


def test_the_sides_of_a_stunnel_pair() -> None:
    inbound = render("stunnel", make_plan())
    outbound = render("stunnel", make_plan(direction=Direction.OUTBOUND))
    assert "client = yes" not in inbound
    assert "PSKidentity" not in inbound
    assert "client = yes\n" in outbound
    assert f"PSKidentity = {UID}\n" in outbound


def test_every_template_names_what_it_is_and_misses_no_value() -> None:
    for name in PROXIES:
        assert f"inbound session {UID}: written by scistream" in render(name, make_plan())
    with pytest.raises(Exception, match="undefined"):
        fill("nginx.conf.j2", plan=make_plan())


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("haproxy", "haproxy"),
        ("Haproxy", "haproxy"),
        ("HAProxy", "haproxy"),
        ("HaproxySubprocess", "haproxy"),
        ("NGINX", "nginx"),
        ("NginxSubprocess", "nginx"),
        ("Stunnel", "stunnel"),
        ("StunnelSubprocess", "stunnel"),
        (" stunnelsubprocess ", "stunnel"),
    ],
)
def test_u48_case_does_not_matter_in_an_engines_name(word: str, name: str) -> None:
    assert find_engine(word) is ENGINES[name]


@pytest.mark.parametrize("word", ["Mock", "", "subprocess", "haproxy2", "haproxysubprocesssubprocess"])
def test_u47_an_unknown_engine_lists_the_engines(word: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        find_engine(word)
    assert caught.value.code is Code.ENGINE_UNKNOWN
    assert f"there is no engine {word!r}" in str(caught.value)
    assert "Choose one of haproxy, nginx, stunnel" in str(caught.value)


def test_what_protects_the_bytes_between_the_gateways() -> None:
    """What `tls` stands for comes first."""
    best = {name: engine.encryptions[0] for name, engine in ENGINES.items()}
    assert best["haproxy"] is best["nginx"] is Encryption.TLS
    assert best["stunnel"] is Encryption.TLS_PSK
    assert best["nftables"] is Encryption.NONE
    assert {name for name, engine in ENGINES.items() if Encryption.NONE in engine.encryptions} == set(best) - {
        "stunnel"
    }


@pytest.mark.parametrize(("name", "words"), [("haproxy", HAPROXY_SAYS), ("nginx", NGINX_SAYS)])
def test_a_rejection_tells_remote_callers_errors_and_no_places(name: str, words: str) -> None:
    told = PROXIES[name].rejection(words)
    assert "no-such-host.invalid" in told
    assert "test.conf:15" in told
    assert not re.search(r"/home|/usr|NOTICE|warn", told)


def test_words_without_errors_are_told_as_they_are() -> None:
    assert PROXIES["haproxy"].rejection("Segmentation fault\n") == "Segmentation fault"
    assert PROXIES["haproxy"].rejection("") == "it said nothing"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("in /a/b.c/test.conf:3", "in test.conf:3"),
        ("10.0.0.0/8, https://www.example.org/x", "10.0.0.0/8, https://www.example.org/x"),
        ("<NOSRV> 0/0/0/-1/0 SC 1/1", "<NOSRV> 0/0/0/-1/0 SC 1/1"),
        ("open('/var/lib/x y')", "open('x y')"),
    ],
)
def test_places_of_this_host_are_left_out_of_words(words: str, told: str) -> None:
    assert without_places(words) == told


@pytest.mark.parametrize("host", ["unix", "UNIX"])
def test_u07_a_target_called_unix_is_no_socket_of_the_gateway(host: str) -> None:
    plan = make_plan(("127.0.10.1:21000", f"{host}:5074"))
    with pytest.raises(SciStreamError, match="Unix socket") as caught:
        render("nginx", plan)
    assert caught.value.code is Code.ENGINE_CANNOT
    assert "unix.example.org:5074" in render("nginx", make_plan(("127.0.10.1:21000", "unix.example.org:5074")))
    assert "unix:5074" in render("haproxy", plan)


def test_haproxy_takes_commands_of_its_user_only_and_in_the_state_directory() -> None:
    assert f"stats socket unix@{UID}.sock mode 600 level admin\n" in render("haproxy", make_plan())


def test_haproxy_loads_no_certificates_for_a_client_that_nobody_uses() -> None:
    assert "httpclient.ssl.verify none\n" in render("haproxy", make_plan())
    # Older ones do not know the word.
    assert "httpclient" not in render("haproxy", make_plan(), version="2.4.22")


def test_nginx_writes_a_line_for_a_connection_that_has_ended() -> None:
    assert f"access_log {UID}.traffic traffic;\n" in render("nginx", make_plan())


@pytest.mark.parametrize("direction", list(Direction))
def test_a_stunnel_that_drains_listens_on_a_socket_of_its_user_and_nowhere_else(direction: Direction) -> None:
    plan = make_plan(("[::]:21000", "192.0.2.7:5074"), ("127.0.10.1:21001", "192.0.2.8:5074"), direction=direction)
    installation = Installation(Path("/usr/bin/stunnel4"), "5.68", host=HOST)
    text = PROXIES["stunnel"].deaf(dataclasses.replace(plan, encryption=Encryption.TLS_PSK), installation)
    assert re.findall(r"^accept = (.*)$", text, re.MULTILINE) == [f"/proc/self/cwd/{UID}.sock"]
    assert "a:IPV6_V6ONLY" not in text
    # What running connections need stays as it is.
    assert f"PSKsecrets = {UID}.psk\n" in text
    assert "sslVersionMin = TLSv1.3\n" in text


def test_engines_that_a_signal_drains_have_no_need_of_another_configuration() -> None:
    with pytest.raises(SciStreamError, match="cannot stop accepting alone") as caught:
        PROXIES["nginx"].deaf(make_plan(), Installation(Path("/usr/sbin/nginx"), "1.22.1", host=HOST))
    assert caught.value.code is Code.ENGINE_CANNOT


def test_nobody_asks_for_plain_text_by_leaving_a_word_out() -> None:
    plan = make_plan()
    with pytest.raises(TypeError, match="encryption"):
        Plan(UID, plan.direction, plan.routes, plan.directory, UID)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="encryption"):
        Wishes()  # type: ignore[call-arg]
