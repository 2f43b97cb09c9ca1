# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends real bytes through a stream, and tells how far they are. Documented in plugins/modules/demo_traffic.py."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from scistream.addresses import Endpoint
    from scistream.demo.applications import Ends
    from scistream.demo.measurement import measure
    from scistream.demo.traffic import Progress, stream
    from scistream.demo.wording import Narrator, progress_line
    from scistream.errors import SciStreamError
except ImportError as error:
    LIBRARY_ERROR: ImportError | None = error
else:
    LIBRARY_ERROR = None

# The twin of plugins/modules/demo_traffic.py.
_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "application": {"type": "str", "choices": ["zeromq", "iperf3"], "default": "zeromq"},
    "target": {"type": "str", "required": True},
    "entry_point": {"type": "str", "required": True},
    "frames": {"type": "int", "default": 128},
    "file": {"type": "path"},
    "seconds": {"type": "int", "default": 2},
    "connections": {"type": "int", "default": 1},
    "timeout": {"type": "float", "default": 30.0},
    "entry_point_namespace": {"type": "path"},
    "target_namespace": {"type": "path"},
}


class ActionModule(ActionBase):
    """Runs on the controller, whose Display takes the progress while bytes flow."""

    _supports_check_mode = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        if LIBRARY_ERROR is not None:
            raise AnsibleActionFail(f"the library scistream is missing on the controller: {LIBRARY_ERROR}")
        _valid, arguments = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        run = _stream if arguments["application"] == "zeromq" else _measure
        try:
            return result | {"changed": True, "traffic": run(arguments)}
        except SciStreamError as failure:
            return result | {"failed": True, "msg": str(failure), "failure": failure.failure()}


def _stream(arguments: dict[str, t.Any]) -> dict[str, t.Any]:
    narrator = Narrator(_tell)
    outcome = stream(
        _ends(arguments),
        source=_path(arguments["file"]) or arguments["frames"],
        silence=arguments["timeout"],
        tell=narrator.hear,
    )
    _tell(progress_line(Progress(outcome.bytes, outcome.bytes, outcome.seconds)))
    return outcome.as_dict()


def _measure(arguments: dict[str, t.Any]) -> dict[str, t.Any]:
    return measure(
        _ends(arguments),
        seconds=arguments["seconds"],
        connections=arguments["connections"],
    ).as_dict()


def _ends(arguments: dict[str, t.Any]) -> Ends:
    return Ends(
        Endpoint.parse(arguments["target"]),
        Endpoint.parse(arguments["entry_point"]),
        _path(arguments["target_namespace"]),
        _path(arguments["entry_point_namespace"]),
    )


def _path(text: str | None) -> pathlib.Path | None:
    return pathlib.Path(text) if text else None


def _tell(line: str) -> None:
    Display().display(f"    {line}")
