"""The hosts' base image, and the packages that they can install: made once, and kept in the user's cache directory.

Each is named after what it is made of, so that a changed list makes a new one. It is made beside its place and moved
there when it is whole. Both come from the sources of the machine's own apt; the hosts have no way there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from .programs import HostsError, died_with_us, run

__all__ = ["Say", "base", "is_at_hand", "packages"]

Say = Callable[[str], None]

_BASE = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "ca-certificates", "kmod", "less"),
    *("python3", "python3-apt", "python3-packaging", "python3-venv"),
    *("iproute2", "iputils-ping", "netbase", "nftables", "procps"),
)
# What a gateway may be given, and they need; a site's mirror has more.
_INSTALLABLE = (
    *("haproxy", "nginx", "libnginx-mod-stream", "stunnel4", "iperf3", "nftables"),
    *("acl", "firewalld", "logrotate"),
    # Nobody can set a host's clock: with it in /etc/environment, which sudo is told to read as well (env_file), all
    # that its users run reads another time.
    "libfaketime",
)
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "console-getty.service", "getty@tty1.service"),
)
# With what useradd is told: Debian has a group of the first name.
_USERS = (("operator", "--gid=operator"), ("scientist", "--user-group"))
# Path, mode, text.
_FILES = (
    ("etc/apt/sources.list.d/packages.list", 0o644, "deb [trusted=yes] file:/srv/debs ./\n"),
    ("etc/sudoers.d/operator", 0o440, "operator ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    (
        "etc/ssh/sshd_config.d/hosts.conf",
        0o644,
        "AuthorizedKeysFile /etc/ssh/authorized_keys .ssh/authorized_keys\nPasswordAuthentication no\n",
    ),
    ("etc/machine-id", 0o444, "uninitialized\n"),
)
_REMOVED = ("etc/apt/sources.list", "etc/apt/sources.list.d/*", "etc/resolv.conf", "etc/ssh/ssh_host_*", "etc/hostname")
# The machine's own sources, by the names that its distribution gives them.
_SOURCES = ("sources.list.d/debian.sources", "sources.list.d/ubuntu.sources", "sources.list")
_APT = Path("/etc/apt")
_MINUTES = 900.0


def base(say: Say) -> Path:
    """The directory that every host has below its own.

    Raises:
        HostsError: it cannot be made, as where there is no way to the distribution's packages.
    """
    return _cached("base", _base_recipe(), say, _make_base)


def packages(say: Say) -> Path:
    """The directory of packages with their index, as apt takes it.

    Raises:
        HostsError: it cannot be made.
    """
    below = base(say)
    return _cached("packages", [_base_recipe(), *_INSTALLABLE], say, lambda into, say: _make_packages(into, below, say))


def is_at_hand() -> bool:
    """Whether nothing has to be made."""
    return all(
        (_cache() / _name(kind, recipe)).is_dir()
        for kind, recipe in (("base", _base_recipe()), ("packages", [_base_recipe(), *_INSTALLABLE]))
    )


def _base_recipe() -> list[object]:
    return [_suite(), platform.machine(), _BASE, _MASKED, _USERS, _FILES, _REMOVED]


def _suite() -> str:
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if not suite:
        raise HostsError("The hosts are made of this machine's distribution: take one that is Debian or Ubuntu.")
    return suite


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scistream" / "hosts"


def _name(kind: str, recipe: Sequence[object]) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]}"


def _cached(kind: str, recipe: Sequence[object], say: Say, make: Callable[[Path, Say], None]) -> Path:
    target = _cache() / _name(kind, recipe)
    if target.is_dir():
        return target
    with _alone(say):
        if not target.is_dir():
            part = target.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True, mode=0o755)
            make(part, say)
            part.rename(target)
    return target


@contextlib.contextmanager
def _alone(say: Say) -> Iterator[None]:
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another one who makes the hosts' image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_base(root: Path, say: Say) -> None:
    command: list[str | Path] = [
        *("mmdebstrap", "--variant=apt", "--mode=root", "--format=directory", f"--include={','.join(_BASE)}"),
        _suite(),
        root,
        *_sources(),
    ]
    _build(command, say, "The hosts' base image")
    _furnish(root)


def _furnish(root: Path) -> None:
    for pattern in _REMOVED:
        for path in root.glob(pattern):
            path.unlink()
    for user, group in _USERS:
        run(["chroot", root, "useradd", "--create-home", "--shell=/bin/bash", group, user])
    for name, mode, text in _FILES:
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(mode)
    run(["systemctl", f"--root={root}", "mask", *_MASKED])
    run(["systemctl", f"--root={root}", "set-default", "multi-user.target"])


def _make_packages(into: Path, below: Path, say: Say) -> None:
    work = into / "work"
    for name in ("lists/partial", "archives/partial", "sources"):
        (work / name).mkdir(parents=True)
    for source in _sources():
        (work / "sources" / Path(source).name.replace("sources.list", "distribution.list")).symlink_to(source)
    options = {
        "Dir::State::lists": work / "lists",
        "Dir::State::status": below / "var/lib/dpkg/status",
        "Dir::Cache": work,
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": work / "sources",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "--yes", *(f"--option={key}={value}" for key, value in options.items())]
    _build([*apt, "update"], say, "The hosts' packages")
    _build([*apt, "install", "--download-only", "--no-install-recommends", *_INSTALLABLE], say, "The hosts' packages")
    for package in (work / "archives").glob("*.deb"):
        package.rename(into / package.name)
    shutil.rmtree(work)
    (into / "Packages").write_text(run(["dpkg-scanpackages", "--multiversion", "."], cwd=into))


def _sources() -> list[Path]:
    """None, where the machine has them elsewhere: mmdebstrap knows the distribution's."""
    return [path for name in _SOURCES if (path := _APT / name).is_file() and path.stat().st_size]


def _build(command: Sequence[str | Path], say: Say, what: str) -> None:
    """Run a program that takes minutes, apart: its mounts and processes go with it, and it with this one."""
    apart = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    say(f"{what}: {Path(command[0]).name} begins")
    with subprocess.Popen(
        [str(word) for word in died_with_us([*_way_out(), *apart, *command])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    ) as process:
        last = _tell(process, say, what)
    if process.returncode:
        raise HostsError(
            f"{what} cannot be made: {Path(command[0]).name} ended with {process.returncode} and said: {last}"
        )


def _tell(process: subprocess.Popen[str], say: Say, what: str) -> str:
    """What it said last; its steps are told as they come."""
    last: deque[str] = deque(maxlen=8)
    for line in process.stdout or ():
        last.append(line.strip())
        if line.startswith(("I: ", "Get:")):
            say(f"{what}: {line.split(maxsplit=1)[1].strip()}")
    return " ".join(last)


def _way_out() -> list[str]:
    """Into the network of the nearest ancestor that has another one: workers of pytest leave it (own_network.py)."""
    here = Path("/proc/thread-self/ns/net").stat().st_ino
    for parent in psutil.Process().parents():
        network = Path(f"/proc/{parent.pid}/ns/net")
        with contextlib.suppress(OSError):
            if network.stat().st_ino != here:
                return ["nsenter", f"--net={network}"]
    return []
