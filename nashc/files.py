"""Output files appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nashc.errors import NashcError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end, and leaves it as it was where something fails."""
    path = Path(path)
    check_file(path)
    with tempfile.TemporaryDirectory(prefix=".nashc-", dir=path.parent) as folder:
        written = Path(folder) / path.name
        yield written
        written.replace(path)


def check_file(path: Path) -> None:
    """Raises NashcError where no file can be written: better before long work than after it."""
    if not path.parent.is_dir():
        raise NashcError("there is no such folder", where=str(path.parent), hint="make it first")
    if path.is_dir():
        raise NashcError("is a folder", where=str(path), hint="give the name of a file")
