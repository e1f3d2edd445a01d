"""The memory plan as a small mixed-integer program, solved by HiGHS through SciPy.

Binary r[t]: tensor t is on chip; w[l]: the weights of layer l are pinned. A layer takes at least its cycles with all
operands on chip and at least the DRAM time of those that are not; a chunk's layers add up to at most the interval.
At every moment of the schedule that is given, the resident tensors alive and the pinned weights fit in the memory. The
plan that comes out is priced again with exact mappings, a new schedule and its true occupancy by the caller.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

RELATIVE_GAP = 2e-2
NODE_LIMIT = 60


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """A layer's chunk, its cycles with everything on chip, and the DRAM cycles of each operand that is not:
    `operands` as (tensor, cycles), `weight` for its weights (0: has none)."""

    chunk: int
    compute: float
    operands: tuple[tuple[str, float], ...]
    weight: float


def choose(
    layers: tuple[LayerTimes, ...],
    sizes: dict[str, int],
    weight_pages: tuple[float, ...],
    moments: list[dict[str, int]],
    room: float,
) -> tuple[set[str], set[int]]:
    """(tensors to keep on chip, layers whose weights to pin) for the least interval within `room` pages.

    `sizes` gives the pages of each tensor that may stay on chip, `moments` the copies of each that are alive together.
    """
    model = _Model()
    interval = model.variable(1.0)
    keep = {name: model.variable(0.0, binary=True) for name in sizes}
    pin = {i: model.variable(0.0, binary=True) for i, layer in enumerate(layers) if layer.weight > 0}
    chunks: dict[int, list[tuple[int, float]]] = {}
    for i, layer in enumerate(layers):
        time = model.variable(1e-3, low=layer.compute)
        chunks.setdefault(layer.chunk, []).append((time, 1.0))
        row = [(time, 1.0)]
        total = layer.weight
        if i in pin:
            row.append((pin[i], layer.weight))
        for name, cycles in layer.operands:
            total += cycles
            if name in keep:
                row.append((keep[name], cycles))
        if total > layer.compute:
            model.at_least(row, total)
    for terms in chunks.values():
        model.at_least([(interval, 1.0), *((v, -c) for v, c in terms)], 0.0)
    pinned = [(v, -weight_pages[i]) for i, v in pin.items()]
    for moment in moments or [{}]:
        alive = [(keep[name], -float(copies * sizes[name])) for name, copies in moment.items() if name in keep]
        model.at_least([*alive, *pinned], -room)
    values = model.solve()
    return (
        {name for name, v in keep.items() if values[v] > 0.5},
        {i for i, v in pin.items() if values[v] > 0.5},
    )


class _Model:
    """Rows and columns of a program that is minimised."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.integer: list[int] = []
        self.rows: list[tuple[list[tuple[int, float]], float]] = []

    def variable(self, cost: float, *, low: float = 0.0, binary: bool = False) -> int:
        self.cost.append(cost)
        self.low.append(low)
        self.high.append(1.0 if binary else np.inf)
        if binary:
            self.integer.append(len(self.cost) - 1)
        return len(self.cost) - 1

    def at_least(self, terms: list[tuple[int, float]], bound: float) -> None:
        if terms:
            self.rows.append((terms, bound))

    def solve(self) -> np.ndarray:
        rows = [(r, c, f) for r, (terms, _) in enumerate(self.rows) for c, f in terms]
        row, column, factor = (np.array(part) for part in zip(*rows, strict=True))
        matrix = csr_array((factor, (row, column)), shape=(len(self.rows), len(self.cost)))
        kinds = np.zeros(len(self.cost))
        kinds[self.integer] = 1
        with _quiet():
            result = milp(
                np.array(self.cost),
                integrality=kinds,
                bounds=Bounds(np.array(self.low), np.array(self.high)),
                constraints=LinearConstraint(matrix, np.array([bound for _, bound in self.rows]), np.inf),
                options={"mip_rel_gap": RELATIVE_GAP, "node_limit": NODE_LIMIT},
            )
        # Everything in DRAM satisfies every row, so the only other outcome is a node limit without a first answer.
        return np.zeros(len(self.cost)) if result.x is None else np.asarray(result.x)


@contextmanager
def _quiet() -> Iterator[None]:
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
