"""What is asked of a session on the command line: the options for it, and the request that they make."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scistream.addresses import Endpoint, parse_endpoints, parse_networks
from scistream.cli.calling import parse_remote_host, was_said
from scistream.cli.common import options_of, switch
from scistream.cli.selecting import SITE_SECRET, is_named, named_uid, read_ticket
from scistream.durations import parse_duration
from scistream.terms import (
    MOCK_UID,
    Direction,
    Encryption,
    Transport,
    Uid,
    parse_encryption,
    parse_rate,
    parse_transport,
    parse_uid,
)

if TYPE_CHECKING:
    from scistream.client import SessionRequest, Ticket

__all__ = ["ADDRESS", "SESSION", "chosen_uid", "inbound_request", "outbound_request"]

# By name, a user asks for no other; the rest is the engines' to choose, or has an option of its own.
_ENCRYPTIONS: Final = (Encryption.TLS.value, Encryption.NONE.value)
_TRANSPORTS: Final = tuple(each.value for each in Transport)

SESSION: Final = options_of(
    click.option("--num-conn", type=int, metavar="NUMBER", help="Entry points; default: one for each target."),
    click.option(
        "--rate",
        type=int,
        metavar="KB/S",
        help="Of application bytes; refused where the control server's engine cannot hold a stream to it.",
    ),
    click.option(
        "--lease",
        type=parse_duration,
        metavar="TIME",
        help="How long it lasts: 90 (seconds), 30m, 8h, unlimited; default: as the control server says.",
    ),
    click.option(
        "--encryption",
        type=click.Choice(_ENCRYPTIONS, case_sensitive=False),
        help="Between the gateways; default: tls, and at the outbound end what the ticket says.",
    ),
    click.option(
        "--legacy-psk",
        is_flag=True,
        help="For a stream whose other end is a deployed Stunnel: not encrypted, and its key is no secret.",
    ),
    click.option(
        "--transport",
        type=click.Choice(_TRANSPORTS, case_sensitive=False),
        help="udp goes with --encryption none only; default: tcp, or what the ticket says.",
    ),
    click.option("--sources", type=parse_networks, metavar="CIDRS", help="Who may connect; default: everybody."),
    click.option(
        "--half-close",
        is_flag=True,
        help="The application half-closes its connections; refused where bytes would be lost then.",
    ),
    switch("--mock", default=False, help="The deployed tools' fixed uid, which never has a key."),
    click.option(
        "--ticket",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What one end hands to the other; without it, it is kept for your own outbound request.",
    ),
    click.option("--name", help="Name the session: one name, one uid. Again, nothing changes."),
    SITE_SECRET,
)
ADDRESS: Final = click.option(
    "--address",
    type=parse_remote_host,
    metavar="HOST",
    help="Address that the other gateway reaches the entry points by; it counts where the control server listens on "
    "all addresses. Default: that of --s2cs.",
)


def chosen_uid(options: dict[str, Any]) -> Uid:
    """The uid of an inbound session: the mock one, that of a name, or a new one.

    Raises:
        SciStreamError: BAD_NAME, SITE_SECRET_UNREADABLE, FILE_UNWRITABLE.
    """
    if options["mock"] and is_named(options):
        raise click.UsageError("--mock and --name are two uids; say one of them.")
    if options["mock"]:
        return Uid(MOCK_UID)
    return named_uid(options, create=True) if is_named(options) else Uid(str(uuid.uuid4()))


def inbound_request(options: dict[str, Any], targets: tuple[Endpoint, ...], connections: int) -> SessionRequest:
    """The inbound session that the options of SESSION ask for; `connections` where they do not say it.

    Raises:
        SciStreamError: as `chosen_uid` and `SessionRequest`.
    """
    from scistream.client import SessionRequest

    number = connections if options["num_conn"] is None else options["num_conn"]
    wishes = _wishes(options) | _carried(options)
    return SessionRequest(chosen_uid(options), Direction.INBOUND, targets, number, **wishes)


def outbound_request(words: tuple[str, ...], options: dict[str, Any], ports: tuple[int, ...]) -> SessionRequest:
    """The outbound session that UID, LISTENERS and the options of SESSION ask for, with the ticket that is at hand.

    Args:
        words: UID and LISTENERS, as far as they were said. Listeners that were said win over the ticket's entry points:
            a relay may stand between.
        options: of SESSION.
        ports: of the entry points, where they were named.

    Raises:
        SciStreamError: BAD_UID, BAD_ADDRESS, BAD_TICKET, SESSION_KEY_MISSING, and as `SessionRequest.of_ticket`.
    """
    from scistream.client import SessionRequest

    uid, listeners = _said(words, options)
    ticket = _at_hand(uid, options)
    targets = parse_endpoints([listeners]) if listeners else ()
    wishes = _wishes(options) | {"ports": ports}
    if ticket:
        wishes |= _contradictions(ticket, options)
        wishes |= {"targets": targets, "connections": options["num_conn"]}
        return SessionRequest.of_ticket(ticket, **wishes)
    if uid is None or not targets:
        raise click.UsageError("Name UID and LISTENERS, or --name and LISTENERS, or --ticket alone.")
    wishes |= _carried(options)
    number = len(ports or targets) if options["num_conn"] is None else options["num_conn"]
    request = SessionRequest(uid, Direction.OUTBOUND, targets, number, **wishes)
    request.require_key()
    return request


def _said(words: tuple[str, ...], options: dict[str, Any]) -> tuple[Uid | None, str]:
    """UID and LISTENERS. Of one word it is told which it is: an address has a colon, and a uid has none."""
    first = words[0] if words else ""
    has_uid = bool(first) and not (":" in first and len(words) == 1)
    listeners = words[has_uid:]
    if len(listeners) > 1 or (has_uid and is_named(options)):
        raise click.UsageError("Name UID and LISTENERS, or --name and LISTENERS, or --ticket alone.")
    # A ticket brings its uid along; a name that comes with it only says that there may be such a session already.
    named = named_uid(options) if is_named(options) and not options["ticket"] else None
    return parse_uid(first) if has_uid else named, listeners[0] if listeners else ""


def _at_hand(uid: Uid | None, options: dict[str, Any]) -> Ticket | None:
    """The ticket that was named, or the one that this user's inbound request left here."""
    from scistream.client import kept_ticket

    named = read_ticket(options["ticket"])
    if named is None:
        return kept_ticket(uid) if uid else None
    if uid not in {None, named.uid}:
        raise click.UsageError(f"The ticket is of session {named.uid}, and {uid} was said.")
    return named


def _contradictions(ticket: Ticket, options: dict[str, Any]) -> dict[str, Any]:
    """What was said that a ticket says as well: the encryption and the transport, None where it is the ticket's to say.

    A user's own defaults are for what nobody says, all but one: who wrote down tls is not given less by another's word.
    """
    encryption = _encryption(options)
    is_said = was_said("encryption", now=True) or was_said("legacy_psk", now=True)
    if not is_said and encryption is not Encryption.TLS and ticket.encryption not in {None, encryption}:
        encryption = None
    return {"encryption": encryption, "transport": _transport(options) if was_said("transport", now=True) else None}


def _carried(options: dict[str, Any]) -> dict[str, Any]:
    """How the bytes of a session are carried that no ticket tells of."""
    return {
        "encryption": _encryption(options) or Encryption.TLS,
        "transport": _transport(options) or Transport.TCP,
    }


def _encryption(options: dict[str, Any]) -> Encryption | None:
    """What was asked for; None where nothing was said. The command line's word wins over a user's own default."""
    word, is_legacy = options["encryption"], options["legacy_psk"]
    if word and is_legacy and was_said("encryption", now=True) == was_said("legacy_psk", now=True):
        raise click.UsageError("--legacy-psk and --encryption are two wishes; say one of them.")
    if is_legacy and not (word and was_said("encryption", now=True)):
        return Encryption.LEGACY_PSK
    return parse_encryption(word) if word else None


def _transport(options: dict[str, Any]) -> Transport | None:
    return parse_transport(options["transport"]) if options["transport"] else None


def _wishes(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "rate": 0 if options["rate"] is None else parse_rate(options["rate"]),
        "lease": options["lease"],
        "sources": options["sources"] or (),
        "half_close": options["half_close"],
    }
