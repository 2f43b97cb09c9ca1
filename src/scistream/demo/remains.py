"""What a demo left behind: processes, listening ports, rules, files; looked for in its own places only.

`python -m scistream.demo.remains DIRECTORY` looks, and says so in a sentence; it ends with 4 where something is left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import psutil

from scistream.addresses import Endpoint
from scistream.cli.common import run
from scistream.demo.namespaces import entered, inside
from scistream.engines.holders import who_listens
from scistream.engines.host import find_program
from scistream.engines.processes import ProcessFacts, listeners, send
from scistream.errors import Code, SciStreamError

__all__ = [
    "LISTENERS",
    "Remains",
    "end_leftovers",
    "look",
    "main",
    "mark_directory",
    "remove_directory",
    "require_ours",
]

# As inventory/local and playbooks/demo.yml have them: control ports, entry points, targets.
LISTENERS: Final = frozenset(
    Endpoint(host, port) for host in ("127.0.1.1", "127.0.2.1") for port in (5000, 5074, 5075, *range(5100, 5111))
)
# What the demo runs with its directory in the command line.
_PROGRAMS: Final = ("scistream.cli.s2cs", "s2cs", "haproxy", "nginx", "stunnel", "stunnel4")
# In a directory with this file, everything is the demo's, and may go.
_MARK: Final = "everything-here-belongs-to-make-demo"
_GRACE: Final = 3.0


@dataclass(frozen=True)
class Remains:
    """What was found, in words."""

    processes: tuple[str, ...]
    ports: tuple[str, ...]
    files: tuple[str, ...]
    rules: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processes or self.ports or self.files or self.rules)

    def __str__(self) -> str:
        return "; ".join((*self.processes, *self.ports, *self.rules, *self.files))


def mark_directory(directory: Path) -> None:
    """Make the demo's directory (0700), and mark it as such; one that is marked already is fine.

    Raises:
        SciStreamError: DEMO_DIRECTORY_FOREIGN.
    """
    require_ours(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / _MARK).touch(mode=0o600)


def require_ours(directory: Path) -> None:
    """Return where there is no such directory, an empty one, or a demo's.

    Raises:
        SciStreamError: DEMO_DIRECTORY_FOREIGN.
    """
    if directory.exists() and not (directory / _MARK).is_file() and any(directory.iterdir()):
        raise SciStreamError(Code.DEMO_DIRECTORY_FOREIGN, directory=str(directory))


def remove_directory(directory: Path) -> None:
    """Remove the demo's directory, if it is there, with everything in it.

    Raises:
        SciStreamError: DEMO_DIRECTORY_FOREIGN.
    """
    require_ours(directory)
    if directory.exists():
        shutil.rmtree(directory)


def look(directory: Path, ports: Iterable[Endpoint] = LISTENERS, namespaces: Sequence[Path] = ()) -> Remains:
    """Look for what a demo with that directory left behind.

    Args:
        directory: where it kept its files.
        ports: where it listened.
        namespaces: the demo's own hosts, as `Host.namespace`, where it has some. All that is there is the demo's, and
            the process that keeps them is not looked for. The calling thread, the process's main one, goes there.
    """
    # Without their keeper they are gone, or what holds them names the directory.
    namespaces = [namespace for namespace in namespaces if namespace.exists()]
    keepers = {int(namespace.parts[2]) for namespace in namespaces}
    processes = {found.pid: found for found in _processes(directory) if found.pid not in keepers}
    inodes = {namespace.stat().st_ino for namespace in namespaces}
    processes |= {pid: psutil.Process(pid) for pid in inside(inodes) if pid not in keepers}
    wanted = frozenset(ports)
    heard = sorted({Endpoint(str(one.ip), one.port) for one in listeners()} & wanted)
    ports_inside, rules = _inside(namespaces)
    return Remains(
        processes=tuple(f"process {found.pid} ({_words(found)})" for found in processes.values()),
        ports=(*(_heard(one) for one in heard), *ports_inside),
        files=(str(directory),) if directory.exists() else (),
        rules=rules,
    )


def _inside(namespaces: Iterable[Path]) -> tuple[list[str], tuple[str, ...]]:
    """Who listens on any port of these hosts, and which tables of rules they have."""
    ports: list[str] = []
    rules: list[str] = []
    for namespace in namespaces:
        with entered(namespace):
            ports += [_heard(Endpoint(str(one.ip), one.port)) for one in listeners()]
            rules += _tables()
    return ports, tuple(f"rules of nft {line}" for line in rules)


def _tables() -> list[str]:
    program = find_program(("nft",))
    if program is None:
        return []
    done = subprocess.run([program, "list", "tables"], check=False, capture_output=True, text=True)
    # Where it cannot be told, it is not clean.
    return (done.stdout or done.stderr).splitlines()


def _heard(endpoint: Endpoint) -> str:
    return f"{endpoint} is listened on by {who_listens(endpoint) or 'a process that just ended'}"


def end_leftovers(directory: Path) -> None:
    """End the control servers and data servers that run in the demo's directory, and remove it.

    Raises:
        SciStreamError: DEMO_DIRECTORY_FOREIGN.
    """
    require_ours(directory)
    left = [facts for found in _processes(directory) if _is_ours(found) and (facts := ProcessFacts.of(found.pid))]
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        for facts in left:
            send(facts, number)
        left = _still_there(left, seconds)
    remove_directory(directory)


def _still_there(processes: Sequence[ProcessFacts], seconds: float) -> list[ProcessFacts]:
    deadline = time.monotonic() + seconds
    left = [facts for facts in processes if _runs(facts)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [facts for facts in left if _runs(facts)]
    return left


def _runs(facts: ProcessFacts) -> bool:
    now = ProcessFacts.of(facts.pid)
    return now is not None and now.started == facts.started and not now.gone


def _processes(directory: Path) -> Iterator[psutil.Process]:
    """Every process that names the directory or works in it, but this one and those that it serves."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    path = str(directory.absolute())
    for process in psutil.process_iter():
        if process.pid not in ours and any(_is_in(place, path) for place in _places(process)):
            yield process


def _places(process: psutil.Process) -> Iterator[str]:
    for read in (process.cmdline, lambda: [process.cwd()], lambda: [file.path for file in process.open_files()]):
        try:
            yield from read()
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's


def _is_in(place: str, path: str) -> bool:
    # A directory's longer namesake (`demo2`) is another one.
    start = place.find(path)
    return start >= 0 and place[start + len(path) : start + len(path) + 1] in ("", "/", " ", "'", '"')


def _is_ours(process: psutil.Process) -> bool:
    try:
        words = {Path(word).name for word in process.cmdline()[:4]} | {process.name()}
    except psutil.Error:
        return False
    return not words.isdisjoint(_PROGRAMS)


def _words(process: psutil.Process) -> str:
    try:
        # Some write their title over their arguments, and fill up with spaces.
        return " ".join(" ".join(process.cmdline()).split()) or process.name()
    except psutil.Error:
        return "ended meanwhile"


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--mark", is_flag=True, help="Make the directory, and mark it as a demo's; look for nothing.")
@click.option("--remove", is_flag=True, help="Remove the directory first, where it is a demo's.")
@click.option(
    "--namespaces",
    envvar="SCISTREAM_DEMO_NAMESPACES",
    default="",
    help="Look also in these network namespaces, which are the demo's: paths with blanks between.",
)
def main(directory: Path, mark: bool, remove: bool, namespaces: str) -> None:
    """Say what a demo with that DIRECTORY left behind.

    Example: python -m scistream.demo.remains .state/demo
    """
    if mark:
        mark_directory(directory)
        return
    if remove:
        remove_directory(directory)
    hosts = tuple(map(Path, namespaces.split()))
    if remains := look(directory, () if hosts else LISTENERS, hosts):
        raise SciStreamError(Code.LEFT_BEHIND, what=str(remains))
    where = f"no port of the {len(hosts)} hosts" if hosts else f"none of {len(LISTENERS)} addresses"
    rules = "no process and no rule on one of them, " if hosts else ""
    click.echo(f"Nothing is left behind: no process that names {directory}, {where} is listened on, {rules}no file.")


if __name__ == "__main__":
    run(main, "scistream.demo.remains")
