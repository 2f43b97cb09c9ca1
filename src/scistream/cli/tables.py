"""Sessions and control servers as people read them: a table, a card, a line; units that fit a glance."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from scistream.durations import spell_duration
from scistream.terms import NO_AUTH, SessionState

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from scistream.client import ServerFacts, Session, SessionEvent

__all__ = [
    "card",
    "event_line",
    "server_card",
    "session_table",
    "spell_bytes",
    "spell_encryption",
    "spell_lease",
    "spell_path",
    "spell_time",
]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_STYLES: Final = {
    SessionState.ACTIVE.value: "green",
    SessionState.DRAINING.value: "yellow",
    SessionState.FAILED.value: "bold red",
}
_ARROW: Final = " -> "
_COLUMNS: Final = (
    "UID",
    "DIRECTION",
    "STATE",
    "ENGINE",
    "ENCRYPTION",
    "AGE",
    "LEASE",
    "OPEN",
    "BYTES",
    "OWNER",
    "PATHS",
)
# What stands for an encryption that leaves the bytes readable.
_READABLE: Final = {"none": "NOT ENCRYPTED", "legacy-psk": "NOT ENCRYPTED (legacy-psk)"}
_NOT_YET: Final = "not negotiated yet"
# Which of the two it is, nobody tells: an engine may tell at one end only, or when a connection has ended.
_NOT_TOLD: Final = "not told by this engine here, or no peer has proved itself yet"
# Wider than any line: what is piped is cut by nobody.
_ENDLESS: Final = 1_000_000


def spell_bytes(number: int) -> str:
    """Bytes in units of a thousand, with three figures: `0 B`, `1.25 GB`."""
    power = min(int(math.log10(number) / 3), len(_UNITS) - 1) if number > 0 else 0
    value = number / 1000**power
    # Rounded up into the next unit: 999.6 kB is 1.00 MB.
    if value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{number} B" if power == 0 else f"{value:#.3g} {_UNITS[power]}".replace(". ", " ")


def spell_time(seconds: float) -> str:
    """A moment in this host's time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def spell_lease(session: Session, now: float) -> str:
    """How much of a session's lease is left."""
    if not session.lease_expires:
        return "no end"
    left = session.lease_expires - now
    return spell_duration(left) if left > 0 else "over"


def spell_path(session: Session) -> list[str]:
    """Each entry point with the target that it leads to; fewer targets are used in turn."""
    targets = session.targets or ("?",)
    pairs = enumerate(session.entry_points)
    return [f"{entry_point}{_ARROW}{targets[index % len(targets)]}" for index, entry_point in pairs]


def _age(session: Session, now: float) -> str:
    return spell_duration(now - session.opened) if session.opened else "?"


def _bytes(session: Session) -> str:
    traffic = session.traffic
    return spell_bytes(traffic.bytes_to_targets + traffic.bytes_from_targets)


def session_table(sessions: Sequence[Session], *, now: float, width: int | None) -> str:
    """The sessions, a line each; where a terminal has no room for that, a few lines each.

    Args:
        sessions: in the order that they are shown in.
        now: seconds since the epoch.
        width: of the terminal in columns; None for what is piped: nothing cut, no colours.
    """
    from rich.console import Console

    # What a control server says is text, and no markup.
    console = Console(
        file=io.StringIO(),
        width=width or _ENDLESS,
        force_terminal=width is not None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    table = _table(sessions, now)
    endless = console.options.update(max_width=_ENDLESS)
    with console.capture() as capture:
        if console.measure(table, options=endless).maximum <= console.width:
            console.print(table)
        else:
            # Longer lines are the terminal's to wrap: an address in two pieces could not be copied.
            console.print(_blocks(sessions, now), soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _table(sessions: Sequence[Session], now: float) -> Table:
    from rich.table import Table

    table = Table(*_COLUMNS, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for session in sessions:
        first = [session.uid, session.direction.value, _state(session), session.engine, _encryption(session)]
        figures = [_age(session, now), spell_lease(session, now), str(session.traffic.connections_open)]
        figures += [_bytes(session), session.owner]
        table.add_row(*first, *figures, ", ".join(spell_path(session)))
    return table


def _blocks(sessions: Sequence[Session], now: float) -> Text:
    from rich.text import Text

    text = Text()
    for session in sessions:
        figures = [f"age {_age(session, now)}", f"lease {spell_lease(session, now)}"]
        figures += [f"{session.traffic.connections_open} open", _bytes(session), session.owner]
        text.append(session.uid, "bold").append(f"  {session.direction.value}  ").append_text(_state(session))
        text.append("  ").append_text(_encryption(session))
        text.append("".join(f"\n  {line}" for line in (", ".join(figures), *spell_path(session))) + "\n")
    return text


def _state(session: Session) -> Text:
    from rich.text import Text

    return Text(session.state, _STYLES.get(session.state, ""))


def _encryption(session: Session) -> Text:
    from rich.text import Text

    return Text(spell_encryption(session), "bold red" if session.is_readable else "")


def spell_encryption(session: Session) -> str:
    """What protects a session's bytes between the gateways; what does not is told in capitals."""
    return _READABLE.get(session.encryption, session.encryption)


def card(session: Session, *, now: float) -> str:
    """All that is known of a session, a fact a line."""
    traffic = session.traffic
    facts = {
        "session": session.uid,
        "direction": session.direction.value,
        "state": session.state,
        "failure": session.failure,
        "entry points": "\n".join(spell_path(session)),
        "engine": session.engine,
        "encryption": spell_encryption(session),
        "cipher": session.cipher or _spell_lack(session),
        "peer": session.peer or _spell_lack(session),
        "certificate": f"until {spell_time(session.certificate_expires)}, renewed before"
        if session.certificate_expires
        else "",
        "transport": session.transport,
        "sources": ", ".join(session.sources),
        "half-close": "every byte is kept where a side closes early" if session.half_close else "",
        "owner": _spell_owner(session.owner),
        "connections": f"{traffic.connections_open} open, {traffic.connections_total} in all",
        "bytes": f"{spell_bytes(traffic.bytes_to_targets)} to the targets, "
        f"{spell_bytes(traffic.bytes_from_targets)} from them",
        "refused peers": str(traffic.refused_peers or ""),
        "idle since": spell_time(session.idle_since) if session.idle_since else "",
        "rate": f"{session.rate} kb/s" if session.rate else "",
        "opened": f"{spell_time(session.opened)} ({_age(session, now)} ago)" if session.opened else "",
        "lease": _spell_end(session, now),
        "restarts": str(session.restarts or ""),
        "warnings": "\n".join(session.warnings),
    }
    return _lines(facts)


def _spell_lack(session: Session) -> str:
    """Why nothing is known of what was negotiated; empty where nothing ever is."""
    if not session.is_keyed:
        return ""
    return _NOT_TOLD if session.traffic.connections_total else _NOT_YET


def _spell_owner(owner: str) -> str:
    return f"{NO_AUTH}: this control server authenticates nobody" if owner == NO_AUTH else owner


def _spell_end(session: Session, now: float) -> str:
    if not session.lease_expires:
        return "no end"
    return f"until {spell_time(session.lease_expires)} ({spell_lease(session, now)} left)"


def server_card(address: str, facts: ServerFacts, *, now: float) -> str:
    """All that a control server says of itself."""
    engines = (f"{one.name} {one.version}".strip() for one in facts.engines if one.installed)
    authentication = facts.authentication
    told = {
        "control server": address,
        "version": facts.version,
        "listens on": f"{facts.listen_address} ({'TLS' if facts.tls else 'plain text'})",
        "authentication": f"{NO_AUTH}: whoever reaches it may do everything"
        if authentication == NO_AUTH
        else authentication,
        "scope": facts.scope,
        "up since": f"{spell_time(facts.started)} ({spell_duration(now - facts.started)})",
        "sessions": str(facts.sessions),
        "ports": f"{facts.ports_free} of {facts.port_range} are free",
        "engine": f"{facts.engine} (installed: {', '.join(engines)})",
        "encryption": ", ".join(facts.in_use.offered) if facts.in_use else "",
        "old clients": facts.old_clients,
        "leases": f"{_spell_limit(facts.default_lease)} by default, {_spell_limit(facts.longest_lease)} at most",
        "certificate": _spell_certificate(facts, now),
        "metrics": facts.metrics_address or "off",
        "warnings": "\n".join(facts.warnings),
    }
    return _lines(told)


def _spell_limit(seconds: float) -> str:
    return spell_duration(seconds) if seconds else "no end"


def _spell_certificate(facts: ServerFacts, now: float) -> str:
    if not facts.certificate_expires:
        return ""
    left = facts.certificate_expires - now
    until = f"until {spell_time(facts.certificate_expires)}"
    names = ", ".join(facts.certificate_names)
    return f"{names}; {until} ({spell_duration(left)} left)" if left > 0 else f"{names}; it has expired"


def _lines(facts: dict[str, str]) -> str:
    told = {name: text for name, text in facts.items() if text}
    width = max(map(len, told)) + 2
    return "\n".join(f"{name:{width}}" + text.replace("\n", "\n" + " " * width) for name, text in told.items())


def event_line(event: SessionEvent) -> str:
    """What happened, in one line: when, what, which session, its state, and why."""
    session = event.session
    # The state, where it is not what the event is called.
    state = "" if session.state == event.kind else f" {session.state}"
    words = f": {event.words}" if event.words else ""
    paths = ", ".join(spell_path(session))
    readable = f" {spell_encryption(session)}" if session.is_readable else ""
    what = f"{event.kind:<10} {session.uid} {session.direction.value}{state}{readable}"
    return f"{spell_time(event.time)}  {what}  {paths}{words}".rstrip()
