"""The memory plan as a mixed-integer program, solved by HiGHS through SciPy.

Binary s[n]: switch n is on; z[l, p] >= 0: layer l runs under placement p, tied to the switches of p. With the exact
cycles T[l, p] of the tables,

    minimise  X     with  X >= sum of T z over the layers of each chunk,  sum over p of z[l, p] = 1

and three facts about every periodic schedule:

- while a layer runs, its operands on chip and the pinned weights fit together;
- two layers on different chunks whose operands do not fit together do not run at the same time, so layers that hold at
  least h pages on one chunk and more than memory - h on another take turns: their cycles together are at most X;
- over a period, pages x time of what is on chip is at most memory x X, where a tensor lives at least while its writers,
  its readers and the layers between them run.

So X is below no schedule's interval, and the relaxation 0 <= s <= 1 a proven bound of the accelerator. What the
schedule then makes of the plan is up to nashc.search.plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from nashc.hw.machine import PAGE_BITS
from nashc.search.tables import Tables

RELATIVE_GAP = 2e-2
NODE_LIMIT = 20
"""How far integers are solved that need not be solved to the end: of plans in order, and where nothing is compiled."""
OCCUPANCY_ROUNDS = 1
TOLERANCE = 1e-6
"""How far the solver may be off, in parts of an interval."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Least interval of the program, and the switches that are on, or more than half on where they are no integers."""

    interval: float
    on: frozenset[int]


def least_interval(tables: Tables, room: float, *, integer: bool, at_least: float = 0, exact: bool = False) -> Relaxed:
    """A bound of the interval of any plan and schedule within `room` pages, and a plan near it: of switches that are no
    integers, of integers, or of integers to the end (`exact`).

    `at_least` is a proven bound to start from. Pinned weights take room for the whole period, a product of two
    variables: the interval in it is replaced by the bound found so far, which is below it.
    """
    floor = max(at_least, _busiest_at_least(tables))
    program = _Program(tables, room)

    def solved(floor: float) -> tuple[np.ndarray, float]:
        values, found = program.solve(floor, integer=integer, exact=exact)
        return values, max(floor, _whole(found))

    values, found = solved(floor)
    for _ in range(OCCUPANCY_ROUNDS if program.pins else 0):
        if found <= floor * 1.001:
            break
        floor = found
        values, found = solved(floor)
    on = frozenset(n for n, v in enumerate(program.switches) if values[v] > 0.5)
    return Relaxed(found, on)


def _whole(interval: float) -> float:
    """The least whole number of cycles that the solver's answer, right but for TOLERANCE, is a bound of."""
    return float(np.ceil(interval * (1 - TOLERANCE)))


def least_total(tables: Tables, room: float, costs: Sequence[Sequence[float]], *, integer: bool) -> Relaxed:
    """The least sum of costs[layer][mask] of any plan of which one batch at a time fits the memory, layer after layer.

    `interval` of the answer is that sum.
    """
    program = _Program(tables, room, periodic=False)
    scale = sum(max(row) for row in costs)
    for choices, row in zip(program.choices, costs, strict=True):
        for z, cost in zip(choices, row, strict=True):
            program.cost[z] = cost / scale
    program.cost[program.interval] = 0.0
    network = tables.network
    spans = {
        n: (min(network.producers[s.tensor]), max(network.consumers[s.tensor]))
        for n, s in enumerate(tables.switches[: tables.tensor_count])
    }
    for i in range(len(tables.cycles)):
        alive = [(program.switches[n], float(tables.switches[n].pages)) for n, (a, b) in spans.items() if a <= i <= b]
        if sum(pages for _, pages in (*alive, *program.pins)) > program.room:
            program.row([*alive, *program.pins], -np.inf, program.room)
    values, _ = program.solve(0.0, integer=integer)
    on = frozenset(n for n, v in enumerate(program.switches) if values[v] > 0.5)
    total = sum(
        cost * values[z]
        for zs, row in zip(program.choices, costs, strict=True)
        for z, cost in zip(zs, row, strict=True)
    )
    return Relaxed(float(total), on)


def _busiest_at_least(tables: Tables) -> float:
    busy: dict[int, int] = {}
    for chunk, row in zip(tables.chunk_of, tables.cycles, strict=True):
        busy[chunk] = busy.get(chunk, 0) + min(row)
    return float(max(busy.values()))


@dataclass(frozen=True, slots=True)
class _Choice:
    """A layer under a placement: its variable, its cycles, and the pages on chip that it alone accounts for."""

    variable: int
    cycles: float
    pages: float


class _Program:
    """Rows and columns; the occupancy row is filled in for each estimate of the interval. `periodic`: with all that
    says how long the interval is."""

    def __init__(self, tables: Tables, room: float, *, periodic: bool = True) -> None:
        self.room, self.periodic = room, periodic
        self.cost: list[float] = []
        self.rows: list[list[tuple[int, float]]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.interval = self._variable(1.0)
        self.switches = [self._variable() for _ in tables.switches]
        self.pins = [
            (v, s.bits / PAGE_BITS) for v, s in zip(self.switches, tables.switches, strict=True) if not s.tensor
        ]
        self.charges = charges(tables)
        self.choices: list[list[int]] = []
        self.longest = float(sum(map(max, tables.cycles)))
        self.occupied: list[tuple[int, float]] = []
        chunks: dict[int, list[_Choice]] = {}
        for i, row in enumerate(tables.cycles):
            chunks.setdefault(tables.chunk_of[i], []).extend(self._layer(tables, i, row))
        if not periodic:
            return
        for choices in chunks.values():
            self.row([(self.interval, 1.0), *((c.variable, -c.cycles) for c in choices)], 0.0, np.inf)
        for one, other in combinations(chunks.values(), 2):
            self._turns(one, other)
        for n, charge in self.charges.items():
            if charge.path:
                self.occupied.append((self.switches[n], float(tables.switches[n].pages * charge.path)))

    def _turns(self, one: list[_Choice], other: list[_Choice]) -> None:
        """Layers of two chunks that cannot run at the same time."""
        for held in sorted({c.pages for c in one if c.pages}):
            beside = self.room - held
            second = [(c.variable, -c.cycles) for c in other if c.pages > beside]
            if second:
                first = [(c.variable, -c.cycles) for c in one if c.pages >= held]
                self.row([(self.interval, 1.0), *first, *second], 0.0, np.inf)

    def _layer(self, tables: Tables, i: int, row: tuple[int, ...]) -> list[_Choice]:
        """Rows of a layer; its placements."""
        own = tables.of_layer[i]
        choices = [self._variable() for _ in row]
        self.choices.append(choices)
        self.row([(z, 1.0) for z in choices], 1.0, 1.0)
        for j, n in enumerate(own):
            tied = [(z, 1.0) for mask, z in enumerate(choices) if mask >> j & 1]
            self.row([*tied, (self.switches[n], -1.0)], 0.0, 0.0)
        tensors = [(n, tables.switches[n].pages) for n in own if tables.switches[n].tensor]
        together = [0.0]  # pages of the operands on chip, under each mask
        for n in own:
            more = self._held(tables, i, n) if tables.switches[n].tensor else 0.0
            together += [pages + more for pages in together]
        made = [_Choice(z, float(c), held) for z, c, held in zip(choices, row, together, strict=True)]
        self.occupied += [(c.variable, c.pages * c.cycles) for c in made if c.pages]
        if tensors and (self.pins or sum(pages for _, pages in tensors) > self.room):
            self.row([*((self.switches[n], float(pages)) for n, pages in tensors), *self.pins], -np.inf, self.room)
        return made

    def _held(self, tables: Tables, i: int, n: int) -> float:
        charge = self.charges[n]
        return charge.writing if tables.network.layers[i].output == tables.switches[n].tensor else charge.reading

    def _variable(self, cost: float = 0.0) -> int:
        self.cost.append(cost)
        return len(self.cost) - 1

    def row(self, terms: list[tuple[int, float]], low: float, high: float) -> None:
        self.rows.append(terms)
        self.low.append(low)
        self.high.append(high)

    @cached_property
    def _fixed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of all rows but the last: their lengths, columns and factors, and whether the interval is in them."""
        counts = np.array([len(r) for r in self.rows])
        column = np.array([c for r in self.rows for c, _ in r], dtype=np.int64)
        factor = np.array([f for r in self.rows for _, f in r])
        timed = np.zeros(len(counts), np.bool_)
        timed[np.repeat(np.arange(len(counts)), counts)[column == self.interval]] = True
        return counts, column, factor, timed

    def solve(self, floor: float, *, integer: bool, exact: bool = False) -> tuple[np.ndarray, float]:
        """(values, bound of the interval): one call of the solver, given that the interval is at least `floor`."""
        occupancy = [*self.occupied, *((v, p * floor) for v, p in self.pins), (self.interval, -self.room)]
        last = occupancy if self.periodic else [(self.interval, -1.0)]
        counts, column, factor, timed_rows = self._fixed
        counts = np.append(counts, len(last))
        column = np.concatenate([column, np.array([c for c, _ in last], dtype=np.int64)])
        factor = np.concatenate([factor, np.array([f for _, f in last])])
        # The interval in units of itself, its rows alike: with numbers of millions beside ones, HiGHS has given wrong
        # answers. All of these rows have 0 on one side.
        unit = floor or self.longest
        timed = np.append(np.where(timed_rows, 1 / unit, 1.0), 1 / unit / max(1.0, self.room))
        factor = factor * np.repeat(timed, counts)
        factor[column == self.interval] *= unit
        starts = np.concatenate([[0], np.cumsum(counts)])
        count = len(self.cost)
        low, high, kinds = np.zeros(count), np.ones(count), np.zeros(count)
        low[self.interval], high[self.interval] = floor / unit, np.inf
        if integer:
            kinds[self.switches] = 1
        with quiet():
            result = milp(
                np.array(self.cost),
                integrality=kinds,
                bounds=Bounds(low, high),
                constraints=LinearConstraint(
                    csr_array((factor, column, starts), shape=(len(counts), count)),
                    np.array([*self.low, -np.inf]),
                    np.array([*self.high, 0.0]),
                ),
                options={"mip_rel_gap": 0.0} if exact else {"mip_rel_gap": RELATIVE_GAP, "node_limit": NODE_LIMIT},
            )
        # Everything in DRAM satisfies every row, so the only other outcome is a node limit without a first answer; or
        # the solver fails, and proves nothing.
        if result.x is None:
            return np.zeros(count), floor
        if integer and result.mip_dual_bound is not None:  # None: no switches, so no integers
            return np.asarray(result.x), float(result.mip_dual_bound) * unit
        return np.asarray(result.x), float(result.x[self.interval]) * unit


@dataclass(frozen=True, slots=True)
class Charge:
    """Pages that a resident tensor surely takes: while each writer runs, while each reader runs, and for how many
    further cycles (layers between its readers) all of its pages."""

    writing: float
    reading: float
    path: int


def charges(tables: Tables) -> dict[int, Charge]:
    """What each tensor switch costs in pages x time under any schedule, without counting any moment twice.

    Readers that depend on each other run one after another, with the layers on the way in between. Independent ones
    on different chunks may run at the same time: each then counts the copy of its chunk only. Writers alike.
    """
    least = [min(row) for row in tables.cycles]
    found = {}
    for n, switch in enumerate(tables.switches[: tables.tensor_count]):
        writers = tables.network.producers[switch.tensor]
        readers = sorted(tables.network.consumers[switch.tensor])
        apart = len({tables.chunk_of[i] for i in writers})
        ways = [_way(tables.after, least, a, b) for a, b in pairwise(readers)]
        first = [_way(tables.after, least, w, readers[0]) for w in writers] if len(writers) == 1 else []
        chain = [way for way in (*first, *ways) if way is not None]
        if len(chain) == len(first) + len(ways):
            found[n] = Charge(switch.pages / apart, switch.pages, sum(chain))
        else:
            found[n] = Charge(switch.pages / apart, switch.pages / tables.replicas(switch.tensor), 0)
    return found


def _way(after: tuple[tuple[int, ...], ...], least: list[int], start: int, end: int) -> int | None:
    """Most cycles of layers between two layers on one chain of dependencies; None if there is no such chain."""
    longest = {start: 0}
    for i in range(start + 1, end + 1):
        before = [longest[p] + (least[p] if p != start else 0) for p in after[i] if p in longest]
        if before:
            longest[i] = max(before)
    return longest.get(end)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the solver off the standard output: HiGHS prints a debugging line there whatever its options say, and
    `--json` promises that nothing else is on it."""
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
