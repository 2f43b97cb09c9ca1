"""The program nft: what it is told, and what it answers."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scistream.errors import one_line

__all__ = ["NftError", "Program"]

_TIMEOUT: Final = 30.0


class NftError(Exception):
    """nft did not do as it was told; its words in one line. Nothing has changed then."""


@dataclass(frozen=True)
class Program:
    """nft, called by one thread at a time: the kernel takes one transaction after the other anyway."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def load(self, text: str) -> None:
        """Execute a text of commands, as one transaction.

        Raises:
            NftError.
        """
        self._run(["-f", "-"], text)

    def transact(self, commands: Sequence[dict[str, Any]]) -> None:
        """Execute commands as one transaction.

        Raises:
            NftError.
        """
        self._run(["-j", "-f", "-"], json.dumps({"nftables": commands}))

    def listing(self, *what: str) -> dict[str, Any]:
        """What `nft list` tells.

        Raises:
            NftError.
        """
        answer: dict[str, Any] = json.loads(self._run(["-j", "list", *what], "") or '{"nftables": []}')
        return answer

    def _run(self, arguments: list[str], text: str) -> str:
        try:
            with self._lock:
                done = subprocess.run(
                    [self.path, *arguments],
                    input=text,
                    capture_output=True,
                    timeout=_TIMEOUT,
                    check=False,
                    text=True,
                    errors="replace",
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NftError(one_line(str(error))) from None
        if done.returncode != 0:
            raise NftError(one_line(done.stderr) or f"exit status {done.returncode}")
        return done.stdout
