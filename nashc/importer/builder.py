"""What the layers of one network share while they are written: tensors, unique names, views."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Tensor, Unit, Weights
from nashc.errors import NashcError
from nashc.importer.group import stored_bits
from nashc.importer.layout import Axes, Layout, same_order, split
from nashc.importer.nests import Size, pixel_nest
from nashc.passes.graph import is_constant, is_used, static_shape
from nashc.passes.provenance import Skip, sources


class Builder:
    """Tensors and layers so far."""

    def __init__(self, graph: ir.Graph) -> None:
        self.layout = Layout(graph)
        self.tensors: dict[str, Tensor] = {}
        self.layers: list[Layer] = []
        self.views: list[Skip] = []
        self.constants: list[str] = []
        self._stored: dict[ir.Value, str] = {}
        self._relaid: dict[tuple[str, tuple[int, ...], Axes], str] = {}
        self._names: set[str] = set()
        self._sources: dict[tuple[ir.Node, ...], tuple[str, ...]] = {}

    def has(self, value: ir.Value) -> bool:
        """Some tensor already holds the value."""
        return value in self._stored

    def define(self, value: ir.Value, size: Size | None = None, bits: int | None = None) -> str:
        """The tensor that holds `value`, made on first use."""
        if value not in self._stored:
            name = self._unique_tensor(value.name or "value")
            if min(size or self.layout.size(value)) < 1:
                raise NashcError(f"'{name}' is empty: its shape is {static_shape(value)}", hint="check --shape")
            self.tensors[name] = Tensor(name, *(size or self.layout.size(value)), bits or stored_bits(value))
            self._stored[value] = name
        return self._stored[value]

    def read(self, value: ir.Value, axes: Axes | None = None) -> str:
        """The tensor to read `value` from; a constant map lives in DRAM like an input.

        axes: the channel axes that the reader needs; data in another order is brought in order by a layer of its own.
        """
        if value not in self._stored:
            if not is_constant(value):
                raise NashcError(f"'{value.name}' is used before it is computed", hint="export the model again")
            self.constants.append(self.define(value))
        name = self._stored[value]
        shape = static_shape(value)
        if axes is None or shape is None or same_order(shape, self.layout.axes(value), axes):
            return name
        return self._relay(name, shape, axes)

    def read_for(self, value: ir.Value, out: ir.Value) -> str:
        """The tensor to read an operand from that is broadcast to `out`, in the order of `out`."""
        return self.read(value, self.axes_for(value, out))

    def axes_for(self, value: ir.Value, out: ir.Value) -> Axes | None:
        """The channel axes of `out` as axes of an operand, which may have fewer."""
        shift = len(static_shape(value) or ()) - len(static_shape(out) or ())
        axes = tuple(a + shift for a in self.layout.axes(out))
        return axes if all(a >= 0 for a in axes) else None

    def view(self, node: ir.Node, name: str, reason: str) -> None:
        """The node's output is the tensor `name`."""
        self._stored[node.outputs[0]] = name
        self.views += [Skip(name, reason) for name in sources(node)]

    def emit(
        self,
        node: ir.Node,
        unit: Unit,
        nest: LoopNest,
        inputs: list[str],
        output: str,
        *,
        nodes: list[ir.Node] | None = None,
        weights: Weights | None = None,
        activation: str = "",
        scattered: bool = False,
        note: str = "",
        work: int = 0,
    ) -> None:
        """Append one layer for `node`, which `nodes` follow."""
        members = tuple(nodes or [node])
        if members not in self._sources:  # a Concat of thousands is as many layers
            names = (name for n in (*members, *constant_side(members)) for name in sources(n))
            self._sources[members] = tuple(dict.fromkeys(names))
        self.layers.append(
            Layer(
                self._unique_layer(node.name or node.op_type),
                node.op_type,
                unit,
                nest,
                tuple(inputs if weights else dict.fromkeys(inputs)),  # y = Conv(x) + x reads x twice
                output,
                weights,
                activation,
                self._sources[members],
                scattered,
                note,
                work,
            )
        )

    def _relay(self, name: str, shape: tuple[int, ...], axes: Axes) -> str:
        if (name, shape, axes) not in self._relaid:
            size = split(shape, axes)
            target = self._unique_tensor(f"{name}_relaid")
            self.tensors[target] = Tensor(target, *size, self.tensors[name].bits)
            self.layers.append(
                Layer(
                    self._unique_layer(target),
                    "Transpose",
                    Unit.VECTOR,
                    pixel_nest(size),
                    (name,),
                    target,
                    scattered=True,
                    note="brings the channels of a pixel together for the next layer",
                )
            )
            self._relaid[name, shape, axes] = target
        return self._relaid[name, shape, axes]

    def _unique_layer(self, base: str) -> str:
        name = unique(base, self._names)
        self._names.add(name)
        return name

    def _unique_tensor(self, base: str) -> str:
        return unique(base, self.tensors)


def unique(base: str, taken: set[str] | dict[str, Tensor]) -> str:
    """`base`, or `base_2`, `base_3`, ... where it is taken."""
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name


def constant_side(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """Nodes that prepare the constants of `nodes`, such as the DequantizeLinear of a weight."""
    found: dict[ir.Node, None] = {}
    pending = [v for node in nodes for v in node.inputs]
    while pending:
        value = pending.pop()
        node = value.producer() if value is not None else None
        if value is not None and node is not None and node not in found and is_constant(value):
            found[node] = None
            pending += node.inputs
    return list(found)


def used_outputs(node: ir.Node) -> list[ir.Value]:
    """Outputs that somebody reads."""
    return [v for v in node.outputs if is_used(v)]
