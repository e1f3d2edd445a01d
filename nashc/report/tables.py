"""A compile's outcome as tables: the terminal and report.txt show the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nashc.artifact import Compiled
from nashc.compiler import chunk_labels
from nashc.core.design import Design, LayerResult, Resources
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Unit
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.machine import stored_weights
from nashc.hw.resources import usable
from nashc.report.text import Record, cell, figure, kib, percent, records, safe, table

STOPPED = {
    "budget": "the time budget ran out",
    "plans": "its bounds are as high as their relaxation brings them; memory plan and schedule keep the gap",
}
VALUE_UNITS = {"fps": "cycles an image", "latency": "cycles", "energy": "pJ an image", "edp": "pJ ms an image"}


def design_report(compiled: Compiled, *, verbose: bool = False) -> Group:
    """Everything about a design, headline first."""
    parts: list[RenderableType] = [summary(compiled)]
    parts += [host_panel(compiled)] if host_layers(compiled.design) else []
    parts += [comparison(compiled)] if compiled.alternatives or compiled.missing else []
    parts += [accelerator(compiled), resources(compiled), memory_plan(compiled.design), *spilled(compiled.design)]
    parts += [layers(compiled.design), Text(LEGEND, style="dim")]
    parts += [removed(compiled)] if verbose and compiled.removed else []
    return Group(*parts)


def summary(compiled: Compiled) -> Group:
    """The headline numbers and what is proven about them."""
    design, board = compiled.design, compiled.board
    batch = design.accelerator.batch
    moved = dram_bits(design)
    bus = board.dram_bytes_per_cycle * 8 * design.interval_cycles
    energy = design.energy_pj / batch
    rows = [
        ("throughput", f"{figure(design.fps)} FPS, {figure(design.gops)} GOPS"),
        (
            "latency",
            f"{figure(design.latency_ms)} ms for one batch alone ({design.latency_cycles:,} cycles), "
            f"{figure(pipeline_ms(design))} ms in the full pipeline",
        ),
        (
            "batch",
            f"{batch} image{'s' * (batch > 1)} every {design.interval_cycles:,} cycles at {design.clock_mhz:g} MHz",
        ),
        (
            "energy",
            f"{figure(energy / 1e9)} mJ an image, {figure(energy * design.fps / 1e12)} W on average while it runs",
        ),
        ("DRAM", f"{kib(moved / batch)} KiB an image, {percent(moved, bus)} of the bandwidth"),
        (
            "network",
            f"{len(design.network.layers)} layers, {design.network.macs / 1e6:,.2f} M MAC-equivalents an image",
        ),
    ]
    grid = Table.grid(padding=(0, 2))
    for key, value in rows:
        grid.add_row(Text(key, style="bold"), cell(value))
    title = Text(f"{safe(design.network.name)} on {safe(board.name)} ({safe(board.part)})", style="bold")
    return Group(title, grid, Text(), Text(certificate(design)))


def dram_bits(design: Design) -> int:
    """Bits that one batch moves through the DRAM bus."""
    return sum(r.traffic.dram_read + r.traffic.dram_write for r in design.layers)


def busy_cycles(design: Design) -> list[int]:
    """Of each chunk, the cycles of an interval in which a layer runs on it."""
    return [sum(r.cycles for r in design.layers if r.chunk == i) for i in range(len(design.accelerator.chunks))]


def pipeline_ms(design: Design) -> float:
    """Time from the start of a batch's first layer to the end of its last one in the periodic schedule, in ms."""
    ends = [ran.start + ran.cycles for ran in design.layers]
    return (max(ends) - min(ran.start for ran in design.layers)) / design.clock_mhz / 1e3


def certificate(design: Design) -> str:
    """What the search proved, in plain words."""
    c = design.certificate
    seen = f"{c.refined:,} priced in full"
    unit = VALUE_UNITS.get(c.objective, "")
    if c.optimal:
        return (
            f"Proven optimal for '{c.objective}' in the declared space of {c.space:,} accelerators ({seen}): "
            f"{figure(c.value)} {unit}."
        )
    stopped = STOPPED.get(c.stopped, c.stopped)
    if c.bound <= 0:
        return (
            f"Best found for '{c.objective}' in the declared space of {c.space:,} accelerators ({seen}): "
            f"{figure(c.value)} {unit}. No bound is proven for this objective; the search stopped because {stopped}."
        )
    return (
        f"Not proven optimal for '{c.objective}': gap {c.gap:.2%} proven. No accelerator in the declared space of "
        f"{c.space:,} ({seen}) is below {figure(c.bound)} {unit}; this design has {figure(c.value)}. "
        f"The search stopped because {stopped}."
    )


def host_layers(design: Design) -> list[tuple[Layer, LayerResult]]:
    pairs = zip(design.network.layers, design.layers, strict=True)
    return [(layer, result) for layer, result in pairs if layer.unit is Unit.HOST]


def host_panel(compiled: Compiled) -> Panel:
    """Which layers the accelerator cannot run, why, and how much of the work that is."""
    design = compiled.design
    found = host_layers(design)
    work = sum(layer.macs for layer in design.network.layers)
    rows = table("", "layer", "op", "why", ">work", ">of interval")
    for layer, result in found:
        rows.add_row(
            cell(layer.name),
            cell(layer.op),
            cell(layer.note),
            percent(layer.macs, work),
            percent(result.cycles, design.interval_cycles),
        )
    total = percent(sum(layer.macs for layer, _ in found), work)
    rate = compiled.board.host.elements_per_second
    text = (
        f"{len(found)} of {len(design.layers)} layers ({total} of the operations) run on the HOST CPU, not on the "
        f"accelerator. Their time is a rough guess ({rate:,.3g} output elements a second), their energy is not "
        f"counted, so FPS, latency and energy above are only as good as that guess. "
        f"`--strict` refuses such models."
    )
    return Panel(Group(Text(text, style="bold"), rows), title="WARNING: HOST NODES", border_style="bold red")


def comparison(compiled: Compiled) -> Group:
    """This design beside its batch-1 variant and the baselines; a gain is how much better this design is."""
    rows = table(
        "Comparison (gain: this design against the row)",
        "design", ">batch", ">FPS", ">gain", ">latency ms", ">mJ/image", ">gain", ">LUT", ">DSP", ">BRAM36",
    )  # fmt: skip
    own = compiled.design
    for name, design in (("this design", own), *compiled.alternatives):
        rows.add_row(
            cell(name),
            str(design.accelerator.batch),
            figure(design.fps),
            _ratio(own.fps, design.fps),
            figure(design.latency_ms),
            figure(_energy(design) / 1e9),
            _ratio(_energy(design), _energy(own)),
            f"{design.resources.lut:,}",
            f"{design.resources.dsp:,}",
            f"{design.resources.bram18 / 2:,g}",
        )
    notes = [cell(f"{name}: {why}") for name, why in compiled.missing]
    return Group(rows, *notes)


def _energy(design: Design) -> float:
    return design.energy_pj / design.accelerator.batch


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.2f}x" if b > 0 else "-"


def accelerator(compiled: Compiled) -> Table:
    """One row a chunk."""
    design = compiled.design
    bus = compiled.board.dram_bytes_per_cycle * 8
    rows = table(
        "Accelerator",
        "!chunk", ">lanes", "unrolling", ">bits", ">buffers KiB", ">DRAM b/cycle", ">layers", ">busy cycles",
    )  # fmt: skip
    busy = busy_cycles(design)
    for i, (chunk, label) in enumerate(zip(design.accelerator.chunks, chunk_labels(design.accelerator), strict=True)):
        count, cycles = sum(r.chunk == i for r in design.layers), busy[i]
        b = chunk.buffers
        sizes = zip((b.input_bits, b.weight_bits, b.output_bits), b.distributed, strict=True)
        rows.add_row(
            cell(label),
            cell(f"{chunk.unroll.lanes:,} {chunk.lanes}"),
            str(chunk.unroll),
            str(chunk.weight_bits),
            "/".join(f"{bits / 8192:.0f}{'L' if luts else ''}" for bits, luts in sizes),
            f"{chunk.dram_bits} ({chunk.dram_bits / bus:.0%})",
            str(count),
            f"{cycles:,} {percent(cycles, design.interval_cycles):>6}",
        )
    return rows


def resources(compiled: Compiled) -> Table:
    """What each chunk takes, against what the board has and what a design may use of it."""
    design, board, options = compiled.design, compiled.board, compiled.options
    rows = table("Resources", "", ">LUT", ">as RAM", ">FF", ">DSP", ">BRAM36", ">URAM")
    for label, part in zip(chunk_labels(design.accelerator), design.chunk_resources, strict=True):
        rows.add_row(cell(label), *_counts(part))
    total, limit = design.resources, usable(board, options.max_lut, options.max_dsp, options.max_bram36)
    whole = Resources(board.lut, board.ff, board.dsp, 2 * board.bram36, board.uram, board.lutram)
    rows.add_row("on-chip memory", *_counts(memory_resources(design)), end_section=True)
    rows.add_row("used", *_counts(total), style="bold")
    rows.add_row("usable", *_counts(limit))
    rows.add_row("used / usable", *(percent(u, v) for u, v in zip(_fields(total), _fields(limit), strict=True)))
    rows.add_row("board", *_counts(whole))
    return rows


def memory_resources(design: Design) -> Resources:
    """What is no chunk's: the shared on-chip memory."""
    chunks = sum(design.chunk_resources, Resources())
    return Resources(*(t - c for t, c in zip(astuple(design.resources), astuple(chunks), strict=True)))


def _fields(r: Resources) -> tuple[int, ...]:
    return r.lut, r.lutram, r.ff, r.dsp, r.bram18, r.uram


def _counts(r: Resources) -> tuple[str, ...]:
    return f"{r.lut:,}", f"{r.lutram:,}", f"{r.ff:,}", f"{r.dsp:,}", f"{r.bram18 / 2:,g}", f"{r.uram:,}"


def memory_plan(design: Design) -> Table:
    """What lives on chip."""
    plan, network, batch, urams = design.plan, design.network, design.accelerator.batch, design.resources.uram
    rows = table(
        f"Memory plan: {plan.peak_banks:,} of {plan.banks:,} BRAM36 banks in use at the peak"
        + (f", {urams} URAM ({plan.peak_urams} of them for feature maps)" if urams else ""),
        "on chip", "name", ">KiB a copy", ">copies", ">KiB", *([">URAM a copy"] if urams else ()),
    )  # fmt: skip
    in_uram = dict(plan.in_uram)
    for name, copies in copies_on_chip(design):
        bits = network.tensor[name].total_bits * batch
        part = [str(in_uram.get(name, 0))] if urams else []
        rows.add_row("feature map", cell(name), kib(bits), str(copies), kib(bits * copies), *part)
    for layer in network.layers:
        if layer.name in plan.pinned and layer.weights is not None:
            bits = stored_weights(layer.nest, layer.weights.bits, layer.weights.terms)
            rows.add_row("weights of", cell(layer.name), kib(bits), "1", kib(bits))
    if not plan.resident and not plan.pinned:
        rows.add_row("nothing", "", "", "", "")
    return rows


def copies_on_chip(design: Design) -> list[tuple[str, int]]:
    """Feature maps on chip, with the copies of each: of every batch in flight one for each chunk that reads it."""
    readers = design.network.consumers
    chunks = {name: {design.layers[i].chunk for i in readers.get(name, ())} for name, _ in design.plan.resident}
    return [(name, copies * max(1, len(chunks[name]))) for name, copies in design.plan.resident]


def moved_bits(design: Design, name: str) -> int:
    """The least DRAM bits of a feature map a batch that is not on chip: written once, and read by each reader as far as
    it takes part of it."""
    network, batch = design.network, design.accelerator.batch
    tensor = network.tensor[name]
    total = tensor.total_bits
    for i in network.consumers[name]:
        layer = network.layers[i]
        nest = layer.nest
        own = [nest.g * nest.c * nest.iy * nest.ix, *[nest.g * nest.k * nest.oy * nest.ox] * (len(layer.inputs) - 1)]
        taken = sum(n for other, n in zip(layer.inputs, own, strict=True) if other == name)
        total += min(taken, tensor.elements) * tensor.bits
    return total * batch


def spilled_maps(design: Design) -> list[str]:
    """Feature maps between layers that are not on chip."""
    network = design.network
    elsewhere = {*network.inputs, *network.outputs, *(name for name, _ in design.plan.resident)}
    return [name for name in network.producers if name not in elsewhere and name in network.consumers]


def spilled(design: Design) -> Iterator[Table]:
    """Feature maps between layers that go through DRAM, and the least that this costs."""
    network, batch = design.network, design.accelerator.batch
    names = spilled_maps(design)
    if names:
        rows = table(
            "Feature maps in DRAM", "name", ">KiB a batch", ">written by", ">read by", ">DRAM KiB a batch, at least"
        )
        for name in names:
            bits, readers = network.tensor[name].total_bits * batch, len(network.consumers[name])
            writers = len(network.producers[name])
            rows.add_row(cell(name), kib(bits), str(writers), str(readers), kib(moved_bits(design, name)))
        yield rows


NEST = """\
nest, tile: n images, g groups, k output and c input channels a group, output rows x columns;
  f filter, s stride, d dilation, T terms a weight; what is 1 is left out."""
LEGEND = f"""\
buffers: KiB of one half of the input, weight and output buffer; every buffer has two halves;
  L: in LUTs (distributed RAM), else in BRAM.
{NEST}
flow: what stays put (o output-, w weight-, i input-stationary), then the order of the tile loops,
  outermost first; p is n, oy, ox.
on chip: i first input, + further inputs, w weights, o output; a dot is an operand in DRAM.
util: MAC-equivalents x terms over lanes x cycles. cycles: of one batch."""


def layers(design: Design) -> Text:
    """What each layer computes, where and how it runs, and what that takes."""
    labels = chunk_labels(design.accelerator)
    rows = []
    for layer, result in zip(design.network.layers, design.layers, strict=True):
        on_host = result.chunk < 0
        columns = _host_row(layer, result) if on_host else _layer_row(layer, result, labels[result.chunk])
        rows.append(Record(layer.name, layer.op, columns, on_host))
    headings = ("chunk", "loop nest", "tile", "flow", "on chip", ">cycles", "bound by", ">util")
    return records("Layers", headings, rows)


def _layer_row(layer: Layer, result: LayerResult, chunk: str) -> tuple[str, ...]:
    t, flow = result.mapping.tile, result.mapping.dataflow
    tile = f"{_loops(n=t.n, g=t.g, k=t.k, c=t.c)} {t.oy}x{t.ox}".strip()
    order = f"{flow[0]} {DATAFLOWS.get(flow).order}" if flow in DATAFLOWS else flow
    where = _placement(layer, result)
    return chunk, nest_text(layer), tile, order, where, f"{result.cycles:,}", result.bound, f"{result.utilisation:.1%}"


def _host_row(layer: Layer, result: LayerResult) -> tuple[str, ...]:
    return ("HOST", nest_text(layer), "", "", "", f"{result.cycles:,}", "host", "")


def _loops(**sizes: int) -> str:
    """Loops with their sizes; those of one are left out."""
    return " ".join(f"{dim}{size}" for dim, size in sizes.items() if size > 1)


def nest_text(layer: Layer) -> str:
    """The loop nest of a layer in one line."""
    n: LoopNest = layer.nest
    parts = [_loops(g=n.g, k=n.k, c=n.c), f"{n.oy}x{n.ox}"]
    parts += [f"f{n.fy}x{n.fx}"] if (n.fy, n.fx) != (1, 1) else []
    parts += [f"s{_pair(n.stride)}"] if n.stride != (1, 1) else []
    parts += [f"d{_pair(n.dilation)}"] if n.dilation != (1, 1) else []
    parts += [f"T{layer.weights.terms}"] if layer.weights is not None and layer.weights.terms > 1 else []
    return " ".join(part for part in parts if part)


def _pair(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}x{values[1]}"


def _placement(layer: Layer, result: LayerResult) -> str:
    first, *rest = result.placement.inputs or (False,)
    return "".join(
        (
            "i" if first else ".",
            *("+" if on_chip else "." for on_chip in rest),
            ("w" if result.placement.weights else ".") if layer.weights is not None else " ",
            "o" if result.placement.output else ".",
        )
    )


def removed(compiled: Compiled) -> Table:
    """Nodes of the file that need no work at run time."""
    rows = table("Nodes that became no layer", "node", "why")
    for skip in compiled.removed:
        rows.add_row(cell(skip.node), cell(skip.reason))
    return rows
