"""`python -m scistream.demo`."""

from __future__ import annotations

import signal


def _main() -> None:
    # Until there is something to clean up, an interrupt needs no traceback; the imports take their time.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from scistream.cli.common import run  # noqa: PLC0415 - see above
    from scistream.demo.command import demo  # noqa: PLC0415

    run(demo, "demo")


if __name__ == "__main__":
    _main()
