"""An Ansible callback for tests: every task's result as one line of JSON, as the task returned it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: results for tests
description: Writes every result as a line of JSON to the file that SCISTREAM_TEST_RECORD names.
"""


class CallbackModule(CallbackBase):
    """Writes the record."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"

    def _record(self, outcome: str, result: Any) -> None:
        line = {
            "task": result.task.name,
            "action": result.task.resolved_action or result.task.action,
            "host": result.host.name,
            "outcome": outcome,
            "result": result.result,
        }
        with Path(os.environ["SCISTREAM_TEST_RECORD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._record("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._record("failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._record("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._record("unreachable", result)
