"""Certificates: issue, read and judge them; what guide 7.2.3 does by hand, with names that are checked."""

from __future__ import annotations

from scistream.certificates.inspection import Fault, Part, inspect
from scistream.certificates.issuing import issue, issue_ca
from scistream.certificates.reading import CertificateFacts, judge, read, spell_time
from scistream.certificates.succession import Authorities, Step

__all__ = [
    "Authorities",
    "CertificateFacts",
    "Fault",
    "Part",
    "Step",
    "inspect",
    "issue",
    "issue_ca",
    "judge",
    "read",
    "spell_time",
]
