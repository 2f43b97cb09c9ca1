"""Keys: which of them are shown to an SSH host, from files and from an agent. Nobody is ever asked for a word."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import paramiko

from scistream.errors import Code, SciStreamError
from scistream.hops.configuration import Settings

__all__ = ["log_in"]

_AGENT: Final = "SSH_AUTH_SOCK"
_PUBLIC: Final = ".pub"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAGIC: Final = b"openssh-key-v1\0"
_OPENSSH = re.compile(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", re.DOTALL)


@dataclass
class _Bunch:
    """The keys of one login, and what was found out about those that cannot be shown."""

    settings: Settings
    faults: list[str] = field(default_factory=list)
    shown: int = 0

    def all(self) -> Iterator[paramiko.PKey]:
        """Those that somebody named, then the agent's, then those at their usual places."""
        held = {key.asbytes(): key for key in _held(self.settings.agent)}
        named = list(self._of_files(held)) if self.settings.are_keys_named else []
        yield from named
        if not self.settings.only_named_keys:
            yield from (key for content, key in held.items() if content not in {each.asbytes() for each in named})
        if not self.settings.are_keys_named:
            yield from (key for key in self._of_files(held) if key.asbytes() not in held)

    def _of_files(self, held: dict[bytes, paramiko.AgentKey]) -> Iterator[paramiko.PKey]:
        for path in self.settings.keys:
            key = held.get(_public_part(path)) or self._load(path)
            if key:
                yield key

    def _load(self, path: Path) -> paramiko.PKey | None:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if not mode & _OTHERS:
                return paramiko.PKey.from_path(path)
            # As with ssh: what others can read is no secret any more.
            self.faults.append(f"{path} is not for its owner alone (mode {mode:04o}; chmod 600 closes it)")
        except FileNotFoundError:
            if self.settings.are_keys_named:
                self.faults.append(f"there is no {path}")
        except OSError as error:
            self.faults.append(f"{path} cannot be read ({error.strerror or error})")
        except (TypeError, paramiko.PasswordRequiredException):
            self.faults.append(f"{path} is encrypted, and no agent holds its key")
        except Exception:
            # The libraries below raise whatever they like for what is no key.
            self.faults.append(f"{path} is not a private key that can be used")
        return None


def log_in(transport: paramiko.Transport, settings: Settings) -> None:
    """Show keys until one opens.

    Raises:
        SciStreamError: SSH_KEY_UNREADABLE, SSH_LOGIN_REFUSED.
    """
    bunch = _Bunch(settings)
    for key in bunch.all():
        bunch.shown += 1
        if _opens(transport, key, bunch):
            return
    facts = {"host": str(settings), "user": settings.user}
    if not bunch.shown:
        raise SciStreamError(Code.SSH_KEY_UNREADABLE, **facts, reason=_nothing(bunch))
    raise _refused(bunch, f"none of {bunch.shown} keys was accepted" if bunch.shown > 1 else "the key was not accepted")


def _opens(transport: paramiko.Transport, key: paramiko.PKey, bunch: _Bunch) -> bool:
    try:
        further = transport.auth_publickey(bunch.settings.user, key)
    except paramiko.BadAuthenticationType as error:
        raise _refused(bunch, f"it takes no keys, only {', '.join(error.allowed_types)}") from None
    except paramiko.AuthenticationException as error:
        if transport.is_active():
            return False
        raise _hung_up(bunch, error) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        if not transport.is_active():
            raise _hung_up(bunch, error) from None
        # A key that cannot sign: of an unknown kind, or one that its agent keeps back.
        bunch.faults.append(f"a key of the agent or of a file cannot be used ({error})")
        return False
    if further:
        raise _refused(bunch, f"beside a key it wants {', '.join(further)}")
    return True


def _hung_up(bunch: _Bunch, error: Exception) -> SciStreamError:
    if bunch.shown > 1:
        return _refused(
            bunch, f"it hung up after {bunch.shown} keys; name the right one (IdentityFile and IdentitiesOnly yes)"
        )
    return _refused(bunch, f"it hung up ({error})")


def _refused(bunch: _Bunch, reason: str) -> SciStreamError:
    settings = bunch.settings
    return SciStreamError(
        Code.SSH_LOGIN_REFUSED,
        host=str(settings),
        user=settings.user,
        reason="; ".join((reason, *bunch.faults)),
        command=settings.by_hand,
    )


def _nothing(bunch: _Bunch) -> str:
    if bunch.faults:
        return "; ".join(bunch.faults)
    settings = bunch.settings
    agent = "the agent holds none" if settings.agent else "there is no agent (SSH_AUTH_SOCK)"
    return f"{agent}, and none lies in {', '.join(map(str, settings.keys)) or 'any file'}"


def _held(agent: str | None) -> tuple[paramiko.AgentKey, ...]:
    """The keys of an agent; none where it does not answer."""
    if agent is None:
        return ()
    before = os.environ.get(_AGENT)
    # Where paramiko looks for it; this process connects to one host at a time.
    os.environ[_AGENT] = agent
    try:
        return paramiko.Agent().get_keys()
    except (paramiko.SSHException, OSError):
        return ()
    finally:
        if before is None:
            del os.environ[_AGENT]
        else:
            os.environ[_AGENT] = before


def _public_part(path: Path) -> bytes:
    """The public key of a file, also of an encrypted one; empty where it is not told."""
    public = path if path.suffix == _PUBLIC else path.with_name(path.name + _PUBLIC)
    try:
        return _of_public(public) or _of_private(path)
    except (OSError, ValueError, IndexError, binascii.Error, paramiko.SSHException):
        return b""


def _of_public(path: Path) -> bytes:
    return base64.b64decode(path.read_text(encoding="ascii").split()[1]) if path.is_file() else b""


def _of_private(path: Path) -> bytes:
    found = _OPENSSH.search(path.read_bytes())
    content = base64.b64decode(found[1]) if found else b""
    if not content.startswith(_MAGIC):
        return b""
    message = paramiko.Message(content[len(_MAGIC) :])
    for _ in ("cipher", "derivation", "its options"):
        message.get_string()
    # How many keys; there is never another number than one.
    message.get_int()
    return message.get_string()
