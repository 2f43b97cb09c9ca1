"""What we issue, judged by others: the openssl command and gRPC."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from scistream.certificates import issue, issue_ca

HOST = "127.0.50.1"


@pytest.fixture(params=["self-signed", "site CA"])
def trusted(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A trust root and the certificate and key that it vouches for."""
    now = datetime.now(UTC)
    pair = tmp_path / "server.crt", tmp_path / "server.key"
    if request.param == "self-signed":
        issue(*pair, names=[HOST, "localhost"], days=2, ca=None, now=now)
        return pair[0], *pair
    ca = tmp_path / "ca.crt", tmp_path / "ca.key"
    issue_ca(*ca, name="A facility", days=2, now=now)
    issue(*pair, names=[HOST, "localhost"], days=2, ca=ca, now=now)
    return ca[0], *pair


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_it_for_its_purpose_and_address(trusted: tuple[Path, Path, Path], purpose: str) -> None:
    root, certificate, _key = trusted
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        purpose,
        "-verify_ip",
        HOST,
        "-CAfile",
        root,
        certificate,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{certificate}: OK\n"), done.stderr


def test_openssl_refuses_another_address(trusted: tuple[Path, Path, Path]) -> None:
    root, certificate, _key = trusted
    command = ["openssl", "verify", "-verify_ip", "127.0.50.2", "-CAfile", root, certificate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "IP address mismatch" in done.stdout + done.stderr


def test_openssl_refuses_it_after_its_last_day(trusted: tuple[Path, Path, Path]) -> None:
    root, certificate, _key = trusted
    later = int((datetime.now(UTC) + timedelta(days=3)).timestamp())
    command = ["openssl", "verify", "-attime", str(later), "-CAfile", root, certificate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "certificate has expired" in done.stdout + done.stderr


def test_grpc_trusts_it_by_address(trusted: tuple[Path, Path, Path]) -> None:
    root, certificate, key = trusted
    with _serving(certificate, key) as address:
        assert _check(address, root) == health_pb2.HealthCheckResponse.SERVING


def test_grpc_trusts_no_other_pair(trusted: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _root, certificate, key = trusted
    other = tmp_path / "other.crt"
    issue(other, tmp_path / "other.key", names=[HOST], days=2, ca=None, now=datetime.now(UTC))
    with _serving(certificate, key) as address, pytest.raises(grpc.RpcError) as caught:
        _check(address, other)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@contextmanager
def _serving(certificate: Path, key: Path) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        server.stop(0).wait()


def _check(address: str, root: Path) -> int:
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(root.read_bytes())) as channel:
        return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status)
