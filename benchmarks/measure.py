"""What the tables share: CPU seconds of a search that starts with nothing remembered, and networks of examples/."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import nashc.hw
import nashc.search
from nashc.core.design import Design
from nashc.core.network import Network
from nashc.importer import import_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def timed(run: Callable[[], Design]) -> tuple[Design, float]:
    """(what `run` gives, its CPU seconds), nothing remembered from an earlier search."""
    forget()
    begin = time.process_time()
    found = run()
    return found, time.process_time() - begin


def forget() -> None:
    """Empty every memo of the search and of the cost model."""
    for package in (nashc.hw, nashc.search):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for member in vars(import_module(module.name)).values():
                if hasattr(member, "cache_clear"):
                    member.cache_clear()


def example(script: str, *arguments: str) -> Network:
    """The network that a script of examples/ writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "_".join([Path(script).stem, *(a.lstrip("-") for a in arguments)])
        command = [sys.executable, str(EXAMPLES / script), f"{path}.onnx", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return import_model(f"{path}.onnx").network


def per_cent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def counted(space: int) -> str:
    """Accelerators of a space; a certificate counts up to 2^63 - 1."""
    return f">= {space:.2g}" if space == 2**63 - 1 else f"{space:.2g}"
