"""The periodic schedule of a network: every chunk works on another image (batch) at the same time.

Task t of batch b starts at start[t] + b * interval. The network is cut into segments of consecutive layers; segment s
of batch b shares a period with segment s+1 of batch b-1. Within a period the segments are list-scheduled, which gives
each chunk an order; the least interval of those orders follows from difference constraints. More segments keep more
batches in flight and leave the chunks less idle; with one layer a segment any interval down to the busiest chunk's
time is reached (the dependency graph has no cycle over batches).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nashc.core.number import Ints
from nashc.hw.machine import URAM_PAGES

GROWTH = 0.005


@dataclass(frozen=True, slots=True)
class Task:
    """One layer on its chunk: `chunk` a resource that runs one task at a time, `after` the tasks it waits for."""

    chunk: int
    cycles: int
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Start of every task of batch 0; batch b starts b * interval cycles later."""

    interval: int
    starts: tuple[int, ...]
    segments: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A resident tensor: tasks that write it, tasks that read it, and the pages of one copy."""

    writers: tuple[int, ...]
    readers: tuple[int, ...]
    pages: int


def busy(tasks: tuple[Task, ...]) -> dict[int, int]:
    """Busy cycles of each chunk in a period."""
    total: dict[int, int] = {}
    for task in tasks:
        total[task.chunk] = total.get(task.chunk, 0) + task.cycles
    return total


def periodic(tasks: tuple[Task, ...], segments: int) -> Schedule:
    """The schedule with that many segments at the least interval of its chunk orders."""
    stage = cut(tasks, segments)
    order = _list_schedule(tasks, stage)
    edges = _constraints(tasks, stage, order)
    low, high = max(busy(tasks).values()), sum(t.cycles for t in tasks)
    starts = _longest(edges, len(tasks), low)
    if starts is None:
        while low < high:
            middle = (low + high) // 2
            if _longest(edges, len(tasks), middle) is None:
                low = middle + 1
            else:
                high = middle
        starts = _longest(edges, len(tasks), low)
    assert starts is not None, "the sum of all tasks is always a feasible interval"
    return Schedule(low, tuple(int(s) for s in starts), segments)


def periodic_at(tasks: tuple[Task, ...], segments: int, interval: int) -> Schedule | None:
    """The schedule with that many segments at a given interval; None if its chunk orders need a longer one."""
    if interval < max(busy(tasks).values()):
        return None
    stage = cut(tasks, segments)
    starts = _longest(_constraints(tasks, stage, _list_schedule(tasks, stage)), len(tasks), interval)
    return None if starts is None else Schedule(interval, tuple(int(s) for s in starts), segments)


def pipeline_cycles(schedule: Schedule, tasks: tuple[Task, ...]) -> int:
    """Cycles from the start of a batch's first task to the end of its last one."""
    return max(s + t.cycles for s, t in zip(schedule.starts, tasks, strict=True)) - min(schedule.starts)


def first_fit(tasks: tuple[Task, ...]) -> Schedule:
    """Modulo schedule by first fit: in network order, each task takes the earliest free time of its chunk's period.

    Early layers, whose tensors are large, follow each other without waiting; the later, smaller ones fill the gaps.
    The interval grows in steps of GROWTH from the busiest chunk's time until all tasks find a place.
    """
    least = max(busy(tasks).values())
    interval = least
    while True:
        starts = _first_fit(tasks, interval)
        if starts is not None:
            return Schedule(interval, tuple(starts), 0)
        interval = max(interval + 1, round(interval * (1 + GROWTH)))


def _first_fit(tasks: tuple[Task, ...], interval: int) -> list[int] | None:
    """Starts of all tasks, or None if one does not fit into what is left of its chunk's period."""
    taken: dict[int, list[tuple[int, int]]] = {}
    starts: list[int] = []
    for task in tasks:
        ready = max((starts[p] + tasks[p].cycles for p in task.after), default=0)
        slots = taken.setdefault(task.chunk, [])
        start = _earliest(slots, ready, task.cycles, interval)
        if start is None:
            return None
        starts.append(start)
        begin = start % interval
        end = begin + task.cycles
        insort(slots, (begin, min(end, interval)))
        if end > interval:
            insort(slots, (0, end - interval))
    return starts


def _earliest(slots: list[tuple[int, int]], ready: int, cycles: int, interval: int) -> int | None:
    """The earliest start from `ready` on at which `cycles` are free in a period with the sorted `slots` taken."""
    if cycles > interval:
        return None
    time, last = ready, ready + interval
    while time < last:
        at = time % interval
        end = at + cycles
        # of the slots that begin before the end, in this period or the next, the last one ends last
        before = bisect_left(slots, (end - interval,))
        if before:
            until = slots[before - 1][1] + interval
        else:
            before = bisect_left(slots, (end,))
            until = slots[before - 1][1] if before else at
        if until <= at:
            return time
        time += until - at
    return None


def drawn_together(schedule: Schedule, tasks: tuple[Task, ...]) -> Schedule:
    """The schedule with every task at the earliest period that its dependencies allow, at its place in the period.

    Chunks run the same tasks at the same places of every period, so it is legal where the given one is; no task starts
    later, and fewer batches are in flight.
    """
    interval, starts = schedule.interval, list[int]()
    for task, before in zip(tasks, schedule.starts, strict=True):
        ready = max((starts[p] + tasks[p].cycles for p in task.after), default=0)
        starts.append(ready + (before - ready) % interval)
    first = min(starts)
    return Schedule(interval, tuple(start - first for start in starts), schedule.segments)


def latency(tasks: tuple[Task, ...]) -> int:
    """Cycles of one batch alone in the pipeline, tasks in their order on each chunk."""
    end: list[int] = []
    free: dict[int, int] = {}
    for task in tasks:
        start = max([free.get(task.chunk, 0), *(end[p] for p in task.after)])
        end.append(start + task.cycles)
        free[task.chunk] = end[-1]
    return max(end)


def copies_on_chip(schedule: Schedule, tasks: tuple[Task, ...], lifetimes: Sequence[Lifetime]) -> Ints:
    """Copies of each tensor at each moment of a period at which one more is on chip: [moments, tensors].

    A copy lives from the start of its first writer to the end of its last reader.
    """
    first = [min(schedule.starts[t] for t in life.writers) for life in lifetimes]
    last = [max(schedule.starts[t] + tasks[t].cycles for t in (*life.writers, *life.readers)) for life in lifetimes]
    begin = np.array(first, dtype=np.int64) % schedule.interval
    whole, rest = np.divmod(np.array(last, dtype=np.int64) - first, schedule.interval)
    since = (np.unique(begin)[:, None] - begin) % schedule.interval
    copies: Ints = whole + (since < rest)
    return copies


def replicas(life: Lifetime, tasks: tuple[Task, ...]) -> int:
    """Copies of one batch: each chunk that reads a tensor has one of its own, written at the same time, because a page
    has one read port."""
    return max(1, len({tasks[t].chunk for t in life.readers}))


def occupancy(schedule: Schedule, tasks: tuple[Task, ...], lifetimes: Sequence[Lifetime]) -> tuple[int, list[int]]:
    """(most pages in use in any cycle of the period, copies of each tensor for a chunk that reads it)."""
    pages, _, copies = stock(schedule, tasks, lifetimes, (0,) * len(lifetimes))
    return pages, copies


def stock(
    schedule: Schedule, tasks: tuple[Task, ...], lifetimes: Sequence[Lifetime], groups: Sequence[int]
) -> tuple[int, int, list[int]]:
    """`occupancy` with `groups` of each copy in URAM: (most pages, most URAM groups, copies of each tensor)."""
    if not lifetimes:
        return 0, 0, []
    copies = copies_on_chip(schedule, tasks, lifetimes)
    whole = copies * np.array([replicas(life, tasks) for life in lifetimes])
    in_uram = np.array(groups, dtype=np.int64)
    in_bram = np.maximum(0, np.array([life.pages for life in lifetimes]) - URAM_PAGES * in_uram)
    return int((whole @ in_bram).max()), int((whole @ in_uram).max()), [int(c) for c in copies.max(axis=0)]


def cut(tasks: tuple[Task, ...], segments: int) -> Ints:
    """Segment of each task: consecutive tasks, about the same time in each segment."""
    if segments >= len(tasks):
        return np.arange(len(tasks), dtype=np.int64)
    cycles = np.array([t.cycles for t in tasks], dtype=np.int64)
    middle = np.cumsum(cycles) - cycles // 2
    stage: Ints = np.minimum(middle * segments // max(1, int(cycles.sum())), segments - 1)
    return stage


def _list_schedule(tasks: tuple[Task, ...], stage: Ints) -> dict[int, list[int]]:
    """Order of the tasks on each chunk within one period: ready tasks first, those with most work behind them first."""
    behind = [0] * len(tasks)
    follows: list[list[int]] = [[] for _ in tasks]
    for t in range(len(tasks) - 1, -1, -1):
        behind[t] += tasks[t].cycles
        for p in tasks[t].after:
            if stage[p] == stage[t]:
                behind[p] = max(behind[p], behind[t])
                follows[p].append(t)
    waiting = [sum(1 for p in task.after if stage[p] == stage[t]) for t, task in enumerate(tasks)]
    ready_at = [0] * len(tasks)
    ready = {t for t, count in enumerate(waiting) if count == 0}
    free: dict[int, int] = {}
    order: dict[int, list[int]] = {}
    while ready:
        t = min(ready, key=lambda i: (max(ready_at[i], free.get(tasks[i].chunk, 0)), -behind[i], i))
        ready.remove(t)
        chunk = tasks[t].chunk
        end = max(ready_at[t], free.get(chunk, 0)) + tasks[t].cycles
        free[chunk] = end
        order.setdefault(chunk, []).append(t)
        for f in follows[t]:
            ready_at[f] = max(ready_at[f], end)
            waiting[f] -= 1
            if waiting[f] == 0:
                ready.add(f)
    return order


def _constraints(tasks: tuple[Task, ...], stage: Ints, order: dict[int, list[int]]) -> Ints:
    """Edges (from, to, cycles, periods): start[to] >= start[from] + cycles - periods * interval."""
    edges: list[tuple[int, int, int, int]] = []
    for t, task in enumerate(tasks):
        edges.extend((p, t, tasks[p].cycles, 0) for p in task.after)
    for sequence in order.values():
        for a, b in pairwise(sequence):
            edges.append((a, b, tasks[a].cycles, int(stage[a] - stage[b])))
        a, b = sequence[-1], sequence[0]
        if a != b:
            edges.append((a, b, tasks[a].cycles, int(stage[a] - stage[b]) + 1))
    return np.array(edges, dtype=np.int64).reshape(-1, 4)


def _longest(edges: Ints, count: int, interval: int) -> Ints | None:
    """Earliest starts that keep all constraints at an interval; None if there are none."""
    starts = np.zeros(count, dtype=np.int64)
    source, target = edges[:, 0], edges[:, 1]
    weight = edges[:, 2] - edges[:, 3] * interval
    for _ in range(count + 1):
        later = starts.copy()
        np.maximum.at(later, target, starts[source] + weight)
        if (later == starts).all():
            return starts
        starts = later
    return None
