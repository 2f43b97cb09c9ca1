"""Keys of one run: one for whoever comes to the hosts, and one for each host, known before it boots."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .plan import SSH, HostPlan, Plan

__all__ = ["write"]


def write(plan: Plan) -> None:
    """All files of SSH: those of the place, and those of the hosts into their directories."""
    mine = _write_key(plan.place / "id_ed25519")
    known = []
    for host in plan.hosts:
        etc = plan.directory(host) / "upper" / "etc"
        (etc / "ssh").mkdir(mode=0o755, parents=True)
        key = _write_key(etc / "ssh" / "ssh_host_ed25519_key")
        (etc / "ssh" / "authorized_keys").write_text(f"{mine}\n")
        (etc / "hostname").write_text(f"{host.hostname}\n")
        (etc / "hosts").write_text("".join(_names(plan, host)))
        # With one, systemd does not take the boot for the first, and leaves units as the image has them.
        (etc / "machine-id").write_text(f"{secrets.token_hex(16)}\n")
        known.append(f"{','.join(_aliases(host))} {key}\n")
    (plan.place / "known_hosts").write_text("".join(known))
    plan.ssh_config.write_text("".join(_config(plan)))


def _write_key(path: Path) -> str:
    """A new key; its public part as a line has it."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.with_suffix(".pub").write_text(f"{public}\n")
    return public


def _aliases(host: HostPlan) -> list[str]:
    return list(dict.fromkeys([host.name, host.hostname, host.addresses[SSH]]))


def _names(plan: Plan, host: HostPlan) -> Iterator[str]:
    """What a host knows of names: its own, and `gateway-b.wan` for the one that gateway_b has in the WAN."""
    yield f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {host.hostname}\n"
    for other in plan.hosts:
        for network, address in other.addresses.items():
            yield f"{address} {other.hostname}.{network}\n"


def _config(plan: Plan) -> Iterator[str]:
    for host in plan.hosts:
        yield f"Host {' '.join(_aliases(host))}\n  HostName {host.addresses[SSH]}\n\n"
    yield f"""Host *
  User root
  IdentityFile {plan.place / "id_ed25519"}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {plan.place / "known_hosts"}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  PreferredAuthentications publickey
  BatchMode yes
  ConnectTimeout 5
  ServerAliveInterval 5
  ServerAliveCountMax 3
  LogLevel ERROR
"""
