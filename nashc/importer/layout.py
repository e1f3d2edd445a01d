"""Which axes of an ONNX value are channels.

The accelerator stores a feature map pixel by pixel, all channels of a pixel together, whatever the order of axes in
ONNX. So each value has a tuple of channel axes (in order), every other axis is rows or columns, and a Transpose or
Reshape that keeps both orders moves no data. Convolutions fix axis 1, matrix products the last axis; the choice
spreads over element-wise nodes, Transposes and Reshapes, forward and backward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import prod

import onnx_ir as ir

from nashc.importer.ops import CHANNEL_FIRST, ELEMENTWISE, REDUCTIONS, RELABELLING, is_product, weight_index
from nashc.passes.graph import is_constant, is_op, operand, reduced_axes, static_shape
from nashc.passes.transpose import permutation

Axes = tuple[int, ...]
QUANTISING = ("QuantizeLinear", "DequantizeLinear")


class Layout:
    """Channel axes of every value of a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._axes: dict[ir.Value, Axes] = {}
        self._queue: deque[ir.Node] = deque()
        self._queued: set[ir.Node] = set()
        for node in graph:
            for value, axes in _fixed(node):
                self._set(value, axes)
        self._spread(guesses=False)
        self._queue.extend(graph)
        self._spread()
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            if value not in self._axes:
                self._set(value, default_axes(static_shape(value) or ()))
                self._spread()

    def axes(self, value: ir.Value) -> Axes:
        """Channel axes of the value."""
        return self._axes.get(value, default_axes(static_shape(value) or ()))

    def keeps_order(self, x: ir.Value, y: ir.Value) -> bool:
        """Two values of one shape are stored in the same order."""
        shape = static_shape(x)
        return shape is not None and shape == static_shape(y) and same_order(shape, self.axes(x), self.axes(y))

    def size(self, value: ir.Value) -> tuple[int, int, int]:
        """Channels, rows and columns of the value."""
        return split(static_shape(value) or (), self.axes(value))

    def _set(self, value: ir.Value, axes: Axes) -> None:
        rank = len(static_shape(value) or ())
        if value in self._axes or any(a >= rank for a in axes):
            return
        self._axes[value] = axes
        around = [u.node for u in value.uses()] + [value.producer()]
        for node in around:
            if node is not None and node not in self._queued:
                self._queued.add(node)
                # a quantised model spreads in the order of its float model: both sides of a Q or DQ count as one value
                (self._queue.appendleft if is_op(node, *QUANTISING) else self._queue.append)(node)

    def _spread(self, *, guesses: bool = True) -> None:
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            for source, target, rename in _links(node):
                if source in self._axes and target not in self._axes:
                    axes = rename(self._axes[source])
                    if axes is not None and (guesses or not _is_guess(node, target, axes)):
                        self._set(target, axes)


def _is_guess(node: ir.Node, value: ir.Value, axes: Axes) -> bool:
    """A Reshape says of a map that is one channel on its other side which axis of size 1 that is: others know better
    whether the map is one channel here, too."""
    shape = static_shape(value) or ()
    return is_op(node, *RELABELLING) and max(shape, default=1) > 1 and all(shape[a] == 1 for a in axes)


def default_axes(shape: tuple[int, ...]) -> Axes:
    """Axis 1 of a batched value, axis 0 of a vector."""
    return () if not shape else (1,) if len(shape) > 1 else (0,)


def split(shape: tuple[int, ...], axes: Axes) -> tuple[int, int, int]:
    """Channels, rows and columns: the last axis that is no channel is columns, the ones before it are rows."""
    rest = [d for a, d in enumerate(shape) if a not in axes]
    channels = prod(shape[a] for a in axes)
    return channels, prod(rest[:-1]), rest[-1] if rest else 1


def same_order(shape: tuple[int, ...], a: Axes, b: Axes) -> bool:
    """Both choices of channel axes store the same elements in the same order."""
    real = [i for i, d in enumerate(shape) if d != 1]
    first = [i for i in real if i not in a] + [i for i in a if i in real]
    return first == [i for i in real if i not in b] + [i for i in b if i in real]


def _fixed(node: ir.Node) -> list[tuple[ir.Value, Axes]]:
    x = node.inputs[0] if node.inputs else None
    if x is None or not node.outputs:
        return []
    y = node.outputs[0]
    if (node.domain, node.op_type) in CHANNEL_FIRST or (
        is_op(node, node.op_type) and ("", node.op_type) in CHANNEL_FIRST
    ):
        return [(x, (1,)), (y, (1,))]
    if weight_index(node) is not None and is_product(node):
        w = node.inputs[weight_index(node) or 0]
        if w is not None and is_constant(w):
            rank_x, rank_y = len(static_shape(x) or ()), len(static_shape(y) or ())
            channel_x = 0 if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1 else rank_x - 1
            return [(x, (channel_x,)), (y, (rank_y - 1,))]
    if is_op(node, "LayerNormalization"):
        return [(x, (len(static_shape(x) or ()) - 1,))]
    if is_op(node, *REDUCTIONS):
        shape, reduced = static_shape(x) or (), reduced_axes(node) or ()
        left = [a for a in range(1, len(shape)) if a not in reduced]
        return [(x, (left[0],))] if len(shape) == 4 and len(left) == 1 and 0 not in reduced else []
    return []


Link = tuple[ir.Value, ir.Value, Callable[[Axes], Axes | None]]


def _links(node: ir.Node) -> list[Link]:
    """How labels travel through a node: from value, to value, renaming."""
    if not node.outputs or not node.inputs or node.inputs[0] is None:
        return []
    x, y = node.inputs[0], node.outputs[0]
    if is_op(node, "Transpose"):
        perm = permutation(node)
        back = dict(enumerate(perm))
        forth = {old: new for new, old in enumerate(perm)}
        return [
            (x, y, lambda axes: tuple(sorted(forth.get(a, a) for a in axes))),
            (y, x, lambda axes: tuple(sorted(back.get(a, a) for a in axes))),
        ]
    if is_op(node, *RELABELLING):
        before, after = static_shape(x), static_shape(y)
        if before is None or after is None:
            return []
        return [
            (x, y, lambda axes: carry(before, after, axes)),
            (y, x, lambda axes: carry(after, before, axes)),
        ]
    if is_op(node, *REDUCTIONS):
        return [(x, y, partial(_left, node))]
    if node.op_type in ELEMENTWISE:
        values = [v for v in (*node.inputs, *node.outputs) if v is not None and v is not y and static_shape(v)]
        by = {v: len(static_shape(v) or ()) - len(static_shape(y) or ()) for v in values}
        computed = [v for v in values if v.const_value is None]
        return [(v, y, _shift(-by[v])) for v in computed] + [(y, v, _shift(by[v])) for v in computed]
    return []


def _left(node: ir.Node, axes: Axes) -> Axes | None:
    """Channel axes after a reduction; None where it sums channels up."""
    shape, reduced = static_shape(operand(node, 0)) or (), reduced_axes(node) or ()
    keeps = node.attributes.get_int("keepdims", 1) == 1
    left = [a for a in range(len(shape)) if keeps or a not in reduced]
    return tuple(left.index(a) for a in axes) if all(a in left for a in axes) else None


def _shift(by: int) -> Callable[[Axes], Axes | None]:
    return lambda axes: tuple(a + by for a in axes) if all(a + by >= 0 for a in axes) else None


def carry(before: tuple[int, ...], after: tuple[int, ...], axes: Axes) -> Axes | None:
    """Channel axes after a Reshape, or None where a new axis mixes channels and pixels.

    Both shapes are cut into the shortest runs of axes with equal products; axes of size 1 belong to no run.
    """
    found: list[int] = []
    for old, new in runs(before, after):
        kinds = {a in axes for a in old}
        if len(kinds) > 1:
            return None
        if kinds == {True}:
            found += new
    if not found and any(before[a] == 1 for a in axes):
        found = [a for a in default_axes(after) if after[a] == 1] or [a for a, d in enumerate(after) if d == 1][:1]
    return tuple(found)


def runs(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Pairs of axis lists with equal products, sizes of 1 left out."""
    old = [a for a, d in enumerate(before) if d != 1]
    new = [a for a, d in enumerate(after) if d != 1]
    pairs: list[tuple[list[int], list[int]]] = []
    while old and new:
        left, right = [old.pop(0)], [new.pop(0)]
        while prod(before[a] for a in left) != prod(after[a] for a in right):
            if prod(before[a] for a in left) < prod(after[a] for a in right):
                if not old:
                    return [*pairs, (left, right + new)]
                left.append(old.pop(0))
            else:
                if not new:
                    return [*pairs, (left + old, right)]
                right.append(new.pop(0))
        pairs.append((left, right))
    return pairs
