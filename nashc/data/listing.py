"""What lies in a folder, and small text files, none of them trusted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nashc.errors import NashcError

MOST_TEXT = 256 << 20


@dataclass(frozen=True)
class Listing:
    """Names in a folder, sorted; hidden ones are left out."""

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]


def listing(path: Path) -> Listing:
    """Reads the names only, so that folders of 100,000 files open quickly."""
    files, folders = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
    except OSError as error:
        raise NashcError(f"cannot be listed: {error.strerror}", where=str(path)) from None
    return Listing(path, tuple(sorted(files)), tuple(sorted(folders)))


def read_text(path: Path) -> str:
    """UTF-8 text of at most MOST_TEXT bytes."""
    try:
        if path.stat().st_size > MOST_TEXT:
            raise NashcError(f"more than {MOST_TEXT >> 20} MiB of text", where=str(path), hint="is it the right file?")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise NashcError(
            f"is no text: {error.reason} at byte {error.start}", where=str(path), hint="save it as UTF-8"
        ) from None


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises NashcError for a damaged one."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise NashcError(f"damaged JSON: {error}", where=str(path)) from None
