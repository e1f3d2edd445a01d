"""Names from model files in a page: data, printable, of bounded length."""

from __future__ import annotations

from nashc.report.text import safe

LONGEST = 160
"""Characters of a name that a page shows; the middle of a longer one is left out."""
TAIL = 40


def shown(text: object) -> str:
    """A name without control, bidirectional and invisible characters, shortened with a note of its length."""
    raw = str(text)
    if len(raw) <= LONGEST:
        return safe(raw)
    return safe(f"{raw[: LONGEST - TAIL]} … ({len(raw):,} characters) … {raw[-TAIL:]}")
