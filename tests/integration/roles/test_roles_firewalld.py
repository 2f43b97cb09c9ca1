"""Rules in firewalld, which a stand-in has here: the rules of each zone in a file, kept and now."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_runs import Run, run_play

_RULE = 'rule family="ipv4" source address="198.51.100.{}" port port="5000" protocol="tcp" accept'
_PROGRAM = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
kind=now
[ "$1" = --permanent ] && { kind=kept; shift; }
[ "$1" = --get-default-zone ] && exec cat default
rules=$kind.${1#--zone=}
[ -e "$rules" ] || { echo "Error: INVALID_ZONE" >&2; exit 112; }
case $2 in
--list-rich-rules) cat "$rules" ;;
--add-rich-rule=*) printf '%s\\n' "${2#--add-rich-rule=}" >>"$rules" ;;
--remove-rich-rule=*) grep --invert-match --fixed-strings --line-regexp -- "${2#*=}" "$rules" >new; mv new "$rules" ;;
esac
"""


class Host:
    """A host with two zones."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._bin = place / "bin"
        self._bin.mkdir()
        (self._bin / "firewall-cmd").write_text(_PROGRAM)
        (self._bin / "firewall-cmd").chmod(0o755)
        for zone in ("public", "internal"):
            self.have(zone)
        self.default("public")

    def default(self, zone: str) -> None:
        (self._bin / "default").write_text(f"{zone}\n")

    def have(self, zone: str, *rules: str) -> None:
        for kind in ("kept", "now"):
            (self._bin / f"{kind}.{zone}").write_text("".join(f"{rule}\n" for rule in rules))

    def forget(self, zone: str) -> None:
        for kind in ("kept", "now"):
            (self._bin / f"{kind}.{zone}").unlink()

    def rules(self, zone: str) -> list[str]:
        kept, now = ((self._bin / f"{kind}.{zone}").read_text().splitlines() for kind in ("kept", "now"))
        assert kept == now
        return kept

    @property
    def record(self) -> list[str]:
        path = self._place / "provisioned"
        return path.read_text().splitlines() if path.exists() else []

    def want(self, *rules: str) -> Run:
        given = {
            "ansible_become": False,
            "control_server_record": str(self._place / "provisioned"),
            "control_server_host": {"firewalld": True, "record": self.record},
            "control_server_firewalld_wanted": list(rules),
        }
        role = {"name": "scistream.core.control_server", "tasks_from": "unit/firewalld"}
        run = run_play(
            [{"ansible.builtin.include_role": role}],
            directory=self._place,
            options=["-e", json.dumps(given)],
            environment={"PATH": f"{self._bin}:{os.environ['PATH']}"},
        )
        assert run.code == 0, run.output
        return run


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_rules_come_once_and_go_and_what_the_site_has_stays(host: Host) -> None:
    own, site, other = _RULE.format(1), _RULE.format(2), _RULE.format(3)
    host.have("public", site)
    assert host.want(own, site).changed("localhost")
    assert host.rules("public") == [site, own]
    assert host.record == [own, "zone public"]
    assert not host.want(own, site).changed("localhost")
    host.want(other)
    assert host.rules("public") == [site, other]
    host.want()
    assert (host.rules("public"), host.record) == ([site], [])


def test_rules_move_to_the_zone_that_is_the_default_by_now(host: Host) -> None:
    own = _RULE.format(1)
    host.want(own)
    host.default("internal")
    host.want(own)
    assert (host.rules("public"), host.rules("internal")) == ([], [own])
    assert host.record == [own, "zone internal"]
    host.default("public")
    host.want()
    assert (host.rules("public"), host.rules("internal"), host.record) == ([], [], [])


def test_a_zone_that_is_gone_has_no_rules(host: Host) -> None:
    own = _RULE.format(1)
    host.default("internal")
    host.want(own)
    host.default("public")
    host.forget("internal")
    host.want()
    assert (host.rules("public"), host.record) == ([], [])
