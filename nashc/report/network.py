"""What would run where, before any search: the tables of `nashc inspect`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nashc.board import Board
from nashc.core.network import Layer, Network, Unit
from nashc.importer import Imported
from nashc.report.tables import NEST, nest_text
from nashc.report.text import Record, cell, kib, percent, records, safe, table


def network_report(imported: Imported, board: Board | None = None, *, verbose: bool = False) -> Group:
    """The layers of a model, the work of each unit and, with a board, what its on-chip memory could hold."""
    network = imported.network
    ends = f"{_shapes(network, network.inputs)} -> {_shapes(network, network.outputs)}"
    parts: list[RenderableType] = [Text(safe(network.name), style="bold"), cell(ends), Text(), units(network)]
    parts += [host_nodes(network)] if any(layer.unit is Unit.HOST for layer in network.layers) else []
    parts += [on_chip(network, board)] if board is not None else []
    parts += [layers(network), Text(NEST, style="dim")]
    if verbose and imported.removed:
        rows = table("Nodes that became no layer", "node", "why")
        for skip in imported.removed:
            rows.add_row(cell(skip.node), cell(skip.reason))
        parts.append(rows)
    return Group(*parts)


def units(network: Network) -> Table:
    """Layers, operations and weights of each unit."""
    rows = table("Units", "unit", ">layers", ">M MAC-equivalents", ">share", ">weights KiB")
    total = sum(layer.macs for layer in network.layers)
    for unit in Unit:
        own = [layer for layer in network.layers if layer.unit is unit]
        work = sum(layer.macs for layer in own)
        if own:
            bits = stored_once(own)
            style = "bold red" if unit is Unit.HOST else ""
            rows.add_row(str(unit), str(len(own)), f"{work / 1e6:,.3f}", percent(work, total), kib(bits), style=style)
    return rows


def weight_bits(layer: Layer) -> int:
    """Stored bits of a layer's weights, all terms."""
    return layer.nest.weights * layer.weights.bits * layer.weights.terms if layer.weights is not None else 0


def stored_once(layers: Sequence[Layer]) -> int:
    """Bits of the weights of layers; those that several layers share count once."""
    return sum({layer.weights.name: weight_bits(layer) for layer in layers if layer.weights is not None}.values())


def host_nodes(network: Network) -> Table:
    rows = table("WARNING: these run on the HOST CPU, not on the accelerator", "layer", "op", "why")
    for layer in network.layers:
        if layer.unit is Unit.HOST:
            rows.add_row(cell(layer.name), cell(layer.op), cell(layer.note), style="bold red")
    return rows


def on_chip(network: Network, board: Board) -> Text:
    """The model's weights and largest feature map against the usable on-chip memory of a board."""
    memory = board.usable_bram36 * 32 * 1024 + board.usable_uram * 256 * 1024
    weights = stored_once(network.layers)
    largest = max(network.tensors, key=lambda t: t.total_bits)
    return Text(
        f"\n{safe(board.name)}: {kib(memory)} KiB usable BRAM and URAM, before the chunks' own buffers.\n"
        f"  all weights: {kib(weights)} KiB ({percent(weights, memory)} of it)\n"
        f"  largest feature map: {kib(largest.total_bits)} KiB ({percent(largest.total_bits, memory)}), "
        f"'{safe(largest.name)}'\n"
    )


def layers(network: Network) -> Text:
    """What each layer computes and which unit serves it."""
    rows = [
        Record(
            layer.name,
            layer.op,
            (
                str(layer.unit),
                nest_text(layer),
                layer.activation,
                f"{layer.macs / 1e6:,.3f}",
                kib(weight_bits(layer)) if layer.weights is not None else "",
                kib(network.tensor[layer.output].total_bits),
            ),
            layer.unit is Unit.HOST,
        )
        for layer in network.layers
    ]
    headings = ("unit", "loop nest", "with", ">M MAC-equivalents", ">weights KiB", ">output KiB")
    return records("Layers", headings, rows)


def _shapes(network: Network, names: tuple[str, ...]) -> str:
    maps = (network.tensor[name] for name in names)
    return ", ".join(f"'{safe(t.name)}' {t.channels}x{t.rows}x{t.columns} ({t.bits} bit)" for t in maps)
