"""`s2cs` as an operator calls it: real processes, real exit codes (U50)."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from scistream import certificates
from scistream.protocol import control_pb2 as wire

WAIT = 60


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
        tmp_path / "server.crt", tmp_path / "server.key", names=["127.0.20.21"], days=90, ca=None, now=now
    )


HERE = ("--listener-ip=127.0.20.21", "--port=22400", "--port-range=22410-22419", "--state-directory=state")
OPEN = (*HERE, "--insecure-no-auth")


def test_start_status_and_stop_and_each_of_them_again(s2cs, pair, tmp_path):
    started = s2cs("start", *OPEN)
    assert started.returncode == 0, started.stderr
    word, pid, address = started.stdout.split()[0], int(started.stdout.split()[2].strip(",")), started.stdout.split()[3]
    assert (word, address) == ("started:", "127.0.20.21:22400")
    process = psutil.Process(pid)
    assert process.status() != psutil.STATUS_ZOMBIE

    again = s2cs("start", *OPEN)
    assert (again.returncode, again.stdout) == (0, f"already running: pid {pid}, 127.0.20.21:22400\n")

    status = s2cs("status", "--state-directory=state")
    assert status.returncode == 0
    assert status.stdout == f"running: pid {pid}, 127.0.20.21:22400, haproxy, TLS, NO_AUTH, sessions: 0\n"
    facts = json.loads(s2cs("status", "--state-directory", "state", "--json").stdout)
    wanted = {"running": True, "pid": pid, "address": "127.0.20.21:22400", "engine": "haproxy", "tls": True}
    assert facts.items() >= {**wanted, "authentication": "NO_AUTH", "sessions": 0}.items()

    stopped = s2cs("stop", "--state-directory=state")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    # The first process of a container may take its time to ask for its status.
    assert not psutil.pid_exists(pid) or process.status() == psutil.STATUS_ZOMBIE
    twice = s2cs("stop", "--state-directory=state")
    assert (twice.returncode, twice.stdout) == (0, "not running\n")
    gone = s2cs("status", "--state-directory=state")
    assert gone.returncode == 4
    assert "[NOT_RUNNING]" in gone.stderr
    as_json = s2cs("status", "--state-directory=state", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["running"]) == (4, False)
    assert (tmp_path / "state" / "s2cs.log").stat().st_mode & 0o777 == 0o600


def test_two_starts_at_once_give_one_control_server(s2cs, pair):
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: s2cs("start", *OPEN), range(2)))
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]
    assert sorted(result.stdout.split(":")[0] for result in results) == ["already running", "started"]
    assert len({result.stdout.partition(": ")[2] for result in results}) == 1


def test_options_stand_before_or_after_the_command_with_either_letter_and_with_or_without_a_sign(s2cs, pair):
    words = ("--listener_ip", "127.0.20.21", "--port", "22400", "--port_range", "22410-22419", "--ssl=False")
    started = s2cs(*words, "start", "--insecure_no_auth", "--state_directory", "state", "--type", "NGINX")
    assert started.returncode == 0, started.stderr
    assert "nginx, plain text, NO_AUTH" in s2cs("status", "--state_directory", "state").stdout


def test_a_certificate_that_ends_is_told_before_and_after_and_so_is_the_way_to_the_next(s2cs, pair, tmp_path):
    names, files = ["127.0.20.21"], (tmp_path / "server.crt", tmp_path / "server.key")
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(seconds=6)
    certificates.issue(*files, names=names, days=1, ca=None, now=end - datetime.timedelta(days=1))
    started = s2cs("start", *OPEN)
    assert started.returncode == 0, started.stderr
    assert "the certificate is valid until" in started.stderr
    while datetime.datetime.now(datetime.UTC) < end + datetime.timedelta(seconds=1.5):
        time.sleep(0.1)
    certificates.issue(*files, names=names, days=90, ca=None, now=datetime.datetime.now(datetime.UTC))
    for words in (("status", "--state-directory=state"), ("start", *OPEN)):
        told = s2cs(*words)
        assert told.returncode == 7, told
        assert "the certificate that the control server (pid " in told.stderr
        assert "s2cs stop, then s2cs start" in told.stderr
    assert s2cs("stop", "--state-directory=state").returncode == 0
    assert s2cs("start", *OPEN).returncode == 0
    assert s2cs("status", "--state-directory=state").returncode == 0


def test_a_file_and_the_environment_configure_it(s2cs, pair, tmp_path):
    (tmp_path / "etc").mkdir()
    text = 'listener_ip = "127.0.20.21"\nport = 1\nport_range = "22410-22419"\ninsecure_no_auth = true\n'
    text += 'server_crt = "../server.crt"\nserver_key = "../server.key"\nstate_directory = "../state"\n'
    (tmp_path / "etc" / "s2cs.toml").write_text(text)
    started = s2cs("start", SCISTREAM_CONFIG="etc/s2cs.toml", SCISTREAM_PORT="22400")
    assert started.returncode == 0, started.stderr
    assert s2cs("stop", "--config=etc/s2cs.toml").stdout == "stopped\n"


def test_a_start_with_other_settings_than_the_one_that_runs_is_refused(s2cs, pair):
    assert s2cs("start", *OPEN).returncode == 0
    other = s2cs("start", *OPEN, "--type=nginx")
    assert other.returncode == 4
    assert "[ALREADY_RUNNING]" in other.stderr


def test_stop_release_releases_also_what_a_killed_server_left(s2cs, pair, tmp_path, echo_target, is_free):
    pid = int(s2cs("start", *OPEN, "--old-clients=plain").stdout.split()[2].strip(","))
    credentials = grpc.ssl_channel_credentials((tmp_path / "server.crt").read_bytes())
    with grpc.secure_channel("127.0.20.21:22400", credentials) as channel:
        request = channel.unary_unary(
            "/scistream.Control/req", wire.Request.SerializeToString, wire.Response.FromString
        )
        hello = channel.unary_unary(
            "/scistream.Control/hello", wire.Hello.SerializeToString, wire.AppResponse.FromString
        )
        update = channel.unary_unary(
            "/scistream.Control/update", wire.UpdateTargets.SerializeToString, wire.Response.FromString
        )
        answer = request.future(wire.Request(uid="one", role="PROD", num_conn=1), timeout=WAIT)
        hello(wire.Hello(uid="one", role="PROD", prod_listeners=[echo_target.endpoint]), timeout=WAIT)
        answer.result(WAIT)
        update(wire.UpdateTargets(uid="one", role="PROD", remote_listeners=[echo_target.endpoint]), timeout=WAIT)
    process = psutil.Process(pid)
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)
    assert not is_free("127.0.20.21:22410")
    ended = s2cs("stop", "--release", "--state-directory=state")
    assert (ended.returncode, ended.stdout) == (0, "not running, 1 left sessions released\n")
    assert is_free("127.0.20.21:22410")
    assert not [path for path in (tmp_path / "state").iterdir() if path.name.startswith("one")]


def test_u04_u27_u38_a_taken_control_port_is_refused_and_its_holder_named(s2cs, pair, control_server_factory):
    first = control_server_factory(address="127.0.20.21", port=22400)
    for command in ((), ("start",)):
        refused = s2cs(*command, *OPEN)
        assert refused.returncode == 4
        assert f"the control port 127.0.20.21:22400 is in use by scistream.cli.s2cs (pid {first.pid})" in refused.stderr
        assert "[CONTROL_PORT_IN_USE]" in refused.stderr
    assert first.serves()


def test_a_command_that_names_none_means_ones_own_and_then_the_users_file(s2cs, pair, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    text = 'listener_ip = "127.0.20.21"\nport = 22400\nport_range = "22410-22419"\ninsecure_no_auth = true\n'
    file = tmp_path / ".config/scistream/s2cs.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'{text}server_crt = "{tmp_path}/server.crt"\nserver_key = "{tmp_path}/server.key"\n')
    with file.open("a") as more:
        more.write(f'state_directory = "{elsewhere}"\n')
    assert str(elsewhere) in s2cs("status").stderr
    assert s2cs("start", f"--config={file}").returncode == 0
    told = json.loads(s2cs("status", "--json").stdout)
    assert (told["running"], told["state_directory"]) == (True, str(elsewhere))
    # Who names one means that one.
    assert s2cs("status", SCISTREAM_STATE_DIRECTORY=str(tmp_path / "state")).returncode == 4
    assert "stopped" in s2cs("stop").stdout
    own = tmp_path / ".scistream"
    own.mkdir(mode=0o700)
    (own / "s2cs.lock").touch(mode=0o600)
    assert f"no control server runs with the state directory {own}" in s2cs("status").stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to be somebody else")
def test_who_may_not_look_into_a_control_server_is_told_whose_it_is(s2cs, tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "s2cs.lock").touch(mode=0o600)
    os.chown(state, 65534, 65534)
    command = [sys.executable, "-m", "scistream.cli.s2cs", "status", f"--state-directory={state}"]
    lesser = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    done = subprocess.run(lesser, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 2
    assert f"{state}/s2cs.lock cannot be read: Permission denied" in done.stderr
    assert "the control server is another user's: say it as that user, or with sudo" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a directory away")
def test_root_ends_another_users_control_server_and_leaves_its_files_alone(s2cs, pair, tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    # The tests' directories are root's to enter.
    rights = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *rights]
    command += [sys.executable, "-m", "scistream.cli.s2cs", "start", *OPEN]
    subprocess.run(command, cwd=tmp_path, timeout=WAIT, check=True)
    ended = s2cs("stop", "--release", "--state-directory=state")
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr
    before = sorted(path.name for path in state.iterdir())
    again = s2cs("stop", "--release", "--state-directory=state")
    assert again.returncode == 2
    assert "it belongs to the user with id 65534, and this is 0" in again.stderr
    named = f"its sessions are that user's to release: sudo -u '#65534' s2cs stop --release --state-directory {state}"
    assert named in again.stderr
    assert sorted(path.name for path in state.iterdir()) == before
    os.chown(state, 0, 0)


def test_a_taken_state_directory_is_refused_and_its_holder_named(s2cs, pair):
    pid = s2cs("start", *OPEN).stdout.split()[2].strip(",")
    refused = s2cs(*OPEN, "--port=22401")
    assert refused.returncode == 4
    assert f"held by the control server with pid {pid}" in refused.stderr
    assert "[STATE_DIRECTORY_TAKEN]" in refused.stderr


@pytest.mark.parametrize(
    "case",
    [
        ((), 3, "AUTHENTICATION_UNDECIDED", "--insecure-no-auth"),
        (("--insecure-no-auth", "--client-secret=hunter2"), 2, "SECRET_EXPOSED", "every user of this host can read it"),
        (("--insecure-no-auth", "--provider=http://x.example"), 2, "BAD_CONFIGURATION", "tokens travel over https://"),
        (("--insecure-no-auth", "--type=socat"), 2, "ENGINE_UNKNOWN", "choose one of haproxy, nginx, stunnel"),
        (("--insecure-no-auth", "--port-range=20-10"), 2, "BAD_PORT_RANGE", "it runs backwards"),
        (("--insecure-no-auth", "--port=x"), 2, "BAD_CONFIGURATION", "port = 'x' in option --port"),
        (("--insecure-no-auth", "--listener-ip=192.0.2.200"), 4, "LISTEN_ADDRESS_FOREIGN", "192.0.2.200:22400"),
        (("--insecure-no-auth", "--config=none.toml"), 2, "CONFIGURATION_UNREADABLE", "none.toml"),
        (("--insecure-no-auth", "--server-crt=none.crt"), 7, "CERTIFICATE_MISSING", "none.crt"),
        (("--insecure-no-auth", "--server-crt=old.crt", "--server-key=old.key"), 7, "CERTIFICATE_EXPIRED", "old.crt"),
        (("--insecure-no-auth", "--server-key=old.key"), 7, "CERTIFICATE_KEY_MISMATCH", "old.key"),
        (("--insecure-no-auth", "--state-directory=server.crt"), 4, "FILE_UNWRITABLE", "server.crt"),
    ],
)
@pytest.mark.parametrize("command", [(), ("start",)], ids=["foreground", "start"])
def test_u47_u50_each_class_of_error_has_its_exit_code_and_its_sentence(s2cs, pair, tmp_path, command, case):
    words, exit_code, code, sentence = case
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    certificates.issue(tmp_path / "old.crt", tmp_path / "old.key", names=["127.0.20.21"], days=1, ca=None, now=then)
    result = s2cs(*command, *HERE, *words)
    assert result.returncode == exit_code
    assert result.stderr.startswith("s2cs: error: ")
    assert result.stderr.endswith(f"[{code}]\n")
    assert sentence in result.stderr.replace("Choose", "choose").replace("Every", "every")
    assert "hunter2" not in result.stdout + result.stderr
    assert s2cs("status", "--state-directory=state").returncode == 4


def test_compat_starts_with_the_deployed_defaults_and_says_so(s2cs, pair, tmp_path):
    assert s2cs("start", *HERE, "--compat", "--type=Haproxy").returncode == 0
    words = (tmp_path / "state" / "s2cs.log").read_text()
    assert "--compat: the deployed defaults hold, and with them authentication is off" in words
    assert "NO_AUTH: everyone who reaches 127.0.20.21:22400" in words


def test_plain_text_is_told(control_server_factory):
    server = control_server_factory(ssl=False)
    assert "channel='plain text'" in server.words()
    assert "--ssl=False: the control channel is plain text" in server.words()


def test_a_log_file_is_private_and_gets_the_words(s2cs, pair, tmp_path):
    assert s2cs("start", *OPEN, "--log-file=words.log").returncode == 0
    assert "control server ready" in (tmp_path / "words.log").read_text()
    assert (tmp_path / "words.log").stat().st_mode & 0o777 == 0o600


def test_ipv6_is_listened_on_and_asked(s2cs, pair):
    words = ("--listener-ip=[::1]", "--port=22400", "--port-range=22410-22419", "--state-directory=state")
    started = s2cs("start", *words, "--insecure-no-auth")
    assert started.returncode == 0, started.stderr
    assert "[::1]:22400" in started.stdout
    assert "[::1]:22400" in s2cs("status", "--state-directory=state").stdout
    with socket.create_connection(("::1", 22400)):
        pass


def test_a_certificate_of_a_site_ca_serves_status_as_well(s2cs, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    ca = (tmp_path / "ca.crt", tmp_path / "ca.key")
    certificates.issue_ca(*ca, name="Facility A", days=2, now=now)
    certificates.issue(
        tmp_path / "server.crt", tmp_path / "server.key", names=["gateway.example"], days=1, ca=ca, now=now
    )
    started = s2cs("start", *OPEN)
    assert started.returncode == 0, started.stderr
    assert s2cs("status", "--state-directory=state").returncode == 0


def test_a_certificate_that_was_replaced_on_disk_does_not_hide_the_server(s2cs, pair, tmp_path):
    assert s2cs("start", *OPEN).returncode == 0
    now = datetime.datetime.now(datetime.UTC)
    certificates.issue(
        tmp_path / "server.crt", tmp_path / "server.key", names=["127.0.20.21"], days=1, ca=None, now=now
    )
    assert s2cs("status", "--state-directory=state").returncode == 0


def test_the_command_line_of_the_background_server_shows_no_environment_secret(s2cs, pair, tmp_path):
    result = s2cs("start", *OPEN, SCISTREAM_TOKEN="hunter2")
    process = psutil.Process(int(result.stdout.split()[2].strip(",")))
    assert "hunter2" not in " ".join(process.cmdline())
    # It outlives its starter's terminal, and keeps no directory of the starter's busy.
    assert os.getsid(process.pid) == process.pid
    assert Path(process.cwd()) == tmp_path / "state"


def test_version_and_help_load_nothing_heavy(free_environment):
    script = (
        "import sys\n"
        "from scistream.cli.s2cs import command\n"
        "for words in (['--version'], ['--help'], ['start', '--help']):\n"
        "    command.main(words, prog_name='s2cs', standalone_mode=False)\n"
        "heavy = {'grpc', 'pydantic', 'psutil', 'jinja2', 'cryptography', 'asyncio', 'structlog'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=free_environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("s2cs 0.")
    assert "Example: s2cs start --type Haproxy" in result.stdout


def test_a_start_that_was_stopped_meanwhile_says_so_in_a_sentence(tmp_path, free_environment, s2cs, pair):
    command = [sys.executable, "-m", "scistream.cli.s2cs", "start", *OPEN]
    env = {**free_environment, "HOME": str(tmp_path)}
    starting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env)
    deadline = time.monotonic() + WAIT
    child: list[psutil.Process] = []
    while not (child and "-P" in child[0].cmdline()) and time.monotonic() < deadline:
        child = psutil.Process(starting.pid).children()
    child[0].terminate()
    words = starting.communicate(timeout=WAIT)[1]
    assert starting.returncode == 4
    assert "was ended before it answered" in words
    assert words.rstrip().endswith("[ENDED_MEANWHILE]")
    assert len(words.splitlines()) == 1
