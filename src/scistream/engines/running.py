"""What can be done with a data server while it carries streams: asked for its traffic, retargeted, drained."""

from __future__ import annotations

from scistream.engines.base import Engine, Plan, Traffic
from scistream.engines.children import ProcessMark
from scistream.errors import Code, SciStreamError

__all__ = ["drain", "retarget", "traffic"]


async def drain(engine: Engine, plan: Plan, mark: ProcessMark) -> None:
    """Have it accept no new connections; back when the running ones have ended and it with them.

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    raise SciStreamError(Code.ENGINE_CANNOT, engine=engine.title, reason="draining is not built yet")


async def retarget(engine: Engine, plan: Plan, mark: ProcessMark) -> None:
    """Have new connections go to the plan's targets; running ones go on to where they went.

    Raises:
        SciStreamError: RETARGET_REFUSED.
    """
    raise SciStreamError(Code.ENGINE_CANNOT, engine=engine.title, reason="a running session keeps its targets")


async def traffic(engine: Engine, plan: Plan, mark: ProcessMark) -> Traffic:
    """What the data server has carried since it started."""
    return Traffic()
