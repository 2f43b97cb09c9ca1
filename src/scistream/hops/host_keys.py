"""Whether an SSH host is the one that it should be: by the key that it shows, and those that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import paramiko

from scistream.errors import Code, SciStreamError
from scistream.hops.configuration import Settings
from scistream.hops.known_hosts import KnownKey, name_of

__all__ = ["check_host_key", "prefer_known"]

# The names of host keys, and of the algorithms that prove them (RFC 8332).
_RSA: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


def prefer_known(transport: paramiko.Transport, known: Sequence[KnownKey]) -> None:
    """Have the host show a key that is known, where it has several."""
    options = transport.get_security_options()
    possible = tuple(options.key_types)
    wanted = [name for key in known if not key.is_revoked for name in _RSA.get(key.kind, (key.kind,))]
    first = tuple(name for name in dict.fromkeys(wanted) if name in possible)
    options.key_types = first + tuple(name for name in possible if name not in first)


def check_host_key(transport: paramiko.Transport, settings: Settings, known: Sequence[KnownKey]) -> None:
    """See that the key is the host's own.

    Raises:
        SciStreamError: SSH_HOST_KEY_CHANGED, SSH_HOST_KEY_UNKNOWN.
    """
    key = transport.get_remote_server_key()
    same = [each for each in known if each.content == key.asbytes()]
    revoked = next((each for each in same if each.is_revoked), None)
    if same and not revoked:
        return
    facts = {
        "host": str(settings),
        "kind": key.get_name(),
        "fingerprint": key.fingerprint,
        "command": settings.by_hand,
    }
    others = [each for each in known if not each.is_revoked]
    if revoked or others:
        where = f"{revoked.place} revokes it" if revoked else f"{others[0].place} has another one"
        name = name_of(settings.host, settings.port, settings.name)
        raise SciStreamError(Code.SSH_HOST_KEY_CHANGED, **facts, known=where, name=name)
    files = ", ".join(str(path) for path in settings.known_hosts if path.is_file()) or "there is none"
    raise SciStreamError(Code.SSH_HOST_KEY_UNKNOWN, **facts, files=files)
