"""`s2cs engines`: what each engine can do here and now, in the same words as a status and as a refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from lives import Calls, error_of
from scistream.engines import ENGINES, find_engine
from scistream.engines.base import Feature
from scistream.errors import Code
from scistream.protocol import ENCRYPTION_METADATA, HALF_CLOSE_METADATA, RATE_METADATA, TRANSPORT_METADATA

FEATURES = [feature.value for feature in Feature]
# What is asked of each engine that it cannot do, and by which feature it is refused.
REFUSED = {
    "haproxy": ("UDP", ((ENCRYPTION_METADATA, "none"), (TRANSPORT_METADATA, "udp"))),
    "nginx": ("legacy-psk", ((ENCRYPTION_METADATA, "legacy-psk"),)),
    "stunnel": ("half-close", ((ENCRYPTION_METADATA, "tls"), (HALF_CLOSE_METADATA, "1"))),
    "nftables": ("TLS", ((ENCRYPTION_METADATA, "tls"),)),
}


@pytest.fixture
def engines(tmp_path, free_environment):
    """Runs `s2cs engines`, by what stands before it."""

    def run(*words: str, before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        command = [*before, sys.executable, "-m", "scistream.cli.s2cs", "engines", *words]
        env = {**free_environment, "HOME": str(tmp_path), **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60, check=False)

    return run


def unprivileged() -> tuple[str, ...]:
    """What makes an ordinary user of root: the rights are what matters."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (package util-linux) is missing")
    return (setpriv, "--bounding-set=-all", "--inh-caps=-all")


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_table_is_drawn_for_people_and_told_to_machines(engines):
    drawn = engines("--type=nginx")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    head, _, version, *rows = drawn.stdout.splitlines()
    assert head.split() == ["HAProxy", "Nginx*", "Stunnel", "nftables"]
    assert version.split()[0] == "version"
    assert [row.rsplit(maxsplit=4)[0].strip() for row in rows[: len(FEATURES)]] == FEATURES
    assert drawn.stdout.endswith("* what this control server's new sessions are carried by (--type)\n")

    told = engines("--json", "--type=NginxSubprocess")
    assert told.returncode == 0
    found = json.loads(told.stdout)["engines"]
    assert [(each["name"], each["in_use"]) for each in found] == [(name, name == "nginx") for name in ENGINES]
    for number, each in enumerate(found):
        assert {*each["can"], *each["cannot"]} == set(FEATURES)
        for row in rows[: len(FEATURES)]:
            feature, *cells = row.rsplit(maxsplit=4)
            assert cells[number] == ("yes" if feature.strip() in each["can"] else "no")
        for words in each["cannot"].values():
            assert words in one_line(drawn.stdout)
        assert each["version"] in version


def test_an_ordinary_user_is_told_what_takes_privileges(engines):
    done = engines("--json", before=unprivileged())
    assert (done.returncode, done.stderr) == (0, "")
    found = {each["name"]: each for each in json.loads(done.stdout)["engines"]}
    assert found["nftables"]["can"] == []
    (words,) = set(found["nftables"]["cannot"].values())
    assert words.startswith("the control server has not the capability CAP_NET_ADMIN (root has it; its unit: ")
    for name in ("haproxy", "nginx", "stunnel"):
        assert "TLS" in found[name]["can"]
        assert "rate" in found[name]["cannot"]
        assert "CAP_NET_ADMIN" in found[name]["cannot"]["rate"]
    assert "nftables: needs CAP_NET_ADMIN" in engines(before=unprivileged()).stdout


def test_an_engine_that_is_not_installed_can_do_nothing_and_its_package_is_named(engines):
    if find_engine("stunnel").locate().program.parent.name == "sbin":
        pytest.skip("stunnel is where every user's programs are looked for")
    done = engines("--json", PATH="/nowhere")
    assert done.returncode == 0
    (stunnel,) = [each for each in json.loads(done.stdout)["engines"] if each["name"] == "stunnel"]
    assert (stunnel["installed"], stunnel["version"], stunnel["program"], stunnel["can"]) == (False, "", "", [])
    (words,) = set(stunnel["cannot"].values())
    assert "Stunnel is not installed on this gateway" in words
    drawn = engines(PATH="/nowhere").stdout
    assert "not installed" in drawn.splitlines()[2]
    assert "stunnel4" in one_line(drawn)


def test_an_engine_that_nobody_knows_is_refused_with_those_that_there_are(engines):
    done = engines("--type=socat")
    assert done.returncode == 2
    assert "socat" in done.stderr
    assert ", ".join(ENGINES) in done.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_u63_one_sentence_stands_in_the_table_in_the_facts_and_in_the_refusal(name, engines, control_server_factory):
    feature, metadata = REFUSED[name]
    server = control_server_factory(engine=name)
    table = {each["name"]: each for each in json.loads(engines("--json").stdout)["engines"]}
    sentence = table[name]["cannot"][feature]
    calls = Calls(server)
    (facts,) = [each for each in calls.facts().engines if each.name == name]
    (ability,) = [each for each in facts.abilities if each.feature == feature]
    assert (ability.can, ability.words) == (False, sentence)
    refused = calls.request("a-stream-with-a-long-name", metadata=metadata).exception(60)
    error = error_of(refused)
    assert (error.code, error.facts["reason"]) == (Code.ENGINE_CANNOT, sentence)
    assert f"{facts_title(name)} cannot do what was asked: {sentence}" in refused.details()
    assert facts.privileges == table[name]["privileges"]
    assert calls.states() == {}


def facts_title(name: str) -> str:
    return find_engine(name).title


def test_u57_what_takes_privileges_is_refused_with_the_sentence_of_the_table(engines, control_server_factory):
    before = unprivileged()
    server = control_server_factory(start=False)
    server.command[:0] = before
    calls = Calls(server.start())
    (haproxy, *_) = json.loads(engines("--json", before=before).stdout)["engines"]
    sentence = haproxy["cannot"]["rate"]
    refused = calls.request("one", metadata=((RATE_METADATA, "20000"), (ENCRYPTION_METADATA, "tls"))).exception(60)
    error = error_of(refused)
    assert (error.code, error.facts["reason"]) == (Code.ENGINE_CANNOT, sentence)
    (facts,) = [each for each in calls.facts().engines if each.name == "haproxy"]
    assert (facts.can_limit_rate, {each.feature: each.words for each in facts.abilities}["rate"]) == (False, sentence)
    assert calls.states() == {}
