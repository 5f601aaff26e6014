"""What of the page's own sources a browser need not be sent: whole-line comments and indentation.

Owns that rule and nothing else. It is no minifier: a line that stays reads as in the source. Safe because no file
under static/ has a template literal or a comment over several lines (tests/unit/test_console_squeeze.py holds that);
vendored files are not touched.
"""

from __future__ import annotations

from typing import Final

SQUEEZED: Final = (".js", ".css")
"""Kinds of file that are squeezed."""


def squeeze(text: str, suffix: str) -> str:
    """The same script or style sheet without lines that are only a comment, and without indentation and empty lines."""
    if suffix not in SQUEEZED:
        return text
    kept = [line.strip() for line in text.splitlines()]
    if suffix == ".js":
        kept = [line for line in kept if line and not line.startswith(("//", "/**"))]
    else:
        kept = [line for line in kept if line and not (line.startswith("/*") and line.endswith("*/"))]
    return "\n".join(kept) + "\n"
