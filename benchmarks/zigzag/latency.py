"""Cycles that ZigZag 3.9.1 charges many mappings of one layer at once, exactly, and a lower bound of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from template import FINAL_BITS, OPERAND_BITS, OPERANDS, Floats, Nests, States, Template

Index = NDArray[np.int64]
ITERATIONS, IN_PE, IN_ARRAY, REDUCTION, ROOM = 0, 1, 4, 7, 8
"""Rows of the state tables; those of elements are followed by the ones of the next operands."""


@dataclass(frozen=True, slots=True)
class Link:
    """One transfer of an operand through a port: cycles it takes, the window it may use, and its period."""

    real: Floats
    allowed: Floats
    period: Floats


@dataclass(frozen=True, slots=True)
class Level:
    """What one memory level holds of one operand: loops inside (`top`), their cycles, elements, and its window."""

    top: Index
    period: Floats
    elements: Floats
    bits: Floats | int
    used_bits: Floats
    free: Floats


@lru_cache(maxsize=8)
def _runs(depth: int) -> tuple[Index, Index]:
    """For each byte of marks and each cut: the end of the run of marked loops above it, the begin of the one below."""
    marked = np.arange(256)[:, None] >> np.arange(depth) & 1
    above = np.empty((256, depth + 1), dtype=np.int64)
    below = np.empty((256, depth + 1), dtype=np.int64)
    above[:, depth], below[:, 0] = depth, 0
    for cut in reversed(range(depth)):
        above[:, cut] = np.where(marked[:, cut], above[:, cut + 1], cut)
    for cut in range(depth):
        below[:, cut + 1] = np.where(marked[:, cut], below[:, cut], cut + 1)
    return above.ravel(), below.ravel()


def array_bound(template: Template, states: States) -> float:
    """At most the price of every order of one unrolling, from the buffer's ports: each operand's best registers."""
    total, *array, sums, all_reduction = states.totals
    table, t = states.table, template
    times = total / table[ITERATIONS] - 1
    partial = table[REDUCTION] < all_reduction
    bits = (OPERAND_BITS, OPERAND_BITS, np.where(partial, t.psum_bits, FINAL_BITS))
    widest = t.psum_bits if sums + all_reduction > 1 else FINAL_BITS
    room = (t.input_register_bits, t.weight_register_bits, t.output_registers * t.psum_bits)
    # registers that have room for the innermost loop hold it; no other loop is known to be inside
    first = np.concatenate([states.orders.inside > 0, np.ones((1, len(times)), dtype=bool)])[: len(states.kinds) or 1]
    least = []
    for i, width in enumerate((OPERAND_BITS, OPERAND_BITS, widest)):
        moved = np.ceil(table[IN_PE + i] * (array[i] * bits[i] / t.buffer_port_bits)) * times
        held = first & (table[IN_PE + i] * width <= room[i])
        for amount in (moved, moved * partial) if i == 2 else (moved,):
            some = np.where(held, amount, np.inf).min(axis=1)
            least.append(np.where(np.isfinite(some), some, amount[0]))
    inputs, weights, written, again = least
    return float(max(total, np.maximum(inputs + weights + again, written).min()))


class Prices:
    """Prices of the mappings of `nests`, all in the same order."""

    def __init__(self, template: Template, nests: Nests) -> None:
        self.template, self.nests = template, nests
        self.depth = len(nests.states) - 1
        self.width = nests.states.shape[1]
        self.flat = nests.states.ravel()
        self.columns = np.arange(self.width)
        self.above, self.below = _runs(self.depth)
        self.total, *array, self.sums, self.all_reduction = nests.totals.take(nests.spatial, axis=1)
        self.array: dict[str, Floats] = dict(zip(OPERANDS, array, strict=True))
        self.byte = [(nests.marks >> 8 * i & 255) * (self.depth + 1) for i in range(6)]
        self.cuts = self._register_cuts()
        self.registers = {op: self._level(op, self.cuts[op], None) for op in OPERANDS}
        self.windows = {op: _window(self.registers[op], self._half_empty(op)) for op in OPERANDS}

    def state(self, cut: Index) -> Index:
        return self.flat.take(cut * self.width + self.columns)

    def _register_cuts(self) -> dict[str, Index]:
        """How many loops the registers hold, before loops that cost no room are added."""
        tables, t = self.nests.tables, self.template
        # one state belongs to one unrolling: sums (0 or 1) and reductions are known by state
        psum = t.psum_bits if (self.nests.totals[4] + self.nests.totals[5] > 1).all() else None
        output_bits = psum if psum is not None else self._output_bits_by_state()
        code = (
            (tables[IN_PE] * OPERAND_BITS <= t.input_register_bits) * 1
            + (tables[IN_PE + 1] * OPERAND_BITS <= t.weight_register_bits) * (1 << 8)
            + (tables[IN_PE + 2] * output_bits <= t.output_registers * t.psum_bits) * (1 << 16)
        )
        counts = code.take(self.nests.states[1:]).sum(axis=0)
        return {op: counts >> 8 * i & 255 for i, op in enumerate(OPERANDS)}

    def _output_bits_by_state(self) -> Floats:
        bits = np.full(self.nests.tables.shape[1], float(FINAL_BITS))
        partial = self.sums + self.all_reduction > 1
        bits[self.nests.states[:, partial].ravel()] = self.template.psum_bits
        return bits

    def _level(self, op: str, cut: Index, inner: Level | None) -> Level:
        """What a memory holds that takes the loops up to `cut` and, for free, those on top that do not matter."""
        tables, i = self.nests.tables, OPERANDS.index(op)
        top = self.above.take(self.byte[i] + cut)
        state = self.state(top)
        period = tables[ITERATIONS].take(state)
        elements = tables[(IN_PE if inner is None else IN_ARRAY) + i].take(state)
        bits: Floats | int = OPERAND_BITS
        if op == "O":
            bits = np.where(tables[REDUCTION].take(state) < self.all_reduction, self.template.psum_bits, FINAL_BITS)
        room = elements if inner is None else np.rint(tables[ROOM + i].take(state))
        used = np.floor_divide(room * bits, period / self._inside(self.byte[3 + i], top, inner))
        return Level(top, period, elements, bits, used, self._inside(self.byte[i], top, inner))

    def _inside(self, byte: Index, top: Index, inner: Level | None) -> Floats:
        """Iterations of the loops below the run of marked loops that ends at `top`, within the level."""
        start = self.below.take(byte + top)
        if inner is not None:
            start = np.maximum(start, inner.top)
        return self.nests.tables[ITERATIONS].take(self.state(start))

    def _half_empty(self, op: str) -> NDArray[np.bool_]:
        t = self.template
        room = {
            "I": t.input_register_bits,
            "W": t.weight_register_bits,
            "O": t.output_registers * t.psum_bits,
        }[op]
        return self.registers[op].used_bits / room <= 0.5

    def _register_links(self) -> tuple[list[Link], list[Link]]:
        """Links of the buffer's read and write ports that the registers decide."""
        t, read, write = self.template, [], []
        for op in OPERANDS:
            level, window = self.registers[op], self.windows[op]
            link = _link(level, window, t.buffer_port_bits, self.array[op])
            if op == "O":
                again = self._again(level)
                write.append(link)
                read.append(Link(link.real * again, link.allowed * again, link.period))
            else:
                read.append(link)
        return read, write

    def _again(self, level: Level) -> NDArray[np.bool_]:
        return self.nests.tables[REDUCTION].take(self.state(level.top)) < self.all_reduction

    def _register_stalls(self) -> Floats:
        """Stalls of the ports of the registers, each with one link."""
        stall = np.zeros(self.width)
        for op in OPERANDS:
            level = self.registers[op]
            width = self.template.psum_bits if op == "O" else OPERAND_BITS
            real = np.ceil(level.elements * level.bits / width)
            stall = np.maximum(stall, (real - self.windows[op]) * (self.total / level.period - 1))
        return stall

    def _port(self, links: list[Link], union: Floats | None) -> Floats:
        """Stalls of a port whose links together may use `union` cycles; None: exactly."""
        over, moved = np.zeros(self.width), np.zeros(self.width)
        for link in links:
            times = self.total / link.period - 1
            over += np.maximum(link.real - link.allowed, 0) * times
            moved += np.minimum(link.real, link.allowed) * times
        if union is None:
            union = self._union(links)
        return over + np.maximum(0, moved - union)

    def _union(self, links: list[Link]) -> Floats:
        """Cycles of the layer in which at least one window is open; each opens at the start of its period."""
        union = self.total.copy()
        whole = np.zeros(self.width, dtype=bool)
        for link in links:
            whole |= link.allowed == link.period
        part = np.flatnonzero(~whole)
        if len(part):
            periods = np.stack([link.period[part] for link in links])
            windows = np.stack([link.allowed[part] for link in links])
            order = np.argsort(periods, axis=0)
            periods = np.take_along_axis(periods, order, axis=0)
            windows = np.take_along_axis(windows, order, axis=0)
            union[part] = _covered(periods, windows) * (self.total[part] / periods[-1])
        return union

    def bound(self) -> Floats:
        """At most the price: what the registers decide, with every other link for free."""
        read, write = self._register_links()
        stall = np.maximum(self._register_stalls(), self._port(read, self.total))
        stall = np.maximum(stall, self._port(write, self.total))
        busy = self.total + stall
        width = self.template.dram_bits_per_cycle
        held = {op: self.registers[op].elements for op in OPERANDS}
        # what the registers hold crosses the DRAM port at least once, outputs perhaps as final ones
        shared = {op: np.ceil(held[op] * OPERAND_BITS / width) for op in OPERANDS}
        last = np.ceil(held["O"] * self.registers["O"].bits / self.template.psum_bits)
        bound = busy + _loads(shared, held) + last + shared["O"]
        # everything in the buffer: each operand crosses the DRAM port once, at best while the array works
        elements = self.nests.tables[IN_ARRAY : IN_ARRAY + 3].take(self.nests.states[-1], axis=1)
        once = np.ceil(elements * OPERAND_BITS / width).sum(axis=0)
        whole = self._whole_bits(self._buffer_bits()) <= self.template.buffer_bits
        return np.maximum(bound, whole * (once + np.minimum(held["I"], held["W"]) + last))

    def cycles(self) -> Floats:
        """The price; infinite where ZigZag rejects the mapping."""
        t = self.template
        cuts, fits = self._buffer_cuts()
        buffer = {op: self._level(op, cuts[op], self.registers[op]) for op in OPERANDS}
        windows = self._buffer_windows(buffer)
        read, write = self._register_links()
        dram: list[Link] = []
        for op in OPERANDS:
            level = buffer[op]
            port = _link(level, windows[op], t.buffer_port_bits)
            outside = _link(level, windows[op], t.dram_bits_per_cycle)
            dram.append(outside)
            if op == "O":
                again = self._again(level)
                read.append(port)
                write.append(Link(port.real * again, port.allowed * again, port.period))
                dram.append(Link(outside.real * again, outside.allowed * again, outside.period))
            else:
                write.append(port)
        stall = self._register_stalls()
        for links in (read, write, dram):
            stall = np.maximum(stall, self._port(links, None))
        edges, legal = self._edges(buffer, read, write, dram, self.total + stall)
        return np.where(fits & legal, self.total + stall + edges, np.inf)

    def _buffer_cuts(self) -> tuple[dict[str, Index], NDArray[np.bool_]]:
        """How many loops the global buffer holds of each operand, and whether what the array takes at once fits."""
        tables, t, states = self.nests.tables, self.template, self.nests.states
        bits = self._buffer_bits()
        whole = self._whole_bits(bits)
        cuts = {op: np.full(self.width, self.depth) for op in OPERANDS}
        fits = whole <= t.buffer_bits
        part = np.flatnonzero(~fits)
        if len(part):
            states, bits = states[:, part], bits[part]
            left = self.total[part] / tables[ITERATIONS].take(states)
            sizes, crossing = {}, {}
            cut = np.arange(self.depth + 1)[:, None]
            for i, op in enumerate(OPERANDS):
                width = bits if op == "O" else OPERAND_BITS
                sizes[op] = tables[ROOM + i].take(states) * width
                crossing[op] = np.where(cut < self.cuts[op][part], np.inf, left * sizes[op])
            chosen, found = _share(t.buffer_bits, sizes, crossing)
            for op in OPERANDS:
                cuts[op][part] = chosen[op]
            fits[part] = found
        return cuts, fits

    def _buffer_bits(self) -> Floats:
        """Bits of an output for which the buffer has to have room: final ones where the registers sum to the end."""
        reduced = self.nests.tables[REDUCTION].take(self.state(self.cuts["O"])) == self.all_reduction
        return np.where(reduced, FINAL_BITS, self.template.psum_bits)

    def _whole_bits(self, output_bits: Floats) -> Floats:
        """Room that all operands take."""
        room = self.nests.tables[ROOM : ROOM + 3].take(self.nests.states[-1], axis=1)
        return (room[0] + room[1]) * OPERAND_BITS + room[2] * output_bits

    def _buffer_windows(self, buffer: dict[str, Level]) -> dict[str, Floats]:
        """Windows of the buffer's contents; outputs, weights, inputs may double-buffer in this order."""
        alone = {op: buffer[op].used_bits / self.template.buffer_bits for op in OPERANDS}
        used = alone["I"] + alone["W"] + alone["O"]
        windows = {}
        for op in ("O", "W", "I"):
            extra = alone[op] <= 1 - used
            double = (used <= 0.5) | extra
            used = np.where((used > 0.5) & extra, used + alone[op], used)
            windows[op] = _window(buffer[op], double)
        return windows

    def _edges(
        self, buffer: dict[str, Level], read: list[Link], write: list[Link], dram: list[Link], busy: Floats
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """First loads and last stores; data that moves once fills the bandwidth that is left while the array works."""
        t = self.template
        first = {op: self._rate(self.registers[op], self.array[op]) for op in OPERANDS}
        second = {op: self._rate(buffer[op], 1.0) for op in OPERANDS}
        least = {op: self.registers[op].elements * self.registers[op].bits for op in OPERANDS}
        ports = (
            ((read[0], first["I"]), (read[1], first["W"]), (read[3], second["O"])),
            ((write[1], second["I"]), (write[2], second["W"]), (write[0], first["O"])),
            ((dram[0], second["I"]), (dram[1], second["W"]), (dram[2], second["O"])),
        )
        legal = np.ones(self.width, dtype=bool)
        shown = []
        for links, width in zip(ports, (t.buffer_port_bits, t.buffer_port_bits, t.dram_bits_per_cycle), strict=True):
            real, fine = self._exposed(links, least, width, busy)
            shown.append(real)
            legal &= fine
        from_buffer, into_buffer, from_dram = shown
        held = {op: self.registers[op].elements for op in "IW"}
        half = {op: np.maximum(held[op], from_buffer[op]) for op in "IW"}
        shared = {op: np.maximum(into_buffer[op], from_dram[op]) for op in "IW"}
        last = np.maximum(np.ceil(least["O"] / t.psum_bits), into_buffer["O"])
        return _loads(shared, half) + last + np.maximum(from_buffer["O"], from_dram["O"]), legal

    def _rate(self, level: Level, units: Floats | float) -> Floats:
        return np.floor(level.elements * level.bits / level.period * units)

    def _exposed(
        self, links: tuple[tuple[Link, Floats], ...], least: dict[str, Floats], width: int, busy: Floats
    ) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
        """Cycles of a port before or behind the work of the array for I, W, O."""
        once = [link.period == self.total for link, _ in links]
        rate = sum(np.where(o, 0, r) for o, (_, r) in zip(once, links, strict=True))
        spare = np.maximum(0, (width - rate) / width * busy)
        legal: NDArray[np.bool_] | bool = True
        rooms = []
        for op, o, (link, _) in zip(OPERANDS, once, links, strict=True):
            room = (link.real - np.ceil(least[op] / width)) * o
            legal = legal & (room >= 0)
            rooms.append(np.maximum(room, 0))
        shown = {}
        for i, op in enumerate(OPERANDS):
            # the longest transfer is shortened first; of equals the first in order of I, W, O
            before = np.zeros(self.width)
            for j in range(3):
                if j != i:
                    mine, other = links[i][0].real, links[j][0].real
                    before += rooms[j] * (other >= mine if j < i else other > mine)
            shown[op] = links[i][0].real - np.minimum(np.maximum(spare - before, 0), rooms[i])
        return shown, legal | (spare <= 0)


def _window(level: Level, double_buffered: NDArray[np.bool_]) -> Floats:
    """The part of the period in which new data may move: all of it, or while the data below is not in use."""
    return np.where(double_buffered, level.period, level.free)


def _link(level: Level, window: Floats, width: int, units: Floats | float = 1.0) -> Link:
    """The transfer of what a level holds, in `units` memories at once, through a port."""
    return Link(np.ceil(level.elements * units * level.bits / width), window, level.period)


def _loads(shared: dict[str, Floats], half: dict[str, Floats]) -> Floats:
    """First loads: DRAM and buffer ports serve one input operand after the other, registers load side by side."""
    inputs, weights = shared["I"] + half["I"], shared["W"] + half["W"]
    return np.minimum(
        shared["W"] + np.maximum(inputs, half["W"]),
        shared["I"] + np.maximum(weights, half["I"]),
    )


def _share(
    room: int, sizes: dict[str, Floats], crossing: dict[str, Floats]
) -> tuple[dict[str, Index], NDArray[np.bool_]]:
    """Cuts of I, W, O [orders] that fit together with the least crossing; of equals the last in order of I, W, O."""
    # cuts from the largest down, so that the first of equals is the one to take
    low = {op: int(np.isfinite(crossing[op]).argmax(axis=0).min()) for op in "IW"}
    size, price = ({op: of[op][low[op] :][::-1] for op in "IW"} for of in (sizes, crossing))
    rest = room - size["I"][:, None] - size["W"][None]
    cost = np.full_like(rest, np.inf)
    for held, outside in zip(sizes["O"], crossing["O"], strict=True):
        np.copyto(cost, outside, where=held <= rest)
    cost += price["I"][:, None]
    cost += price["W"][None]
    width, most = cost.shape[1:], len(sizes["I"]) - 1
    flat, rest = cost.reshape(-1, width[1]), rest.reshape(-1, width[1])
    columns = np.arange(width[1])
    least = np.argmin(flat, axis=0)
    third = (sizes["O"] <= rest[least, columns]).sum(axis=0) - 1
    cuts = {"I": most - least // width[0], "W": most - least % width[0], "O": third}
    return cuts, np.isfinite(flat[least, columns])


def _covered(periods: Floats, windows: Floats) -> Floats:
    """Cycles of the longest period in which a window is open; each period is a multiple of the one before."""
    within: list[Floats] = []

    def until(k: int, x: Floats) -> Floats:
        if k < 0:
            return np.zeros_like(x)
        whole, rest = np.floor_divide(x, periods[k]), np.mod(x, periods[k])
        start = np.minimum(rest, windows[k])
        return whole * within[k] + start + until(k - 1, rest) - until(k - 1, start)

    for k in range(len(periods)):
        within.append(windows[k] + until(k - 1, periods[k]) - until(k - 1, windows[k]))
    return within[-1]
