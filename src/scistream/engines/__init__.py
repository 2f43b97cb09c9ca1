"""The engines: what carries the bytes. One interface, and one lifecycle for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scistream.engines.base import Engine, Installation, Plan, Route
from scistream.engines.haproxy import HAProxy
from scistream.engines.nftables import NFTables
from scistream.engines.nginx import Nginx
from scistream.engines.stunnel import Stunnel
from scistream.errors import Code, SciStreamError

__all__ = ["ENGINES", "Engine", "Installation", "Plan", "Route", "describe_engines", "find_engine"]

ENGINES: Final[Mapping[str, Engine]] = {engine.name: engine for engine in (HAProxy(), Nginx(), Stunnel(), NFTables())}

# `HaproxySubprocess`, `StunnelSubprocess`: the deployed server's words for what every data server is here.
_OLD_SUFFIX: Final = "subprocess"


def find_engine(word: str) -> Engine:
    """The engine of a name; case does not matter, and the deployed names are understood (U47, U48).

    Raises:
        SciStreamError: ENGINE_UNKNOWN.
    """
    name = word.strip().lower()
    try:
        return ENGINES.get(name) or ENGINES[name.removesuffix(_OLD_SUFFIX)]
    except KeyError:
        raise SciStreamError(Code.ENGINE_UNKNOWN, engine=word, engines=", ".join(ENGINES)) from None


def describe_engines() -> list[tuple[Engine, Installation | None]]:
    """Every engine, with what of it is installed here."""
    return [(engine, _installation(engine)) for engine in ENGINES.values()]


def _installation(engine: Engine) -> Installation | None:
    try:
        return engine.locate()
    except SciStreamError:
        return None
