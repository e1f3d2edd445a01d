"""Give every graph input a static shape for one image.

Requires: a loaded model. Ensures: each real input (one without a stored value) has a static shape whose batch axis,
the first of two or more, is 1; stale shapes elsewhere are forgotten. A missing shape is an error that names the flag.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from nashc.errors import NashcError, did_you_mean

LARGEST_DIM = 2**24


def bind(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Bind the inputs to `shapes`, which win over what the file says."""
    graph = model.graph
    inputs = {v.name: v for v in graph.inputs if v.name is not None and v.name not in graph.initializers}
    for name in shapes:
        if name not in inputs:
            raise NashcError(f"--shape names '{name}', which is no input of the model", hint=did_you_mean(name, inputs))
    for name, value in inputs.items():
        shape = tuple(shapes[name]) if name in shapes else _from_file(value)
        _check(name, shape)
        if name in shapes and len(shape) > 1 and shape[0] != 1:
            raise NashcError(
                f"--shape {name} has batch {shape[0]}",
                hint=f"a network is described per image: {_flag(name, (1, *shape[1:]))}",
            )
        value.shape = ir.Shape((1, *shape[1:]) if len(shape) > 1 else shape)
    real = set(inputs.values())
    for value in list(graph.inputs):
        if value not in real:
            graph.inputs.remove(value)


def _from_file(value: ir.Value) -> tuple[int, ...]:
    if value.shape is None:
        raise NashcError(
            f"input '{value.name}' has no shape", hint=f"give it with --shape {value.name}=1,3,224,224 (your numbers)"
        )
    dims = list(value.shape)
    if len(dims) > 1:
        dims[0] = 1
    unknown = [d for d in dims if not isinstance(d, int) or d <= 0]
    if unknown:
        raise NashcError(
            f"input '{value.name}' has shape {_show(value.shape)}: the size of {', '.join(_show([d]) for d in unknown)} is open",
            hint=f"give it with {_flag(value.name or '', dims)}, with a number for each letter",
        )
    return tuple(int(d) for d in dims)  # type: ignore[arg-type]


def _flag(name: str, dims: tuple[object, ...] | list[object]) -> str:
    letters = iter("HWDXYZ" if len(dims) == 4 else "LMNXYZ")
    return f"--shape {name}=" + ",".join(str(d) if isinstance(d, int) and d > 0 else next(letters, "Q") for d in dims)


def _show(dims: object) -> str:
    return "[" + ", ".join(str(d) if isinstance(d, int) else str(getattr(d, "value", d) or "?") for d in dims) + "]"  # type: ignore[attr-defined]


def _check(name: str, shape: tuple[int, ...]) -> None:
    if any(not isinstance(d, int) or d < 1 or d > LARGEST_DIM for d in shape):
        raise NashcError(f"input '{name}' has shape {list(shape)}", hint=f"sizes go from 1 to {LARGEST_DIM}")
