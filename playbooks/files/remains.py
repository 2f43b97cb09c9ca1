"""What is left of a gateway on its host, as JSON; playbook decommission runs it there. Standard library only.

Argument: JSON with

- `files`; `directories` that came with the gateway, of which one stays that has others' things in it; `others`, which
  were there before the gateway; and `audit`, which is to stay;
- `library`, `state_directory`, `ports` (each with its `range`, FIRST-LAST or one, and its `address`);
- `user` (nothing for whoever runs this), `own_user` and `own_group` (whether they came with the gateway);
- `unit` (system, user or nothing), and `tables` (whether to look for packet filters).

It answers with `left`, sentences; `looked`, what it looked for; and `stays`, what it found that is to stay.
"""

from __future__ import annotations

import grp
import ipaddress
import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LISTENS = "0A"
_NAME = "scistream"


def main() -> None:
    """Look, and tell."""
    asked = json.loads(sys.argv[1])
    looks = {
        "processes": processes(asked),
        "units": units(asked["unit"]),
        "users": users(asked),
        "files": (*files(asked["files"]), *empty(asked["directories"])),
        "ports": (one for doors in asked["ports"] for one in ports(doors["range"], doors["address"])),
        "packet filters": tables(asked["tables"]),
    }
    found = {name: sorted(set(left)) for name, left in looks.items()}
    looked = [f"{name}: {'none' if not left else len(left)}" for name, left in found.items()]
    left = [shown(one) for each in found.values() for one in each]
    told = {"left": left, "looked": looked, "stays": [shown(one) for one in stays(asked)]}
    sys.stdout.write(json.dumps(told) + "\n")


def shown(text: str) -> str:
    """A text with words of others in it, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def processes(asked: dict[str, Any]) -> Iterator[str]:
    """Those that run from the gateway's library, and those of its user.

    Where the user was there before the gateway, those that name its state directory. What another user's process has
    in its command line says nothing: an editor's has it too.
    """
    uid = number_of(asked["user"])
    marks = [str(Path(path).expanduser()) for path in (asked["state_directory"], asked["library"]) if path]
    for pid, words, owner in running():
        is_own = owner == uid and (asked["own_user"] or any(mark in words for mark in marks))
        if is_own or (is_gateways(owner, uid) and runs_from(pid, asked["library"])):
            yield f"process {pid} ({spelled(words)})"


def others_processes(asked: dict[str, Any]) -> Iterator[str]:
    """Those of users whom the gateway is nothing to; they run from its library, which is everybody's to read."""
    uid = number_of(asked["user"])
    for pid, words, owner in running():
        if not is_gateways(owner, uid) and runs_from(pid, asked["library"]):
            yield f"process {pid} of user {name_of(owner)} ({spelled(words)}), which runs from {asked['library']}"


def spelled(words: str) -> str:
    """A command line, as far as it says what it is."""
    return words[:80].strip() or "without a command line"


def is_gateways(owner: int, uid: int | None) -> bool:
    """Whether a process is the gateway's to have: root's, its user's, who may have gone, or of who runs this."""
    return owner in (0, uid, os.getuid()) or name_of(owner) == str(owner)


def name_of(number: int) -> str:
    """A user's name; the number where there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def running() -> Iterator[tuple[int, str, int]]:
    """Pid, command line and user's number of every other process."""
    above = ancestors()
    for place in Path("/proc").glob("[0-9]*"):
        # This one has the places in its own command line, and so have those that started it for Ansible.
        if place.name in above:
            continue
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(place.name), words, place.stat().st_uid
        except OSError:
            continue  # it has ended


def runs_from(pid: int, directory: str) -> bool:
    """Whether a process has files of a directory mapped: the kernel's word, whatever its command line says."""
    if not directory:
        return False
    # As the kernel spells it.
    start = f"{Path(directory).expanduser().resolve()}/"
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return False  # it has ended, or is another user's
    return any(fields[5].startswith(start) for fields in (line.split(maxsplit=5) for line in lines) if fields[5:])


def ancestors() -> set[str]:
    """Pids of the process itself and of those above it."""
    found, pid = set(), str(os.getpid())
    while pid not in ("0", ""):
        found.add(pid)
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            break
    return found


def number_of(user: str) -> int | None:
    """A user's number; without a name, that of who runs this; none where there is no such user any more."""
    if not user:
        return os.getuid()
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def units(kind: str) -> Iterator[str]:
    """Units of systemd that are named so, loaded or installed."""
    if not kind or shutil.which("systemctl") is None:
        return
    manager = ["--user"] if kind == "user" else []
    for verb in (["list-units", "--all"], ["list-unit-files"]):
        for line in told(["systemctl", *manager, *verb, "--no-legend", "--plain", f"{_NAME}*"]):
            name = line.split()[0] if line.split() else ""
            if name.startswith(_NAME):
                yield f"unit {name}"


def users(asked: dict[str, Any]) -> Iterator[str]:
    """The gateway's user and group, where they came with it."""
    name = asked["user"]
    if asked["own_user"] and name in {user.pw_name for user in pwd.getpwall()}:
        yield f"user {name}"
    if asked["own_group"] and name in {group.gr_name for group in grp.getgrall()}:
        yield f"group {name}"


def stays(asked: dict[str, Any]) -> Iterator[str]:
    """What is there, and is the site's to keep."""
    yield from (f"stays: {one}" for one in others_processes(asked))
    for path in asked["audit"]:
        if Path(path).exists():
            yield f"stays: {path}, the record of what users did"
    for path in (Path(text).expanduser() for text in asked["directories"]):
        names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
        if names:
            yield f"stays: {path}, where others have {names[0]}{' and more' if names[1:] else ''}"
    for path in asked["others"]:
        if Path(path).expanduser().exists():
            yield f"stays: {path}, which was there before the gateway"
    if asked["user"] and not asked["own_user"] and number_of(asked["user"]) is not None:
        yield f"stays: user {asked['user']}, who was there before the gateway"


def files(paths: list[str]) -> Iterator[str]:
    """Those that are there, links to nowhere too."""
    for path in (Path(text).expanduser() for text in paths):
        if path.is_symlink() or path.exists():
            yield f"file {path}"


def empty(paths: list[str]) -> Iterator[str]:
    """Directories with nothing in them."""
    for path in (Path(text).expanduser() for text in paths):
        if path.is_dir() and not any(path.iterdir()):
            yield f"directory {path}"


def ports(text: str, address: str) -> Iterator[str]:
    """Listeners on ports of the gateway and their address."""
    first, *more = text.split("-")
    wanted = range(int(first), int(more[0] if more else first) + 1)
    host = ipaddress.ip_address(address.strip("[]"))
    for where, port in listeners():
        if port in wanted and (host.is_unspecified or where.is_unspecified or where == host):
            yield f"a listener on port {port} of {where}"


def listeners() -> Iterator[tuple[Any, int]]:
    """Address and port of each listening TCP socket."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            local, state = line.split()[1], line.split()[3]
            if state == _LISTENS:
                host, port = local.split(":")
                yield plain(host), int(port, 16)


def plain(text: str) -> Any:
    """An address as the kernel prints it: words of 32 bits in the machine's order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    address = ipaddress.ip_address(socket.inet_ntop(family, packed))
    return getattr(address, "ipv4_mapped", None) or address


def tables(is_asked: bool) -> Iterator[str]:
    """Packet filters that are named so."""
    if is_asked and shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        for line in told(["nft", "list", "tables"]):
            if _NAME in line:
                yield f"packet filter {line.strip()}"


def told(command: list[str]) -> list[str]:
    """What a command says; nothing where it fails."""
    clean = {**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, env=clean, text=True, check=False).stdout.splitlines()


if __name__ == "__main__":
    main()
