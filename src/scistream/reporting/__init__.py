"""Reports about all gateways of a site: what needs attention, as text, and as one page."""

from __future__ import annotations

from scistream.reporting.judgement import judged
from scistream.reporting.page import render_page
from scistream.reporting.text import render_text

__all__ = ["judged", "render_page", "render_text"]
