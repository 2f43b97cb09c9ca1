"""Runs the demo's playbook, and whatever happens, the one that cleans up behind it.

Ctrl-C reaches this driver alone: it passes one interrupt on to the playbook, waits, and cleans up. Where the driver
itself is killed, the playbook ends too; what that leaves, the next demo finds and takes away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from scistream.demo.playbook import Playbook
from scistream.demo.remains import end_leftovers, mark_directory, require_ours
from scistream.demo.site import Site, await_keepers, site_for
from scistream.errors import Code, ExitCode, SciStreamError

__all__ = ["Demo", "Wanted", "only_demo"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# In the abstract namespace: one per network namespace, as the demo's addresses are, and gone with its process.
_LOCK: Final = "\0scistream-demo"


@dataclass(frozen=True)
class Wanted:
    """What the demo shall show: an engine's name, and a number of detector frames or a file."""

    engine: str
    frames: int
    data: Path | None = None

    def environment(self) -> dict[str, str]:
        """How it reaches the playbook: never as text in a command or a template."""
        return {
            "ENGINE": self.engine,
            "SCISTREAM_DEMO_FRAMES": str(self.frames),
            "SCISTREAM_DEMO_DATA": str(self.data or ""),
        }


@contextmanager
def only_demo(name: str = _LOCK) -> Iterator[None]:
    """Hold the place of the one demo that this machine has.

    Raises:
        SciStreamError: DEMO_RUNNING.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(name)
        except OSError:
            raise SciStreamError(Code.DEMO_RUNNING, pid=_holder(name)) from None
        lock.listen()
        yield


def _holder(name: str) -> int | str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(name)
        except OSError:
            return "unknown"
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])


class Demo:
    """One run of the demo.

    Args:
        root: the checkout.
        state: the demo's directory; made, and removed at the end.
        wanted: what it shall show.
        playbooks: the one that shows it, and the one that cleans up.
    """

    def __init__(self, root: Path, state: Path, wanted: Wanted, playbooks: tuple[Path, Path] | None = None) -> None:
        self._root = root
        self._state = state.absolute()
        self._wanted = wanted
        self._playbook, self._cleanup = playbooks or (root / "playbooks/demo.yml", root / "playbooks/demo_stop.yml")
        # Where an earlier demo's leftovers are: whatever was on hosts of their own went with them.
        self._site = Site()
        self._running: Playbook | None = None
        self._is_ending = False
        self._is_cleaning = False
        self._has_lost_reader = False

    def run(self) -> int:
        """Show it, clean up, and return the exit code: 0, 130 after a signal, 1 where a step failed.

        Raises:
            SciStreamError: DEMO_DIRECTORY_FOREIGN, DEMO_PORTS_IN_USE, NETWORK_UNAVAILABLE, LEFT_BEHIND.
        """
        started = time.monotonic()
        require_ours(self._state)
        with self._signals():
            if self._state.exists():
                _say(f"An earlier demo left {self._state}: cleaning up.")
                await_keepers(self._state)
                self._clean()
                self._is_cleaning = False
            if self._is_ending:
                return self._verdict(1, time.monotonic() - started, is_clean=True)
            code, is_clean = self._show()
            return self._verdict(code, time.monotonic() - started, is_clean=is_clean)

    def _show(self) -> tuple[int, bool]:
        """The playbook's exit code, and whether it was cleaned up behind it as it should."""
        self._site = site_for(self._wanted.engine, self._state)
        with self._site:
            self._site.require_free(self._state)
            mark_directory(self._state)
            self._site.settle(self._state)
            code = self._play(self._playbook)
            is_clean = (code == 0 and not self._site.look(self._state)) or self._clean()
        if self._site.farewell:
            _say(self._site.farewell)
        return code, is_clean

    def _verdict(self, code: int, seconds: float, *, is_clean: bool) -> int:
        left = self._site.look(self._state)
        if left:
            raise SciStreamError(Code.LEFT_BEHIND, what=str(left))
        if not is_clean:
            _say("The demo could not clean up as it should, see above; what was left has been ended by force.")
            return ExitCode.INTERNAL
        if self._is_ending:
            _say("Interrupted. Everything is released and stopped, and nothing is left behind.")
            return ExitCode.INTERRUPTED
        if code:
            _say("The demo failed, see above. Everything is released and stopped, and nothing is left behind.")
            return ExitCode.INTERNAL
        _say(f"The demo is done: {seconds:.1f} s from start to end.")
        return ExitCode.OK

    def _clean(self) -> bool:
        """Release and stop everything; by force where that fails, and False then."""
        self._is_cleaning = True
        code = self._play(self._cleanup)
        if code and self._has_lost_reader:
            # It ended with its output. Where that was in the middle, the second one writes to nobody.
            code = self._play(self._cleanup) if self._site.look(self._state) else 0
        if self._site.look(self._state):
            end_leftovers(self._state)
            return False
        return code == 0

    def _play(self, playbook: Path) -> int:
        running = self._running = Playbook(playbook, self._site.inventories, self._root, self._environment(os.environ))
        if self._must_end():
            # The signal came while it was being started.
            running.interrupt()
        while (code := running.wait()) is None and not (running.is_mute or self._must_end()):
            continue
        if running.is_mute:
            self._is_ending = self._has_lost_reader = True
            running.interrupt()
        if code is None or self._is_ending:
            code = running.end()
        self._running = None
        return code

    def _must_end(self) -> bool:
        return self._is_ending and not self._is_cleaning

    def _environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        # Ansible's settings are this checkout's; a user's own could choose other plugins, hosts or users.
        kept = {key: value for key, value in inherited.items() if not key.startswith("ANSIBLE_")}
        own = {
            "ANSIBLE_CONFIG": str(self._root / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "scistream.core.steps",
            "PYTHONUNBUFFERED": "1",
            "SCISTREAM_DEMO_STATE": str(self._state),
        }
        return kept | self._wanted.environment() | self._site.environment | own

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._is_ending or self._is_cleaning:
            _say("\nStill cleaning up, so that nothing is left behind. It takes a few seconds.")
            self._is_ending = True
            return
        self._is_ending = True
        _say(f"\n{signal.Signals(number).name}: ending the demo, and cleaning up.")
        if self._running is not None:
            self._running.interrupt()


def _say(text: str) -> None:
    # Past Python's buffer: a signal may come while the one before is being told. Where the reader is gone, the work
    # goes on.
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode())
