"""The way to a control server behind SSH: its own port is closed to the outside, and its host's sshd is open.

from scistream.hops.reaching import reach

with reach(Via.parse("ssh://operator@gateway.example"), Endpoint.parse("127.0.0.1:5000"), timeout=30.0) as hop:
    connection = hop.connect(timeout=10.0)

A process of its own, the *keeper*, holds the SSH connection: each task of a play and each command is a process, and the
next one finds the connection there. Paramiko is imported by the keeper alone.
"""

from __future__ import annotations

from scistream.hops.via import Via, parse_via

__all__ = ["Via", "parse_via"]
