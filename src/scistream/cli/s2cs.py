"""`s2cs`, the control server: in the foreground as the deployed tool, or in the background by its subcommands."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from scistream.cli.common import CONTEXT, options_of, run, tell, version_option
from scistream.errors import Code, ExitCode, SciStreamError

if TYPE_CHECKING:
    from scistream.control_server.configuration import Settings

__all__ = ["command", "main"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PROGRAM: Final = "s2cs"
# What the commands mean that end with this, where nobody says it.
_WHICH: Final = (
    "Without --config and --state-directory, also in the environment, it is the first of these that is there: the "
    "control server of ~/.scistream, that of ~/.config/scistream/s2cs.toml, the host's, of /etc/scistream/s2cs.toml "
    "(with sudo)."
)
# In a secret's place: it comes on the input.
_FROM_INPUT: Final = "-"


def _option(names: str, metavar: str, text: str, **attributes: Any) -> Callable[[_Function], _Function]:
    # No default here: what was not named may stand in the environment or in the file.
    return click.option(*names.split(), metavar=metavar, help=text, default=None, **attributes)


def _flag(*names: str, text: str) -> Callable[[_Function], _Function]:
    return click.option(*names, is_flag=True, default=None, help=text)


_PLACE: Final = options_of(
    _option("--config", "FILE", "TOML file; its keys are these options' names. [SCISTREAM_CONFIG]"),
    _option("--state-directory", "DIRECTORY", "Sessions, data servers' files, lock. [~/.scistream]"),
)
_SETTINGS: Final = options_of(
    _option("--listener-ip", "IP", "Address of the control port and of the entry points. [0.0.0.0]"),
    _option("--control-ip", "IP", "Address of the control port, where that is another one. [--listener-ip]"),
    _option("--port", "PORT", "The control port. [5000]"),
    _option("--port-range", "FIRST-LAST", "Ports of the entry points. [5100-5200]"),
    _option(
        "--type", "ENGINE", "Data server: Haproxy, Nginx, Stunnel or nftables; s2cs engines tells them apart. [Haproxy]"
    ),
    _option("--server-crt --server-cert", "FILE", "The control channel's certificate. [server.crt]"),
    _option("--server-key", "FILE", "Its private key. [server.key]"),
    _option("--ssl", "BOOL", "False: the control channel is plain text. [True]", is_flag=False, flag_value="True"),
    _flag("--insecure-no-auth", text="Whoever reaches the control port may open streams."),
    _flag("--compat", text="The deployed tool's defaults; with them authentication is off. Not from the environment."),
    _option("--client-id", "ID", "This control server's identity at the provider, which tokens are checked with."),
    _option("--client-secret", "-", "Read from the input. In clear it is refused here, where others can read it."),
    _option("--provider", "URL", "The issuer whose tokens are accepted. [https://auth.globus.org]"),
    _option("--introspection-url", "URL", "Where tokens are checked (RFC 7662). [as the provider says]"),
    _option("--audience", "ID", "Whom tokens have to be for. [the client id]"),
    _option("--scope", "SCOPE", "What tokens have to be good for. [https://auth.globus.org/scopes/ID/scistream]"),
    _option("--operators", "SUBJECTS", "Who may see and change everybody's sessions, with commas between."),
    _option(
        "--allowed-targets",
        "TARGETS",
        "What may be asked for, with commas between: [SUBJECT=]NETWORK[:PORTS], as in 198.51.100.0/24:5000-5999. [all]",
    ),
    _option(
        "--old-clients",
        "refuse|plain|legacy-psk",
        "What deployed clients get, which know of no encryption between gateways. [refuse; with --compat: plain]",
    ),
    _option("--hello-timeout", "TIME", "How long a request waits for its hello, and then for its update. [180]"),
    _option("--lease", "TIME", "How long a session lasts that asks for nothing else: 90, 30m, 8h. [unlimited]"),
    _option("--longest-lease", "TIME", "The longest lease that can be asked for. [unlimited]"),
    _option("--quarantine", "TIME", "How long a released port is given to nobody. [1]"),
    _option("--ports-per-owner", "NUMBER", "Ports that one user's sessions may have together; 0: all of them. [0]"),
    _option("--metrics-port", "PORT", "Serve Prometheus metrics there; 0: nowhere. [0]"),
    _option("--metrics-ip", "IP", "Address of the metrics port. [127.0.0.1]"),
    _option("--log-file", "FILE", "Log there in place of stderr."),
    _option("--log-format", "plain|json", "Lines for people, or one JSON object a line. [plain]"),
    _option("--audit-file", "FILE", "Record there who did what to which session. [nowhere]"),
    _flag("--verbose", "-v", text="Log debugging events as well."),
    _PLACE,
)


@click.group(
    context_settings=CONTEXT,
    invoke_without_command=True,
    epilog="Example: s2cs start --type Haproxy --listener-ip 192.0.2.7 --server-crt server.crt --server-key server.key "
    "--insecure-no-auth",
)
@version_option
@_SETTINGS
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Run a control server: in the foreground, or with a command below in the background.

    Each option is also a key of the TOML file and an environment variable, SCISTREAM_PORT for --port; only --compat is
    no variable. An option overrules the environment, and the environment the file.
    """
    context.obj = options
    if context.invoked_subcommand is None:
        _run(_settings(options))


def main() -> NoReturn:
    """The program."""
    # gRPC's own log says in its words what our errors say in ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run(command, _PROGRAM)


def _settings(*layers: dict[str, Any]) -> Settings:
    from scistream.control_server.configuration import ENVIRONMENT_PREFIX, Surroundings, load

    named = {key: value for layer in layers for key, value in layer.items() if value is not None}
    exposed = named.get("client_secret") not in {None, "", _FROM_INPUT}
    if named.get("client_secret") == _FROM_INPUT:
        named["client_secret"] = _read_secret()
    config = named.pop("config", None) or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    settings = load(named, Surroundings(Path.cwd(), os.environ), config=Path(config) if config else None)
    if exposed and not settings.compat:
        raise SciStreamError(Code.SECRET_EXPOSED)
    if exposed:
        tell(f"{_PROGRAM}: warning: {SciStreamError(Code.SECRET_EXPOSED)}", err=True)
    # Data servers get this environment.
    os.environ.pop(f"{ENVIRONMENT_PREFIX}CLIENT_SECRET", None)
    return settings


def _settings_of_meant(*layers: dict[str, Any]) -> Settings:
    """Of the control server that a command is about, which may have been started by somebody else."""
    from scistream.control_server.configuration_places import find_configuration, is_named

    named = {key: value for layer in layers for key, value in layer.items() if value is not None}
    found = None if is_named(named, os.environ) else find_configuration()
    return _settings(*layers, {"config": found})


@contextlib.contextmanager
def _of_another_user() -> Iterator[None]:
    """Inside, a state directory that this user may not look into is another's."""
    try:
        yield
    except SciStreamError as error:
        if error.code is Code.FILE_UNREADABLE:
            error.add_note("the control server is another user's: say it as that user, or with sudo")
        raise


def _read_secret() -> str:
    secret = sys.stdin.readline().strip() if sys.stdin else ""
    if not secret:
        # With --compat, an empty one would turn authentication off.
        raise SciStreamError(
            Code.BAD_CONFIGURATION,
            key="client_secret",
            value="",
            source="the input",
            reason="nothing came there",
        )
    return secret


def _run(settings: Settings) -> None:
    import asyncio

    from scistream.control_server.judgement import judge
    from scistream.control_server.logs import file_of, open_log
    from scistream.control_server.server import serve

    judge(settings)
    asyncio.run(serve(settings, open_log(file_of(settings), verbose=settings.verbose, form=settings.log_format)))


@command.command()
@_SETTINGS
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, metavar="SECONDS", show_default=True)
@click.pass_context
def start(context: click.Context, /, timeout: float, **options: Any) -> None:
    """Start in the background; back when it answers. One that runs already is left alone."""
    settings = _settings(context.obj, options)
    settings.check_authentication()
    from scistream.control_server import daemon

    try:
        running, fresh = daemon.start(settings, timeout=timeout)
    except daemon.StartError as failure:
        tell(str(failure), err=True)
        sys.exit(failure.exit_code)
    if fresh:
        _warn(settings)
    tell(f"{'started' if fresh else 'already running'}: pid {running.pid}, {running.address}")


@command.command()
@_SETTINGS
@click.pass_context
def check(context: click.Context, /, **options: Any) -> None:
    """Judge configuration and certificate as a start would; starts nothing, and needs nothing to be free."""
    settings = _settings(context.obj, options)
    _warn(settings)
    channel = "TLS" if settings.ssl else "plain text"
    told = f"{settings.address}, {settings.type}, entry points {settings.port_range}, {channel}"
    tell(f"good: {told}, {_authentication(settings)}")


def _authentication(settings: Settings) -> str:
    """What is configured; the provider is not asked."""
    if not settings.authenticates:
        return settings.authentication
    demands = f"for {settings.demanded_audience}, good for {settings.demanded_scope}"
    return f"{settings.authentication}: tokens {demands}; the provider was not asked"


def _warn(settings: Settings) -> None:
    """What the control server's log says as well, where its operator looks."""
    from scistream.control_server.banner import warnings
    from scistream.control_server.judgement import judge
    from scistream.engines import find_engine

    for warning in warnings(settings, find_engine(settings.type), judge(settings)):
        tell(f"{_PROGRAM}: warning: {warning}", err=True)


@command.command(epilog=_WHICH)
@_PLACE
@click.option("--release", is_flag=True, help="Release all sessions first; else their data servers go on.")
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, metavar="SECONDS", show_default=True)
@click.pass_context
def stop(context: click.Context, /, release: bool, timeout: float, **options: Any) -> None:
    """End it, and wait until it is gone."""
    settings = _settings_of_meant(context.obj, options)
    from scistream.control_server import daemon

    with _of_another_user():
        ended = daemon.stop(settings.state_directory, release=release, timeout=timeout)
    owner = _owner(settings.state_directory)
    # One that ran has released its sessions itself; what it left is for its own user to release.
    left = 0 if not release or (ended and owner != os.geteuid()) else _release_leftovers(settings, owner)
    tell(("stopped" if ended else "not running") + (f", {left} left sessions released" if left else ""))


def _owner(directory: Path) -> int | None:
    """Whose it is, by number; None where it is not there."""
    with contextlib.suppress(OSError):
        return directory.stat().st_uid
    return None


def _release_leftovers(settings: Settings, owner: int | None) -> int:
    """Sessions of a control server that was ended without --release, or was killed."""
    import asyncio

    from scistream.control_server.logs import open_log
    from scistream.control_server.private_files import check_directory
    from scistream.control_server.restoring import release_leftovers

    if owner not in {None, os.geteuid()}:
        with _its_own_to_release(settings.state_directory, owner):
            # First of all: a log that this user made would be closed to the control server.
            check_directory(settings.state_directory)
    log = open_log(settings.log_file, verbose=settings.verbose, form=settings.log_format)
    return asyncio.run(release_leftovers(settings, log))


@contextlib.contextmanager
def _its_own_to_release(directory: Path, owner: int | None) -> Iterator[None]:
    try:
        yield
    except SciStreamError as error:
        words = ["sudo", "-u", f"#{owner}", _PROGRAM, "stop", "--release", "--state-directory", str(directory)]
        error.add_note(f"its sessions are that user's to release: {shlex.join(words)}")
        raise


@command.command(epilog=_WHICH)
@_PLACE
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def status(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Say whether it runs: exit code 0 where it does, 4 where it does not."""
    settings = _settings_of_meant(context.obj, options)
    from scistream.control_server import daemon

    try:
        with _of_another_user():
            found = daemon.status(settings.state_directory)
    except SciStreamError as error:
        if as_json and error.code is Code.NOT_RUNNING:
            _echo_json({"running": False, "state_directory": str(settings.state_directory)})
            sys.exit(ExitCode.SESSION)
        raise
    facts = found.facts()
    if as_json:
        _echo_json({"running": True, "state_directory": str(settings.state_directory), **facts})
        return
    for warning in found.warnings:
        tell(f"{_PROGRAM}: warning: {warning}", err=True)
    channel = "TLS" if facts["tls"] else "plain text"
    tell("running: pid {pid}, {address}, {engine}, {}, {authentication}, sessions: {sessions}".format(channel, **facts))


@command.command(epilog="Example: s2cs engines --type nginx --json")
@_SETTINGS
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def engines(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Tell what each engine can do on this host, here and now, and why not what it cannot."""
    settings = _settings(context.obj, options)
    from scistream.cli.engines import engine_facts, engines_table

    if as_json:
        _echo_json({"engines": engine_facts(settings.type)})
    else:
        tell(engines_table(settings.type))


def _echo_json(facts: dict[str, object]) -> None:
    import json

    tell(json.dumps(facts))


if __name__ == "__main__":
    main()
