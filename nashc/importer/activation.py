"""Recognise an activation function in any spelling.

A part of the graph between a value x and a node m that computes a function f of one element of x, with scalar
constants, is evaluated on a grid and compared with the functions that the post-processing lane knows. So
HardSwish, x*HardSigmoid(x), x*clip(x+3, 0, 6)/6 and Add-Clip-Mul-Div are one rule.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nashc.passes.graph import array, is_op

LONGEST = 8
"""Nodes of the longest known spelling, with room."""
FAR = np.array([16.0, 64.0, 256.0])
"""Beyond these a clip is none."""
GRID = np.concatenate([-FAR[::-1], np.linspace(-9.0, 9.0, 361), FAR])

Grid = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[float])


@dataclass(frozen=True, slots=True)
class Activation:
    """A recognised function: its name, its nodes and the value it ends in."""

    name: str
    nodes: tuple[ir.Node, ...]
    output: ir.Value


def _sigmoid(x: Grid) -> Grid:
    return np.asarray(1 / (1 + np.exp(-x)))


def _clip(lo: float, hi: float) -> Callable[[Grid], Grid]:
    return lambda x: np.clip(x, lo, hi)


KNOWN: dict[str, Callable[[Grid], Grid]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": _clip(0, 6),
    "clip(-1,1)": _clip(-1, 1),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid(0.2)": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_sigmoid": lambda x: x * _sigmoid(1.702 * x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "abs": np.abs,
}
"""Functions without parameters; the first that fits names the activation."""

CLIPS = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}

SINGLE = {
    "LeakyRelu": "leakyrelu", "PRelu": "prelu", "Elu": "elu", "Selu": "selu", "Celu": "celu", "Softsign": "softsign",
    "ThresholdedRelu": "thresholdedrelu", "Shrink": "shrink", "Mish": "mish", "Swish": "silu", "Gelu": "gelu",
}  # fmt: skip
"""Operators that are an activation by themselves, whatever their parameters."""


def find_activation(x: ir.Value, start: ir.Node | None = None) -> Activation | None:
    """The largest known activation of `x`.

    It is to be fused into the producer of x, so every reader of x must belong to it. With `start`, one of the readers,
    it is to be a layer of its own that begins there; other readers of x are left alone.
    """
    closed = start is None
    if closed and (x.is_graph_output() or len(x.uses()) > LONGEST):
        return None
    inside: dict[ir.Node, Grid] = {}
    values: dict[ir.Value, Grid] = {x: GRID}
    best: Activation | None = None
    frontier = deque([] if start is None else [start])
    if len(x.uses()) <= LONGEST:
        frontier.extend(u.node for u in x.uses())
    while frontier and len(inside) < LONGEST:
        node = frontier.popleft()
        result = None if node in inside else _evaluate(node, values)
        if result is None:
            continue
        out = node.outputs[0]
        inside[node] = values[out] = result
        if len(out.uses()) <= LONGEST:
            frontier.extend(u.node for u in out.uses())
        name = _name(node, result, x)
        if name:
            part = _between(x, node)
            if _is_closed(part, node, x, closed) and (start is None or start in part):
                best = Activation(name, part, out)
    return best


def _name(node: ir.Node, result: Grid, x: ir.Value) -> str:
    if node.domain in ("", "ai.onnx") and node.op_type in SINGLE and node.inputs[0] is x:
        return SINGLE[node.op_type]
    bounds = _bounds(node) if is_op(node, "Clip") and node.inputs[0] is x else None
    if bounds is not None:
        return CLIPS.get(bounds) or f"clip({bounds[0]:g},{bounds[1]:g})"
    for name, function in KNOWN.items():
        if np.allclose(result, function(GRID), rtol=1e-4, atol=2e-5):
            return name
    if is_op(node, "HardSigmoid") and node.inputs[0] is x:
        return f"hardsigmoid({node.attributes.get_float('alpha', 0.2):g},{node.attributes.get_float('beta', 0.5):g})"
    return ""


def _between(x: ir.Value, end: ir.Node) -> tuple[ir.Node, ...]:
    """Nodes on the way from x to `end`, in graph order of discovery."""
    found: list[ir.Node] = []
    pending = [end]
    while pending:
        node = pending.pop()
        if node not in found:
            found.append(node)
            producers = [v.producer() for v in node.inputs if v is not None and v is not x and v.const_value is None]
            pending += [p for p in producers if p is not None]
    return tuple(reversed(found))


def _is_closed(part: tuple[ir.Node, ...], end: ir.Node, x: ir.Value, closed: bool) -> bool:
    """Nothing outside reads an inner value."""
    if closed and any(u.node not in part for u in x.uses()):
        return False
    inner = [node.outputs[0] for node in part if node is not end]
    return all(not v.is_graph_output() and all(u.node in part for u in v.uses()) for v in inner)


_BINARY: dict[str, Callable[[Grid, Grid], Grid]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide,
    "Max": np.maximum, "Min": np.minimum, "Pow": np.power,
}  # fmt: skip
_UNARY: dict[str, Callable[[Grid], Grid]] = {
    "Relu": KNOWN["relu"], "Sigmoid": _sigmoid, "Tanh": np.tanh, "Erf": _erf, "Exp": np.exp,
    "Neg": np.negative, "Abs": np.abs, "Softplus": KNOWN["softplus"], "Reciprocal": np.reciprocal, "Sqrt": np.sqrt,
    "HardSwish": KNOWN["hardswish"], "Identity": lambda x: x,
}  # fmt: skip


def _evaluate(node: ir.Node, values: dict[ir.Value, Grid]) -> Grid | None:
    """The node's result on the grid, or None if it is no function of one element."""
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return None
    with np.errstate(all="ignore"):
        if node.op_type in SINGLE:
            return _single(node, values)
        if is_op(node, "Clip", "HardSigmoid") and node.inputs[0] in values:
            return _parametrised(node, values[node.inputs[0]])
        if len(node.inputs) > 2:  # before operands are looked at: a Concat has thousands, for each of which it is asked
            return None
        operands = [_operand(v, values) for v in node.inputs if v is not None]
        known = [o for o in operands if o is not None]
        if len(known) < len(operands):
            return None
        if node.op_type in _UNARY and len(known) == 1:
            return _UNARY[node.op_type](known[0])
        if node.op_type in _BINARY and len(known) == 2:
            return _BINARY[node.op_type](*known)
    return None


def _operand(value: ir.Value, values: dict[ir.Value, Grid]) -> Grid | None:
    if value in values:
        return values[value]
    stored = array(value)
    return np.full_like(GRID, float(stored.reshape(-1)[0])) if stored is not None and stored.size == 1 else None


def _single(node: ir.Node, values: dict[ir.Value, Grid]) -> Grid | None:
    """Operators that _name knows by name; inside a longer spelling only the exact ones may go on."""
    x = values.get(node.inputs[0]) if node.inputs[0] is not None else None
    if x is None or any(v is not None and v not in values and v.const_value is None for v in node.inputs):
        return None
    if node.op_type == "Gelu":
        return KNOWN["gelu_tanh" if node.attributes.get_string("approximate") == "tanh" else "gelu"](x)
    return np.full_like(x, np.nan)


def _parametrised(node: ir.Node, x: Grid) -> Grid | None:
    if node.op_type == "HardSigmoid":
        return np.clip(node.attributes.get_float("alpha", 0.2) * x + node.attributes.get_float("beta", 0.5), 0, 1)
    bounds = _bounds(node)
    return None if bounds is None else np.clip(x, *bounds)


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """Of a Clip; None where they are not stored."""
    bounds: list[float] = []
    for index, (key, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None:
            bounds.append(node.attributes.get_float(key, default))
        else:
            stored = array(value)
            if stored is None or stored.size != 1:
                return None
            bounds.append(float(stored.reshape(-1)[0]))
    low, high = bounds
    return low, high
