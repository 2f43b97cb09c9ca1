"""The rate of a path, measured with iperf3 (guide 7.3.4): its server at the target, its client at the entry point."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from scistream.addresses import Endpoint
from scistream.demo.applications import Applications, Ends
from scistream.errors import Code, SciStreamError

__all__ = ["Measurement", "measure", "parse_report"]

SERVER: Final = "the iperf3 server"
CLIENT: Final = "the iperf3 client"
_PROGRAM: Final = "iperf3"
_START_SECONDS: Final = 15.0
# iperf3 itself opens a control connection, sets up, and exchanges results.
_EXTRA_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Measurement:
    """What iperf3 measured at the receiving end: bytes, seconds, connections."""

    bytes: int
    seconds: float
    connections: int

    @property
    def gbps(self) -> float:
        """The rate in Gb/s."""
        return self.bytes * 8 / self.seconds / 1e9 if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The measurement as plain data."""
        return {
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "gbps": round(self.gbps, 3),
            "connections": self.connections,
        }


def measure(ends: Ends, *, seconds: int, connections: int) -> Measurement:
    """Run iperf3 through the path.

    Args:
        ends: where its server listens, on that address only, and where its client connects to.
        seconds: how long it sends.
        connections: how many connections it sends over.

    Raises:
        SciStreamError: APPLICATION_FAILED, DEADLINE.
    """
    if shutil.which(_PROGRAM) is None:
        words = "there is no program iperf3 (sudo apt-get install iperf3)"
        raise SciStreamError(Code.APPLICATION_FAILED, application="iperf3", ending="before it began", words=words)
    with Applications() as applications:
        applications.start(SERVER, _command(ends.target, "-s", "-1", "--forceflush"), ends.target_namespace)
        _await_server(applications)
        # With -J, iperf3 3.12 ends with 0 even where it could not connect: the report says so.
        client = _command(ends.entry_point, "-c", "-J", "-t", str(seconds), "-P", str(connections))
        applications.start(CLIENT, client, ends.entry_point_namespace)
        return parse_report(applications.all_of(CLIENT, seconds + _EXTRA_SECONDS, "the iperf3 run"))


def _command(address: Endpoint, role: str, *options: str) -> list[str]:
    where = ["-s", "-B", address.host] if role == "-s" else ["-c", address.host]
    return [_PROGRAM, *where, "-p", str(address.port), *options]


def _await_server(applications: Applications) -> None:
    while True:
        line = applications.next_line(_START_SECONDS, "the start of the iperf3 server", "nothing")
        if line is None or "listening" in line.text:
            return


def parse_report(lines: Iterable[str]) -> Measurement:
    """Read what `iperf3 -J` prints.

    Raises:
        SciStreamError: APPLICATION_FAILED, with iperf3's own words where it has some.
    """
    text = "".join(lines)
    try:
        report = json.loads(text)
        received = report["end"]["sum_received"]
        return Measurement(received["bytes"], received["seconds"], report["start"]["test_start"]["num_streams"])
    except (ValueError, KeyError, TypeError):
        words = _error_in(text) or text.strip() or "it printed nothing"
        raise SciStreamError(Code.APPLICATION_FAILED, application=CLIENT, ending="no result", words=words) from None


def _error_in(text: str) -> str | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"])
    return None
