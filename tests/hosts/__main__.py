"""`python -m tests.hosts`: the test hosts by hand."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import cgroups
from .hosts import Host, Hosts
from .plan import NETWORKS, SSH, plan_of
from .programs import HostsError

_PLACE = Path(__file__).parents[2] / ".state" / "hosts"
_POWER = {True: "[green]on[/]", False: "[red]off[/]"}
_ANSWERS = {True: "[green]yes[/]", False: "[red]no[/]"}
_OUT, _ERR = Console(), Console(stderr=True)

_network = click.option("--network", "networks", type=click.Choice(NETWORKS), multiple=True, help="One network.")


@click.group(help="Real hosts on this machine, for tests: two gateways, an instrument host, a compute host.")
@click.option("--place", type=click.Path(path_type=Path, file_okay=False), default=_PLACE, help="Where their state is.")
@click.pass_context
def hosts(context: click.Context, place: Path) -> None:
    context.obj = place


@hosts.command(help="Make them anew, and wait until they answer. The first time takes about a minute.")
@click.option("--more", type=int, default=0, help="Light hosts beside the four, in the network for SSH alone.")
@click.pass_obj
def up(place: Path, more: int) -> None:
    with _progress() as say:
        made = Hosts(place, more=more, say=say).up()
    _OUT.print(f"{len(made)} hosts answer: ssh -F {made.ssh_config} gateway_a", soft_wrap=True, highlight=False)


@hosts.command(help="Take them down, and whatever a crash has left.")
@click.pass_obj
def down(place: Path) -> None:
    Hosts(place).down()
    _OUT.print("Nothing is left of the hosts.")


@hosts.command(help="Show them; ends with 1 where not all of them answer.")
@click.pass_obj
def status(place: Path) -> None:
    found = Hosts.found(place)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("host", "power", "answers", "memory", "networks"):
        table.add_column(column, no_wrap=True, justify="right" if column == "memory" else "left")
    answers = {}

    def ask(host: Host) -> None:
        answers[host.name] = host.answers()

    found.all(ask)
    for host in found.values():
        states = _POWER[host.is_on], _ANSWERS[answers[host.name]]
        table.add_row(host.name, *states, _memory(found, host), "\n".join(_where(host)))
    _OUT.print(table)
    sys.exit(0 if all(answers.values()) else 1)


def _memory(found: Hosts, host: Host) -> str:
    used = cgroups.memory_of(found.plan, plan_of(host.name))
    return "" if used is None or not host.is_on else f"{used >> 20} MiB"


def _where(host: Host) -> Iterator[str]:
    cut = host.networks_cut
    for network, address in host.addresses.items():
        yield f"{network:10} [red]{address} cut[/]" if network in cut else f"{network:10} {address}"


@hosts.command(help="A shell on a host, as root or as another user.")
@click.option("--user", default="root", show_default=True)
@click.argument("host")
@click.pass_obj
def shell(place: Path, host: str, user: str) -> None:
    command = _host(place, host).ssh(user=user)
    os.execvp(command[0], command)  # noqa: S606 - no shell of ours is meant


@hosts.command(help="Reboot a host, and wait until it answers.")
@click.argument("host")
@click.pass_obj
def reboot(place: Path, host: str) -> None:
    _host(place, host).reboot()


@hosts.command(help=f"Pull a host's cables: all but that for SSH ({SSH}), or those of the networks named.")
@click.argument("host")
@_network
@click.pass_obj
def cut(place: Path, host: str, networks: tuple[str, ...]) -> None:
    _host(place, host).cut(*networks)


@hosts.command(help="Put a host's cables back: all, or those of the networks named.")
@click.argument("host")
@_network
@click.pass_obj
def mend(place: Path, host: str, networks: tuple[str, ...]) -> None:
    _host(place, host).mend(*networks)


@hosts.command(help="Take a host's power away.")
@click.argument("host")
@click.pass_obj
def kill(place: Path, host: str) -> None:
    _host(place, host).kill()


@hosts.command(help="Give a host power again, and wait until it answers.")
@click.argument("host")
@click.pass_obj
def start(place: Path, host: str) -> None:
    _host(place, host).start()


def _host(place: Path, name: str) -> Host:
    found = Hosts.found(place)
    if name not in found:
        raise HostsError(f"There is no host {name}: take one of {', '.join(found)}.")
    return found[name]


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line that changes, or a line for each thing where nobody looks at a terminal."""
    if not _ERR.is_terminal:
        yield lambda text: _ERR.print(text, soft_wrap=True, highlight=False, markup=False)
        return
    with _ERR.status("The hosts are made") as line:
        yield lambda text: line.update(escape(text))


def _end(number: int, *_: Any) -> None:
    # What is half made is taken down on the way out.
    sys.exit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    try:
        hosts(prog_name="python -m tests.hosts")
    except HostsError as error:
        _ERR.print(str(error), soft_wrap=True, highlight=False, markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
