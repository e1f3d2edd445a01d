"""Where a model's results in the Session part from the NumPy reference, node by node.

All results of the session are exposed as outputs. The reference computes each node from the results of the session
that the node reads (from its own only where a fused kernel keeps them), so that a difference is that node's own and not
the sum of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from nashc.ops.native import available
from nashc.runtime.prepare import Source, prepare
from nashc.runtime.reference import evaluate, tensors
from nashc.runtime.session import Array, check_inputs, run, start

TOLERANCE = 1e-4
"""Of floats, as a share of the largest magnitude of the tensor: far above float32 rounding, far below an error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The result `tensor` of a node: largest |session - reference| (infinite where types or shapes differ), largest
    |reference|, and the error that rounding may cause: TOLERANCE of the magnitude for floats, one step for 8 bits."""

    node: str
    op_type: str
    tensor: str
    error: float
    magnitude: float
    limit: float

    @property
    def parts(self) -> bool:
        return not self.error <= self.limit


def compare(
    model: Source, inputs: Mapping[str, Array], *, threads: int | None = None, native: bool | None = None
) -> tuple[Difference, ...]:
    """The difference of every result that the session shows, in the order of the graph. Raises NashcError."""
    native = available() if native is None else native
    prepared = prepare(model, native=native)
    check_inputs(tensors(prepared.source), inputs)
    names = _results(prepared.source) & _results(prepared.model)
    exposed = _expose(prepared.model, names)
    wanted = [value.name for value in exposed.graph.output]
    values = zip(wanted, run(start(exposed, threads, native=native), wanted, inputs), strict=True)
    found = {name: value for name, value in values if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"}
    return tuple(
        _difference(node, name, found[name], expected)
        for node, results in evaluate(prepared.source, inputs, found)
        for name, expected in results.items()
        if name in found
    )


def _results(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output if name}


def _expose(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy with these results as outputs too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    given = {value.name for value in copy.graph.output}
    types = {value.name: value for value in copy.graph.value_info}
    copy.graph.output.extend(types.get(n, onnx.ValueInfoProto(name=n)) for n in sorted(names - given))
    return copy


def _difference(node: onnx.NodeProto, name: str, found: Array, expected: Array) -> Difference:
    expected = np.asarray(expected)
    wide = expected.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    magnitude = float(np.abs(finite).max(initial=0))
    if found.shape != expected.shape or found.dtype != expected.dtype:
        error = np.inf
    else:
        with np.errstate(invalid="ignore"):
            gap = np.abs(found.astype(np.float64) - wide)
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))  # infinities and NaN have no gap
        error = float(np.nan_to_num(np.where(same, 0, gap), nan=np.inf).max(initial=0))
    one_step = float(expected.dtype in (np.int8, np.uint8))
    limit = TOLERANCE * magnitude if expected.dtype.kind == "f" else one_step
    return Difference(node.name, node.op_type, name, error, magnitude, limit)
