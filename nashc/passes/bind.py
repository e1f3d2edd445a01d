"""Give every graph input a static shape for one image.

Requires: a loaded model. Ensures: each real input (one without a stored value) has a static shape whose batch axis
is 1 (the first of two or more axes, where it is open or equal to that of the first input). A missing size is an error
that names the flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from nashc.errors import NashcError, did_you_mean
from nashc.passes.graph import array, is_op, where

LARGEST_DIM = 2**24


def bind(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bind the inputs to `shapes`, which win over what the file says. Returns the batch that the file fixes, 1 if none.

    A first axis that the file fixes is the batch, too, unless `shapes` repeats it: then it is a part of the image.
    """
    graph = model.graph
    inputs = {v.name: v for v in graph.inputs if v.name is not None and v.name not in graph.initializers}
    for name in shapes:
        if name not in inputs:
            raise NashcError(f"--shape names '{name}', which is no input of the model", hint=did_you_mean(name, inputs))
    batch, cut = _batch(graph), 1
    for name, value in inputs.items():
        shape = tuple(shapes[name]) if name in shapes else _from_file(value, batch)
        _check(name, shape)
        fixed = value.shape is not None and shape == tuple(value.shape)
        if name in shapes and len(shape) > 1 and shape[0] != 1 and not fixed:
            raise NashcError(
                f"--shape {name} has batch {shape[0]}",
                hint=f"a network is described per image: {_flag(name, (1, *shape[1:]))}",
            )
        fixed_batch = value.shape[0] if name not in shapes and len(shape) > 1 and value.shape is not None else 1
        if isinstance(fixed_batch, int) and fixed_batch != shape[0]:
            cut = fixed_batch
        value.shape = ir.Shape(shape)
    real = set(inputs.values())
    for value in list(graph.inputs):
        if value not in real:
            graph.inputs.remove(value)
    return cut


def refuse_fixed_batch(graph: ir.Graph, batch: int) -> None:
    """Raises NashcError for a Reshape to the batch that the file fixes: for one image it would mean something else.

    Requires: constants are stored values.
    """
    if batch < 2:
        return
    for node in graph:
        if not is_op(node, "Reshape") or len(node.inputs) < 2 or node.inputs[0] is None:
            continue
        wanted, data = array(node.inputs[1]), array(node.inputs[0])
        if wanted is not None and wanted.size and wanted.reshape(-1)[0] == batch and data is None:
            raise NashcError(
                f"reshapes to {wanted.tolist()}, and the file fixes a batch of {batch}",
                where=where(node),
                hint="export the model with a batch of 1, or an open one; or, if that axis is no batch, say so with "
                "--shape NAME=... and the file's own numbers",
            )


def _batch(graph: ir.Graph) -> object:
    """The first dim of the first real input: what it is there, it is in the others too."""
    for value in graph.inputs:
        if value.name not in graph.initializers and value.shape is not None and len(value.shape) > 1:
            return value.shape[0]
    return None


def _from_file(value: ir.Value, batch: object) -> tuple[int, ...]:
    if value.shape is None:
        hint = f"give it with --shape {value.name}=1,3,224,224 (your numbers)"
        raise NashcError(f"input '{value.name}' has no shape", hint=hint)
    dims = list(value.shape)
    if len(dims) > 1 and (dims[0] == batch or not isinstance(dims[0], int) or dims[0] <= 0):
        dims[0] = 1
    unknown = [d for d in dims if not isinstance(d, int) or d <= 0]
    if unknown:
        sizes = ", ".join(_show([d]) for d in unknown)
        raise NashcError(
            f"input '{value.name}' has shape {_show(value.shape)}: the size of {sizes} is open",
            hint=f"give it with {_flag(value.name or '', dims)}, with a number for each letter",
        )
    return tuple(int(d) for d in dims)  # type: ignore[arg-type]


def _flag(name: str, dims: Sequence[object]) -> str:
    letters = iter("HWDXYZ" if len(dims) == 4 else "LMNXYZ")
    return f"--shape {name}=" + ",".join(str(d) if isinstance(d, int) and d > 0 else next(letters, "Q") for d in dims)


def _show(dims: object) -> str:
    return "[" + ", ".join(str(d) if isinstance(d, int) else str(getattr(d, "value", d) or "?") for d in dims) + "]"  # type: ignore[attr-defined]


def _check(name: str, shape: tuple[int, ...]) -> None:
    if any(not isinstance(d, int) or d < 1 or d > LARGEST_DIM for d in shape):
        raise NashcError(f"input '{name}' has shape {list(shape)}", hint=f"sizes go from 1 to {LARGEST_DIM}")
