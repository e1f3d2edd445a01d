"""The program of an accelerator is below every plan and schedule on it; else certificates would be wrong."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from small import any_groups, fits, random_tables

from nashc.hw.schedule import Schedule, first_fit, periodic
from nashc.search.memory import least_interval
from nashc.search.plan import QUICK, finished, in_order, one_by_one, plan


def any_schedule(tasks, chance):
    """A legal schedule without a rule: tasks in network order at random free times of their chunks' periods, each up
    to two periods later than it could. None if a task finds no free time."""
    interval = max(1, *(sum(t.cycles for t in tasks if t.chunk == c) for c in {t.chunk for t in tasks}))
    interval += chance.choice([0, 0, 0, 1, 2, 5])
    taken, starts = set(), []
    for task in tasks:
        ready = max((starts[p] + tasks[p].cycles for p in task.after), default=0)
        last = ready + chance.choice([1, 2, interval, interval, 2 * interval])
        free = [
            at
            for at in range(ready, last)
            if not any((task.chunk, (at + c) % interval) in taken for c in range(task.cycles))
        ]
        if not free:
            return None
        at = chance.choice([free[0], chance.choice(free)])
        taken |= {(task.chunk, (at + c) % interval) for c in range(task.cycles)}
        starts.append(at)
    return Schedule(interval, tuple(starts), 0)


def fitting(tables, on, schedules, chance):
    made = (finished(tables, on, schedule, any_groups(tables, chance)) for schedule in schedules if schedule)
    return [m for m in made if fits(m, tables)]


def ruled(tasks):
    return [in_order(tasks), one_by_one(tasks), first_fit(tasks), *(periodic(tasks, n) for n in range(1, len(tasks)))]


def below(tables, interval, bounds):
    for bound in bounds:
        assert bound.interval <= interval, (bound, interval)


def bounds_of(tables):
    return [
        least_interval(tables, tables.room, integer=False),
        least_interval(tables, tables.room, integer=True, exact=True),
    ]


@settings(max_examples=200, deadline=None)
@given(random_tables(), st.integers(0, 10**9))
def test_no_plan_and_schedule_is_below_the_program(tables, seed):
    chance = random.Random(seed)
    bounds = bounds_of(tables)
    for _ in range(40):
        on = frozenset(n for n in range(len(tables.switches)) if chance.random() < chance.choice([0.5, 0.9]))
        tasks = tables.tasks(on)
        for made in fitting(tables, on, [any_schedule(tasks, chance) for _ in range(12)], chance):
            below(tables, made.interval, bounds)
    for made in fitting(tables, on, ruled(tasks), chance):
        below(tables, made.interval, bounds)


@settings(max_examples=100, deadline=None)
@given(random_tables(longest=(9, 10**4, 10**7)))
def test_no_plan_that_is_found_is_below_the_program(tables):
    bounds = bounds_of(tables)
    for relaxed in bounds:
        made = plan(tables, relaxed, QUICK)
        assert fits(made, tables)
        below(tables, made.interval, bounds)
