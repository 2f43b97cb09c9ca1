# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a host, as one JSON list: files, packages, users, services, listeners, rules, values of the kernel.

Arguments: paths that are left out, since they are known to stay.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PLACES = ("/etc", "/home", "/opt", "/root", "/srv", "/usr/local", "/var/lib", "/var/log")
# What every day of a host changes by itself: the package manager's lists and records, logs that were there before, the
# service manager's own, and what SSH's sessions leave.
_PASSING = (
    "/etc/ld.so.cache",
    "/etc/mailcap",
    "/root/.ansible",
    "/srv/debs",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/private",
    "/var/lib/systemd",
    "/var/log/apt",
    "/var/log/btmp",
    "/var/log/dpkg.log",
    "/var/log/journal",
    "/var/log/lastlog",
    "/var/log/wtmp",
)
_OF_ANSIBLE = frozenset({".ansible", ".ansible_async"})
# Backups that tools make of the files of users and groups, with their own names.
_BACKUPS = ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-")
_SAID_BY = (
    ("package", ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n"]),
    ("service", ["systemctl", "list-unit-files", "--no-legend", "--no-pager"]),
    ("listener", ["ss", "--tcp", "--udp", "--listening", "--numeric", "--no-header"]),
    ("rule", ["nft", "--stateless", "list", "ruleset"]),
    ("queue", ["tc", "qdisc", "show"]),
    ("user", ["getent", "passwd"]),
    ("group", ["getent", "group"]),
    ("unit", ["systemctl", "list-units", "--all", "--no-legend", "--no-pager", "--plain", "scistream*"]),
    ("value", ["sysctl", "--all", "--pattern", r"^net\.(core|ipv4\.(tcp|udp|ip_forward|conf\.all)|ipv6\.conf\.all)"]),
)
# Keys that the kernel makes, what it computes of its memory, and logins.
_MOVING = ("session-", "net.ipv4.tcp_fastopen_key", "net.ipv4.tcp_mem", "net.ipv4.udp_mem", "net.core.netdev_rss_key")


def _files(left_out: tuple[str, ...]) -> Iterator[str]:
    for place in _PLACES:
        for directory, names, files in os.walk(place):
            names[:] = [name for name in names if not f"{directory}/{name}".startswith(left_out)]
            for name in (*names, *files):
                path = Path(directory, name)
                if (
                    not str(path).startswith(left_out)
                    and str(path) not in _BACKUPS
                    and not _OF_ANSIBLE.intersection(path.parts)
                ):
                    yield f"file {path} {_content(path)}"


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    found = path.stat()
    whose = f"{found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):o}"
    if not path.is_file():
        return f"{whose} directory"
    return f"{whose} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _said() -> Iterator[str]:
    for kind, command in _SAID_BY:
        words = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for line in words.splitlines():
            if not line.startswith(_MOVING):
                yield f"{kind} {' '.join(line.split())}"


if __name__ == "__main__":
    json.dump(sorted({*_files((*_PASSING, *sys.argv[1:])), *_said()}), sys.stdout)
