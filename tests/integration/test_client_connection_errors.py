"""Why a control server cannot be talked to: each reason for real, on loopback, told by its words and code."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from old_protocol import OldControlServer
from scistream import certificates
from scistream.addresses import Endpoint
from scistream.client import ControlServer, connect
from scistream.errors import Code, ExitCode, SciStreamError
from scistream.terms import parse_uid

_HOST = "127.0.30.1"
_PORT = 23001
_POOL = range(23010, 23020)
_NOW = datetime.now(UTC)
_UID = parse_uid("nobody")


def _pair(directory: Path, names: list[str], *, days: int = 2, now: datetime = _NOW) -> tuple[Path, Path]:
    certificate, key = directory / "server.crt", directory / "server.key"
    certificates.issue(certificate, key, names=names, days=days, ca=None, now=now)
    return certificate, key


def _failure(
    certificate: Path | None, *, host: str = _HOST, plain: bool = False, timeout: float = 10
) -> SciStreamError:
    server = ControlServer(Endpoint(host, _PORT), certificate, plain_text=plain, timeout=timeout)
    with pytest.raises(SciStreamError) as caught, connect(server) as connection:
        connection.release(_UID)
    return caught.value


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return _pair(tmp_path, [_HOST])


@contextlib.contextmanager
def _listening(answer: bytes | None) -> Iterator[None]:
    """A service of another kind: it says `answer` to everybody, or accepts and says nothing."""
    held = []
    with socket.create_server((_HOST, _PORT)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


def test_u50_server_down(pair: tuple[Path, Path]) -> None:
    error = _failure(pair[0])
    assert error.code is Code.CONTROL_SERVER_UNREACHABLE
    assert error.exit_code is ExitCode.CONNECTION
    assert "nothing listens there (connection refused)" in str(error)
    assert f"{_HOST}:{_PORT}" in str(error)


def test_u50_name_does_not_resolve(pair: tuple[Path, Path]) -> None:
    error = _failure(pair[0], host="no-such-host.invalid")
    assert error.code is Code.CONTROL_SERVER_UNREACHABLE
    assert "the name no-such-host.invalid does not resolve" in str(error)


def test_u50_certificate_missing(tmp_path: Path) -> None:
    error = _failure(tmp_path / "none.crt")
    assert error.code is Code.CERTIFICATE_MISSING
    assert error.exit_code is ExitCode.CERTIFICATE
    assert str(tmp_path / "none.crt") in str(error)
    assert "--server-cert" in str(error)


def test_certificate_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "server.crt"
    path.write_text("no certificate\n")
    error = _failure(path)
    assert error.code is Code.CERTIFICATE_UNREADABLE
    assert str(path) in str(error)


def test_tls_client_against_plain_text_server(pair: tuple[Path, Path]) -> None:
    with OldControlServer(_HOST, _PORT, _POOL):
        error = _failure(pair[0])
    assert error.code is Code.PLAIN_TEXT_SERVER
    assert "speaks plain text, and TLS was wanted" in str(error)


def test_plain_text_client_against_tls_server(pair: tuple[Path, Path]) -> None:
    with OldControlServer(_HOST, _PORT, _POOL, *pair):
        error = _failure(None, plain=True)
    assert error.code is Code.TLS_SERVER
    assert "speaks TLS, and plain text was wanted" in str(error)


def test_certificate_expired(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [_HOST], days=1, now=_NOW - timedelta(days=5))
    with OldControlServer(_HOST, _PORT, _POOL, *pair):
        error = _failure(pair[0])
    assert error.code is Code.CERTIFICATE_EXPIRED
    assert f"the certificate {pair[0]} expired on {_NOW - timedelta(days=4):%Y-%m-%d}" in str(error)


def test_certificate_not_yet_valid(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [_HOST], now=_NOW + timedelta(days=3))
    with OldControlServer(_HOST, _PORT, _POOL, *pair):
        error = _failure(pair[0])
    assert error.code is Code.CERTIFICATE_NOT_YET_VALID
    assert str(pair[0]) in str(error)


def test_certificate_for_another_name(tmp_path: Path) -> None:
    pair = _pair(tmp_path, ["gateway.example", "192.0.2.7"])
    with OldControlServer(_HOST, _PORT, _POOL, *pair):
        error = _failure(pair[0])
    assert error.code is Code.CERTIFICATE_WRONG_NAME
    assert f"is for gateway.example, 192.0.2.7, and the control server was called {_HOST}" in str(error)


def test_certificate_of_another_server(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "other").mkdir()
    other, _ = _pair(tmp_path / "other", [_HOST])
    with OldControlServer(_HOST, _PORT, _POOL, *pair):
        error = _failure(other)
    assert error.code is Code.CERTIFICATE_NOT_TRUSTED
    assert str(other) in str(error)


def test_certificate_of_a_ca_vouches_and_the_shown_ones_fault_is_told(tmp_path: Path) -> None:
    ca, ca_key = tmp_path / "ca.crt", tmp_path / "ca.key"
    long_ago = _NOW - timedelta(days=5)
    certificates.issue_ca(ca, ca_key, name="facility A", days=30, now=long_ago)
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    certificates.issue(certificate, key, names=[_HOST], days=2, ca=(ca, ca_key), now=_NOW)
    with OldControlServer(_HOST, _PORT, _POOL, certificate, key):
        assert _failure(ca).code is Code.UID_UNKNOWN
    certificates.issue(certificate, key, names=[_HOST], days=2, ca=(ca, ca_key), now=long_ago)
    with OldControlServer(_HOST, _PORT, _POOL, certificate, key):
        error = _failure(ca)
    assert error.code is Code.CERTIFICATE_EXPIRED
    assert f"the certificate that {_HOST}:{_PORT} shows expired" in str(error)


@pytest.mark.parametrize("plain", [False, True])
def test_another_service_answers(pair: tuple[Path, Path], plain: bool) -> None:
    with _listening(b"SSH-2.0-OpenSSH_9.2p1\r\n" * 9):
        error = _failure(pair[0], plain=plain)
    assert error.code is Code.CONTROL_SERVER_UNREACHABLE
    assert "gRPC" in str(error)


def test_u51_a_silent_service_is_given_up(pair: tuple[Path, Path]) -> None:
    with _listening(None):
        error = _failure(pair[0], timeout=1)
    assert error.code is Code.CONTROL_SERVER_UNREACHABLE
    assert "no answer within 3 s" in str(error)


@pytest.mark.parametrize(("listens", "called"), [("127.0.0.1", "localhost"), ("::1", "::1")])
def test_u58_a_control_server_is_called_by_name_or_ipv6(listens: str, called: str, tmp_path: Path) -> None:
    certificate, key = _pair(tmp_path, [called])
    with OldControlServer(listens, _PORT, _POOL, certificate, key):
        assert _failure(certificate, host=called).code is Code.UID_UNKNOWN
        (tmp_path / "other").mkdir()
        assert _failure(_pair(tmp_path / "other", [called])[0], host=called).code is Code.CERTIFICATE_NOT_TRUSTED


def test_nothing_but_our_sentence_is_on_stderr(pair: tuple[Path, Path]) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from scistream.addresses import Endpoint\n"
        "from scistream.client import ControlServer, connect\n"
        "from scistream.errors import SciStreamError\n"
        f"server = ControlServer(Endpoint({_HOST!r}, {_PORT}), Path(sys.argv[1]))\n"
        "try:\n"
        "    connect(server).release('nobody')\n"
        "except SciStreamError as error:\n"
        "    print(error.code)\n"
    )
    command = [sys.executable, "-c", program, str(pair[0])]
    with OldControlServer(_HOST, _PORT, _POOL):
        plain = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    down = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (plain.stdout, plain.stderr) == ("PLAIN_TEXT_SERVER\n", "")
    assert (down.stdout, down.stderr) == ("CONTROL_SERVER_UNREACHABLE\n", "")


@pytest.mark.parametrize("token", ["line\nbreak", "s3cret-ü"])
def test_u15_a_token_that_cannot_be_sent_is_not_quoted(pair: tuple[Path, Path], token: str) -> None:
    server = ControlServer(Endpoint(_HOST, _PORT), pair[0], token=token)
    assert token not in repr(server)
    with pytest.raises(SciStreamError) as caught:
        connect(server)
    assert caught.value.code is Code.AUTHENTICATION_REFUSED
    assert token not in str(caught.value)
