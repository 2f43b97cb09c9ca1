"""What a gateway's host has of the control server, as JSON; run on the host, by the user whose control server it is.

Arguments: the scope (`system` or `user`), the directories of the configuration and of the state, and the certificate.
Standard library only.

Root looks at what the user of the control server can write: its state directory, and what a process says of itself. So
a word counts only where it looks like one that a role writes, and a file only where it is one, and no pipe or device.
"""

from __future__ import annotations

import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

UNIT = "scistream-control-server.service"
# Where a user's units are.
UNITS = "~/.config/systemd/user"
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "MainPID")
# Bytes; what is looked at here is smaller.
LONGEST = 1 << 20
PID = r"[1-9][0-9]{0,9}"
DIGEST = r"[0-9a-f]{64}"
# What module wheelhouse calls one.
RELEASE = r"[0-9a-f]{8,64}"


def main():
    """Look, and tell."""
    scope, configuration, state, certificate = sys.argv[1], *(expanded(path) for path in sys.argv[2:5])
    uid = os.getuid()
    user = pwd.getpwuid(uid).pw_name
    unit = show(UNIT, scope, uid)
    pid = unit.get("MainPID", "0")
    pid = holder(state) if pid == "0" else pid
    facts = {
        "user": user,
        "runtime_directory": f"/run/user/{uid}",
        "user_manager": Path(f"/run/user/{uid}/systemd/private").exists(),
        "linger": Path("/var/lib/systemd/linger", user).exists(),
        "unit": unit,
        "runs": pid != "0",
        "started_with": like(DIGEST, variable(pid, "SCISTREAM_STARTED_WITH")),
        "release": release(pid),
        "account": has_account("scistream"),
        "group": group_number("scistream"),
        "forwarding": word(Path("/proc/sys/net/ipv4/ip_forward")),
        "forwarding_ipv6": word(Path("/proc/sys/net/ipv6/conf/all/forwarding")),
        "firewalld": show("firewalld.service", "system", uid).get("ActiveState") == "active",
        "nft": shutil.which("nft", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin") or "",
        "logrotate": Path("/etc/logrotate.d").is_dir(),
        "record": lines(configuration / "provisioned"),
        "configuration_there": configuration.is_dir(),
        "certificate": digest(certificate),
        "configured": (configuration / "s2cs.toml").exists(),
        "secret": (configuration / "client_secret").exists(),
        "kept": any(configuration.glob("*.before")),
        "secret_taken": digest(configuration / "client_secret") == digest(handed_over(pid, "client_secret")),
        "state_there": state.is_dir(),
        "missing": missing(configuration, state.parent, *([Path(UNITS).expanduser()] if scope == "user" else [])),
        "directories_fine": is_fine(state, 0o700, "scistream" if scope == "system" else user)
        and (is_fine(configuration, 0o755, user) if scope == "system" else configuration.is_dir()),
        "sessions_there": any(state.glob("journal.sqlite3*")),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


def expanded(text):
    """A path; as it is, where it begins with the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def show(unit, scope, uid):
    """What the service manager says of a unit; nothing where there is none."""
    manager = ["--user"] if scope == "user" else []
    command = ["systemctl", *manager, "show", unit, "--property", ",".join(PROPERTIES)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def holder(state):
    """The control server that holds a state directory and that no service manager runs; 0 where there is none."""
    try:
        with opened(state / "s2cs.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # The first line is the pid; the others are for the commands of the host.
                return like(PID, lock.readline(LONGEST).decode(errors="replace").strip()) or "0"
    except OSError:
        pass
    return "0"


def variable(pid, name):
    """A variable of the running control server's environment; empty where none runs."""
    start = f"{name}=".encode()
    words = content(Path("/proc", pid, "environ")).split(b"\0")
    return next((each[len(start) :].decode(errors="replace") for each in words if each.startswith(start)), "")


def handed_over(pid, name):
    """The file of a secret that the service manager gave the running control server."""
    return Path(f"/proc/{pid}/root{variable(pid, 'CREDENTIALS_DIRECTORY') or '/nonexistent'}", name)


def release(pid):
    """The library's release that the running control server has its Python from; empty where none runs."""
    program = content(Path("/proc", pid, "cmdline")).split(b"\0")[0].decode(errors="replace")
    return like(RELEASE, program.partition("/releases/")[2].split("/", 1)[0])


def like(pattern, text):
    """A text, where all of it is as it is to be; else nothing."""
    return text if re.fullmatch(pattern, text) else ""


def has_account(name):
    """Whether the system knows the user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def group_number(name):
    """The group's number; empty where the system does not know it."""
    try:
        return str(grp.getgrnam(name).gr_gid)
    except KeyError:
        return ""


def missing(*paths):
    """Those of these directories, and of those above them, that are not there."""
    return sorted({str(each) for path in paths for each in (path, *path.parents) if not each.exists()})


def is_fine(directory, mode, owner):
    """Whether a directory is there, with its mode and its owner."""
    try:
        # Where a link leads is another's to say.
        found = directory.lstat()
        return stat.S_ISDIR(found.st_mode) and (stat.S_IMODE(found.st_mode), pwd.getpwuid(found.st_uid).pw_name) == (
            mode,
            owner,
        )
    except (OSError, KeyError):
        return False


def digest(path):
    """SHA-256 of a file; empty where it is not there, or has nothing in it."""
    found = content(path)
    return hashlib.sha256(found).hexdigest() if found else ""


def word(path):
    """A setting of the kernel's."""
    return content(path).decode(errors="replace").strip()


def lines(path):
    """The lines of a file; none where it is not there."""
    return content(path).decode(errors="replace").splitlines()


def content(path):
    """What is in a file; nothing where it is not there, or is none."""
    try:
        with opened(path) as file:
            return file.read(LONGEST)
    except OSError:
        return b""


def opened(path):
    """A file to read, and no pipe that nobody writes to.

    Raises:
        OSError: it is not there, or is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return os.fdopen(descriptor, "rb")


if __name__ == "__main__":
    main()
