"""Results of long runs, a JSON object a line, written as soon as they are there: a run goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    """What a results file has; a line that was cut off counts as none."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def spread(values: np.ndarray) -> str:
    """Mean and standard deviation of what several seeds reached; what one reached has none."""
    return f"{values.mean():.2f}" + (f" +- {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def note(path: Path, row: Row) -> None:
    """Add a row, on the disk when this returns; after a line that was cut off it begins a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a") as file:
        file.write("\n" * torn + json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(row, file=sys.stderr, flush=True)
