"""One SSH connection, made with paramiko: over jump hosts or a command, with a known host key and one's own key."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from scistream.addresses import Endpoint
from scistream.errors import Code, SciStreamError, one_line
from scistream.hops.configuration import Configuration, Settings
from scistream.hops.host_keys import check_host_key, prefer_known
from scistream.hops.identities import log_in
from scistream.hops.known_hosts import known_keys
from scistream.hops.via import Via

__all__ = ["Link", "connect"]

# What sshd answers without knowing it: that is the sign of life.
_SIGN_OF_LIFE: Final = "keepalive@openssh.com"
# How many jump hosts there may be in a row; more are a circle.
_DEEPEST: Final = 8
# RFC 4254, 5.1.
_PROHIBITED: Final = 1
_LAST_WORDS: Final = 300
_LAST_WAIT: Final = 1.0
_SHORTEST: Final = 0.1
# Seconds without a sign of life after which one is waited for before anything is asked, and how long: longer than one
# lost packet takes to come again, and shorter than the keeper's caller waits on top of their own time.
_QUIET: Final = 1.0
_SIGN: Final = 4.0


class Link:
    """An SSH connection that is there, and what it stands on: a jump host's, or a command."""

    def __init__(self, settings: Settings, transport: paramiko.Transport, below: Link | _Command | None) -> None:
        self.settings = settings
        self._transport = transport
        self._below = below
        self._reason = ""
        # Paramiko keeps the reason of one failure only.
        self._opening = threading.Lock()
        self._asked: float | None = None
        self._hurry, self._heard = threading.Event(), threading.Event()
        self._last_heard = time.monotonic()
        threading.Thread(target=self._ask_for_life, daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        self._transport.close()
        if self._below:
            self._below.close()

    def is_there(self, patience: float = 0.0) -> bool:
        """Whether it is, after so many seconds in which its end may become known."""
        asked, silence = self._asked, self.settings.alive_interval * self.settings.alive_count
        if asked is not None and time.monotonic() - asked > silence:
            self._reason = self._reason or f"no sign of life for {silence:g} s"
            self._transport.close()
        self._transport.join(patience)
        return self._transport.is_active()

    def _ask_for_life(self) -> None:
        while self._transport.is_active():
            self._hurry.wait(self.settings.alive_interval)
            self._hurry.clear()
            self._asked = time.monotonic()
            # Until an answer comes, or the end.
            self._transport.global_request(_SIGN_OF_LIFE, wait=True)
            self._asked, self._last_heard = None, time.monotonic()
            self._heard.set()

    def _check_life(self, since: float) -> None:
        """See that the host gave a sign of life since then, or gives one: who died does not say so.

        Raises:
            SciStreamError: SSH_LOST.
        """
        if self._last_heard >= since and self.is_there():
            return
        self._heard.clear()
        if not self.is_there():
            # Nobody is left who would hear of life.
            raise self.lost()
        if self._asked is None:
            self._hurry.set()
        if not self._heard.wait(_SIGN) and self.is_there():
            self._reason = f"no sign of life for {_SIGN:g} s"
            self._transport.close()
        if not self.is_there():
            raise self.lost()

    def open(self, target: Endpoint, seconds: float) -> paramiko.Channel:
        """A channel to a target, as the SSH host sees it (`direct-tcpip`).

        Raises:
            SciStreamError: CONTROL_PORT_CLOSED, SSH_FORWARDING_REFUSED, SSH_LOST.
        """
        deadline = time.monotonic() + seconds
        with self._opening:
            self._check_life(time.monotonic() - _QUIET)
            began = time.monotonic()
            try:
                return self._transport.open_channel(
                    "direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=_left(deadline)
                )
            except paramiko.ChannelException as error:
                raise self._unopened(target, error) from None
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not self.is_there():
                    raise self.lost(error) from None
                # It may have died since.
                self._check_life(began)
                raise self._closed(target, f"no answer within {seconds:g} s") from None

    def lost(self, error: Exception | None = None) -> SciStreamError:
        """That it is lost, and why, as far as that is known."""
        # Paramiko tells it once.
        seen = str(error or self._transport.get_exception() or "")
        self._reason = self._reason or one_line(seen, _LAST_WORDS)
        reason = self._reason or "it was closed from the other side"
        return SciStreamError(Code.SSH_LOST, host=str(self.settings), reason=reason)

    def _unopened(self, target: Endpoint, error: paramiko.ChannelException) -> SciStreamError:
        if error.code == _PROHIBITED:
            reason = one_line(error.text) or "prohibited"
            host = str(self.settings)
            return SciStreamError(Code.SSH_FORWARDING_REFUSED, host=host, address=str(target), reason=reason)
        return self._closed(target, "its sshd cannot connect to that (refused, or no way there)")

    def _closed(self, target: Endpoint, reason: str) -> SciStreamError:
        return SciStreamError(Code.CONTROL_PORT_CLOSED, host=str(self.settings), address=str(target), reason=reason)


def connect(via: Via, configuration: Configuration, seconds: float) -> Link:
    """Connect to an SSH host, with all that lies before it, within so many seconds.

    Raises:
        SciStreamError: BAD_VIA and SSH_..., whatever goes wrong.
    """
    return _connect(via, configuration, time.monotonic() + seconds, ())


def _connect(via: Via, configuration: Configuration, deadline: float, jumps: Sequence[Via], depth: int = 0) -> Link:
    """Connect over `jumps`; without them, as the configuration says."""
    if depth > _DEEPEST:
        raise SciStreamError(Code.SSH_CONFIGURATION_BAD, path="ProxyJump", reason="its jump hosts lead in a circle")
    settings = configuration.look_up(via)
    ways = jumps or settings.jumps
    if settings.patience:
        deadline = min(deadline, time.monotonic() + settings.patience)
    below: Link | _Command | None = None
    carrier: socket.socket | paramiko.Channel
    if ways:
        below, carrier = _over_jump(settings, ways, configuration, deadline, depth)
    elif settings.command:
        below, carrier = _by_command(settings, deadline)
    else:
        carrier = _plain(settings, deadline)
    try:
        return _shaken(settings, carrier, below, deadline)
    except BaseException:
        carrier.close()
        if below:
            below.close()
        raise


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _SHORTEST)


def _plain(settings: Settings, deadline: float) -> socket.socket:
    seconds = _left(deadline)
    try:
        connection = socket.create_connection((settings.host, settings.port), seconds)
    except OSError as error:
        raise _unconnected(settings, error, seconds) from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _unconnected(settings: Settings, error: OSError, seconds: float) -> SciStreamError:
    command = settings.by_hand
    if isinstance(error, socket.gaierror):
        reason = error.strerror or str(error)
        return SciStreamError(Code.SSH_NAME_UNKNOWN, name=settings.host, reason=reason)
    if isinstance(error, ConnectionRefusedError):
        address = str(Endpoint(settings.host, settings.port))
        return SciStreamError(Code.SSH_REFUSED, address=address, command=command)
    if isinstance(error, TimeoutError):
        return _late(settings, seconds, "nothing answers at all")
    return SciStreamError(
        Code.SSH_UNREACHABLE, host=str(settings), reason=error.strerror or str(error), command=command
    )


def _late(settings: Settings, seconds: float, last: str) -> SciStreamError:
    return SciStreamError(
        Code.SSH_TIMEOUT, host=str(settings), seconds=round(seconds, 1), last=last, command=settings.by_hand
    )


def _over_jump(
    settings: Settings, jumps: Sequence[Via], configuration: Configuration, deadline: float, depth: int
) -> tuple[Link, paramiko.Channel]:
    """The last jump host, reached over those before it, opens the way on."""
    *before, last = jumps
    try:
        below = _connect(last, configuration, deadline, before, depth + 1)
    except SciStreamError as error:
        if error.code is Code.SSH_JUMP_FAILED:
            raise
        raise _unjumped(settings, configuration.look_up(last), error.seen) from None
    try:
        return below, below.open(Endpoint(settings.host, settings.port), _left(deadline))
    except SciStreamError as error:
        below.close()
        reason = error.facts["reason"]
        words = f"from there, {settings.host} port {settings.port} is not reached: {reason}"
        raise _unjumped(settings, below.settings, words) from None


def _unjumped(settings: Settings, jump: Settings, reason: str) -> SciStreamError:
    return SciStreamError(Code.SSH_JUMP_FAILED, host=str(settings), jump=str(jump), reason=reason, command=jump.by_hand)


@dataclass
class _Command:
    """A ProxyCommand that runs; its words are in a file that has no name."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_LAST_WAIT)

    def words(self) -> str:
        """What it said on stderr, the end of it."""
        self.errors.seek(0)
        return one_line(self.errors.read().decode(errors="replace"), _LAST_WORDS)


def _by_command(settings: Settings, deadline: float) -> tuple[_Command, socket.socket]:
    """Start the user's own ProxyCommand: as a list of words, without a shell."""
    ours, its = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the command runs
    try:
        words = shlex.split(settings.command)
        with its:
            end = its.fileno()
            process = subprocess.Popen(words, stdin=end, stdout=end, stderr=errors, start_new_session=True)
    except (OSError, ValueError) as error:
        ours.close()
        reason = f"its ProxyCommand cannot be started: {getattr(error, 'strerror', None) or error}"
        raise SciStreamError(
            Code.SSH_UNREACHABLE, host=str(settings), reason=reason, command=settings.by_hand
        ) from None
    return _Command(process, errors), ours


def _shaken(
    settings: Settings,
    carrier: socket.socket | paramiko.Channel,
    below: Link | _Command | None,
    deadline: float,
) -> Link:
    """The handshake, the host's key, the user's key."""
    known = known_keys(settings.known_hosts, settings.host, settings.port, settings.name)
    transport = paramiko.Transport(carrier)
    try:
        transport.daemon = True
        prefer_known(transport, known)
        _shake(transport, settings, below, deadline)
        check_host_key(transport, settings, known)
        transport.auth_timeout = _left(deadline)
        log_in(transport, settings)
    except BaseException:
        transport.close()
        raise
    return Link(settings, transport, below)


def _shake(transport: paramiko.Transport, settings: Settings, below: Link | _Command | None, deadline: float) -> None:
    seconds = _left(deadline)
    transport.banner_timeout = transport.handshake_timeout = seconds
    try:
        transport.start_client(timeout=seconds)
        # Where time was over, nothing was raised.
        transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        if time.monotonic() >= deadline - _SHORTEST:
            raise _late(settings, seconds, "something accepts, and the SSH handshake does not end") from None
        reason = _why_unshaken(error, below)
        raise SciStreamError(
            Code.SSH_UNREACHABLE, host=str(settings), reason=reason, command=settings.by_hand
        ) from None


def _why_unshaken(error: Exception, below: Link | _Command | None) -> str:
    if isinstance(below, _Command):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = below.process.wait(_LAST_WAIT)
            return f"its ProxyCommand ended (exit code {code}): {below.words() or 'without a word'}"
    if isinstance(error, IncompatiblePeer):
        return f"it shares no algorithm with this client ({one_line(str(error))})"
    if "banner" in str(error):
        return "what answers there does not speak SSH, or hung up at once"
    return f"it hung up during the handshake ({one_line(str(error), _LAST_WORDS) or type(error).__name__})"
