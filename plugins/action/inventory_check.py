# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges the variables of an inventory, on the controller. Documented in plugins/modules/inventory_check.py."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.scistream.core.plugins.plugin_utils._fleet_rules import Groups, problems
from ansible_collections.scistream.core.plugins.plugin_utils._inventory import Host, Problem
from ansible_collections.scistream.core.plugins.plugin_utils._options import Roles, is_echo, is_secret

# The twin of plugins/modules/inventory_check.py.
_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "collected": {"type": "list", "elements": "dict"},
    "gateways_group": {"type": "str", "default": "gateways"},
    "clients_group": {"type": "str", "default": "clients"},
    "own_variables": {"type": "list", "elements": "str", "default": []},
}

_ROOT = pathlib.Path(__file__).parent.parent.parent
# Ansible's own variables that say which machine a host is.
_PLACE = ("ansible_connection", "ansible_host", "ansible_port", "ansible_user")
_HIDDEN = "***"


class ActionModule(ActionBase):
    """Runs on the controller alone: no host is asked anything."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _valid, arguments = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        roles = Roles(_ROOT)
        if arguments["collected"] is None:
            return result | {"changed": False, "collected": self._collected(task_vars or {}, roles)}
        groups = Groups(arguments["gateways_group"], arguments["clients_group"])
        hosts = [Host.of(each) for each in arguments["collected"]]
        found = problems(hosts, roles, groups, arguments["own_variables"])
        told = {"changed": False, "problems": [problem.as_dict() for problem in found]}
        return result | told | ({"failed": True, "msg": _words(found)} if found else {})

    def _collected(self, task_vars: dict[str, t.Any], roles: Roles) -> dict[str, t.Any]:
        """What the host's variables are, as the roles of this play would see them."""
        names = {name for name in task_vars if roles.concerns(name)}
        values, errors = dict[str, t.Any](), dict[str, str]()
        for name in sorted(names | {name for name in _PLACE if name in task_vars}):
            # A role that is imported shows its defaults to the whole play.
            if is_echo(task_vars[name]):
                continue
            if name.startswith("scistream_") or name in roles.names or name in _PLACE:
                try:
                    values[name] = _plain(name, self._templar.template(task_vars[name]))
                except AnsibleError as error:
                    errors[name] = _reason(error)
        return {
            "name": task_vars["inventory_hostname"],
            "groups": list(task_vars["group_names"]),
            "variables": values,
            "errors": errors,
            "names": sorted(names),
        }


def _plain(name: str, value: t.Any) -> t.Any:
    """A value without what nobody may see."""
    return _HIDDEN if is_secret(name) and value not in (None, "") else value


def _reason(error: AnsibleError) -> str:
    """Why a variable cannot be evaluated, in its innermost words."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return " ".join(str(inner).split()).rstrip(".")


def _words(found: list[Problem]) -> str:
    hosts = len({problem.host for problem in found})
    count = "1 variable" if len(found) == 1 else f"{len(found)} variables"
    places = "1 host" if hosts == 1 else f"{hosts} hosts"
    head = f"{count} of {places} cannot be used; nothing was touched on any host:"
    return "\n".join([head, *(f"- {problem.sentence}" for problem in found)])
