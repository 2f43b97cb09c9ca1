"""What a control server says of itself when it is up: in its log, and to the commands of its host."""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from scistream import __version__
from scistream.certificates import CertificateFacts, spell_time
from scistream.control_server.configuration import CREDENTIALS_DIRECTORY, Settings
from scistream.control_server.state_directory import Announcement
from scistream.engines.base import Engine
from scistream.errors import SciStreamError
from scistream.terms import NO_AUTH, Encryption, OldClients

__all__ = ["announcement", "expiry", "tell", "warnings"]


# When an operator is reminded of a certificate.
_NEAR: Final = datetime.timedelta(days=30)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def announcement(settings: Settings, certificate: CertificateFacts | None, host_secret: str) -> Announcement:
    """What stands beside the lock of the state directory."""
    return Announcement(
        pid=os.getpid(),
        address=str(settings.address),
        engine=settings.type,
        authentication=settings.authentication,
        certificate=settings.server_crt.read_text() if certificate else "",
        certificate_name=next(iter(certificate.names), "") if certificate else "",
        settings=settings.digest(),
        host_secret=host_secret if settings.authenticates else "",
    )


def tell(settings: Settings, engine: Engine, certificate: CertificateFacts | None, log: FilteringBoundLogger) -> None:
    """Tell address, engine, channel and authentication, and warn of what an operator might not want."""
    log.info(
        "control server ready",
        version=__version__,
        address=str(settings.address),
        engine=engine.title,
        ports=str(settings.port_range),
        channel="TLS" if certificate else "plain text",
        authentication=settings.authentication,
        state_directory=str(settings.state_directory),
    )
    for warning in warnings(settings, engine, certificate):
        log.warning(warning)


def expiry(certificate: CertificateFacts | None, now: datetime.datetime) -> Iterator[str]:
    """A sentence where the certificate's end is near."""
    if certificate is not None and certificate.not_after - now < _NEAR:
        yield (
            f"the certificate is valid until {spell_time(certificate.not_after)}: put a new one into its place, then "
            "s2cs stop and s2cs start (streams go on)"
        )


def warnings(settings: Settings, engine: Engine, certificate: CertificateFacts | None) -> Iterator[str]:
    """What an operator might not want, a sentence each."""
    yield from _of_access(settings)
    yield from _of_old_clients(settings.for_old_clients, engine)
    yield from _of_channel(settings, certificate)
    try:
        engine.locate()
    except SciStreamError as error:
        yield f"no session can start yet: {error}"
    else:
        if words := engine.shortfall():
            yield f"no session can start yet: {engine.title}: {words}"


def _of_access(settings: Settings) -> Iterator[str]:
    if not settings.authenticates:
        if settings.compat:
            yield "--compat: the deployed defaults hold, and with them authentication is off"
        yield f"{NO_AUTH}: everyone who reaches {settings.address} may open, see and release streams"
    elif not settings.ssl:
        yield "--ssl=False: tokens travel as plain text, and whoever reads one can use it"
    if not settings.allowed_targets:
        yield "every host and port that this gateway reaches may be asked for as a target; --allowed-targets narrows it"


_OLD_CLIENTS: Final = {
    OldClients.PLAIN: (Encryption.NONE, "not encrypted between the gateways"),
    OldClients.LEGACY_PSK: (
        Encryption.LEGACY_PSK,
        "authenticated by their uid, which is no secret, and not encrypted",
    ),
}


def _of_old_clients(setting: OldClients, engine: Engine) -> Iterator[str]:
    if setting not in _OLD_CLIENTS:
        return
    encryption, words = _OLD_CLIENTS[setting]
    if encryption in engine.encryptions:
        yield f"old_clients = {setting.value}: sessions of deployed clients are {words}"
    else:
        yield f"old_clients = {setting.value}: {engine.title} does not do that, and deployed clients are refused"


def _of_channel(settings: Settings, certificate: CertificateFacts | None) -> Iterator[str]:
    if certificate is None:
        yield "--ssl=False: the control channel is plain text, and no session key is taken from it"
    elif settings.is_called_by_address and settings.address.host not in certificate.names:
        yield f"the certificate is for {', '.join(certificate.names)}, and this listens on {settings.address.host}"
    yield from expiry(certificate, datetime.datetime.now(datetime.UTC))
    if certificate is not None and (mode := _mode(settings.server_key)) & _OTHERS:
        yield f"the private key {settings.server_key} is not for its owner alone (mode {mode:04o}); it needs 0600"


def _mode(path: Path) -> int:
    """The mode of a file. A credential of systemd's has an access list, which shows as a mode for its group."""
    granted = os.environ.get(CREDENTIALS_DIRECTORY)
    is_credential = granted and path.parent == Path(granted)
    return 0 if is_credential else stat.S_IMODE(path.stat().st_mode)
