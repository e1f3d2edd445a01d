"""Why a design is as it is: every decision of a compile with the figures behind it, for `nashc compile -v`.

All of it is read off the finished design or priced again with the definitions of nashc.hw; where only the search knows
why, that is what the list says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nashc.artifact import Compiled
from nashc.compiler import chunk_labels
from nashc.core.design import Chunk, Design, LayerResult, accepts
from nashc.core.network import Layer, Unit
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.machine import PAGE_BANKS, URAM_PAGES, pages, stored_weights
from nashc.hw.resources import machine_of
from nashc.hw.schedule import Lifetime, Schedule, Task, stock
from nashc.hw.tiles import Extents, Tiles
from nashc.hw.traffic import volumes
from nashc.report.tables import STOPPED, VALUE_UNITS, dram_bits
from nashc.report.text import cell, figure, kib, percent
from nashc.search.space import BATCHES, work_of

ROLES = {"all": "all layers", "dense": "dense layers", "depthwise": "depthwise layers (one input channel a group)"}
NAME_WIDTH = 28
Row = tuple[str, str]
"""What is decided, and how."""


def explained(compiled: Compiled) -> RenderableType:
    """The decisions in the order in which they follow from each other."""
    return Group(
        *_section("From nodes to layers", _layers(compiled)),
        *_section("From layers to chunks", _chunks(compiled.design)),
        *_section("What sets the interval", _interval(compiled)),
        *_section("Layers that wait for bandwidth", _waiting(compiled)),
        *_section("Batch", _batch(compiled)),
        *_section("Feature maps", _feature_maps(compiled)),
        *_section("Weights", _weights(compiled)),
        *_section("Certificate", _certificate(compiled.design)),
    )


def _section(title: str, rows: Iterable[Row]) -> Iterator[RenderableType]:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(max_width=NAME_WIDTH, overflow="fold")
    grid.add_column(overflow="fold")
    for name, why in rows:
        grid.add_row(cell(name), cell(why))
    if grid.row_count:
        yield from (Text(title, style="bold"), grid, Text())


def _pairs(design: Design) -> Iterator[tuple[Layer, LayerResult]]:
    yield from zip(design.network.layers, design.layers, strict=True)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _layers(compiled: Compiled) -> Iterator[Row]:
    """Which source nodes each layer stands for, and which none does."""
    single = 0
    shared = Counter(name for layer in compiled.design.network.layers for name in layer.nodes)
    for layer in compiled.design.network.layers:
        if len(layer.nodes) == 1 and shared[layer.nodes[0]] > 1:
            yield layer.name, f"a part of node '{layer.nodes[0]}'" + (f": {layer.note}" if layer.note else "")
            continue
        fused = [name for name in layer.nodes if name != layer.name]
        if fused:
            activation = f" ({layer.activation})" if layer.activation else ""
            yield layer.name, f"{layer.op} + {' + '.join(fused)}{activation} in one pass"
        elif not layer.nodes:
            yield layer.name, f"{layer.op}, no node of the file: {layer.note}"
        single += layer.nodes == (layer.name,)
    if single:
        yield _count(single, "other layer"), "one node each, nothing fused"
    for reason, number in Counter(skip.reason for skip in compiled.removed).most_common():
        yield _count(number, "node"), f"removed: {reason}"


def _chunks(design: Design) -> Iterator[Row]:
    """What each chunk takes, and where a layer had a choice."""
    chunks, labels = design.accelerator.chunks, chunk_labels(design.accelerator)
    for i, (chunk, label) in enumerate(zip(chunks, labels, strict=True)):
        own = [layer for layer, result in _pairs(design) if result.chunk == i]
        yield label, f"takes {_taken(chunk)}: {_count(len(own), 'layer')}"
        for others in dict.fromkeys(_also(design, layer, i) for layer in own):
            if others:
                shared = [layer.name for layer in own if _also(design, layer, i) == others]
                names = _listed(labels[n] for n in others)
                yield "", f"{names} would take {_listed(shared)} too: the chunk with the narrowest weights does"
    for layer in design.network.layers:
        if layer.unit is Unit.HOST:
            yield layer.name, f"on the host CPU: {layer.note}"


def _taken(chunk: Chunk) -> str:
    weights = f" with weights of up to {chunk.weight_bits} bits" if chunk.weight_bits else ""
    return f"{ROLES.get(chunk.role, chunk.role)} of the unit {chunk.unit}{weights}"


def _also(design: Design, layer: Layer, chosen: int) -> tuple[int, ...]:
    """The other chunks that accept a layer."""
    return tuple(i for i, c in enumerate(design.accelerator.chunks) if i != chosen and accepts(c, layer))


def _interval(compiled: Compiled) -> Iterator[Row]:
    """How long each chunk, the DRAM and the host are busy in a period, and which of them it is that sets it."""
    design, interval = compiled.design, compiled.design.interval_cycles
    bus = compiled.board.dram_bytes_per_cycle * 8
    labels = chunk_labels(design.accelerator)
    busy: Counter[str] = Counter(dict.fromkeys(labels, 0))
    for _, result in _pairs(design):
        busy["host" if result.chunk < 0 else labels[result.chunk]] += result.cycles
    busy["DRAM"] = -int(-dram_bits(design) // bus)
    about = {
        label: f"{chunk.unroll.lanes:,} {chunk.lanes} lanes; the chunk takes {part.dsp:,} DSP, {part.lut:,} LUT"
        for label, chunk, part in zip(labels, design.accelerator.chunks, design.chunk_resources, strict=True)
    }
    about |= {"DRAM": f"{bus:,.0f} bits a cycle, shared out among the chunks", "host": "a rough guess of its time"}
    ranked = busy.most_common()
    for name, cycles in ranked:
        yield name, f"busy {cycles:,} cycles, {percent(cycles, interval)} of the interval; {about[name]}"
    (first, most), *rest = ranked
    after = f"; next is {rest[0][0]}, {percent(most - rest[0][1], most)} below" if rest else ""
    idle = interval - most
    schedule = f"; the schedule found leaves it idle for {idle:,} cycles" if idle > 0 else " and is never idle"
    yield "bottleneck", f"{first}: busy {most:,} of {interval:,} cycles{schedule}{after}"


def _waiting(compiled: Compiled) -> Iterator[Row]:
    """Layers whose array stands still because their operands take longer than their operations."""
    design, port_bits = compiled.design, machine_of(compiled.board).port_bits
    for layer, result in _pairs(design):
        if result.bound != "bandwidth":
            continue
        share = design.accelerator.chunks[result.chunk].dram_bits
        outside = -(-(result.traffic.dram_read + result.traffic.dram_write) // share)
        inside = result.traffic.chip_read // port_bits
        wait = (
            f"DRAM takes {outside:,} at {share} bits a cycle, its chunk's share"
            if outside >= inside
            else f"the on-chip port takes {inside:,} at {port_bits} bits a cycle"
        )
        yield layer.name, f"array busy {result.compute_cycles:,} of {result.cycles:,} cycles; {wait}"


def _batch(compiled: Compiled) -> Iterator[Row]:
    """The batch beside the design for one image at a time."""
    design, batch = compiled.design, compiled.design.accelerator.batch
    tried = f"the best found of {', '.join(map(str, BATCHES))}" if compiled.options.batch is None else "as asked for"
    yield _count(batch, "image"), tried
    alone = dict(compiled.alternatives).get("batch 1")
    if alone is not None:
        energy = design.energy_pj / batch / alone.energy_pj if alone.energy_pj else 1.0  # a board may say 0 pJ
        slower = design.latency_ms / alone.latency_ms
        fps, latency = figure(alone.fps), figure(alone.latency_ms)
        yield (
            "beside batch 1",
            f"{design.fps / alone.fps:.2f}x the FPS ({fps} there), {energy:.2f}x the energy of an image, {slower:.2f}x "
            f"the latency ({latency} ms there)",
        )
    for name, why in compiled.missing:
        if name == "batch 1":
            yield "beside batch 1", f"no such design: {why}"


def _feature_maps(compiled: Compiled) -> Iterator[Row]:
    """What keeps each feature map off the chip."""
    design = compiled.design
    network, plan, spare = design.network, design.plan, _spare_urams(compiled)
    free = plan.banks - plan.peak_banks
    urams = f"; {design.resources.uram:,} URAM, {plan.peak_urams:,} of them for feature maps, {spare:,} more unused"
    yield (
        "on-chip memory",
        f"{plan.banks:,} BRAM36 banks, {plan.peak_banks:,} of them in use at the peak, {free:,} free"
        + urams * bool(design.resources.uram or spare),
    )
    resident = [name for name, _ in plan.resident]
    if resident:
        yield "kept on chip", ", ".join(resident)
    for name in network.inputs + network.outputs:
        yield name, f"DRAM: the network's {'input' if name in network.inputs else 'output'}"
    between = [n for n in network.producers if n in network.consumers and n not in network.outputs]
    for name in between:
        if name not in resident:
            yield name, f"DRAM: {_kept_off(design, name, spare)}"


def _spare_urams(compiled: Compiled) -> int:
    """URAMs that a design may use, in whole groups, and this one does not."""
    groups = compiled.board.usable_uram // PAGE_BANKS if compiled.options.memory_plan else 0
    return max(0, groups * PAGE_BANKS - compiled.design.resources.uram)


def _kept_off(design: Design, name: str, spare: int) -> str:
    """Why a feature map between layers is not on chip, where so many more URAMs may be used."""
    network, plan = design.network, design.plan
    copy = network.tensor[name].total_bits * design.accelerator.batch
    readers = {design.layers[i].chunk for i in network.consumers[name]}
    needed = pages(copy) * PAGE_BANKS * len(readers)
    size = f"{kib(copy)} KiB a copy, {needed:,} banks" + f" for {len(readers)} reading chunks" * (len(readers) > 1)
    if -1 in readers | {design.layers[i].chunk for i in network.producers[name]}:
        return f"{size}; the host reads or writes it"
    groups = min(-(-pages(copy) // URAM_PAGES), spare // PAGE_BANKS // len(readers))
    if needed - groups * len(readers) * URAM_PAGES * PAGE_BANKS > plan.banks:
        return f"{size}, more than there are"
    peaks = [_peaks_with(design, name, g) for g in range(groups + 1)]
    fitting = [at for at in peaks if at[0] <= plan.banks and at[1] <= plan.peak_urams + spare]
    banks, urams = (fitting or peaks)[0]
    fits = "would fit, the search did not choose it" if fitting else "does not fit this schedule"
    return f"{size}; with it {banks:,}" + f" and {urams:,} URAM" * (urams > plan.peak_urams) + f" at the peak: {fits}"


def _peaks_with(design: Design, name: str, groups: int) -> tuple[int, int]:
    """Banks, and URAMs of feature maps, in use at the peak of the same schedule if one more feature map stayed on chip
    with so many groups of URAM a copy."""
    network, batch = design.network, design.accelerator.batch
    tasks = tuple(Task(r.chunk, r.cycles, ()) for r in design.layers)
    schedule = Schedule(design.interval_cycles, tuple(r.start for r in design.layers), 0)
    dealt = {n: urams // PAGE_BANKS for n, urams in design.plan.in_uram} | {name: groups}

    def peak(names: list[str]) -> tuple[int, int]:
        lives = [
            Lifetime(network.producers[n], network.consumers[n], pages(network.tensor[n].total_bits * batch))
            for n in names
        ]
        return stock(schedule, tasks, lives, [dealt.get(n, 0) for n in names])[:2]

    kept = [n for n, _ in design.plan.resident]
    more, urams = peak([*kept, name])
    return design.plan.peak_banks + (more - peak(kept)[0]) * PAGE_BANKS, urams * PAGE_BANKS


def _weights(compiled: Compiled) -> Iterator[Row]:
    """Which weights are pinned, and what the others cost."""
    design = compiled.design
    plan, bus = design.plan, compiled.board.dram_bytes_per_cycle * 8
    spare, free = _spare_urams(compiled), plan.banks - plan.peak_banks
    if any(layer.weights is not None for layer in design.network.layers):
        yield "room", f"{free:,} BRAM36 banks" + f" and {spare:,} URAM" * bool(spare) + " free at the peak"
    if plan.pinned:
        yield "pinned on chip", ", ".join(plan.pinned)
    for layer, result in _pairs(design):
        if layer.weights is None or result.chunk < 0 or layer.name in plan.pinned:
            continue
        stored = stored_weights(layer.nest, layer.weights.bits, layer.weights.terms)
        work = work_of(design.network, layer, design.accelerator.batch)
        extents = Extents.of(work, Tiles.of([result.mapping.tile]))
        moved = int(volumes(work, extents, DATAFLOWS.get(result.mapping.dataflow)).weight[0])
        rate = moved / design.interval_cycles
        times = f"{moved / stored:.3g} times a batch" if moved > stored else "once a batch"
        needed = pages(stored)
        fits = needed * PAGE_BANKS <= free or needed <= spare // PAGE_BANKS * URAM_PAGES
        reason = "would fit, the search did not choose them" if fits else "more than are free"
        yield (
            layer.name,
            f"streamed {times}: {kib(stored)} KiB, {figure(rate)} DRAM bits a cycle ({percent(rate, bus)}); "
            f"{needed * PAGE_BANKS:,} banks, {reason}",
        )


def _certificate(design: Design) -> Iterator[Row]:
    """How far the search came."""
    c = design.certificate
    unit = VALUE_UNITS.get(c.objective, "")
    yield "accelerators", f"{c.space:,} declared, {c.refined:,} priced in full"
    bound = "no bound is proven" if c.gap is None else f"none is below {figure(c.bound)}, proven: a gap of {c.gap:.2%}"
    yield c.objective, f"{figure(c.value)} {unit}; {'proven optimal' if c.optimal else bound}"
    if not c.optimal:
        yield "stopped because", STOPPED.get(c.stopped, c.stopped)
