"""Stunnel: encrypts between the two gateways, which prove themselves to each other (U01, U02, U05)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from scistream.engines import stunnel_forms, stunnel_log
from scistream.engines.base import Feature, Handshake, Installation, Plan
from scistream.engines.marks import ProcessMark
from scistream.engines.proxy import Proxy
from scistream.engines.reloading import cannot
from scistream.engines.renewal import renew
from scistream.engines.traffic import Count, Peer
from scistream.terms import Encryption, Transport

__all__ = ["Stunnel"]

# Its `poll` tells of a connection that is closed both ways while there are bytes in it, and it reads no further then:
# "Read socket closed (HUP)". That comes when it waits for the other gateway, and no setting changes it (U72).
_HALF_CLOSE: Final = "half-closed connections may lose their last bytes: those of the direction that ends second"
# Nginx ends one direction of an encrypted connection by TCP's FIN alone. Stunnel takes that for the end as soon as the
# kernel has no more bytes for it, and what OpenSSL still has of a record that its buffer had no room for is gone: that
# comes when whoever it writes to is slow. No setting of either changes it (U72).
_WITH_NGINX: Final = (
    "the last bytes of what Nginx sends may be lost: it ends a direction without TLS's word for it (close_notify)"
)
_LEGACY: Final = (
    "nothing is encrypted between the gateways, and the key that they know each other by is no secret: legacy-psk was "
    "asked for"
)


class Stunnel(Proxy):
    """Stunnel: one process a session, a thread a connection."""

    name: ClassVar[str] = "stunnel"
    title: ClassVar[str] = "Stunnel"
    program: ClassVar[str] = "stunnel4"
    other_programs: ClassVar[tuple[str, ...]] = ("stunnel",)
    version_argument: ClassVar[str] = "-version"
    packages: ClassVar[tuple[str, ...]] = ("stunnel4",)
    encryptions: ClassVar[tuple[Encryption, ...]] = (Encryption.TLS_PSK, Encryption.TLS, Encryption.LEGACY_PSK)
    cannot: ClassVar[Mapping[Feature, str]] = {
        Feature.PLAIN: "it carries nothing unencrypted",
        Feature.TLS_WITH_NGINX: _WITH_NGINX,
        Feature.UDP: "it carries TCP only",
        Feature.HALF_CLOSE: _HALF_CLOSE,
    }
    is_guarded: ClassVar[bool] = True
    error_mark: ClassVar[str] = "LOG3[ui]"
    rebinds: ClassVar[bool] = True
    ledger: ClassVar[str] = "log"

    def warnings(self, encryption: Encryption, transport: Transport) -> tuple[str, ...]:
        """What it may lose (U72), and what the deployed form does not protect."""
        legacy = (_LEGACY,) if encryption is Encryption.LEGACY_PSK else ()
        return (*super().warnings(encryption, transport), *legacy, _HALF_CLOSE)

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """One service a route, and files of their own for what is secret.

        Raises:
            SciStreamError: ENGINE_CANNOT, SESSION_KEY_MISSING, UID_PUBLISHED.
        """
        asked = {Feature.PLAIN: plan.encryption is Encryption.NONE, Feature.UDP: plan.transport is Transport.UDP}
        for feature in filter(asked.get, asked):
            raise cannot(self, self.cannot[feature])
        return {plan.path("conf"): stunnel_forms.configuration(plan)} | stunnel_forms.key_files(self, plan)

    async def renew_certificates(self, plan: Plan, mark: ProcessMark) -> None:
        """By SIGHUP: the threads of running connections keep what they began with."""
        await renew(self, plan, mark)

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        """None: stunnel has no checker, it stops at once where it dislikes something."""
        return None

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        """One process, a thread a connection."""
        return [str(installation.program), str(plan.path("conf"))]

    def complaint(self, words: str) -> str | None:
        """A target's name that does not resolve."""
        return stunnel_log.unresolved(words)

    def deaf(self, plan: Plan, installation: Installation) -> str:
        """One service that listens on a Unix socket in the state directory: stunnel has to have an entry point."""
        del installation
        return stunnel_forms.configuration(plan, deaf=True)

    def reloaded(self, words: str) -> bool:
        """It says that it took the configuration, and afterwards whether it could bind."""
        if refusal := stunnel_log.refusal_of_configuration(words):
            raise cannot(self, f"{refusal}: {self.rejection(words)}")
        return stunnel_log.takes_configuration(words)

    def count(self, plan: Plan, line: str, accepted: dict[str, list[Peer]]) -> Count:
        """A line of its log; a number stands for the connection in all of its lines."""
        return stunnel_log.count(line, accepted, client=stunnel_forms.is_client(plan))

    def is_plain_at_target(self, plan: Plan) -> bool:
        """The inbound side is the TLS server."""
        return not stunnel_forms.is_client(plan)

    async def handshake(self, plan: Plan, mark: ProcessMark) -> Handshake | None:
        """What its log says of the last connection whose two sides proved themselves."""
        del mark
        return stunnel_log.handshake([plan.path("log"), plan.path("log.1")])
