# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What every module needs. Its twin is plugins/module_utils/_library.py."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - python >= 3.11
  - scistream >= 0.1.0 (Python library, where the module runs)
"""
