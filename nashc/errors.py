"""The one error class of the project: what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMES = 16
MOST_CHARACTERS = 500
"""Of a place or a hint; what went wrong may list nodes and gets eight times as much."""


class NashcError(Exception):
    """Bad input or an impossible request; the command line prints it and exits with 2.

    `what` says what is wrong, `where` the file, table, key or node, `hint` what to do next.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = _cut(what, 8 * MOST_CHARACTERS), _cut(where), _cut(hint)
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known name, or lists all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = [*names[:MOST_NAMES], f"... ({len(names)} in all)"] if len(names) > MOST_NAMES else names
    return f"known: {', '.join(shown)}" if names else ""


def _cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Names come from files and may be of any length: a long text keeps its ends."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} [...] {text[-half:]}"
