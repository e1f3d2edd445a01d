"""onnx_ir.Model -> Network: every group of nodes becomes a view or the layers of one unit."""

from __future__ import annotations

import onnx_ir as ir

from nashc.core.network import COMPUTE_UNITS, Layer, Network
from nashc.errors import NashcError
from nashc.importer.builder import Builder, used_outputs
from nashc.importer.compute import compute
from nashc.importer.group import Group, is_normalisation, is_quantiser, stored_bits
from nashc.importer.host import host
from nashc.importer.moves import move, quantise
from nashc.importer.ops import BINARY, MOVES, POOLS, QUANTIZE, UNARY, has_weights
from nashc.importer.partition import computes_constant, groups, is_global_reduction
from nashc.importer.vector import elementwise, global_reduction, pool
from nashc.passes.graph import is_constant, is_op, is_used, mark_constants, static_shape
from nashc.passes.provenance import Skip, sources

MAX_ELEMENTS, MAX_MACS = 2**31, 2**48
"""Limits of one layer for one image; the largest classifiers stay below by factors of a thousand."""


def build(model: ir.Model, name: str) -> tuple[Network, tuple[Skip, ...]]:
    """The network of a simplified model, and its nodes that became no layer."""
    graph = model.graph
    mark_constants(graph)
    b = Builder(graph)
    for value in graph.inputs:
        if value.name not in graph.initializers and is_used(value):
            b.define(value, bits=_input_bits(value))
    inputs = tuple(b.tensors)
    for group in groups(graph, b.layout):
        _layer(b, group)
    outputs = tuple(dict.fromkeys(b.read(v) for v in graph.outputs if not is_constant(v)))
    if not b.layers:
        raise NashcError("the model has no layer: no output is computed from an input", hint="check its outputs")
    in_layers = {n for layer in b.layers for n in layer.nodes}
    idle = [n for node in graph if computes_constant(node) for n in sources(node) if n not in in_layers]
    constants = tuple(dict.fromkeys(b.constants))
    network = Network(name, tuple(b.layers), tuple(b.tensors.values()), (*inputs, *constants), outputs)
    _check_sizes(network)
    return network, (*b.views, *(Skip(n, "computes a constant") for n in idle))


def _check_sizes(network: Network) -> None:
    """Raises NashcError for sizes that no accelerator computes and that only a damaged file has."""
    for layer in network.layers:
        nest, elements = layer.nest, network.tensor[layer.output].elements
        loops = (nest.g, nest.k, nest.c, nest.oy, nest.ox, nest.fy, nest.fx, nest.iy, nest.ix, *nest.pad)
        if max(elements, *loops) > MAX_ELEMENTS or nest.macs > MAX_MACS:
            raise NashcError(
                f"{elements:,} outputs and {nest.macs:,} MACs are beyond any accelerator",
                where=f"node '{layer.name}' ({layer.op})",
                hint="check the shapes and pads of the model, or give smaller ones with --shape",
            )
        if layer.unit in COMPUTE_UNITS:
            _check_fit(layer, network)


def _check_fit(layer: Layer, network: Network) -> None:
    """A layer with weights reads and writes the maps that are stored, or its numbers would be wrong."""
    nest, source, target = layer.nest, network.tensor[layer.inputs[0]], network.tensor[layer.output]
    reads = (nest.g * nest.c, nest.iy * nest.ix) == (source.channels, source.rows * source.columns)
    writes = nest.g * nest.k * nest.oy * nest.ox
    shuffled = layer.scattered  # by pixel: a few outputs beyond the border may be computed too
    if not reads or writes < target.elements or (writes > target.elements and not shuffled):
        raise NashcError(
            f"its loop nest does not fit the maps that it reads and writes ({source} -> {target})",
            where=f"node '{layer.name}' ({layer.op})",
            hint="this is a defect of nashc: please report it with the model",
        )


def _input_bits(value: ir.Value) -> int:
    """An input that is quantised at once arrives quantised."""
    readers = [u.node for u in value.uses()]
    widths = {stored_bits(n.outputs[0]) for n in readers if is_quantiser(n)}
    every = all(is_quantiser(n) for n in readers) and not value.is_graph_output()
    return widths.pop() if every and len(widths) == 1 else stored_bits(value)


def _layer(b: Builder, group: Group) -> None:
    """Write one group."""
    node = group.head
    values = [v for v in (*node.inputs, *used_outputs(node)) if v is not None]
    if has_weights(node):
        compute(b, group)
    elif any(static_shape(v) is None for v in values) or (len(used_outputs(node)) > 1 and not is_op(node, "Split")):
        host(b, node)
    elif is_op(node, *POOLS) and len(static_shape(values[0]) or ()) in (3, 4):
        pool(b, group)
    elif group.activation or is_op(node, *UNARY, *BINARY) or is_normalisation(node):
        elementwise(b, group)
    elif is_global_reduction(node, b.layout):
        global_reduction(b, group)
    elif is_op(node, *QUANTIZE) or is_quantiser(node):
        quantise(b, node)
    elif is_op(node, *MOVES) and not _data_dependent(node):
        move(b, group)
    else:
        host(b, node)


def _data_dependent(node: ir.Node) -> bool:
    """Where it moves what is known only at run time."""
    return any(v is not None and not is_constant(v) for v in node.inputs[1:]) and not is_op(node, "Concat")
