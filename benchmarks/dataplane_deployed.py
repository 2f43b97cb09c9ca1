"""The data servers as the deployed system sets them up, from what is said of their templates (dataplane reference).

What counts is kept: HAProxy's buffers of 100,000 bytes, no splicing, a log line for each connection; Nginx's defaults;
Stunnel's TLS 1.2 with a null cipher and a log at its loudest, to syslog. Nothing of it is the deployed system's text.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from scistream.engines import Engine, Installation, Plan
from scistream.engines.children import environment
from scistream.terms import Direction

__all__ = ["start_deployed"]

_HAPROXY: Final = """\
global
    tune.bufsize 100000
    log stdout format raw daemon
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 50s
    timeout server 50s
"""
_NGINX: Final = """\
{modules}
daemon off;
{user}
pid nginx.pid;
error_log stderr;
worker_processes auto;
events {{
    worker_connections 4096;
}}
stream {{
    {servers}
}}
"""
# `eNULL` lets anonymous suites in, and one of those is what the pair agrees on (U01). Its SHA-1 costs the least of all.
_STUNNEL: Final = """\
foreground = yes
pid =
debug = 7
sslVersion = TLSv1.2
ciphers = eNULL
securityLevel = 0
PSKsecrets = key.psk
{role}
"""
_CLIENT: Final = "client = yes\nPSKidentity = client1"


def start_deployed(engine: Engine, plan: Plan) -> subprocess.Popen[bytes]:
    """Start one, as a child of this process, on the host that the calling thread is on. Its words go to `log`."""
    installation = engine.locate()
    command = _COMMANDS[engine.name](plan, installation)
    with (plan.directory / "log").open("ab") as log:
        return subprocess.Popen(
            [str(installation.program), *command],
            cwd=plan.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            # As ours: the kernel shares the processor among sessions (sched(7), autogroups).
            start_new_session=True,
        )


def _haproxy(plan: Plan, _: Installation) -> list[str]:
    routes = enumerate(plan.routes, 1)
    sections = (f"listen r{number}\n    bind {r.entry_point}\n    server s {r.target}\n" for number, r in routes)
    return ["-db", "-f", _written(plan.directory / "haproxy.cfg", _HAPROXY + "".join(sections))]


def _nginx(plan: Plan, installation: Installation) -> list[str]:
    text = _NGINX.format(
        modules="".join(f'load_module "{module}";' for module in installation.modules),
        user="user root root;" if installation.host.must_stay_root else "",
        servers="\n    ".join(f"server {{ listen {r.entry_point}; proxy_pass {r.target}; }}" for r in plan.routes),
    )
    return ["-p", str(plan.directory), "-e", "stderr", "-c", _written(plan.directory / "nginx.conf", text)]


def _stunnel(plan: Plan, _: Installation) -> list[str]:
    _written(plan.directory / "key.psk", f"client1:{'4f8583bc' * 8}\n")
    routes = enumerate(plan.routes, 1)
    services = (f"[r{number}]\naccept = {r.entry_point}\nconnect = {r.target}\n" for number, r in routes)
    text = _STUNNEL.format(role=_CLIENT if plan.direction is Direction.OUTBOUND else "") + "".join(services)
    return [_written(plan.directory / "stunnel.conf", text)]


_COMMANDS: Final = {"haproxy": _haproxy, "nginx": _nginx, "stunnel": _stunnel}


def _written(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)
