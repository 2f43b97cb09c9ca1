"""What `s2uc` prints of a session: the deployed tool's lines, which scripts read, and plain words between them."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scistream.cli.calling import spell_channel
from scistream.cli.common import tell
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, OLD_NO_AUTH, Direction, Encryption, SessionState, Transport, Uid

if TYPE_CHECKING:
    from scistream.client import ControlServer, Outcome, Session, SessionRequest

__all__ = ["Teller", "next_step", "spell_registration", "way_out"]

_PROTECTION = {
    "": "it does not tell what protects the bytes between the gateways",
    "none": "NOT encrypted between the gateways",
    "tls": "TLS 1.3 with certificates of its own between the gateways",
    "tls-psk": "TLS 1.3 with a key of its own between the gateways",
    "legacy-psk": "NOT encrypted between the gateways, and authenticated by a key that is no secret",
}
# By what was done about a session that was not as wished for.
_DONE = {
    "reopened": ": it was released and opened anew, which cut its connections",
    "retargeted": ": new connections go to the new targets, and those that ran go on",
    "ticket_written": ": its ticket was written again",
}
# What only the other facility knows.
_CONTROL_SERVER, _CERTIFICATE = "ITS_CONTROL_SERVER", "ITS_CERTIFICATE"
_HAND_OVER = (
    "  Another user, or another machine, needs the ticket for that: hand it over, and say --ticket FILE in place of "
    "the uid and the listeners."
)
_TO_FILL_IN = (
    f"  Two words of it are the other facility's to fill in: {_CONTROL_SERVER} is the address of its own control "
    f"server, {_CERTIFICATE} the file with that control server's certificate (or its facility's CA)."
)


@dataclass(frozen=True)
class Teller:
    """Prints for people, or with `as_json` one JSON object on stdout, and the words on stderr."""

    program: str
    as_json: bool = False
    compat: bool = False

    def say(self, words: str) -> None:
        """A line for people."""
        tell(words, err=self.as_json)

    def warn(self, sentence: str) -> None:
        """What a user should know although it went well."""
        tell(f"{self.program}: warning: {sentence}", err=True)

    def heading(self, uid: str, server: ControlServer, direction: Direction) -> None:
        """The deployed tool's first lines. The token is never shown (U15)."""
        placeholder = OLD_NO_AUTH if self.compat else NO_AUTH
        self.say("uid; s2cs; access_token; role")
        self.say(f"{uid} {server.address} {'***' if server.token else placeholder} {direction.role}")

    def found(self, outcome: Outcome) -> None:
        """What was done about a session that may have been there."""
        for warning in outcome.warnings:
            self.warn(warning)
        if not outcome.changed:
            self.say("It was there already, as wished for: nothing was changed.")
        elif outcome.before and outcome.differences:
            self.say(f"It was there and not as wished for ({'; '.join(outcome.differences)}){_DONE[outcome.action]}.")

    def session(
        self,
        session: Session,
        server: ControlServer,
        *,
        ticket: Path | None = None,
        verified: Mapping[str, str] | None = None,
        action: str = "opened",
    ) -> None:
        """A session that runs, what its entry points were found to do where somebody looked, and what to do next.

        `action` is what was done to have it, for machines.
        """
        self.say(
            f"{session.direction.value.capitalize()} session {session.uid} runs on {server.address}{_how(session)}."
        )
        for index, entry_point in enumerate(session.entry_points):
            target = session.targets[index % len(session.targets)] if session.targets else "?"
            found = f": {verified[entry_point]}" if verified else ""
            self.say(f"  entry point {entry_point} -> {target}{found}")
        self.say(f"Listeners: {list(session.entry_points)}")
        if session.lease_expires:
            self.say(_lease(session, server))
        if ticket:
            self.say(f"Ticket: {ticket}")
        for warning in session.warnings:
            self.warn(warning)
        command = self._next(session, ticket)
        told = {"session": session.as_dict(), "action": action, "ticket": str(ticket) if ticket else None}
        self.result(told | {"next": command} | ({"verified": dict(verified)} if verified else {}))

    def _next(self, session: Session, ticket: Path | None) -> str | None:
        """What to do next; the other end's command, where it has one."""
        if session.direction is Direction.OUTBOUND:
            self.say("The application connects to an entry point above.")
            return None
        is_kept = _is_kept(session, ticket)
        command = _next_command(session, ticket, is_kept=is_kept)
        self.say(f"At the other end: {command}")
        if is_kept:
            self.say(_HAND_OVER)
        self.say(_TO_FILL_IN)
        return command

    def result(self, body: dict[str, Any]) -> None:
        """For machines."""
        if self.as_json:
            tell(json.dumps(body, indent=2))


def _how(session: Session) -> str:
    protection = _PROTECTION.get(session.encryption, session.encryption)
    if session.is_untold and session.encryption:
        protection += ", as was asked for: it does not tell"
    parts = [session.engine, "UDP" if session.transport == Transport.UDP.value else "", protection]
    return f" ({', '.join(part for part in parts if part)})"


def _is_kept(session: Session, ticket: Path | None) -> bool:
    """Whether the same user's outbound request finds the ticket by the uid."""
    from scistream.client import place_for

    return ticket is not None and ticket == place_for(session.uid)


def _next_command(session: Session, ticket: Path | None, *, is_kept: bool) -> str:
    is_named = ticket is not None and not is_kept
    what = ["--ticket", str(ticket)] if is_named else [session.uid, ",".join(session.entry_points)]
    channel = ["--s2cs", _CONTROL_SERVER, "--server-cert", _CERTIFICATE]
    return shlex.join(["s2uc", "outbound-request", *what, *_by_name(session, ticket), *channel])


def _by_name(session: Session, ticket: Path | None) -> list[str]:
    """What the other end has to say of the bytes' way: the deployed form always, the rest where no ticket says it."""
    if session.encryption == Encryption.LEGACY_PSK.value:
        return ["--legacy-psk"]
    if ticket or session.encryption != Encryption.NONE.value:
        return []
    transport = ["--transport", session.transport] if session.transport == Transport.UDP.value else []
    return ["--encryption", session.encryption, *transport]


def _lease(session: Session, server: ControlServer) -> str:
    from scistream.cli.tables import spell_time

    command = shlex.join(["s2uc", "renew", session.uid, *spell_channel(server)])
    return f"It lasts until {spell_time(session.lease_expires)}; for longer: {command} --lease TIME"


def next_step(session: Session, channel: Sequence[str]) -> str:
    """What can be done with a session in its state, with the options that reach its control server again."""

    def command(*words: str) -> str:
        return shlex.join(["s2uc", *words, session.uid, "--direction", session.direction.value, *channel])

    steps = {
        SessionState.REQUESTED.value: "it waits for its hello; where nobody sends it: " + command("release"),
        SessionState.REGISTERED.value: "it waits for its targets; where nobody names them: " + command("release"),
        SessionState.DRAINING.value: "see when it is released: " + command("watch", "--until", "released"),
        SessionState.FAILED.value: f"free it, and open it anew: {command('release')}",
    }
    if session.state in steps:
        return steps[session.state]
    if session.lease_expires:
        return f"for a longer lease: {command('renew')} --lease TIME"
    return f"end it: {command('drain')}"


@contextlib.contextmanager
def way_out(uid: Uid, server: ControlServer) -> Iterator[None]:
    """Where the uid is taken, tell the command that frees it."""
    try:
        yield
    except SciStreamError as error:
        if error.code is Code.UID_EXISTS:
            error.add_note(f"to release it: {shlex.join(['s2uc', 'release', uid, *spell_channel(server)])}")
        raise


def spell_registration(request: SessionRequest, server: ControlServer) -> str:
    """What has to be said at the application's end; the capitals are its to fill in."""
    words = [request.uid, str(server.address), NO_AUTH, request.direction.role, "HOST", "--receiver-ports", "PORTS"]
    # The address is an argument there.
    return shlex.join(["appctrl", "create-appctrl", *words, *spell_channel(server)[2:]])
