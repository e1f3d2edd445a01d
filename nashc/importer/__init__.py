"""ONNX file or onnx_ir model -> the frozen Network that search sees. The only code that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx_ir as ir

from nashc.core.network import Network
from nashc.errors import NashcError
from nashc.importer.build import build
from nashc.passes import Skip, load, removed, simplify

__all__ = ["Imported", "Skip", "import_ir", "import_model"]

UNFORESEEN = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
REPORT = "check it with onnx.checker; if it runs in onnxruntime, please report it"
NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Imported:
    """A network, the source nodes that became no layer (with the reason), and the simplified model behind it."""

    network: Network
    removed: tuple[Skip, ...]
    model: ir.Model


def import_model(path: str | Path, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> Imported:
    """Load, simplify and import an ONNX file.

    shapes: input name -> shape with batch 1, as --shape gives them; they win over the file's.
    Every node of the file is in some layer's `nodes` or in `removed`. Raises NashcError on bad input.
    """
    file = str(path)
    try:
        return import_ir(simplify(load(path), shapes), Path(path).stem)
    except NashcError as error:
        if file in error.where:
            raise
        raise NashcError(error.what, where=f"{file}: {error.where}".removesuffix(": "), hint=error.hint) from None
    except (*UNFORESEEN, ir.serde.SerdeError, ir.passes.PassError) as error:
        # a damaged file that passed every check: the cause stays attached for whoever debugs it
        raise NashcError(f"cannot be imported ({type(error).__name__}: {error})", where=file, hint=REPORT) from error


def import_ir(model: ir.Model, name: str | None = None) -> Imported:
    """Import a model that `simplify` has prepared."""
    network, views = build(model, name or model.graph.name or "network")
    return Imported(network, (*removed(model), *views), model)
