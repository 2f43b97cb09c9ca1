"""Which session is meant: by its uid, by the ticket that has it, or by the name that it was given here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scistream.cli.common import options_of, tell
from scistream.terms import Direction, Uid, parse_direction, parse_uid

if TYPE_CHECKING:
    from scistream.client import Ticket

__all__ = [
    "DIRECTION",
    "SELECTION",
    "SITE_SECRET",
    "Selection",
    "is_named",
    "named_uid",
    "read_ticket",
    "required",
    "selected",
]

SITE_SECRET: Final = click.option(
    "--site-secret", type=click.Path(path_type=Path), metavar="FILE", help="What names become uids with."
)
DIRECTION: Final = click.option(
    "--direction", type=parse_direction, metavar="inbound|outbound", help="Default: both ends of the uid."
)
SELECTION: Final = options_of(
    click.argument("uid", required=False),
    DIRECTION,
    click.option("--ticket", type=click.Path(path_type=Path), metavar="FILE", help="The session of this ticket."),
    click.option("--name", help="The session of this name."),
    SITE_SECRET,
)


@dataclass(frozen=True)
class Selection:
    """The session that is meant, without a direction both ends; `ticket` is there where it was named by that."""

    uid: Uid
    direction: Direction | None
    ticket: Ticket | None = None


def selected(options: dict[str, Any]) -> Selection | None:
    """The session that the options of SELECTION name; None where none of them was given.

    Raises:
        SciStreamError: BAD_UID, BAD_TICKET, BAD_NAME, SITE_SECRET_UNREADABLE, FILE_UNWRITABLE.
    """
    uid, path = options["uid"], options["ticket"]
    given = [word for word in (uid, path, options["name"]) if word is not None]
    if len(given) > 1:
        raise click.UsageError("Name the session by UID, by --ticket or by --name: by one of them.")
    if not given:
        return None
    ticket = read_ticket(path)
    which = ticket.uid if ticket else named_uid(options) if uid is None else parse_uid(uid)
    return Selection(which, options["direction"], ticket)


def required(options: dict[str, Any]) -> Selection:
    """The same, and one has to be named.

    Raises:
        SciStreamError: as `selected`.
    """
    found = selected(options)
    if found is None:
        raise click.UsageError("Name the session by UID, by --ticket or by --name.")
    return found


def is_named(options: dict[str, Any]) -> bool:
    """Whether a name was given."""
    return options["name"] is not None


def named_uid(options: dict[str, Any], *, create: bool = False) -> Uid:
    """The uid of the name that was given; with `create`, the site's secret is made where there is none, and that told.

    Without: a mistyped file is none that the name was ever used with.

    Raises:
        SciStreamError: BAD_NAME, SITE_SECRET_UNREADABLE, FILE_UNWRITABLE.
    """
    from scistream.client.names import default_site_secret, parse_name, site_secret, uid_of

    # First: a name that is none shall not be what makes the site's secret.
    name, path = parse_name(options["name"]), options["site_secret"] or default_site_secret()
    is_new = create and not path.exists()
    uid = uid_of(name, site_secret(path, create=create))
    if is_new:
        tell(f"s2uc: made the site secret {path}: names become uids with it, so keep it", err=True)
    return uid


def read_ticket(path: Path | None) -> Ticket | None:
    """The ticket of a file; None where no file was named.

    Raises:
        SciStreamError: BAD_TICKET.
    """
    from scistream.client import tickets

    return tickets.read(path) if path else None
