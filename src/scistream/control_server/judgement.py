"""Whether a control server could be started with its settings, judged without starting or holding anything."""

from __future__ import annotations

import datetime

from scistream import certificates
from scistream.certificates import CertificateFacts
from scistream.control_server.configuration import Settings
from scistream.control_server.private_files import check_directory

__all__ = ["judge"]


def judge(settings: Settings) -> CertificateFacts | None:
    """Judge authentication, state directory and certificate.

    Returns:
        the certificate's facts, or None for a plain-text channel.

    Raises:
        SciStreamError: AUTHENTICATION_UNDECIDED, AUTHENTICATION_CONTRADICTORY, BAD_CONFIGURATION, CERTIFICATE_...
    """
    settings.check_authentication()
    if settings.state_directory.is_dir():
        check_directory(settings.state_directory)
    if not settings.ssl:
        return None
    now = datetime.datetime.now(datetime.UTC)
    return certificates.judge(settings.server_crt, now=now, key=settings.server_key, option="--server-crt")
