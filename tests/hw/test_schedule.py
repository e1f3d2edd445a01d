"""The periodic schedule, simulated cycle by cycle: dependencies, exclusive chunks, on-chip occupancy, latency."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.hw.schedule import (
    Lifetime,
    Task,
    busy,
    drawn_together,
    first_fit,
    latency,
    occupancy,
    periodic,
    periodic_at,
    pipeline_cycles,
)


@st.composite
def networks(draw):
    count = draw(st.integers(1, 9))
    tasks = []
    for t in range(count):
        after = draw(st.sets(st.integers(0, t - 1), max_size=2)) if t else set()
        tasks.append(Task(draw(st.integers(0, 2)), draw(st.integers(1, 9)), tuple(sorted(after))))
    return tuple(tasks)


@st.composite
def residents(draw, tasks):
    lives = []
    for t in range(len(tasks)):
        readers = tuple(i for i, task in enumerate(tasks) if t in task.after)
        if readers and draw(st.booleans()):
            lives.append(Lifetime((t,), readers, draw(st.integers(1, 5))))
    return tuple(lives)


def simulate(schedule, tasks, lives, batches):
    """Walk all cycles of many batches: (pages in use each cycle, copies seen); asserts that the schedule is legal."""
    running, pages, copies = Counter(), Counter(), [Counter() for _ in lives]
    for b in range(batches):
        at = [s + b * schedule.interval for s in schedule.starts]
        for t, task in enumerate(tasks):
            for cycle in range(at[t], at[t] + task.cycles):
                running[task.chunk, cycle] += 1
            assert all(at[p] + tasks[p].cycles <= at[t] for p in task.after)
        for n, life in enumerate(lives):
            first = min(at[t] for t in life.writers)
            last = max(at[t] + tasks[t].cycles for t in (*life.writers, *life.readers))
            width = life.pages * len({tasks[t].chunk for t in life.readers})
            for cycle in range(first, last):
                pages[cycle] += width
                copies[n][cycle] += 1
    assert max(running.values()) == 1, "a chunk runs one layer at a time"
    return pages, copies


@settings(max_examples=400, deadline=None)
@given(st.data(), st.integers(1, 10))
def test_schedule_is_legal_and_its_occupancy_exact(data, segments):
    tasks = data.draw(networks())
    lives = data.draw(residents(tasks))
    schedule = periodic(tasks, segments)
    span = max(s + t.cycles for s, t in zip(schedule.starts, tasks, strict=True))
    warm = span // schedule.interval + 2
    pages, copies = simulate(schedule, tasks, lives, 2 * warm + 2)
    steady = range(warm * schedule.interval, (warm + 1) * schedule.interval)
    peak, counted = occupancy(schedule, tasks, lives)
    assert peak == max(pages[c] for c in steady)
    assert counted == [max(seen[c] for c in steady) for seen in copies]


@settings(max_examples=300, deadline=None)
@given(networks(), st.integers(1, 10))
def test_drawn_together_is_legal_and_no_task_is_later(tasks, segments):
    before = periodic(tasks, segments)
    after = drawn_together(before, tasks)
    assert after.interval == before.interval
    assert min(after.starts) == 0
    assert min(before.starts) == 0
    assert all(a <= b for a, b in zip(after.starts, before.starts, strict=True))
    assert {(a - b) % before.interval for a, b in zip(after.starts, before.starts, strict=True)} == {
        (after.starts[0] - before.starts[0]) % before.interval
    }
    span = max(s + t.cycles for s, t in zip(after.starts, tasks, strict=True))
    simulate(after, tasks, (), 2 * (span // after.interval) + 3)
    assert drawn_together(after, tasks) == after


@settings(max_examples=300, deadline=None)
@given(networks(), st.integers(1, 10), st.integers(0, 3))
def test_a_schedule_at_an_interval_is_there_if_it_is_long_enough(tasks, segments, more):
    least = periodic(tasks, segments)
    found = periodic_at(tasks, segments, least.interval + more)
    assert found is not None
    assert found.interval == least.interval + more
    simulate(found, tasks, (), 4)
    assert pipeline_cycles(found, tasks) == max(s + t.cycles for s, t in zip(found.starts, tasks, strict=True))
    assert periodic_at(tasks, segments, least.interval - 1) is None


@settings(max_examples=200, deadline=None)
@given(networks())
def test_enough_segments_reach_the_busiest_chunk(tasks):
    assert periodic(tasks, len(tasks)).interval == max(busy(tasks).values())


@settings(max_examples=200, deadline=None)
@given(networks())
def test_latency_is_a_simulated_run_of_one_batch(tasks):
    done, clock, started = {}, 0, {}
    while len(done) < len(tasks):
        for t, task in enumerate(tasks):
            if t in started and t not in done and clock == started[t] + task.cycles:
                done[t] = clock
        for t, task in enumerate(tasks):
            in_order = all(u in started for u in range(t) if tasks[u].chunk == task.chunk)
            idle = all(u in done for u in started if tasks[u].chunk == task.chunk)
            if t not in started and in_order and idle and all(p in done for p in task.after):
                started[t] = clock
        clock += 1
    assert latency(tasks) == max(done.values())


@settings(max_examples=300, deadline=None)
@given(networks())
def test_first_fit_takes_the_earliest_free_time(tasks):
    """Cycle by cycle: between what a task waits for and its start, its chunk is never free for long enough."""
    made = first_fit(tasks)
    simulate(made, tasks, (), 3)
    taken = set()
    for t, task in enumerate(tasks):
        ready = max((made.starts[p] + tasks[p].cycles for p in task.after), default=0)

        def cells(start, task=task):
            return {(task.chunk, (start + c) % made.interval) for c in range(task.cycles)}

        assert all(cells(start) & taken for start in range(ready, made.starts[t]))
        taken |= cells(made.starts[t])
