"""The application at the instrument: a ZeroMQ PUSH socket that sends frames, or a file. It knows one address."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmq

from scistream.addresses import Endpoint
from scistream.demo.wire import BEGIN, CHUNK, DATA, END, Tally, context_for, report, url
from scistream.errors import SciStreamError

__all__ = ["main"]

_SIDE = 2048
_MEAN_PHOTONS = 40.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Send one stream; 0 when all of it was handed to the network."""
    options = _parser().parse_args(arguments)
    try:
        address = Endpoint.parse(options.connect)
        if options.file is None:
            _send(address, _frames(options.frames), options.frames * CHUNK)
        else:
            with options.file.open("rb") as file:
                _send(address, iter(lambda: file.read(CHUNK), b""), os.fstat(file.fileno()).st_size)
    except (SciStreamError, zmq.ZMQError, OSError) as error:
        sys.stderr.write(f"sender: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sender", description="Send one stream of frames.")
    parser.add_argument("connect", metavar="HOST:PORT", help="where to connect to")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--frames", type=int, metavar="N", help=f"send N detector frames of {_SIDE} x {_SIDE} uint16")
    what.add_argument("--file", type=Path, metavar="PATH", help="send this file")
    return parser


def _frames(count: int) -> Iterator[memoryview | bytes]:
    import numpy  # noqa: PLC0415 - a file needs none

    # One exposure, drawn before the clock runs: drawing each frame anew would take longer than sending it.
    exposure = numpy.random.default_rng(count).poisson(_MEAN_PHOTONS, _SIDE * _SIDE).astype(numpy.uint16)
    # No two frames are equal: a lost, repeated or swapped one changes the digest.
    return ((numpy.roll(exposure, number) + numpy.uint16(number)).data.cast("B") for number in range(count))


def _send(address: Endpoint, chunks: Iterator[memoryview | bytes], total: int) -> None:
    context, socket = context_for(zmq.PUSH)
    # Leaving the context waits until the last byte is the kernel's.
    with context, socket:
        socket.connect(url(address))
        socket.send_multipart([BEGIN, json.dumps({"bytes": total}).encode()])
        tally = Tally(total)
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
            socket.send_multipart([DATA, chunk], copy=False)
            tally.add(len(memoryview(chunk)))
        socket.send_multipart([END, b"{}"])
    report("done", bytes=tally.bytes, messages=tally.messages, digest=digest.hexdigest(), seconds=tally.seconds)


if __name__ == "__main__":
    sys.exit(main())
