"""Step-by-step simulation of one layer on its chunk: the oracle of the closed form in nashc.hw.latency.

Written from docs/microarchitecture.md with plain loops: it walks the tiles, keeps what each buffer holds, lists the
address of every run that a transfer touches and counts bursts one by one.
"""

from dataclasses import dataclass, field
from itertools import product
from math import ceil


@dataclass
class Slot:
    compute: int = 0
    dram: int = 0
    act_read: int = 0
    weight_read: int = 0
    act_write: int = 0
    post: int = 0

    def length(self):
        return max(self.compute, self.dram, self.act_read, self.weight_read, self.act_write, self.post)


@dataclass
class Result:
    cycles: int = 0
    compute: int = 0
    dram_read: int = 0
    dram_write: int = 0
    chip_read: int = 0
    chip_write: int = 0
    slots: list = field(default_factory=list)


def pieces(bound, tile):
    return [(start, min(tile, bound - start)) for start in range(0, bound, tile)]


def window(nest, axis, start, size, is_first, is_last):
    """First input row and number of rows that the DMA fetches for output rows [start, start + size)."""
    limit = (nest.iy, nest.ix)[axis]
    stride, dilation = nest.stride[axis], nest.dilation[axis]
    taps = (nest.fy, nest.fx)[axis]
    low = start * stride - nest.pad[axis]
    high = low + (size - 1) * stride + (taps - 1) * dilation + 1
    if is_first:
        low = max(low, 0) if low < 0 else low
    if is_last:
        high = min(high, limit)
    count = min(max(high - low, 1), limit)
    return min(max(low, 0), limit - count), count


def addresses(channel, channels, row, rows, column, columns, total, height, width, scattered):
    """Maximal contiguous runs (in elements) of a region of a map stored as [block][row][column][16]."""
    spans = []
    for block in range(channel // 16, ceil((channel + channels) / 16)):
        base = block * 16 * height * width
        inside = min(16, total - block * 16)
        for r in range(row, row + rows):
            start = base + (r * width + column) * inside
            if scattered:
                spans.extend((start + i * inside, inside) for i in range(columns))
            else:
                spans.append((start, columns * inside))
    if scattered:
        return [length for _, length in spans]
    merged = []
    for start, length in spans:
        # A new channel block starts a new descriptor unless the whole map is one run.
        whole = rows == height and columns == width
        new_block = start % (16 * height * width) == 0
        if merged and merged[-1][0] + merged[-1][1] == start and (whole or not new_block):
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((start, length))
    return [length for _, length in merged]


def dram_cycles(bits, machine, dram_bits):
    cycles = 0
    while bits > 0:
        burst = min(bits, machine.burst_bits)
        beats = ceil(burst / dram_bits)
        cycles += max(beats + machine.burst_overhead, ceil((machine.burst_latency + beats) / machine.bursts_in_flight))
        bits -= burst
    return cycles


def simulate(work, unroll, dram_bits, machine, placement, tile, loops):
    nest, result = work.nest, Result()
    bounds = {"n": work.batch, "g": nest.g, "k": nest.k, "c": nest.c, "oy": nest.oy, "ox": nest.ox}
    grids = [list(enumerate(pieces(bounds[d], getattr(tile, d)))) for d in loops]
    counts = {d: len(grid) for d, grid in zip(loops, grids, strict=True)}
    steps = [dict(zip(loops, choice, strict=True)) for choice in product(*grids)]

    input_total, output_total = nest.g * nest.c, nest.g * nest.k

    def weight_bits(g, k, c):
        return g * k * c * nest.fy * nest.fx * work.weight_bits * work.terms + 64 * g * k

    def move(runs, bits, on_chip, images, slot, port, write=False):
        if runs and images and not on_chip:
            slot.dram += machine.burst_latency
        for _ in range(images):
            for run in runs:
                if on_chip:
                    setattr(slot, port, getattr(slot, port) + ceil(run * bits / machine.port_bits))
                else:
                    slot.dram += dram_cycles(run * bits, machine, dram_bits)
                name = ("chip_" if on_chip else "dram_") + ("write" if write else "read")
                setattr(result, name, getattr(result, name) + run * bits)

    def sizes(step):
        return {d: step[d][1][1] for d in loops}

    def output_runs(step, scattered):
        s, at = sizes(step), {d: step[d][1][0] for d in loops}
        return addresses(
            at["g"] * nest.k + at["k"], s["g"] * s["k"], at["oy"], s["oy"], at["ox"], s["ox"],
            output_total, nest.oy, nest.ox, scattered,
        )  # fmt: skip

    def key(step, dims):
        return tuple(step[d][0] for d in loops if d in dims)

    def load(step, before, slot):
        s, at = sizes(step), {d: step[d][1][0] for d in loops}
        if before is None or key(step, "g c n oy ox".split()) != key(before, "g c n oy ox".split()):
            row, rows = window(nest, 0, at["oy"], s["oy"], step["oy"][0] == 0, step["oy"][0] == counts["oy"] - 1)
            col, cols = window(nest, 1, at["ox"], s["ox"], step["ox"][0] == 0, step["ox"][0] == counts["ox"] - 1)
            runs = addresses(
                at["g"] * nest.c + at["c"], s["g"] * s["c"], row, rows, col, cols, input_total, nest.iy, nest.ix, False
            )
            move(runs, work.input_bits, placement.inputs[0], s["n"], slot, "act_read")
        if work.weight_bits and (before is None or key(step, "gkc") != key(before, "gkc")):
            bits = weight_bits(s["g"], s["k"], s["c"])
            move([bits], 1, placement.weights, 1, slot, "weight_read")
        output_dims = "g k n oy ox".split()
        if before is None or key(step, output_dims) != key(before, output_dims):
            if step["c"][0] == 0:
                for extra, on_chip in zip(work.extras, placement.inputs[1:], strict=True):
                    runs = output_runs(step, False) if extra.full else [s["g"] * s["k"]]
                    move(runs, extra.bits, on_chip, s["n"], slot, "act_read")
            else:
                move(output_runs(step, work.scattered), 32, False, s["n"], slot, "act_read")

    def store(step, after, slot):
        output_dims = "g k n oy ox".split()
        if after is not None and key(step, output_dims) == key(after, output_dims):
            return
        s = sizes(step)
        if step["c"][0] == counts["c"] - 1:
            runs = output_runs(step, work.scattered)
            move(runs, work.output_bits, placement.output, s["n"], slot, "act_write", write=True)
            lanes = min(machine.post_lanes, unroll.g * unroll.k * unroll.oy * unroll.ox)
            slot.post += ceil(s["n"] * s["g"] * s["k"] * s["oy"] * s["ox"] / lanes)
        else:
            move(output_runs(step, work.scattered), 32, False, s["n"], slot, "act_write", write=True)

    def compute(step):
        s = sizes(step)
        outputs = unroll.g * unroll.k * unroll.oy * unroll.ox
        drain = ceil(outputs / min(machine.post_lanes, outputs))
        issue = 0
        for _ in range(s["n"] * ceil(s["g"] / unroll.g) * ceil(s["k"] / unroll.k) * ceil(s["oy"] / unroll.oy)):
            for _ in range(ceil(s["ox"] / unroll.ox)):
                taken = ceil(s["c"] / unroll.c) * ceil(nest.fy / unroll.fy) * ceil(nest.fx / unroll.fx) * work.terms
                issue += max(taken, drain)
        depth = machine.pipeline_depth
        lanes = unroll.c * unroll.fy * unroll.fx
        while lanes > 1:
            lanes, depth = ceil(lanes / 2), depth + 1
        result.compute += issue
        return issue + depth

    total = len(steps)
    for i in range(-1, total + 1):
        slot = Slot()
        if 0 <= i < total:
            slot.compute = compute(steps[i])
        if i + 1 < total:
            load(steps[i + 1], steps[i] if i >= 0 else None, slot)
        if i - 1 >= 0:
            store(steps[i - 1], steps[i] if i < total else None, slot)
        result.cycles += slot.length() + machine.step_overhead
        result.slots.append(slot)
    result.cycles += machine.layer_overhead
    return result
