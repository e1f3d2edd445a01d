"""Fine stage for one accelerator: memory plan and schedule, chosen together on the exact table of every layer.

A small program proposes what stays on chip (nashc.search.memory). Compiled, a local search then changes plan and
schedule together until they fit the memory at an interval near the program's bound; without it, the program is given
less and less room until some schedule of its answer fits. Either way what comes out is priced with the definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CDLL
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from math import ceil, inf

import numpy as np

from nashc.core.design import Accelerator, Placement, Work
from nashc.hw.machine import URAM_PAGES
from nashc.hw.schedule import (
    Lifetime,
    Schedule,
    Task,
    busy,
    copies_on_chip,
    drawn_together,
    first_fit,
    latency,
    periodic,
    periodic_at,
    pipeline_cycles,
    replicas,
    stock,
)
from nashc.search import compiled
from nashc.search.mapping import Best
from nashc.search.memory import Relaxed, least_interval
from nashc.search.tables import Tables

FIRST_FIT = 0
SEGMENTS_PER_CHUNK = (1.0, 1.6, 0.0, 0.7, 2.3)
"""Ways to schedule a given plan: segments for each chunk (balanced chunks need a batch each to be busy all the time,
and some more where their layers differ); 0 is first fit."""
ROOMS = (1.0, 0.9, 0.75, 0.6, 0.4, 0.0)
"""Shares of the memory that the program is given in turn, where nothing is compiled."""
STRETCHES = (*(1 + 0.01 * n for n in range(10)), *(1.1 * 1.04**n for n in range(28)))
"""Intervals to try, in units of the bound: the least that the local search reaches is found by bisection."""
FINEST = 1_000
"""Intervals to try between the last one that it reaches and the one before, divided by the layers, where that is more
than the effort says: small networks are planned quickly, and may be proven."""


FEW_SEGMENTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
SHORTEST = 4
"""Schedules of so many segments, the first few that can, keep the interval of a plan with fewer batches in flight."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look for a plan: changes that the local search tries at each interval from each of so many first
    schedules, and steps of the interval in the end."""

    tries: int
    starts: int
    finer: int


HURRIED, QUICK, THOROUGH = Effort(1_000, 1, 1), Effort(10_000, 2, 1), Effort(40_000, 3, 4)


@dataclass(frozen=True, slots=True)
class Planned:
    """A complete answer for one accelerator: placements, best mappings, schedule, pages and URAM groups.

    `groups`: of a copy of each resident tensor, the part in URAM; the rest takes pages. `peak_pages` has the pages of
    pinned weights, `peak_groups` feature maps only.
    """

    accelerator: Accelerator
    chunk_of: tuple[int, ...]
    works: tuple[Work | None, ...]
    placements: tuple[Placement, ...]
    best: tuple[Best | None, ...]
    tasks: tuple[Task, ...]
    schedule: Schedule
    lifetimes: tuple[tuple[str, Lifetime], ...]
    groups: tuple[int, ...]
    resident: tuple[str, ...]
    pinned: tuple[str, ...]
    copies: tuple[int, ...]
    memory_pages: int
    peak_pages: int
    peak_groups: int
    pinned_groups: int
    on: frozenset[int]

    @property
    def interval(self) -> int:
        return self.schedule.interval

    def groups_of(self, tables: Tables) -> tuple[int, ...]:
        """The URAM groups of a copy of each tensor of the tables, 0 of those that are not on chip."""
        known = dict(zip(self.resident, self.groups, strict=True))
        return tuple(known.get(s.tensor, 0) for s in tables.switches[: tables.tensor_count])

    @property
    def latency(self) -> int:
        return latency(self.tasks)


def plan(tables: Tables, relaxed: Relaxed, effort: Effort, below: float = inf, known: Planned | None = None) -> Planned:
    """The plan of least interval that the effort finds, from a `known` one of the same accelerator too; only one below
    `below` is of use. Everything in DRAM always works."""
    all_away = finished(tables, frozenset(), one_by_one(tables.tasks(frozenset())))
    if not tables.switches:
        return all_away
    native = compiled.library()
    found = _by_rooms(tables) if native is None else _by_local_search(native, tables, relaxed, effort, below, known)
    return min([all_away, *found], key=lambda p: p.interval)


def plan_in_order(tables: Tables, relax: Callable[[float], Relaxed]) -> Planned:
    """The plan that a program `relax(pages)` gives for one batch at a time, with the shortest schedule that fits."""
    room = float(tables.room)
    while True:
        on = relax(room).on if room > 0 else frozenset()
        tasks = tables.tasks(on)
        for schedule in [
            *sorted(schedules(tasks, len(tables.accelerator.chunks)), key=lambda s: s.interval),
            in_order(tasks),
        ]:
            made = finished(tables, on, schedule)
            if made.peak_pages <= tables.memory_pages:
                return made
        room -= max(1, made.peak_pages - tables.memory_pages)  # pinned weights take whole pages of each chunk


def in_order(tasks: tuple[Task, ...]) -> Schedule:
    """One batch at a time, layer after layer."""
    ends = list(accumulate(t.cycles for t in tasks))
    return Schedule(ends[-1], (0, *ends[:-1]), 1)


def one_by_one(tasks: tuple[Task, ...]) -> Schedule:
    """One layer a segment: the busiest chunk's time, which no schedule gets below, at the price of copies on chip."""
    return periodic(tasks, len(tasks))


def schedules(tasks: tuple[Task, ...], chunks: int) -> list[Schedule]:
    """The schedules of a given plan by different rules: first one layer a segment, then by their intervals."""
    counts = dict.fromkeys((1, *(max(2, round(f * chunks)) if f else FIRST_FIT for f in SEGMENTS_PER_CHUNK)))
    made = [first_fit(tasks) if c == FIRST_FIT else periodic(tasks, min(c, len(tasks))) for c in counts]
    return [one_by_one(tasks), *sorted(made, key=lambda s: s.interval)]


def _by_rooms(tables: Tables) -> list[Planned]:
    """Plans of the program for less and less room, each with the best schedule that fits the memory."""
    best: list[Planned] = []
    for share in ROOMS:
        relaxed = least_interval(tables, tables.room * share, integer=True)
        if best and relaxed.interval >= best[-1].interval:
            break
        for schedule in schedules(tables.tasks(relaxed.on), len(tables.accelerator.chunks)):
            if best and schedule.interval >= best[-1].interval:
                break
            made = finished(tables, relaxed.on, schedule)
            if made.peak_pages <= tables.memory_pages:
                best.append(made)
                break
    return best


def _by_local_search(
    native: CDLL, tables: Tables, relaxed: Relaxed, effort: Effort, below: float, known: Planned | None
) -> list[Planned]:
    """The plan at the least of the STRETCHES for which the local search fits one into the memory."""
    tasks = tables.tasks(relaxed.on)
    bound = max(relaxed.interval, *busy(tasks).values())
    by_rules = dict.fromkeys(schedules(tasks, len(tables.accelerator.chunks)))
    first = [finished(tables, relaxed.on, schedule) for schedule in by_rules]
    asked = compiled.plan_problem(tables)
    made = {} if known is None else {known.interval: known}

    def reached(interval: int) -> bool:
        """Whether a plan for this interval is found: from the last one, from the schedules with fewest batches in
        flight and so the least in memory, or from the one that always exists."""
        possible = [p for p in first[1:] if p.interval <= interval]
        starts = [made[n] for n in sorted(made)[:1]]
        starts += [*possible[::-1][: effort.starts - 1], first[0]]
        for seed, start in enumerate(starts, 1):
            state = start.on, start.groups_of(tables), start.schedule
            found = compiled.plan(native, asked, tables.memory_pages, state, interval, effort.tries, seed)
            if found is not None:
                on, groups, begins = found
                made[interval] = finished(tables, on, Schedule(interval, begins, 0), groups)
                return True
        return False

    intervals = [ceil(bound * stretch) for stretch in STRETCHES if bound * stretch < below]
    step = least_true(len(intervals), lambda n: reached(intervals[n]))
    finer = max(effort.finer, FINEST // len(tasks))
    if made and step and finer > 1:
        low = intervals[step - 1] + 1
        finer_ones = sorted({low + (min(made) - low) * n // finer for n in range(finer)})
        least_true(len(finer_ones), lambda n: reached(finer_ones[n]))
    return list(made.values())


def drawn(planned: Planned) -> Planned:
    """The plan with its batches in the pipeline for as short as its memory allows; interval and placements stay."""
    tasks, lives = planned.tasks, tuple(life for _, life in planned.lifetimes)
    pages, groups, _ = stock(planned.schedule, tasks, lives, planned.groups)
    room, free = max(planned.memory_pages, planned.peak_pages) - (planned.peak_pages - pages), groups
    found = [planned.schedule, drawn_together(planned.schedule, tasks)]
    counts = [c for c in FEW_SEGMENTS if c < len(tasks)]
    found += islice((s for c in counts if (s := periodic_at(tasks, c, planned.interval)) is not None), SHORTEST)
    for schedule in sorted(found, key=lambda s: pipeline_cycles(s, tasks)):
        now, taken, copies = stock(schedule, tasks, lives, planned.groups)
        if now <= room and taken <= free:
            peak = planned.peak_pages - pages + now
            return replace(planned, schedule=schedule, copies=tuple(copies), peak_pages=peak, peak_groups=taken)
    return planned


def least_true(count: int, holds: Callable[[int], bool]) -> int:
    """Bisect for the least of 0 .. count-1 for which `holds`, which is about monotone; count if there is none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def finished(tables: Tables, on: frozenset[int], schedule: Schedule, groups: Sequence[int] | None = None) -> Planned:
    """A plan with all that follows from its switches and its schedule, and from the URAM `groups` of a copy of each
    tensor of the tables, unless they are to be dealt here."""
    tasks, network = tables.tasks(on), tables.network
    layers = range(len(tasks))
    tensors = [n for n in sorted(on) if tables.switches[n].tensor]
    lives = tuple(tables.lifetime(n) for n in tensors)
    own = dealt(tables, on, schedule, tasks, lives) if groups is None else tuple(groups[n] for n in tensors)
    pages, taken, copies = stock(schedule, tasks, lives, own)
    pinned_pages, pinned_groups = tables.pinned(on, tables.uram_groups - taken)
    names = tuple(tables.switches[n].tensor for n in tensors)
    pinned = sorted(tables.switches[n].layer for n in on if not tables.switches[n].tensor)
    return Planned(
        accelerator=tables.accelerator,
        chunk_of=tables.chunk_of,
        works=tables.works,
        placements=tuple(tables.placement(i, on) for i in layers),
        best=tuple(tables.best(i, on) for i in layers),
        tasks=tasks,
        schedule=schedule,
        lifetimes=tuple(zip(names, lives, strict=True)),
        groups=own,
        resident=names,
        pinned=tuple(network.layers[i].name for i in pinned),
        copies=tuple(copies),
        memory_pages=tables.memory_pages,
        peak_pages=pages + pinned_pages,
        peak_groups=taken,
        pinned_groups=pinned_groups,
        on=on,
    )


def dealt(
    tables: Tables, on: frozenset[int], schedule: Schedule, tasks: tuple[Task, ...], lives: tuple[Lifetime, ...]
) -> tuple[int, ...]:
    """URAM groups for a copy of each tensor that is on, dealt in the order of their pages as long as BRAM does not hold
    everything: first groups of which at least half is used, then those of which less is."""
    groups = [0] * len(lives)
    if not tables.uram_groups or not lives:
        return tuple(groups)
    copies = copies_on_chip(schedule, tasks, lives) * np.array([replicas(life, tasks) for life in lives])
    pages = np.array([life.pages for life in lives])

    def over() -> bool:
        taken = copies @ np.array(groups)
        held = copies @ np.maximum(0, pages - URAM_PAGES * np.array(groups))
        return int(held.max()) + tables.pinned(on, tables.uram_groups - int(taken.max()))[0] > tables.memory_pages

    for rounding in (URAM_PAGES // 2, URAM_PAGES - 1):
        for n in sorted(range(len(lives)), key=lambda n: -lives[n].pages):
            if not over():
                return tuple(groups)
            alive = copies[:, n] > 0
            spare = tables.uram_groups - (copies @ np.array(groups))[alive]
            more = int((spare // copies[alive, n]).min())
            groups[n] = min(groups[n] + more, (lives[n].pages + rounding) // URAM_PAGES)
    return tuple(groups)
