"""The truth table: what each engine can do here and now, and the sentence that everything else is refused with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from scistream.engines.base import Engine, Feature
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport

__all__ = ["Ability", "Wishes", "abilities", "protection", "require"]

_FEATURES: Final[Mapping[Encryption, Feature]] = {
    Encryption.NONE: Feature.PLAIN,
    Encryption.TLS: Feature.TLS,
    Encryption.TLS_PSK: Feature.TLS,
    Encryption.LEGACY_PSK: Feature.LEGACY_PSK,
}
# The engine that the other gateway's is asked about by name, as `Engine.name` has it.
_NGINX: Final = "nginx"
# What a user means by `tls`.
_TLS: Final = frozenset({Encryption.TLS, Encryption.TLS_PSK})


@dataclass(frozen=True)
class Ability:
    """Whether an engine has a feature; `words` say why not, and are empty where it has."""

    feature: Feature
    words: str = ""

    @property
    def can(self) -> bool:
        """Whether it has it."""
        return not self.words


@dataclass(frozen=True)
class Wishes:
    """What is asked of an engine. `peer` is the engine of the other gateway, where that is known."""

    encryption: Encryption = field(kw_only=True)
    transport: Transport = Transport.TCP
    sources: bool = False
    half_close: bool = False
    rate: bool = False
    peer: str = ""

    def features(self) -> list[Feature]:
        """What an engine needs to have for it."""
        asked = {
            Feature.TLS_WITH_NGINX: self.encryption is Encryption.TLS and self.peer == _NGINX,
            Feature.UDP: self.transport is Transport.UDP,
            Feature.SOURCES: self.sources,
            Feature.HALF_CLOSE: self.half_close,
            Feature.RATE: self.rate,
        }
        return [_FEATURES[self.encryption], *(feature for feature, wanted in asked.items() if wanted)]


def abilities(engine: Engine) -> tuple[Ability, ...]:
    """The engine's line of the truth table, in the order of `Feature`; one that is not installed can do nothing."""
    try:
        engine.locate()
    except SciStreamError as error:
        return tuple(Ability(feature, error.seen) for feature in Feature)
    return tuple(Ability(feature, engine.shortfall() or _refusal(engine, feature)) for feature in Feature)


def require(engine: Engine, wishes: Wishes) -> None:
    """Refuse what an engine cannot do, before anything is reserved.

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    if wishes.transport is Transport.UDP and wishes.encryption is not Encryption.NONE:
        raise _cannot(engine, "UDP goes unencrypted between the gateways, and encryption none was not asked for")
    if shortfall := engine.shortfall():
        raise _cannot(engine, shortfall)
    for feature in wishes.features():
        if words := _refusal(engine, feature):
            raise _cannot(engine, words)


def protection(engine: Engine, asked: Encryption, direction: Direction, peer: str = "") -> Encryption:
    """What protects the bytes of a session that asks for this: at the inbound end, `tls` is what the engine does best.

    The outbound end is told what the inbound one has, and which engine that is: `peer`.

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    if asked in engine.encryptions and not (asked in _TLS and direction is Direction.INBOUND):
        if asked is Encryption.TLS and not peer and (words := _refusal(engine, Feature.TLS_WITH_NGINX)):
            raise _cannot(engine, f"which engine the inbound gateway has was not told; {words}")
        return asked
    if asked in _TLS and direction is Direction.INBOUND:
        found = next((each for each in engine.encryptions if each in _TLS), None)
        if found is not None:
            return found
    if asked in _TLS and _TLS.intersection(engine.encryptions):
        raise _cannot(engine, f"the inbound gateway's encryption is {asked.value}, and this has no such thing")
    raise _cannot(engine, _refusal(engine, _FEATURES[asked]))


def _refusal(engine: Engine, feature: Feature) -> str:
    if feature is Feature.RATE:
        return engine.rate_shortfall()
    return engine.sources_shortfall() if feature is Feature.SOURCES else engine.cannot.get(feature, "")


def _cannot(engine: Engine, words: str) -> SciStreamError:
    return SciStreamError(Code.ENGINE_CANNOT, engine=engine.title, reason=words)
