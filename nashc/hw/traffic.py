"""Bits that one layer moves, exact and vectorised over mappings, and a lower bound of its cycles.

A tile loop that an operand does not depend on re-fetches it when a loop that it does depend on runs further inside;
every total is a product of sums over single loops times those repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nashc.core.design import Placement, Traffic, Work
from nashc.core.number import Ints, ceil_div
from nashc.hw.dataflows import INPUT_DIMS, OUTPUT_DIMS, WEIGHT_DIMS, Dataflow
from nashc.hw.latency import Site, array_depth, drain_cycles, exposed_cycles, post_lanes, reduction_taps
from nashc.hw.machine import CHANNEL_PARAMETER_BITS, PARTIAL_SUM_BITS
from nashc.hw.tiles import Extents, Tiles


@dataclass(frozen=True, slots=True)
class Volumes:
    """Bits a layer moves per operand and the least number of separate transfers, one entry a mapping."""

    input: Ints
    weight: Ints
    extras: tuple[Ints, ...]
    output: Ints
    partial: Ints
    """Partial sums, one way: what is written is read again."""
    input_loads: Ints
    weight_loads: Ints


def repeats(extents: Extents, flow: Dataflow, dims: frozenset[str]) -> tuple[Ints, Ints]:
    """(how often each tile of an operand over `dims` is moved, number of distinct tiles times that)."""
    again = np.ones_like(extents.n.count)
    inside = np.zeros_like(again, dtype=bool)
    tiles = np.ones_like(again)
    for d in reversed(flow.loops):
        count = getattr(extents, d).count
        if d in dims:
            inside |= count > 1
            tiles = tiles * count
        else:
            again = again * np.where(inside, count, 1)
    return again, again * tiles


def spills(extents: Extents, flow: Dataflow) -> np.ndarray:
    """Whether partial sums leave the chunk: the c loop comes back to an output tile after others."""
    inside = np.zeros_like(extents.c.count, dtype=bool)
    for d in flow.loops[flow.loops.index("c") + 1 :]:
        if d in OUTPUT_DIMS:
            inside |= getattr(extents, d).count > 1
    return inside & (extents.c.count > 1)


def volumes(work: Work, extents: Extents, flow: Dataflow) -> Volumes:
    nest = work.nest
    pixels = extents.iy.total * extents.ix.total
    input_again, input_loads = repeats(extents, flow, INPUT_DIMS)
    weight_again, weight_loads = repeats(extents, flow, WEIGHT_DIMS)
    inputs = pixels * (work.batch * nest.g * nest.c * work.input_bits) * input_again
    outputs = work.batch * nest.g * nest.k * nest.oy * nest.ox
    weights = np.zeros_like(inputs)
    if work.weight_bits:
        parameters = nest.g * nest.k * CHANNEL_PARAMETER_BITS * extents.c.count
        weights = (nest.weights * work.weight_bits * work.terms + parameters) * weight_again
    spatial_tiles = extents.oy.count * extents.ox.count
    extras = tuple(
        np.full_like(inputs, outputs * e.bits) if e.full else spatial_tiles * (work.batch * nest.g * nest.k * e.bits)
        for e in work.extras
    )
    partial = np.where(spills(extents, flow), (extents.c.count - 1) * (outputs * PARTIAL_SUM_BITS), 0)
    output = np.full_like(inputs, outputs * work.output_bits)
    return Volumes(inputs, weights, extras, output, partial, input_loads, weight_loads)


def traffic(work: Work, site: Site, tiles: Tiles, flow: Dataflow) -> Traffic:
    """Bits moved by the first mapping of `tiles`, by place and direction."""
    return by_place(volumes(work, Extents.of(work, tiles), flow), site.placement)


def by_place(moved: Volumes, place: Placement) -> Traffic:
    """What the first mapping moves where, with its operands in these places."""
    reads = [(moved.input, place.inputs[0]), (moved.weight, place.weights)]
    reads += list(zip(moved.extras, place.inputs[1:], strict=True))
    return Traffic(
        dram_read=int(sum(int(bits[0]) for bits, chip in reads if not chip) + moved.partial[0]),
        dram_write=int((0 if place.output else moved.output[0]) + moved.partial[0]),
        chip_read=int(sum(int(bits[0]) for bits, chip in reads if chip)),
        chip_write=int(moved.output[0] if place.output else 0),
    )


def issue_total(work: Work, site: Site, extents: Extents) -> Ints:
    """Sum of the issue cycles of all tiles: a product of sums, as each loop is unrolled on its own."""
    unroll = site.unroll
    taps, drain = reduction_taps(work, unroll), drain_cycles(site.machine, unroll)
    total = np.full_like(extents.n.count, work.batch)
    for d in ("g", "k", "c", "oy", "ox"):
        extent = getattr(extents, d)
        lanes = getattr(unroll, d)
        full, last = ceil_div(extent.first, lanes), ceil_div(extent.last, lanes)
        if d == "c":
            full, last = np.maximum(full * taps, drain), np.maximum(last * taps, drain)
        total = total * np.where(extent.count == 1, full, (extent.count - 1) * full + last)
    return total


def cycles_bound(work: Work, site: Site, extents: Extents, flow: Dataflow) -> Ints:
    """A lower bound of layer_cycles: no part of the chunk can be busy for less than its own total."""
    moved = volumes(work, extents, flow)
    machine, place, nest = site.machine, site.placement, work.nest
    steps = extents.steps()
    compute = issue_total(work, site, extents) + steps * array_depth(machine, site.unroll)
    dram, read = 2 * moved.partial, np.zeros_like(compute)
    bursts = np.zeros_like(compute)
    image = work.batch * nest.g
    if place.inputs[0]:
        read = read + ceil_div(moved.input, machine.port_bits)
    else:
        dram = dram + moved.input
        bursts = bursts + moved.input_loads
    if not place.weights and work.weight_bits:
        dram = dram + moved.weight
        bursts = bursts + moved.weight_loads
    for bits, chip in zip(moved.extras, place.inputs[1:], strict=True):
        if not chip:
            dram = dram + bits
    if not place.output:
        dram = dram + moved.output
        bursts = bursts + 1
    handshakes = machine.burst_overhead * np.maximum(bursts, dram // machine.burst_bits)
    dram = ceil_div(dram, site.dram_bits) + handshakes + machine.burst_latency * bursts
    post = ceil_div(np.full_like(compute, image * nest.k * nest.oy * nest.ox), post_lanes(machine, site.unroll))
    busy = np.maximum(compute + exposed_cycles(work, site, extents), np.maximum(dram, np.maximum(read, post)))
    bound: Ints = busy + (steps + 2) * machine.step_overhead + machine.layer_overhead
    return bound
