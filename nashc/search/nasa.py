"""NASA-F's accelerator on our boards and in our cost model.

Its lanes are split so that the ideal times of the units are equal, each unit's one chunk runs all its layers on a
row-stationary array (filter rows x output rows, repeated over output channels; depthwise layers channel by channel),
feature maps and weights stay in DRAM, one image at a time. Rules as published with NASA-F (ICCAD 2023) and its code.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nashc.board import Board
from nashc.core.design import Design, Resources
from nashc.core.network import Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.resources import chunk_resources, machine_of, usable
from nashc.search.nodes import Progress
from nashc.search.solve import Search
from nashc.search.space import BUFFER_LEVELS, Slot, SlotOptions, partitions, slot_options

SCALE_STEP = 0.95


def nasa_f(network: Network, board: Board, options: Options, progress: Progress | None = None) -> Design:
    """The NASA-F baseline; raises NashcError if not even a few lanes a unit fit."""
    if options.clock_mhz is not None:
        board = replace(board, clock_mhz=options.clock_mhz)
    fixed = replace(options, memory_plan=False, batch=1, clock_mhz=None)
    slots = partitions(network, merged_only=True)[0]
    machine = machine_of(board)
    tables = {slot: row_stationary(slot_options(slot, network, board, machine, options)) for slot in slots}
    chosen = equal_times(network, board, options, tables)
    search = Search(network, board, fixed, progress, [slots], lambda slot: tables[slot].only(chosen[slot]))
    return search.run()


def row_stationary(table: SlotOptions) -> SlotOptions:
    """The options whose array is filter rows x output rows x output channels."""
    if table.slot.unit is Unit.VECTOR:
        return table
    factors = table.factors
    single = (factors[:, [0, 2, 4, 6]] == 1).all(axis=1)
    rows = factors[:, 5] == factors[:, 5].max()
    return table.take(np.flatnonzero(single & rows))


def equal_times(network: Network, board: Board, options: Options, tables: dict[Slot, SlotOptions]) -> dict[Slot, int]:
    """For each slot the option with most lanes within its share of the operations, at the largest scale that fits."""
    limit = usable(board, options.max_lut, options.max_dsp, options.max_bram36)
    work = {slot: sum(network.layers[i].nest.macs * terms(network, i) for i in slot.layers) for slot in tables}
    most = {slot: max(1, work[slot]) for slot in tables if slot.unit is not Unit.VECTOR}
    scale = max((int(tables[s].lanes.max()) / w for s, w in most.items()), default=1.0)
    while most and all(len(t) for t in tables.values()):
        picks = {}
        for slot, table in tables.items():
            share = scale * work[slot] if slot in most else table.lanes.min()
            fits = np.flatnonzero(table.lanes <= max(share, table.lanes.min()))
            picks[slot] = int(fits[np.argmax(table.lanes[fits])])
        for level in range(len(BUFFER_LEVELS)):
            chunks = tuple(tables[s].chunk(i, level, 1) for s, i in picks.items())
            if replace(sum(chunk_resources(board, chunks, limit.dsp), Resources()), ff=0).fits(limit):
                return picks
        if all(tables[s].lanes[i] == tables[s].lanes.min() for s, i in picks.items()):
            break
        scale *= SCALE_STEP
    raise NashcError(f"the NASA-F baseline of '{network.name}' does not fit on {board.name}", hint="try a larger board")


def terms(network: Network, i: int) -> int:
    weights = network.layers[i].weights
    return weights.terms if weights else 1
