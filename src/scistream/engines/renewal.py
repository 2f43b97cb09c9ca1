"""A new certificate for a data server that carries streams: new connections get it, running ones go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cryptography import x509

from scistream.engines.base import Plan
from scistream.engines.credentials import certificate_file, has_certificates
from scistream.engines.marks import ProcessMark
from scistream.engines.reloading import cannot, configuration, reload, renewed
from scistream.engines.running import running_leader
from scistream.engines.texts import SecretText

if TYPE_CHECKING:
    from scistream.engines.proxy import Proxy

__all__ = ["expires", "renew"]


def expires(plan: Plan) -> float | None:
    """When a session's certificate of this gateway ends, in seconds since the epoch; None where it has none."""
    try:
        certificate = x509.load_pem_x509_certificate(plan.path("pem").read_bytes())
    except (OSError, ValueError):
        return None
    return certificate.not_valid_after_utc.timestamp()


async def renew(
    engine: Proxy, plan: Plan, mark: ProcessMark, hand_over: Callable[[SecretText], Awaitable[None]] | None = None
) -> None:
    """Replace the certificate of a data server, on the disk and in its memory; where it fails, in neither.

    `hand_over` gives it to the running data server; without it, the data server is told to read its files anew.

    Raises:
        SciStreamError: ENGINE_CANNOT, DATA_SERVER_UNRESPONSIVE, SESSION_KEY_MISSING, FILE_UNWRITABLE.
    """
    if not has_certificates(engine, plan):
        raise cannot(engine, "the session has no certificates")
    leader = running_leader(engine, plan, mark)
    text = certificate_file(engine, plan)
    async with configuration(engine, plan, leader, text, kind="pem"):
        if hand_over is not None:
            await hand_over(text)
        else:
            await reload(engine, plan, leader, renewed(engine, plan, leader))
