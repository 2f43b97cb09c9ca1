# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library that does the work, or the reason why it is not there. Its twin is plugins/doc_fragments/library.py."""

from __future__ import annotations

import importlib
import sys
import traceback
import types

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

__all__ = ["load"]

_REASON = "for every task of this collection; it is the wheel of the same version"


def load(module: AnsibleModule, name: str) -> types.ModuleType:
    """A module of the library, imported only now: not every task needs gRPC, and not every Python has it.

    Where it is missing, the task ends with a sentence that names the library and the Python.

    Args:
        module: whose task ends.
        name: as in an import statement.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        module.fail_json(
            msg=missing_required_lib("scistream", reason=_REASON),
            failure={"code": "LIBRARY_MISSING", "details": {"python": sys.executable, "reason": str(error)}},
            exception=traceback.format_exc(),
        )
