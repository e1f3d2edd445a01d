"""What every table of benchmarks/ starts with: date, machine, versions, command."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path

import numpy as np


def heading() -> str:
    """One line of markdown that says where and when the figures below it were measured."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    command = " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    day = datetime.date.today().isoformat()
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{day}, {os.cpu_count()} cores of {model}, {versions}: `{command}`"
