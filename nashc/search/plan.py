"""Fine stage for one accelerator: memory plan and schedule, chosen together on the exact table of every layer.

A small program proposes what stays on chip (nashc.search.memory). Compiled, a local search then changes plan and
schedule together, at ever shorter intervals, towards the program's bound; without it, the program is given
less and less room until some schedule of its answer fits. Either way what comes out is priced with the definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
RACE, RACERS = 0.4, 3
"""Share of the tries that so many first schedules get in a race, from the best of which the rest goes on."""
HURRIED, QUICK, FURTHER = 10_000, 80_000, 100_000
"""Changes that the local search tries for a plan, and at a time to improve on one."""
PARTS, WORTHWHILE = 15, 0.997
"""So many times plans are improved; again the same one where the last time made its value smaller by that factor."""
FULL = 100
"""Networks of more layers than this get fewer tries in proportion: each takes longer."""
FEW_SEGMENTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
SHORTEST = 4
"""Schedules of so many segments, the first few that can, keep the interval of a plan with fewer batches in flight."""


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


def plan(tables: Tables, relaxed: Relaxed, tries: int, below: float = inf) -> Planned:
    """The plan of least interval that so many tries find; only one below `below` is of use. Everything in DRAM always
    works."""
    all_away = finished(tables, frozenset(), one_by_one(tables.tasks(frozenset())))
    if not tables.switches:
        return all_away
    if compiled.library() is None:
        found = _by_rooms(tables)
    else:
        found = _by_local_search(tables, relaxed, tries, min(below, all_away.interval))
    return min([all_away, *found], key=lambda p: p.interval)


def plan_further(tables: Tables, relaxed: Relaxed, known: Planned) -> Planned:
    """A known plan of the tables, or a better one that the local search finds from it."""
    if compiled.library() is None or not tables.switches:
        return known
    return _descents(tables, relaxed)(_state(known, tables), FURTHER, known.interval, 0) or known


def plan_near(tables: Tables, relaxed: Relaxed, known: Planned, tries: int) -> Planned | None:
    """The plan that the local search finds from the switches and the orders of one of a similar accelerator."""
    if compiled.library() is None or not tables.switches:
        return None
    layers = tables.network.layers
    on = (s.tensor in known.resident if s.tensor else layers[s.layer].name in known.pinned for s in tables.switches)
    state = frozenset(n for n, is_on in enumerate(on) if is_on), known.groups_of(tables), known.schedule
    return _descents(tables, relaxed)(state, tries, one_by_one(tables.tasks(frozenset())).interval, 0)


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
    return [one_by_one(tasks), *fewer_segments(tasks, chunks)]


def fewer_segments(tasks: tuple[Task, ...], chunks: int) -> list[Schedule]:
    """The schedules of a given plan with fewer segments than layers, or by first fit, by their intervals."""
    counts = dict.fromkeys((1, *(max(2, round(f * chunks)) if f else FIRST_FIT for f in SEGMENTS_PER_CHUNK)))
    made = [first_fit(tasks) if c == FIRST_FIT else periodic(tasks, min(c, len(tasks))) for c in counts]
    return sorted(made, key=lambda s: s.interval)


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


def _by_local_search(tables: Tables, relaxed: Relaxed, tries: int, below: float) -> list[Planned]:
    """Plans below an interval: a race from the schedules by rules of the program's answer that promise most, then on
    from the best."""
    descend = _descents(tables, relaxed)
    by_rules = fewer_segments(tables.tasks(relaxed.on), len(tables.accelerator.chunks))
    starts = [finished(tables, relaxed.on, schedule) for schedule in dict.fromkeys(by_rules)]
    starts = sorted(starts, key=lambda p: p.interval * max(1.0, p.peak_pages / max(1, p.memory_pages)))[:RACERS]
    racing = int(tries * RACE)
    made = [descend(_state(start, tables), racing // len(starts), below, seed) for seed, start in enumerate(starts)]
    found = [p for p in made if p is not None]
    best = min(found or starts[:1], key=lambda p: p.interval)
    last = descend(_state(best, tables), tries - racing, below, len(starts))
    return found if last is None else [*found, last]


def _state(planned: Planned, tables: Tables) -> compiled.Start:
    return planned.on, planned.groups_of(tables), planned.schedule


def _descents(tables: Tables, relaxed: Relaxed) -> Callable[[compiled.Start, int, float, int], Planned | None]:
    """The local search on an accelerator: (where to start, tries, interval to stay below, seed) to a plan that fits,
    None where it finds none."""
    native, asked, bound = compiled.library(), compiled.plan_problem(tables), ceil(relaxed.interval)
    assert native is not None
    share = min(1.0, FULL / len(tables.cycles))

    def descend(start: compiled.Start, tries: int, below: float, seed: int) -> Planned | None:
        found = compiled.plan(native, asked, tables.memory_pages, start, (bound, ceil(below)), int(tries * share), seed)
        return None if found is None else finished(tables, *found)

    return descend


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
