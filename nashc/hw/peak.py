"""The most lanes that a board has room for: a bound of every design's operations a cycle, by units alone and mixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from nashc.board import Board
from nashc.core.design import Resources


def peak_lanes(
    board: Board, limit: Resources, units: Sequence[Sequence[str]], shares: Sequence[float] | None = None
) -> list[float]:
    """Lanes of each unit within the LUTs and DSPs of `limit`, with nothing beside them.

    units: of each, the lane kinds of the board that are its function, such as ("dsp", "dsp_packed", "lut8x8"). shares:
    of the operations of a network, all its lanes busy all the time; None: whatever gives most lanes together. The
    answer of a linear program, so lanes are fractions; a lane takes as many LUTs as where it takes fewest. ValueError:
    shares that are negative or not 1 together.
    """
    kinds = [(unit, board.lanes[kind]) for unit, own in enumerate(units) for kind in own]
    luts = [min(lane.lut_scalar, lane.lut_tree) for _, lane in kinds]
    of_unit = np.array([[float(unit == n) for unit, _ in kinds] for n in range(len(units))])
    mix = {}
    if shares is not None:
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"shares {list(shares)} are not those of a whole")
        mix = {"A_eq": of_unit - np.outer(shares, np.ones(len(kinds))), "b_eq": np.zeros(len(units))}
    found = linprog(
        -np.ones(len(kinds)),
        A_ub=[luts, [lane.dsp_per_lane for _, lane in kinds]],
        b_ub=[limit.lut, limit.dsp],
        **mix,
    )
    return [float(lanes) for lanes in of_unit @ found.x]
