"""SciStream: memory-to-memory streams between science facilities.

`scistream.client` opens and releases sessions, `scistream.control_server` serves them,
`scistream.engines` drives the proxies that carry the bytes. The design's words are in `scistream.terms`.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
