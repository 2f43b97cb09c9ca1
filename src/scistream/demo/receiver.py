"""The application at the target: a ZeroMQ PULL socket that hashes what arrives. It knows its own address only."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence

import zmq

from scistream.addresses import Endpoint
from scistream.demo.wire import BEGIN, END, Tally, context_for, report, url
from scistream.errors import SciStreamError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Receive one stream; 0 when its end has come."""
    parser = argparse.ArgumentParser(prog="receiver", description="Receive one stream of frames and hash it.")
    parser.add_argument("bind", metavar="HOST:PORT", help="where to listen")
    try:
        address = Endpoint.parse(parser.parse_args(arguments).bind)
        _receive(address)
    except (SciStreamError, zmq.ZMQError, ValueError, KeyError) as error:
        sys.stderr.write(f"receiver: {error}\n")
        return 1
    return 0


def _receive(address: Endpoint) -> None:
    context, socket = context_for(zmq.PULL)
    with context, socket:
        socket.bind(url(address))
        report("ready", address=str(address))
        digest = hashlib.sha256()
        tally = Tally()
        while True:
            kind, body = socket.recv_multipart(copy=False)
            if kind.bytes == END:
                break
            if kind.bytes == BEGIN:
                tally = Tally(json.loads(body.bytes)["bytes"])
                continue
            digest.update(body.buffer)
            tally.add(len(body.buffer))
        report("done", bytes=tally.bytes, messages=tally.messages, digest=digest.hexdigest(), seconds=tally.seconds)


if __name__ == "__main__":
    sys.exit(main())
