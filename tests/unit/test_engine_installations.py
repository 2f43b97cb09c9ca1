"""What an engine reads out of its program's own words, and what it says when there is none."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import ClassVar

import pytest

from scistream.engines import ENGINES, Installation
from scistream.engines.haproxy import HAProxy
from scistream.engines.host import Host, _capabilities, _pipe_bytes, find_program
from scistream.errors import Code, SciStreamError

HOST = Host(cores=2, descriptors=1024, pipe_bytes=None, must_stay_root=False)


class Absent(HAProxy):
    program: ClassVar[str] = "haproxy-that-nobody-installed"


def test_u50_a_missing_program_names_its_package() -> None:
    with pytest.raises(SciStreamError) as caught:
        Absent().locate()
    assert caught.value.code is Code.ENGINE_MISSING
    assert "HAProxy is not installed on this gateway: no program 'haproxy-that-nobody-installed'" in str(caught.value)
    assert "apt-get install haproxy" in str(caught.value)
    assert caught.value.deployed == "[Errno 2] No such file or directory: 'haproxy-that-nobody-installed'"


@pytest.mark.parametrize(
    ("name", "answer", "version"),
    [
        ("haproxy", "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: 2.6.", "2.6.12"),
        ("nginx", "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.22\narguments: --with-stream --x", "1.22.1"),
        ("stunnel", "Initializing inetd mode configuration\nstunnel 5.68 on x86_64-pc-linux-gnu platform\n", "5.68"),
    ],
)
def test_versions(name: str, answer: str, version: str) -> None:
    assert ENGINES[name].recognise(Path("/usr/sbin/x"), answer).version == version


@pytest.mark.parametrize(
    ("found", "wanted", "enough"),
    [("1.22.1", "1.21.4", True), ("1.21.4", "1.21.4", True), ("1.9.15", "1.21.4", False), ("2.0", "1.21.4", True)],
)
def test_versions_compare_as_numbers(found: str, wanted: str, enough: bool) -> None:
    assert Installation(Path("/usr/sbin/x"), found, host=HOST).at_least(wanted) is enough


def test_nginx_with_the_stream_module_built_in() -> None:
    found = ENGINES["nginx"].recognise(Path("/usr/sbin/nginx"), "nginx version: nginx/1.24.0\n--with-stream --with-y")
    assert found.modules == ()


def test_nginx_with_the_stream_module_as_a_file(tmp_path: Path) -> None:
    answer = f"nginx version: nginx/1.22.1\nconfigure arguments: --modules-path={tmp_path} --with-stream=dynamic"
    (tmp_path / "ngx_stream_module.so").touch()
    assert ENGINES["nginx"].recognise(Path("/usr/sbin/nginx"), answer).modules == (tmp_path / "ngx_stream_module.so",)


@pytest.mark.parametrize("options", ["--with-stream=dynamic --modules-path=/nowhere", "", "--with-stream_ssl_module"])
def test_nginx_without_the_stream_module_names_its_package(options: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        ENGINES["nginx"].recognise(Path("/usr/sbin/nginx"), f"nginx version: nginx/1.22.1\narguments: {options}")
    assert caught.value.code is Code.ENGINE_MISSING
    assert "Nginx's stream module is not installed" in str(caught.value)
    assert "apt-get install libnginx-mod-stream" in str(caught.value)


def test_the_first_of_a_programs_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "stunnel-of-the-site").touch(mode=0o755)
    (tmp_path / "not-to-be-run").touch(mode=0o644)
    assert (
        find_program(("stunnel-of-nobody", "not-to-be-run", "stunnel-of-the-site")) == tmp_path / "stunnel-of-the-site"
    )
    assert find_program(("stunnel-of-nobody",)) is None


def test_a_program_that_does_not_run_is_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / Absent.program).touch(mode=0o755)
    (tmp_path / Absent.program).write_bytes(b"\x7fELF")
    with pytest.raises(SciStreamError) as caught:
        Absent().locate()
    assert caught.value.code is Code.ENGINE_MISSING


def test_the_capabilities_in_effect() -> None:
    status = "Name:\tpython\nCapInh:\t0\nCapEff:\t00000000000000c0\nCapBnd:\t000001ffffffffff\n"
    assert _capabilities(status) == 1 << 6 | 1 << 7


def test_the_bound_of_pipe_buffers() -> None:
    assert _pipe_bytes("16384\n") == 16384 * resource.getpagesize()
    assert _pipe_bytes("0\n") is None
