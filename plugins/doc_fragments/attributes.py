# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What every module promises; each says how far it keeps it."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description:
      - Predicts what a real run would change and return, and contacts the control server only to read.
    support: full
  diff_mode:
    description:
      - Shows the facts that differ, as they are and as they are wanted. Secrets are masked.
    support: full
  idempotent:
    description:
      - A second run with the same parameters changes nothing.
    support: full
  platform:
    description:
      - Where the module runs. That is the controller, which has the library, or any host that has it.
    platforms: posix
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description:
      - The module only reads, in check mode and outside of it.
    support: full
  diff_mode:
    description:
      - There is nothing to show, since nothing is changed.
    support: N/A
  idempotent:
    description:
      - The module changes nothing.
    support: full
  platform:
    description:
      - Where the module runs. That is the controller, which has the library, or any host that has it.
    platforms: posix
    support: full
"""
