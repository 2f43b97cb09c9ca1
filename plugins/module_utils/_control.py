# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share: how a control server is reached, and the one place where an error becomes a failed task."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.scistream.core.plugins.module_utils._library import load

__all__ = ["CONTROL_ARGUMENTS", "control_server", "refused", "report"]

# The twin of plugins/doc_fragments/control.py.
CONTROL_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "control_server": {"type": "str", "required": True, "aliases": ["s2cs"]},
    "server_certificate": {"type": "path", "aliases": ["server_cert"]},
    "insecure_plain_text": {"type": "bool", "default": False},
    "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["SCISTREAM_TOKEN"])},
    "timeout": {"type": "float", "default": 30.0},
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
        module.fail_json(msg=str(error), failure=error.failure())
    module.exit_json(**result)


def refused(module: AnsibleModule, key: str, reason: str) -> Exception:
    """The error of a parameter that cannot be used, null included: Ansible counts that as given."""
    errors = load(module, "scistream.errors")
    code, value = errors.Code.BAD_CONFIGURATION, str(module.params[key])
    return errors.SciStreamError(code, key=key, value=value, source="the task's parameters", reason=reason)


def control_server(module: AnsibleModule) -> t.Any:
    """The control server that the parameters name, as scistream.client.ControlServer.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_CONFIGURATION.
    """
    client, addresses, terms = (load(module, f"scistream.{name}") for name in ("client", "addresses", "terms"))
    params = module.params
    if not params["control_server"]:
        raise refused(module, "control_server", "it is HOST:PORT")
    if not 0 < params["timeout"] < float("inf"):
        raise refused(module, "timeout", "it is a number of seconds above 0")
    certificate = params["server_certificate"]
    return client.ControlServer(
        address=addresses.Endpoint.parse(params["control_server"], default_port=terms.DEFAULT_CONTROL_PORT),
        server_certificate=pathlib.Path(certificate) if certificate else None,
        plain_text=params["insecure_plain_text"],
        token=params["token"],
        timeout=params["timeout"],
    )
