"""What `s2cs check` and `s2cs start` judge, leave and tell, before and beside the control server itself."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scistream import certificates
from scistream.control_server.state_directory import Announcement, StateDirectory

WAIT = 60
HERE = ("--listener-ip=127.0.20.22", "--port=22450", "--port-range=22460-22469", "--state-directory=state")
OPEN = (*HERE, "--insecure-no-auth")


@pytest.fixture
def s2cs(tmp_path, free_environment):
    """Runs `s2cs` in the test's directory. Whatever it leaves in the background is stopped after the test."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scistream.cli.s2cs", *words]
        env = {**free_environment, "HOME": str(tmp_path), **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=WAIT, check=False)

    yield run
    # A start makes the directory before anything else; most tests of refusals have none.
    if (tmp_path / "state").exists():
        run("stop", "--release", f"--state-directory={tmp_path / 'state'}")


@pytest.fixture
def pair(tmp_path):
    """server.crt and server.key in the test's directory."""
    now = datetime.datetime.now(datetime.UTC)
    certificates.issue(
        tmp_path / "server.crt", tmp_path / "server.key", names=["127.0.20.22"], days=1, ca=None, now=now
    )


def test_check_judges_a_configuration_while_its_server_runs(s2cs, pair, tmp_path):
    text = 'listener_ip = "127.0.20.22"\nport = 22450\nport_range = "22460-22469"\ninsecure_no_auth = true\n'
    (tmp_path / "s2cs.toml").write_text(text + 'state_directory = "state"\n')
    good = "good: 127.0.20.22:22450, haproxy, entry points 22460-22469, TLS, NO_AUTH\n"
    for _ in range(2):
        checked = s2cs("check", "--config=s2cs.toml")
        assert (checked.returncode, checked.stdout) == (0, good), checked.stderr
        assert not (tmp_path / "state").exists() or s2cs("status", *HERE[3:]).returncode == 0
        assert s2cs("start", "--config=s2cs.toml").returncode == 0


@pytest.mark.parametrize(
    "case",
    [
        ("prot = 1", 2, "BAD_CONFIGURATION"),
        ("port = 5000 5001", 2, "CONFIGURATION_UNREADABLE"),
        ("type = 'socat'", 2, "ENGINE_UNKNOWN"),
        ("port_range = '2-1'", 2, "BAD_PORT_RANGE"),
        ("insecure_no_auth = false", 3, "AUTHENTICATION_UNDECIDED"),
        ("server_crt = 'none.crt'", 7, "CERTIFICATE_MISSING"),
        ("server_key = 'other.key'", 7, "CERTIFICATE_KEY_MISMATCH"),
        ("state_directory = 'shared'", 2, "BAD_CONFIGURATION"),
    ],
)
@pytest.mark.parametrize("command", ["check", "start"])
def test_a_configuration_that_cannot_run_is_refused_and_leaves_nothing(s2cs, pair, tmp_path, command, case):
    line, exit_code, code = case
    now = datetime.datetime.now(datetime.UTC)
    certificates.issue(tmp_path / "other.crt", tmp_path / "other.key", names=["x"], days=1, ca=None, now=now)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    auth = "" if line.startswith("insecure") else "insecure_no_auth = true\n"
    (tmp_path / "s2cs.toml").write_text(f"{auth}{line}\n")
    before = set(tmp_path.rglob("*"))
    words = () if line.startswith("state") else ("--state-directory=deep/state",)
    refused = s2cs(command, "--config=s2cs.toml", *words)
    assert refused.returncode == exit_code, refused.stderr
    assert refused.stderr.endswith(f"[{code}]\n")
    assert refused.stdout == ""
    assert set(tmp_path.rglob("*")) == before


def test_a_missing_certificate_names_the_servers_option(s2cs):
    for command in ((), ("start",), ("check",)):
        assert "name the right file with --server-crt;" in s2cs(*command, *OPEN).stderr.replace("Name", "name")


@pytest.mark.parametrize("option", ["--server-crt", "--server-cert", "--server_cert"])
def test_both_spellings_of_the_certificates_option_are_understood(s2cs, pair, tmp_path, option):
    (tmp_path / "server.crt").rename(tmp_path / "mine.crt")
    assert s2cs("check", *OPEN, f"{option}=mine.crt").returncode == 0
    assert s2cs("check", *OPEN).returncode == 7


def test_a_start_whose_address_is_not_of_this_host_leaves_no_state_directory(s2cs, pair, tmp_path):
    refused = s2cs("start", *OPEN, "--listener-ip=192.0.2.200", "--state-directory=deep/state")
    assert refused.stderr.endswith("[LISTEN_ADDRESS_FOREIGN]\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]
    (tmp_path / "state").mkdir(mode=0o700)
    s2cs("start", *OPEN, "--listener-ip=192.0.2.200")
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize(("name", "code", "word"), [("s2cs.log", 4, "written"), ("s2cs.lock", 2, "read")])
def test_a_link_in_the_state_directory_is_not_written_through(s2cs, pair, tmp_path, name, code, word):  # noqa: PLR0917
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "state" / name).symlink_to(tmp_path / "victim")
    refused = s2cs("start", *OPEN)
    assert refused.returncode == code
    assert f"state/{name} cannot be {word}: it is a symbolic link" in refused.stderr
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_state_directory_of_another_user_is_not_used(s2cs, pair, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 65534, 65534)
    refused = s2cs("start", *OPEN)
    assert refused.returncode == 2
    assert "it belongs to the user with id 65534" in refused.stderr
    assert list((tmp_path / "state").iterdir()) == []


def test_u13_compat_of_the_environment_is_no_consent(s2cs, pair):
    refused = s2cs("start", *HERE, SCISTREAM_COMPAT="1")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.endswith("[AUTHENTICATION_UNDECIDED]\n")


def test_a_start_tells_its_operator_what_the_log_warns_of(s2cs, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    key = tmp_path / "server.key"
    certificates.issue(tmp_path / "server.crt", key, names=["gateway.example"], days=1, ca=None, now=now)
    key.chmod(0o644)
    log = tmp_path / "state" / "s2cs.log"
    started = s2cs("start", *OPEN)
    told = [line.removeprefix("s2cs: warning: ") for line in started.stderr.splitlines()]
    assert any("NO_AUTH: everyone who reaches 127.0.20.22:22450" in line for line in told)
    assert any("the certificate is for gateway.example, and this listens on 127.0.20.22" in line for line in told)
    assert any(f"the private key {key} is not for its owner alone (mode 0644)" in line for line in told)
    assert all(line in log.read_text() for line in told)
    assert s2cs("start", *OPEN).stderr == ""


def test_any_other_setting_is_refused_while_it_runs(s2cs, pair):
    assert s2cs("start", *OPEN).returncode == 0
    for word in ("--port-range=22460-22468", "--hello-timeout=7", "--verbose"):
        other = s2cs("start", *OPEN, word)
        assert other.returncode == 4
        assert "with other settings" in other.stderr
        assert other.stderr.endswith("[ALREADY_RUNNING]\n")
    assert s2cs("start", *OPEN).stdout.startswith("already running: ")


def test_a_mistyped_command_line_is_an_error_of_the_catalogue(s2cs):
    refused = s2cs("status", "--jsn", "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["failure"]["code"] == "BAD_USAGE"
    assert "See what there is: s2cs status --help. [BAD_USAGE]" in refused.stderr


def test_u19_a_client_secret_on_the_command_line_is_refused(s2cs, pair):
    refused = s2cs("start", *OPEN, "--client-secret=hunter2")
    assert refused.returncode == 2
    assert refused.stderr.endswith("[SECRET_EXPOSED]\n")
    elsewhere = s2cs("start", *OPEN, SCISTREAM_CLIENT_SECRET="hunter2")
    as_deployed = s2cs("start", *OPEN, "--compat", "--client-secret=hunter2")
    for result in (refused, elsewhere, as_deployed):
        assert "hunter2" not in result.stdout + result.stderr
    for result in (elsewhere, as_deployed):
        assert (result.returncode, "[AUTHENTICATION_CONTRADICTORY]" in result.stderr) == (2, True)


class _Healthy(health_pb2_grpc.HealthServicer):
    def Check(self, request, context):  # noqa: N802
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def test_a_server_that_cannot_say_what_it_is_is_no_internal_error(s2cs, tmp_path):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(_Healthy(), server)
    server.add_insecure_port("127.0.20.22:22451")
    server.start()
    try:
        with StateDirectory(tmp_path / "other") as directory:
            directory.announce(Announcement(os.getpid(), "127.0.20.22:22451"))
            answer = s2cs("status", "--state-directory=other")
    finally:
        server.stop(None).wait()
    assert answer.returncode == 6
    assert answer.stderr.endswith("[CONTROL_SERVER_UNREACHABLE]\n")
