"""The objectives of a search: what a plan on an accelerator is worth, at the least and in the end.

fps minimises the interval of the periodic schedule. latency, energy and edp do not care for it: their value is a sum
over the layers, and one batch at a time, which needs least memory, reaches the least of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from math import inf

from nashc.search.memory import Relaxed, least_interval, least_total
from nashc.search.plan import Planned, plan, plan_in_order
from nashc.search.tables import Tables


def relaxed(
    objective: str, tables: Tables, room: float, *, integer: bool, at_least: float = 0.0, exact: bool = False
) -> Relaxed:
    """The relaxed program of an accelerator, `interval` in cycles a period, cycles, pJ, or for edp in cycles x pJ of
    its plan, which is no bound."""
    if objective == "fps":
        return least_interval(tables, room, integer=integer, at_least=at_least, exact=exact)
    found = least_total(tables, room, _costs(objective, tables), integer=integer)
    return replace(found, interval=_product(tables, found.on)) if objective == "edp" else found


def planned(objective: str, tables: Tables, start: Relaxed, tries: int, below: float = inf) -> Planned:
    """The best plan found on an accelerator; for fps with so many tries of the local search, and only one of less than
    `below` cycles an image is of use."""
    if objective == "fps":
        return plan(tables, start, tries, below * tables.accelerator.batch)
    relax: Callable[[float], Relaxed] = lambda room: relaxed(objective, tables, room, integer=True)  # noqa: E731
    return plan_in_order(tables, relax)


def relaxed_value(objective: str, tables: Tables, start: Relaxed) -> float:
    """About what a plan on the accelerator is worth, in units of the objective."""
    if objective == "latency":
        return start.interval
    value = start.interval / tables.accelerator.batch
    return value / tables.board.clock_mhz / 1e3 if objective == "edp" else value


def _product(tables: Tables, on: Collection[int]) -> float:
    """Cycles x pJ of a batch alone."""
    masks = [tables.mask(i, on) for i in range(len(tables.cycles))]
    cycles, energy = (
        sum(row[mask] for row, mask in zip(rows, masks, strict=True)) for rows in (tables.cycles, tables.energies)
    )
    return cycles * energy


def _costs(objective: str, tables: Tables) -> tuple[tuple[float, ...], ...]:
    """What each layer adds under each placement. Energy x latency is a product of two sums: near the plan with the
    least of both, it changes as the sum of their relative changes."""
    if objective == "latency":
        return tuple(tuple(float(c) for c in row) for row in tables.cycles)
    if objective == "energy":
        return tables.energies
    cycles, energy = (sum(min(row) for row in rows) for rows in (tables.cycles, tables.energies))
    return tuple(
        tuple(c / cycles + e / energy for c, e in zip(row, pj, strict=True))
        for row, pj in zip(tables.cycles, tables.energies, strict=True)
    )
