"""Certificates: issue, read and judge them; what guide 7.2.3 does by hand, with names that are checked."""

from __future__ import annotations

from scistream.certificates.issuing import issue, issue_ca
from scistream.certificates.reading import CertificateFacts, judge, read, spell_time

__all__ = ["CertificateFacts", "issue", "issue_ca", "judge", "read", "spell_time"]
