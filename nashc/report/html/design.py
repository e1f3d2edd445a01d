"""What the page of a design shows, as plain values for its script."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from nashc.artifact import Compiled, summarise
from nashc.board import Board
from nashc.compiler import chunk_labels
from nashc.core.design import Design, Resources
from nashc.hw.machine import stored_weights
from nashc.hw.resources import machine_of, usable
from nashc.report.html.names import shown
from nashc.report.html.nests import Ran, loop_nest
from nashc.report.tables import (
    busy_cycles,
    certificate,
    copies_on_chip,
    dram_bits,
    host_layers,
    memory_resources,
    moved_bits,
    nest_text,
    pipeline_ms,
    spilled_maps,
)
from nashc.search.space import work_of

Data = dict[str, Any]
COUNTS = ("lut", "ff", "dsp", "bram36", "uram")


def design_data(compiled: Compiled) -> Data:
    """Everything that design.json says, computed once here so that the script only draws."""
    design, board = compiled.design, compiled.board
    return {
        "name": shown(design.network.name),
        "board": {"name": shown(board.name), "part": shown(board.part)},
        "summary": summary_data(compiled),
        "limits": limits(design, board),
        "certificate": certificate(design),
        "host": [shown(layer.name) for layer, _ in host_layers(design)],
        "chunks": chunks_data(design),
        "resources": resources_data(compiled),
        "layers": layers_data(design, board),
        "memory": memory_data(design),
        "comparison": comparison_data(compiled),
        "missing": [[shown(name), shown(why)] for name, why in compiled.missing],
        "removed": [[shown(skip.node), shown(skip.reason)] for skip in compiled.removed],
        "options": {name.name: _option(getattr(compiled.options, name.name)) for name in fields(compiled.options)},
        "sources": [[shown(name), shown(_figure(board, name)), shown(text)] for name, text in board.sources.items()],
    }


def summary_data(compiled: Compiled) -> Data:
    """Headline numbers, units in the names."""
    design, board = compiled.design, compiled.board
    told = summarise(design)
    moved = dram_bits(design)
    bus = board.dram_bytes_per_cycle * 8
    return {
        "fps": told.fps, "latency_ms": told.latency_ms, "gops": told.gops, "batch": told.batch,
        "interval_cycles": told.interval_cycles, "pipeline_ms": pipeline_ms(design),
        "clock_mhz": design.clock_mhz, "mj_image": told.energy_pj_per_image / 1e9,
        "watt": told.energy_pj_per_image * told.fps / 1e12, "optimal": told.optimal, "gap": told.gap,
        "macs": design.network.macs, "dram_kib_image": moved / 8192 / told.batch,
        "dram_share": moved / (bus * design.interval_cycles), "dram_bits_cycle": bus,
        "host_layers": len(host_layers(design)),
    }  # fmt: skip


def limits(design: Design, board: Board) -> list[str]:
    """What holds the throughput back, in sentences: the busiest chunk, its neighbours, bandwidth, lanes, the host."""
    labels, busy = chunk_labels(design.accelerator), busy_cycles(design)
    interval = design.interval_cycles
    order = sorted((i for i in range(len(busy)) if busy[i]), key=lambda i: -busy[i])
    found = []
    host = sum(r.cycles for r in design.layers if r.chunk < 0)
    if order:
        first = order[0]
        found.append(f"The {labels[first]} chunk is busy {busy[first] / interval:.1%} of the interval" + (
            ": it sets the throughput." if busy[first] == interval else
            f"; memory plan and schedule keep the interval {interval / busy[first] - 1:.1%} above it."
            if host <= busy[first] else "."
        ))  # fmt: skip
        own = [r for r in design.layers if r.chunk == first]
        waits = [r for r in own if r.bound == "bandwidth"]
        if waits:
            share = sum(r.cycles for r in waits) / busy[first]
            found.append(f"{len(waits)} of its {len(own)} layers wait for memory; they are {share:.0%} of its time.")
        used = sum(r.utilisation * r.cycles for r in own) / busy[first]
        found.append(f"Its lanes do useful work in {used:.0%} of its busy cycles.")
    if len(order) > 1:
        rest = ", ".join(f"{labels[i]} {busy[i] / interval:.0%}" for i in order[1:])
        found.append(f"The other chunks are busy: {rest}.")
    share = dram_bits(design) / (board.dram_bytes_per_cycle * 8 * interval)
    found.append(f"Of the DRAM bandwidth {share:.0%} is used.")
    if host:
        found.append(f"Layers on the host take {host / interval:.1%} of the interval, by a rough guess.")
    return found


def chunks_data(design: Design) -> list[Data]:
    """One value a chunk: its lanes and how busy it is."""
    labels, busy = chunk_labels(design.accelerator), busy_cycles(design)
    return [
        {
            "name": label, "unit": str(chunk.unit), "lanes": chunk.unroll.lanes, "kind": chunk.lanes,
            "unroll": str(chunk.unroll), "weight_bits": chunk.weight_bits, "dram_bits": chunk.dram_bits,
            "buffers": [
                {"what": what, "kib": bits / 8192, "in": "LUTs" if luts else "BRAM"}
                for what, bits, luts in zip(
                    ("input", "weight", "output"),
                    (chunk.buffers.input_bits, chunk.buffers.weight_bits, chunk.buffers.output_bits),
                    chunk.buffers.distributed, strict=True,
                )
            ],
            "layers": sum(r.chunk == i for r in design.layers), "busy": busy[i],
        }
        for i, (chunk, label) in enumerate(zip(design.accelerator.chunks, labels, strict=True))
    ]  # fmt: skip


def resources_data(compiled: Compiled) -> Data:
    """Of each resource what every chunk and the memory take, what may be used, and what the board has."""
    design, board, options = compiled.design, compiled.board, compiled.options
    chunks = zip(chunk_labels(design.accelerator), design.chunk_resources, strict=True)
    parts = (*chunks, ("on-chip memory", memory_resources(design)))
    return {
        "counts": list(COUNTS),
        "parts": [[label, *_counts(part)] for label, part in parts],
        "used": _counts(design.resources),
        "usable": _counts(usable(board, options.max_lut, options.max_dsp, options.max_bram36)),
        "board": [board.lut, board.ff, board.dsp, board.bram36, board.uram],
    }


def _counts(r: Resources) -> list[float]:
    return [r.lut, r.ff, r.dsp, r.bram18 / 2, r.uram]


def layers_data(design: Design, board: Board) -> list[Data]:
    """One value a layer, in the order of the network."""
    port = machine_of(board).port_bits
    batch, network = design.accelerator.batch, design.network
    rows = []
    for layer, result in zip(network.layers, design.layers, strict=True):
        ops = batch * layer.nest.macs * (layer.weights.terms if layer.weights else 1)
        row: Data = {
            "name": shown(layer.name), "op": shown(layer.op), "unit": str(layer.unit), "chunk": result.chunk,
            "nest": nest_text(layer), "cycles": result.cycles, "compute": result.compute_cycles,
            "bound": result.bound, "util": result.utilisation, "start": result.start, "ops": ops,
            "dram": [result.traffic.dram_read, result.traffic.dram_write],
            "chip": [result.traffic.chip_read, result.traffic.chip_write],
            "activation": shown(layer.activation), "note": shown(layer.note),
            "nodes": [shown(node) for node in layer.nodes[:12]], "more_nodes": max(0, len(layer.nodes) - 12),
        }  # fmt: skip
        if layer.weights is not None:
            row["weights"] = [layer.weights.bits, layer.weights.terms, layer.nest.weights]
        if result.chunk >= 0:
            chunk = design.accelerator.chunks[result.chunk]
            ran = Ran(layer, result, chunk, work_of(network, layer, batch))
            row |= {
                "flow": result.mapping.dataflow, "text": loop_nest(ran),
                "port": max(result.traffic.chip_read, result.traffic.chip_write) / port,
                "bus": (result.traffic.dram_read + result.traffic.dram_write) / chunk.dram_bits,
                "operands": [[o.what, shown(o.name), o.place, o.bits, o.times] for o in ran.operands],
            }  # fmt: skip
        rows.append(row)
    return rows


def memory_data(design: Design) -> Data:
    """What stays on chip, and the feature maps between layers that do not."""
    plan, network, batch = design.plan, design.network, design.accelerator.batch
    pinned, in_uram = set(plan.pinned), dict(plan.in_uram)
    return {
        "banks": plan.banks,
        "peak": plan.peak_banks,
        "urams": [design.resources.uram, plan.peak_urams],
        "resident": [
            [shown(n), network.tensor[n].total_bits * batch, copies, in_uram.get(n, 0)]
            for n, copies in copies_on_chip(design)
        ],
        "pinned": [
            [shown(layer.name), stored_weights(layer.nest, layer.weights.bits, layer.weights.terms)]
            for layer in network.layers
            if layer.name in pinned and layer.weights is not None
        ],
        "spilled": [
            [shown(n), network.tensor[n].total_bits * batch, moved_bits(design, n)] for n in spilled_maps(design)
        ],
    }


def comparison_data(compiled: Compiled) -> list[Data]:
    """This design and its alternatives."""
    return [
        {
            "name": shown(name), "fps": design.fps, "latency_ms": design.latency_ms,
            "mj_image": design.energy_pj / design.accelerator.batch / 1e9, "batch": design.accelerator.batch,
            "used": _counts(design.resources),
        }
        for name, design in (("this design", compiled.design), *compiled.alternatives)
    ]  # fmt: skip


def _option(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else shown(value)


def _figure(board: Board, dotted: str) -> object:
    """The figure that a source is of: "lanes.shift.lut_tree"."""
    value: Any = board
    for part in dotted.split("."):
        value = value.get(part, "") if hasattr(value, "get") else getattr(value, part, "")
    return value
