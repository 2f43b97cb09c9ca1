"""How `s2uc` opens a session: opened and told, or neither. Imported when a session is opened; it loads the client."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from scistream.cli.telling import Teller, spell_registration, way_out
from scistream.client import (
    Action,
    Connection,
    ControlServer,
    Opener,
    Outcome,
    Wish,
    await_session,
    connect,
    ensure_session,
    open_session,
    open_with_ticket,
    withdraw,
)
from scistream.client.verification import try_entry_points

__all__ = ["open_and_tell"]


def open_and_tell(
    server: ControlServer, wish: Wish, teller: Teller, *, wait: float | None = None, verify: bool = False
) -> None:
    """Open a session and print it.

    Args:
        server: the control server.
        wish: the session.
        teller: what prints.
        wait: so many seconds has an application controller to register its end; None where no such one is waited for.
        verify: try each entry point, and withdraw the session where one leads nowhere.

    Raises:
        SciStreamError: OUTPUT_UNWRITABLE, PATH_BROKEN, what the control server says, or why it cannot be talked to.
    """
    request = wish.request
    opener = open_session if wait is None else functools.partial(await_session, wait=wait)
    with connect(server) as connection:
        teller.heading(request.uid, server, request.direction)
        if wait is not None:
            teller.say(f"Waiting {wait:g} s for: {spell_registration(request, server)}")
        with way_out(request.uid, server):
            outcome = _opened(connection, wish, opener)
        with _told_or_withdrawn(connection, wish, outcome):
            teller.found(outcome)
            if outcome.session:
                verified = try_entry_points(outcome.session.entry_points) if verify else None
                action = outcome.action.value
                teller.session(outcome.session, server, ticket=wish.ticket, verified=verified, action=action)


def _opened(connection: Connection, wish: Wish, opener: Opener) -> Outcome:
    """Open the session; one that has a name may be there already."""
    if not wish.name:
        session = open_with_ticket(connection, wish, opener)
        return Outcome(session, changed=True, before=None, after=None, action=Action.OPENED)
    return ensure_session(connection, wish.request, ticket=wish.ticket, name=wish.name, opener=opener)


@contextlib.contextmanager
def _told_or_withdrawn(connection: Connection, wish: Wish, outcome: Outcome) -> Iterator[None]:
    """Nobody can release a session whose uid nobody was told; one that was there before is known, and stays."""
    try:
        yield
    except BaseException as error:
        if outcome.changed and outcome.before is None:
            withdraw(connection, wish, error)
        raise
