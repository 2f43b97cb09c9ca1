# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share: how a control server is reached, and the one place where an error becomes a failed task."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._library import load

__all__ = ["CONTROL_ARGUMENTS", "control_server", "refused", "report", "unlocked"]

# The twin of plugins/doc_fragments/control.py.
CONTROL_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "control_server": {"type": "str", "required": True, "aliases": ["s2cs"]},
    "server_certificate": {"type": "path", "aliases": ["server_cert"]},
    "insecure_plain_text": {"type": "bool", "default": False},
    "token": {"type": "str", "no_log": True},
    # A switch, and no secret, whatever its name ends with.
    "insecure_plain_text_token": {"type": "bool", "default": False, "no_log": False},
    "timeout": {"type": "float", "default": 30.0},
    "via": {"type": "str"},
}


def report(module: AnsibleModule, work: t.Callable[[], dict[str, t.Any]]) -> t.NoReturn:
    """Do the work and end the task: with what it returns, or with the sentence and the code of what went wrong.

    Args:
        module: whose task ends.
        work: raises the library's SciStreamError, and nothing else that anybody foresaw.
    """
    errors = load(module, "scistream.errors")
    try:
        result = work()
    except errors.SciStreamError as error:
        # What somebody noted on its way, as `s2uc` shows it: what was left behind, and how it is cleared away.
        module.fail_json(msg=" ".join([str(error), *getattr(error, "__notes__", ())]), failure=error.failure())
    module.exit_json(**result)


def refused(module: AnsibleModule, key: str, reason: str) -> Exception:
    """The error of a parameter that cannot be used, null included: Ansible counts that as given."""
    errors = load(module, "scistream.errors")
    code, value = errors.Code.BAD_CONFIGURATION, str(module.params[key])
    return errors.SciStreamError(code, key=key, value=value, source="the task's parameters", reason=reason)


def control_server(module: AnsibleModule, *, is_alone: bool = True) -> t.Any:
    """The control server that the parameters name, as scistream.client.ControlServer.

    Args:
        module: with CONTROL_ARGUMENTS among its parameters.
        is_alone: whether it is the only one that the task asks; where not, `unlocked` is to have it.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_CONFIGURATION, BAD_VIA.
    """
    client, addresses, terms = (load(module, f"scistream.{name}") for name in ("client", "addresses", "terms"))
    params = module.params
    if not params["control_server"]:
        raise refused(module, "control_server", "it is HOST:PORT")
    if not 0 < params["timeout"] < float("inf"):
        raise refused(module, "timeout", "it is a number of seconds above 0")
    via, certificate = client.parse_via(params["via"] or ""), params["server_certificate"]
    if via:
        _check_ssh_configuration(module)
    server = client.ControlServer(
        address=addresses.Endpoint.parse(params["control_server"], default_port=terms.DEFAULT_CONTROL_PORT),
        server_certificate=pathlib.Path(certificate) if certificate else None,
        plain_text=params["insecure_plain_text"],
        token=params["token"] or None,
        timeout=params["timeout"],
        via=via,
        insecure_plain_text_token=params["insecure_plain_text_token"],
    )
    return unlocked(module, [server])[0] if is_alone else server


def _check_ssh_configuration(module: AnsibleModule) -> None:
    """Refuse a file that would be looked for elsewhere: tasks run in the playbook's directory."""
    key = load(module, "scistream.hops.reaching").CONFIGURATION_VARIABLE
    named = os.environ.get(key, "")
    if named and not named.startswith(("/", "~")):
        errors = load(module, "scistream.errors")
        reason = "tasks run in the playbook's directory, and not where the command was typed; a whole path is wanted"
        code, source = errors.Code.BAD_CONFIGURATION, "the environment"
        raise errors.SciStreamError(code, key=key, value=named, source=source, reason=reason)


def unlocked(module: AnsibleModule, servers: t.Sequence[t.Any]) -> list[t.Any]:
    """All control servers that a task asks; those without a token of their own have the environment's, if it is theirs.

    Raises:
        SciStreamError: BAD_CONFIGURATION, of the environment.
    """
    environment = load(module, "scistream.client.environment_token")
    asked = [server.known_as for server in servers]
    found = {server: environment.environment_token(server, asked) for server in asked}
    # It came by no parameter, and so nobody else takes it out of the output.
    module.no_log_values.update(filter(None, found.values()))
    ready = [dataclasses.replace(one, token=one.token or found[one.known_as]) for one in servers]
    reason = environment.withheld([one.known_as for one in ready if one.token is None]) if len(set(asked)) > 1 else ""
    if reason:
        module.warn(reason)
    return ready
