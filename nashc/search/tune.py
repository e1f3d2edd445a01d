"""From a node of the coarse stage to its best accelerator: unrollings, buffers and DRAM shares for a memory plan.

The bounds choose unrollings as if nothing but memory and DRAM stood between them. Here they alternate with the memory
plan: for the plan that the relaxed program proposes, every option's busy time is estimated at every DRAM share, and
options and shares are chosen again; then buffers and shares, from exact best mappings; then the program runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from nashc.board import Board
from nashc.core.design import Accelerator, Chunk, Resources
from nashc.core.network import Network
from nashc.hw.machine import Machine
from nashc.hw.resources import chunk_resources, memory_resources
from nashc.search.coarse import BoundedSlot, choose, slot_costs, slot_limits
from nashc.search.coarse import least_interval as least_busy
from nashc.search.mapping import best_mapping
from nashc.search.memory import Relaxed
from nashc.search.objectives import relaxed
from nashc.search.space import Space
from nashc.search.tables import NoMapping, Tables

BURSTS = 1.06
"""What bursts and halos add to the bare DRAM time in the estimates; exact mappings price the result."""
ROUNDS = 4
NEAR_SHARES = (-3, -1, 0, 1, 3)
FAR_SHARES = (-8, -4, -2, -1, 0, 1, 2, 4, 8)
NEVER = np.iinfo(np.int64).max // 4
FITTING_ROUNDS, LEAST_STEP = 16, 200
"""How often the limits are lowered to make a choice fit, and by how many LUTs at the least."""
HALVINGS = 12


@dataclass(frozen=True)
class Candidate:
    """One accelerator: an option, a buffer level and a DRAM share  for each slot, and its memory."""

    choice: tuple[int, ...]
    levels: tuple[int, ...]
    shares: tuple[int, ...]
    memory_pages: int


@dataclass(frozen=True, eq=False)
class Tuned:
    """A candidate with its tables and the relaxed program's answer, below every plan on it."""

    candidate: Candidate
    tables: Tables
    relaxed: Relaxed

    @property
    def interval(self) -> float:
        return self.relaxed.interval


class Tuner:
    """Candidates of one node: `slots` with their options, a batch, and the least and most pages of memory.

    Raises NoMapping where the largest buffers that fit hold some layer in no way.
    """

    def __init__(
        self, network: Network, board: Board, machine: Machine, limit: Resources, slots: list[BoundedSlot], batch: int,
        pages: tuple[int, int], objective: str, space: Space, uram_groups: int = 0,
    ) -> None:  # fmt: skip
        self.network, self.board, self.machine, self.limit = network, board, machine, limit
        self.slots, self.batch = slots, batch
        self.least_pages, self.most_pages = pages
        self.objective, self.space, self.uram_groups = objective, space, uram_groups
        self.dram_bits = int(board.dram_bytes_per_cycle * 8)
        self.least_share = space.least_share(self.dram_bits)
        self.seen: dict[Candidate, Tuned | None] = {}

    # what a candidate is

    def chunks(self, candidate: Candidate) -> tuple[Chunk, ...]:
        return tuple(
            slot.options.chunk(i, level, self.dram_bits * share // self.space.shares)
            for slot, i, level, share in zip(
                self.slots, candidate.choice, candidate.levels, candidate.shares, strict=True
            )
        )

    def used(self, chunks: tuple[Chunk, ...], memory_pages: int) -> Resources:
        parts = chunk_resources(self.board, chunks, self.limit.dsp)
        return sum(parts, start=memory_resources(self.board, memory_pages, len(chunks), self.uram_groups))

    def tuned(self, candidate: Candidate) -> Tuned | None:
        """A candidate priced, with the memory that its buffers leave; None if it does not fit the board, a chunk has
        less than a bit a cycle of the DRAM, or some layer has no mapping on it."""
        if min(candidate.shares) < self.least_share:
            return None
        candidate = self.filled(candidate)
        if candidate not in self.seen:
            chunks = self.chunks(candidate)
            if not self.used(chunks, candidate.memory_pages).fits(self.limit):
                self.seen[candidate] = None
                return None
            accelerator = Accelerator(chunks, self.batch)
            try:
                tables = Tables(
                    self.network, self.board, self.machine, accelerator, candidate.memory_pages, self.uram_groups
                )
            except NoMapping:
                self.seen[candidate] = None
            else:
                least = relaxed(self.objective, tables, tables.room, integer=False)
                self.seen[candidate] = Tuned(candidate, tables, least)
        return self.seen[candidate]

    def filled(self, candidate: Candidate) -> Candidate:
        """The candidate with all pages that are left, up to the node's most."""
        chunks = self.chunks(candidate)
        parts = self.used(chunks, 0)
        low, high = candidate.memory_pages, self.most_pages
        while low < high:
            middle = (low + high + 1) // 2
            if (parts + memory_resources(self.board, middle, len(chunks))).fits(self.limit):
                low = middle
            else:
                high = middle - 1
        return replace(candidate, memory_pages=low)

    # the loop

    def best(self, choice: list[int], parts: list[float], out_of_time: Callable[[], bool]) -> Tuned | None:
        """The best candidate found from a first choice of options and of parts of the DRAM, at the least buffers, and
        from the choices that larger ones leave room for where those are better already."""
        shares = shared_out(parts, self.space.shares, self.least_share)
        found = None
        ways = [self.least_levels(choice), self.levels_beside(choice)]
        if self.objective != "fps":  # their options and buffers are not chosen again
            ways.insert(0, [(self.space.first_level,) * len(choice)])
        for starts in ways:
            firsts = [self.fitting(choice, levels, shares) for levels in starts if found is None]
            made = [self.tuned(first) for first in firsts if first]
            found = min((m for m in (found, *made) if m), key=lambda m: m.interval, default=None)
        if found and self.objective != "fps":
            wide = self.widest(found)  # shares change no energy but through the mappings
            return wide if self.objective == "energy" else self.polished(wide, out_of_time)
        found = self.alternated(found, out_of_time)
        for level in self.space.levels:
            if found is None or out_of_time():
                break
            first = self.fitting(choice, (level,) * len(choice), shares)
            if first and self.busiest(first.choice) < found.interval:
                other = self.tuned(first)
                if other and other.interval < found.interval:
                    found = self.alternated(other, out_of_time)
        return found

    def alternated(self, found: Tuned | None, out_of_time: Callable[[], bool]) -> Tuned | None:
        """Rounds from a candidate as long as they make it better."""
        for _ in range(ROUNDS):
            if found is None or out_of_time():
                break
            better = self.round(found, out_of_time)
            if better is None or better.interval >= found.interval * 0.999:
                break
            found = better
        return found

    def busiest(self, choice: Sequence[int]) -> int:
        """Cycles of the busiest chunk at the least, whatever the buffers and shares."""
        return max(int(slot.cycles[i]) for slot, i in zip(self.slots, choice, strict=True))

    def round(self, found: Tuned, out_of_time: Callable[[], bool]) -> Tuned | None:
        """One turn of the alternation; the better of its two steps."""
        made = [self.tuned(self.rebalanced(found))]
        chosen = None if out_of_time() else self.rechosen(found)
        if chosen and (other := self.tuned(chosen)):
            made.append(other)
            if not out_of_time():
                made.append(self.tuned(self.rebalanced(other)))
        return min((m for m in made if m), key=lambda m: m.interval, default=None)

    def relieved(self, found: Tuned, relief: float) -> Tuned | None:
        """A candidate near another one on which all chunks but the main one have idle time: they are dealt options and
        shares as if they took `relief` times as long. Chunks that are all busy all the time leave a schedule no choice
        of what is on chip together."""
        chosen = self.rechosen(found, relief)
        other = self.tuned(chosen) if chosen else None
        return self.tuned(self.rebalanced(other, relief)) if other else None

    @cached_property
    def main(self) -> int:
        """The slot with the most operations."""
        work = [sum(s.works[row].nest.macs * s.works[row].terms for row in s.row_of_layer) for s in self.slots]
        return int(np.argmax(work))

    def widest(self, found: Tuned) -> Tuned:
        """The better of the least buffers, which leave most memory, and the largest."""
        larger = self.tuned(replace(found.candidate, levels=self.levels_that_fit(found.candidate)))
        return larger if larger and larger.interval < found.interval else found

    def polished(self, found: Tuned, out_of_time: Callable[[], bool]) -> Tuned:
        """Shares dealt again for the plan, and the plan made again for them, as long as the relaxed value falls."""
        while not out_of_time():
            other = self.tuned(self.dealt(found))
            if other is None or other.interval >= found.interval * 0.9995:
                break
            found = other
        return found

    def dealt(self, found: Tuned) -> Candidate:
        """The shares near those of a candidate with which its chunks take the least time one after another, under its
        plan: exact, as no chunk's time depends on the share of another."""
        now, on, total = found.candidate, found.relaxed.on, self.space.shares
        least: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}  # of the chunks so far, by the shares they take
        for c, own in enumerate(now.shares):
            near = {max(self.least_share, min(total, own + step)) for step in FAR_SHARES}
            cycles = {share: self.busy(found, c, on, now.levels[c], share) for share in sorted(near)}
            made: dict[int, tuple[int, tuple[int, ...]]] = {}
            for (taken, (sum_, shares)), (share, more) in product(least.items(), cycles.items()):
                if taken + share <= total:
                    other = (sum_ + more, (*shares, share))
                    made[taken + share] = min(made.get(taken + share, other), other)
            least = made
        return replace(now, shares=least[total][1])

    def exact(self, found: Tuned) -> Tuned:
        """The same candidate with the program solved in integers, to the end: a bound nearer to what a plan reaches."""
        tables = found.tables
        least = relaxed(self.objective, tables, tables.room, integer=True, at_least=found.interval, exact=True)
        return replace(found, relaxed=least)

    # options

    def estimates(self, found: Tuned) -> list[np.ndarray]:
        """Busy time of each slot's options at each share under a plan: [options, shares]."""
        tables, on = found.tables, found.relaxed.on
        made = []
        for slot in self.slots:
            compute = slot.bounds[list(slot.row_of_layer)]
            away = np.array([tables.away_bits(i, on) for i in slot.options.slot.layers], dtype=np.float64)
            rates = self.dram_bits * np.arange(1, self.space.shares + 1) / self.space.shares
            busy = np.stack(
                [np.maximum(compute, (away * BURSTS / rate)[:, None]).sum(axis=0) for rate in rates], axis=1
            )
            busy[:, : self.least_share - 1] = np.inf
            made.append(busy)
        return made

    def rechosen(self, found: Tuned, relief: float = 1.0) -> Candidate | None:
        """Options and shares chosen again for the plan of a candidate, at its buffer levels."""
        levels = found.candidate.levels
        busy = [b * (1.0 if n == self.main else relief) for n, b in enumerate(self.estimates(found))]
        costs = [slot_costs(s.options, [level]) for s, level in zip(self.slots, levels, strict=True)]

        def choice(interval: float, limits: np.ndarray) -> tuple[list[int], list[int]] | None:
            columns, rows = [], []
            for b, cost in zip(busy, costs, strict=True):
                enough = b <= interval
                allowed = np.flatnonzero(enough[:, -1])
                share = enough[allowed].argmax(axis=1) + 1
                columns.append(allowed)
                rows.append(np.vstack([cost[:, allowed], share[None, :]]))
            picks = choose(rows, np.append(limits, self.space.shares)).picks
            if picks is None:
                return None
            shares = [int(r[-1, p]) for r, p in zip(rows, picks, strict=True)]
            return [int(c[p]) for c, p in zip(columns, picks, strict=True)], shares

        def fastest(limits: np.ndarray) -> Candidate | None:
            low, high = max(float(b.min()) for b in busy), 2 * relief * found.interval
            best = choice(high, limits)
            if best is None:
                return None
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                other = choice(middle, limits)
                low, high, best = (middle, high, best) if other is None else (low, middle, other)
            options, shares = best
            shares[int(np.argmax([b[:, -1].min() for b in busy]))] += self.space.shares - sum(shares)
            return Candidate(tuple(options), levels, tuple(shares), self.least_pages)

        return self.fitted(fastest)

    # buffers and shares

    def rebalanced(self, found: Tuned, relief: float = 1.0) -> Candidate:
        """Buffer levels and shares chosen again for the options and the plan of a candidate, by exact busy times of
        its chunks."""
        now, on = found.candidate, found.relaxed.on
        columns = [self.priced(found, c, on) for c in range(len(self.slots))]
        used = self.used(self.chunks(now), self.least_pages)
        free = [self.limit.lut - used.lut, self.limit.bram18 - used.bram18]
        costs = []
        for c, slot in enumerate(self.slots):
            luts, bram18 = slot.options.luts[:, now.choice[c]], slot.options.bram18[:, now.choice[c]]
            free[0] += int(luts[now.levels[c]])
            free[1] += int(bram18[now.levels[c]])
            rows = [(luts[level], bram18[level], share) for level, share, _ in columns[c]]
            costs.append(np.array(rows, dtype=np.float64).reshape(-1, 3).T)
        times = [
            np.array([cycles * (1.0 if c == self.main else relief) for *_, cycles in column])
            for c, column in enumerate(columns)
        ]
        limits = np.array([min(free[0], self.limit.lutram), free[1], self.space.shares], dtype=np.float64)
        levels = np.unique(np.concatenate(times))
        low, high, best = 0, len(levels), None
        while low < high:
            middle = (low + high) // 2
            allowed = [np.flatnonzero(t <= levels[middle]) for t in times]
            picks = choose([c[:, a] for c, a in zip(costs, allowed, strict=True)], limits).picks
            if picks is None:
                low = middle + 1
            else:
                high, best = middle, [columns[n][allowed[n][p]] for n, p in enumerate(picks)]
        if best is None:
            return now
        shares = [share for _, share, _ in best]
        shares[int(np.argmax([cycles for *_, cycles in best]))] += self.space.shares - sum(shares)
        made = replace(
            now, levels=tuple(level for level, *_ in best), shares=tuple(shares), memory_pages=self.least_pages
        )
        return made if self.used(self.chunks(made), self.least_pages).fits(self.limit) else now

    def priced(self, found: Tuned, c: int, on: Collection[int]) -> list[tuple[int, int, int]]:
        """(buffer level, share, busy cycles) of a chunk under a plan. Exact along both axes through the present level
        and share; elsewhere the two changes add up."""
        now = found.candidate
        here = self.busy(found, c, on, now.levels[c], now.shares[c])
        by_level = {level: self.busy(found, c, on, level, now.shares[c]) for level in self.space.levels}
        near = {max(self.least_share, min(self.space.shares, now.shares[c] + step)) for step in NEAR_SHARES}
        by_share = {share: self.busy(found, c, on, now.levels[c], share) for share in sorted(near)}
        return [
            (level, share, at_level + at_share - here)
            for level, at_level in by_level.items()
            for share, at_share in by_share.items()
            if at_level < NEVER and at_share < NEVER
        ]

    def busy(self, found: Tuned, c: int, on: Collection[int], level: int, share: int) -> int:
        """Exact busy cycles of a chunk with other buffers and another share, NEVER if a layer has no mapping there."""
        tables = found.tables
        dram_bits = self.dram_bits * share // self.space.shares
        chunk = self.slots[c].options.chunk(found.candidate.choice[c], level, dram_bits)
        machine = replace(self.machine, post_lanes=chunk.post_lanes)
        total = 0
        for i, own in enumerate(tables.chunk_of):
            work = tables.works[i]
            if own == c and work is not None:
                place = tables.placement(i, on)
                best = best_mapping(work, chunk.unroll, chunk.buffers, chunk.dram_bits, machine, place)
                if best is None:
                    return NEVER
                total += best.cycles
        return total

    # resources

    def limits(self, memory_pages: int) -> np.ndarray:
        """What the rows of `slot_costs` may sum to beside a memory of so many pages."""
        return slot_limits(self.board, self.limit, self.slots, memory_pages, self.uram_groups)

    def fitted(self, fastest: Callable[[np.ndarray], Candidate | None]) -> Candidate | None:
        """The fastest choice for the limits, those of LUTs lowered about as little as makes it fit: their rows are
        optimistic about DSPs, and have no FFs."""
        limits, found = self.limits(self.least_pages), None
        low = high = taken = 0
        for _ in range(FITTING_ROUNDS):
            made = fastest(np.append(limits[:-1] - taken, limits[-1]))
            if made is None:
                break
            used = self.used(self.chunks(made), self.least_pages)
            if used.fits(self.limit):
                found, high = made, taken
            else:
                low = taken
            if found is None:
                taken += min(max(self.excess(used), LEAST_STEP), self.limit.lut // 20)
            elif high - low <= LEAST_STEP:
                break
            else:
                taken = (low + high) // 2
        return found

    def excess(self, used: Resources) -> int:
        """What a choice takes too much, in LUTs."""
        beyond = max(used.lut - self.limit.lut, 0) + max(used.ff - self.limit.ff, 0) // 2
        return beyond + 200 * max(used.dsp - self.limit.dsp, 0)

    def least_levels(self, choice: list[int]) -> list[tuple[int, ...]]:
        """Of the levels that hold all layers of each slot's option those of fewest LUTs, and those of fewest BRAM18."""
        tables = [(slot.options.luts[:, i], slot.options.bram18[:, i])
                  for slot, i in zip(self.slots, choice, strict=True)]  # fmt: skip
        by_luts = tuple(min(self.space.levels, key=lambda b: (luts[b], bram18[b])) for luts, bram18 in tables)
        by_bram = tuple(min(self.space.levels, key=lambda b: (bram18[b], luts[b])) for luts, bram18 in tables)
        return list(dict.fromkeys([by_luts, by_bram]))

    def levels_beside(self, choice: list[int]) -> list[tuple[int, ...]]:
        """Levels that fit beside the lanes of a choice of options, if any do."""
        least = self.least_levels(choice)[0]
        used = self.used(self.chunks(Candidate(tuple(choice), least, (1,) * len(choice), 0)), self.least_pages)
        costs = [
            np.stack([slot.options.luts[list(self.space.levels), i], slot.options.bram18[list(self.space.levels), i]])
            for slot, i in zip(self.slots, choice, strict=True)
        ]
        buffers = sum(cost[:, self.space.levels.index(level)] for cost, level in zip(costs, least, strict=True))
        limits = np.array([self.limit.lut - used.lut, self.limit.bram18 - used.bram18]) + buffers
        picks = choose([cost.astype(np.float64) for cost in costs], limits.astype(np.float64)).picks
        return [] if picks is None else [tuple(self.space.levels[p] for p in picks)]

    def levels_that_fit(self, candidate: Candidate) -> tuple[int, ...]:
        """The largest buffers of one level for all chunks that fit."""
        for level in sorted(self.space.levels, reverse=True):
            made = replace(candidate, levels=(level,) * len(self.slots))
            if self.used(self.chunks(made), self.least_pages).fits(self.limit):
                return made.levels
        return candidate.levels

    def fitting(self, choice: list[int], levels: tuple[int, ...], shares: tuple[int, ...]) -> Candidate | None:
        """The fastest options whose exact resources fit: a first choice that the coarse limits allow, or near it."""
        made = Candidate(tuple(choice), levels, shares, self.least_pages)
        if self.used(self.chunks(made), self.least_pages).fits(self.limit):
            return made
        costs = [slot_costs(s.options, [level]) for s, level in zip(self.slots, levels, strict=True)]

        def fastest(limits: np.ndarray) -> Candidate | None:
            found = least_busy(self.slots, costs, limits)
            return None if found is None or not found[1] else replace(made, choice=tuple(found[1]))

        return self.fitted(fastest)


def shared_out(parts: list[float], total: int, least: int = 1) -> tuple[int, ...]:
    """Whole shares, at least `least` a chunk, near given parts of the DRAM."""
    shares = [max(least, round(part * total / max(1.0, sum(parts)))) for part in parts]
    while sum(shares) != total:
        step = 1 if sum(shares) < total else -1
        order = sorted(range(len(parts)), key=lambda i: (shares[i] / max(parts[i], 1e-9), i), reverse=step < 0)
        shares[next(i for i in order if shares[i] + step >= least)] += step
    return tuple(shares)
