# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads plugins without running them

from __future__ import annotations

DOCUMENTATION = r"""
name: steps
type: stdout
short_description: One readable line per step, with its duration
version_added: 0.1.0
description:
  - Prints a line for every task that did something, with the hosts and the time that it took. What
    M(ansible.builtin.debug) says is printed as it stands, a failure as its sentence and code.
  - Ends with the time in all, and the tasks that took most of it.
  - Colours, and the name of the task that runs, are shown on a terminal only.
requirements:
  - set as stdout callback in the configuration, E(ANSIBLE_STDOUT_CALLBACK=scistream.core.steps)
author:
  - SciStream maintainers (@scistream)
"""

import re
import sys
import time
import typing as t

from ansible.constants import (
    COLOR_CHANGED,
    COLOR_ERROR,
    COLOR_HIGHLIGHT,
    COLOR_OK,
    COLOR_SKIP,
    COLOR_UNREACHABLE,
    COLOR_VERBOSE,
)
from ansible.plugins.callback import CallbackBase

_WIDTH = 78
# Tasks that show other tasks, and nothing of their own.
_FRAMES = frozenset(
    {"import_role", "import_tasks", "include_role", "include_tasks", "meta", "set_fact", "validate_argument_spec"}
)
# Actions that tell their progress in lines of their own.
_TALKING = frozenset({"demo_traffic"})
_SLOWEST = 5
_LEAST = 0.05


# A colour, as Ansible gives it to the lines of a difference.
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")


def _plain(text: str) -> str:
    """Text of a host, of which a terminal obeys nothing but the ends of lines."""
    return "".join(each if each.isprintable() or each == "\n" else " " if each == "\t" else "?" for each in text)


def _duration(seconds: float) -> str:
    return f"{seconds:6.1f} s"


class _Step:
    """One task on all its hosts."""

    def __init__(self, name: str, action: str) -> None:
        self.name = name
        self.action = action.rpartition(".")[2]
        self.started = time.monotonic()
        self.seconds = 0.0
        self.asked: set[str] = set()
        self.hosts: dict[str, str] = {}

    @property
    def is_shown(self) -> bool:
        return bool(self.hosts) and self.action not in _FRAMES and self.action != "debug"

    @property
    def color(self) -> str:
        states = set(self.hosts.values())
        return COLOR_ERROR if "failed" in states else COLOR_CHANGED if "changed" in states else COLOR_OK

    def line(self) -> str:
        mark = "✗" if "failed" in self.hosts.values() else "✓"
        return f"  {mark} {self.name + self._where():{_WIDTH}} {_duration(self.seconds)}"

    def _where(self) -> str:
        everywhere = len(self.asked) > 1 and self.asked == set(self.hosts)
        hosts = sorted(host for host in self.hosts if host != "localhost")
        return "" if everywhere or not hosts else f" ({', '.join(hosts)})"


class CallbackModule(CallbackBase):
    """Underscored attributes of results: ansible-core 2.17 and 2.18 have no others."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "scistream.core.steps"

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._started = time.monotonic()
        self._step: _Step | None = None
        self._done: list[_Step] = []
        self._is_terminal = sys.stdout.isatty()
        self._is_line_open = False

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        self._finish()
        mode = " (check mode: nothing is changed)" if play.check_mode else ""
        self._say(f"\n{play.get_name().strip()}{mode}", COLOR_HIGHLIGHT)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._say("  no host of the inventory matches", COLOR_SKIP)

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:
        self._finish()
        self._step = _Step(_plain(task.get_name().rpartition(" : ")[2].strip()), task.action)
        if self._is_terminal and self._step.action not in _FRAMES:
            self._is_line_open = self._step.action not in _TALKING
            self._display.display(f"  · {self._step.name}", color=COLOR_VERBOSE, newline=not self._is_line_open)
            sys.stdout.flush()

    def v2_playbook_on_handler_task_start(self, task: t.Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        if self._step is not None:
            self._step.asked.add(host.get_name())

    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._take(result, "changed" if result._result.get("changed") else "ok")
        if result._task.action.rpartition(".")[2] == "debug":
            self._say_message(result._result.get("msg"))

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._take(result, "ok" if ignore_errors else "failed")
        if ignore_errors:
            return
        self._finish()
        host = result._host.get_name()
        for line in _failures(result._result):
            is_named = host == "localhost" or line.startswith(f"{host}:")
            self._say(_plain(f"    {line if is_named else f'{host}: {line}'}"), COLOR_ERROR)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        self._take(result, "failed")
        self._finish()
        words = f"{result._host.get_name()} cannot be reached: {result._result.get('msg')}"
        self._say(f"    {_plain(words)}", COLOR_UNREACHABLE)

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        self._handle_warnings(result._result)

    def v2_on_file_diff(self, result: t.Any) -> None:
        results = result._result.get("results", [result._result])
        for one in results:
            if one.get("diff") and one.get("changed") and (diff := self._get_diff(one["diff"])):
                self._close_line()
                # Each second part is a colour.
                parts = _COLOR.split(diff)
                self._say("".join(part if number % 2 else _plain(part) for number, part in enumerate(parts)))

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        self._finish()
        total = time.monotonic() - self._started
        # A step that no host took is none, however long Ansible thought about it.
        told = [step for step in self._done if step.hosts and step.seconds >= _LEAST]
        slowest = sorted(told, key=lambda step: step.seconds, reverse=True)[:_SLOWEST]
        self._say(f"\n{_duration(total).strip()} in all, most of it for", COLOR_HIGHLIGHT)
        for step in slowest:
            self._say(f"  {_duration(step.seconds)}  {step.name}")

    def _take(self, result: t.Any, state: str) -> None:
        self._handle_warnings(result._result)
        if self._step is not None:
            self._step.hosts[result._host.get_name()] = state

    def _finish(self) -> None:
        """The step is over: say so, unless it showed nothing or has been said."""
        step, self._step = self._step, None
        self._close_line()
        if step is None:
            return
        step.seconds = time.monotonic() - step.started
        self._done.append(step)
        if step.is_shown:
            self._say(step.line(), step.color)

    def _close_line(self) -> None:
        if self._is_line_open:
            self._display.display("\r\x1b[K", newline=False)
            self._is_line_open = False

    def _say_message(self, message: t.Any) -> None:
        self._close_line()
        for line in message if isinstance(message, list) else str(message).splitlines():
            self._say(f"    {_plain(str(line))}")

    def _say(self, text: str, color: str | None = None) -> None:
        self._display.display(text, color=color)
        sys.stdout.flush()


def _failures(result: dict[str, t.Any]) -> list[str]:
    """What went wrong, in sentences: the task's own, or those of the items that failed."""
    items = [item for item in result.get("results", []) if item.get("failed")]
    if items:
        return [line for item in items for line in _failures(item)]
    code = result.get("failure", {}).get("code")
    sentence = str(result.get("msg", "it failed, and said nothing"))
    words = [line for line in str(result.get("stderr", "")).splitlines() if line.strip()]
    if "rc" in result and words:
        return words
    # A module that could not even begin: its Python says why.
    crash = str(result.get("module_stderr", "")).strip().splitlines()[-1:]
    if crash:
        return [sentence, *crash]
    return [f"{sentence} [{code}]" if code else sentence]
