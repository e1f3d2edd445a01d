"""The compiled parts of the search (native/*.cpp), if the install could build them.

The mapping search and the Pareto front give the same answers as the NumPy ones in nashc.search.mapping and coarse, up
to a hundred times faster; tests compare them. The local search for plan and schedule has no other form: without it,
nashc.search.plan takes what a simpler rule finds.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import nashc
from nashc.core.design import Buffers, Placement, Work
from nashc.core.loops import LOOP_DIMS, Unroll
from nashc.core.number import Ints
from nashc.hw.dataflows import DATAFLOWS, Dataflow, distinct_orders
from nashc.hw.machine import CHANNEL_BLOCK, CHANNEL_PARAMETER_BITS, PAGE_BITS, PARTIAL_SUM_BITS, URAM_PAGES, Machine
from nashc.hw.schedule import Schedule
from nashc.hw.tiles import TILE_DIMS

if TYPE_CHECKING:
    from nashc.search.tables import Tables  # which needs this module for its mappings

MOST_EXTRAS = 8
_I64 = ctypes.c_int64
_NEST = (*LOOP_DIMS, "iy", "ix")
_WORK = ("batch", "input_bits", "output_bits", "weight_bits", "terms", "scattered")
_GRID = ("images", "blocks", "rows", "columns")
_BUFFERS = ("input_bits", "weight_bits", "output_bits")
_MACHINE = (
    "burst_bits", "burst_latency", "burst_overhead", "bursts_in_flight", "port_bits",
    "step_overhead", "layer_overhead", "pipeline_depth", "post_lanes",
)  # fmt: skip


class Problem(ctypes.Structure):
    """One layer, chunk and placement, field by field as native/mapping.cpp declares it."""

    _fields_ = (
        *((name, _I64) for name in _NEST),
        ("stride", _I64 * 2),
        ("dilation", _I64 * 2),
        ("pad", _I64 * 4),
        *((name, _I64) for name in _WORK),
        ("extras", _I64),
        ("extra_bits", _I64 * MOST_EXTRAS),
        ("extra_full", _I64 * MOST_EXTRAS),
        ("extra_on_chip", _I64 * MOST_EXTRAS),
        ("input_on_chip", _I64),
        ("output_on_chip", _I64),
        ("weights_on_chip", _I64),
        ("unroll", _I64 * 7),
        ("input_buffer", _I64),
        ("weight_buffer", _I64),
        ("output_buffer", _I64),
        ("dram_bits", _I64),
        *((name, _I64) for name in _MACHINE),
        ("channel_block", _I64),
        ("partial_sum_bits", _I64),
        ("channel_parameter_bits", _I64),
    )


class Flow(ctypes.Structure):
    _fields_ = (("loops", _I64 * 6), ("fresh", _I64))


class Found(ctypes.Structure):
    _fields_ = (("tile", _I64 * 6), ("flow", _I64), ("cycles", _I64), ("exact", _I64))


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None where this install has none."""
    places = [Path(path) / "search" for path in nashc.__path__]
    places.append(Path(sysconfig.get_path("platlib")) / "nashc" / "search")
    for place in places:
        file = place / "native" / "nashc_search.so"
        if file.exists():
            try:
                found = ctypes.CDLL(str(file))
            except OSError:  # built for another machine
                continue
            for name in ("fitting", "best_mapping", "plan", "front"):
                getattr(found, f"nashc_{name}").restype = _I64
            return found
    return None


class Grid(ctypes.Structure):
    _fields_ = (
        *((f"n_{name}", _I64) for name in _GRID),
        *((name, ctypes.POINTER(_I64)) for name in _GRID),
    )


Lists = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Tile sizes of a layer: images, blocks (g, k, c after one another), rows, columns."""


@lru_cache(maxsize=4096)
def _grid(lists: Lists) -> Grid:
    images, blocks, rows, columns = lists
    arrays = [ctypes.cast((_I64 * len(sizes))(*sizes), ctypes.POINTER(_I64)) for sizes in lists]
    return Grid(len(images), len(blocks) // 3, len(rows), len(columns), *arrays)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Tiles of a grid that fit in the buffers of a chunk, by the least cycles of each, and the mappings that they have.

    What is known of them holds wherever the operands are and however much of the DRAM the chunk has.
    """

    grid: Grid
    tiles: Ints
    considered: int


@lru_cache(maxsize=8)
def flow_table(flows: tuple[Dataflow, ...]) -> ctypes.Array[Flow]:
    table = (Flow * len(flows))()
    for row, flow, fresh in zip(table, flows, distinct_orders(flows), strict=True):
        row.loops[:] = [TILE_DIMS.index(d) for d in flow.loops]
        row.fresh = sum(1 << code for code in fresh)
    return table


def problem(work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine) -> Problem:
    """All but the placement (`place`)."""
    nest, made = work.nest, Problem()
    for name in _NEST:
        setattr(made, name, getattr(nest, name))
    made.stride[:], made.dilation[:], made.pad[:] = nest.stride, nest.dilation, nest.pad
    for name in _WORK:
        setattr(made, name, getattr(work, name))
    made.extras = len(work.extras)
    for i, extra in enumerate(work.extras):
        made.extra_bits[i], made.extra_full[i] = extra.bits, extra.full
    made.unroll[:] = [getattr(unroll, d) for d in LOOP_DIMS]
    made.input_buffer, made.weight_buffer, made.output_buffer = (getattr(buffers, name) for name in _BUFFERS)
    made.dram_bits = dram_bits
    for name in _MACHINE:
        setattr(made, name, getattr(machine, name))
    made.channel_block, made.partial_sum_bits = CHANNEL_BLOCK, PARTIAL_SUM_BITS
    made.channel_parameter_bits = CHANNEL_PARAMETER_BITS
    return made


def place(asked: Problem, placement: Placement) -> None:
    """Say where the operands of a problem's layer are."""
    asked.input_on_chip, *extras = placement.inputs
    asked.extra_on_chip[: len(extras)] = extras
    asked.output_on_chip, asked.weights_on_chip = placement.output, placement.weights


def fitting(native: ctypes.CDLL, asked: Problem, lists: Lists) -> Fitting:
    """The tiles of these sizes that fit, ready to be searched."""
    flows, grid = flow_table(tuple(DATAFLOWS.values())), _grid(lists)
    tiles = np.empty((grid.n_images * grid.n_blocks * grid.n_rows * grid.n_columns, 2), dtype=np.int64)
    considered = _I64()
    count = native.nashc_fitting(
        ctypes.byref(asked), flows, _I64(len(flows)), ctypes.byref(grid), ctypes.c_void_p(tiles.ctypes.data),
        ctypes.byref(considered),
    )  # fmt: skip
    return Fitting(grid, tiles[:count].copy(), considered.value)


def search(native: ctypes.CDLL, asked: Problem, fits: Fitting) -> Found | None:
    """The best mapping over tiles that fit; None if there is none."""
    flows = flow_table(tuple(DATAFLOWS.values()))
    found = Found()
    status = native.nashc_best_mapping(
        ctypes.byref(asked), flows, _I64(len(flows)), ctypes.byref(fits.grid), ctypes.c_void_p(fits.tiles.ctypes.data),
        _I64(len(fits.tiles)), ctypes.byref(found),
    )  # fmt: skip
    if status < 0:
        raise MemoryError("mapping search")
    return found if status else None


def price(
    native: ctypes.CDLL, asked: Problem, tiles: list[tuple[int, ...]], flows: list[int]
) -> tuple[list[int], list[int]]:
    """(cycles, lower bounds) of given tiles (n, g, k, c, oy, ox) with the dataflows of those numbers."""
    count = len(tiles)
    cycles, bounds = (_I64 * count)(), (_I64 * count)()
    flat = (_I64 * (6 * count))(*(size for tile in tiles for size in tile))
    table = flow_table(tuple(DATAFLOWS.values()))
    native.nashc_price(ctypes.byref(asked), table, _I64(count), flat, (_I64 * count)(*flows), cycles, bounds)
    return list(cycles), list(bounds)


def front(native: ctypes.CDLL, costs: np.ndarray, order: Ints) -> Ints:
    """The columns of [rows, columns] that no earlier one of `order` beats in every row."""
    table = np.ascontiguousarray(costs.T, dtype=np.float64)
    kept = np.empty(len(order), dtype=np.int64)
    count = native.nashc_front(
        _I64(table.shape[1]), _I64(len(order)), ctypes.c_void_p(table.ctypes.data),
        ctypes.c_void_p(order.ctypes.data), ctypes.c_void_p(kept.ctypes.data),
    )  # fmt: skip
    if count < 0:
        raise MemoryError("front")
    return kept[:count].copy()


class PlanProblem(ctypes.Structure):
    """Layers, switches and tables of an accelerator, as native/plan.cpp declares them."""

    _fields_ = (
        *((name, _I64) for name in (
            "layers", "chunks", "tensors", "switches", "page_bits", "uram_groups", "group_pages",
        )),
        *((name, ctypes.POINTER(_I64)) for name in (
            "chunk", "after_at", "after", "switches_at", "layer_switches", "table_at", "table", "room", "owner",
            "replicas", "writers_at", "writers", "readers_at", "readers",
        )),
    )  # fmt: skip


def plan_problem(tables: Tables) -> PlanProblem:
    """The problem; the arrays that it points to live as long as it does."""
    network, tensors = tables.network, tables.switches[: tables.tensor_count]
    chunks = len(tables.accelerator.chunks)
    place = [c if c >= 0 else chunks for c in tables.chunk_of]  # the host is one more chunk
    lists = {
        "after": tables.after,
        "switches": tables.of_layer,
        "writers": [network.producers[s.tensor] for s in tensors],
        "readers": [network.consumers[s.tensor] for s in tensors],
    }
    flat = {
        "chunk": place,
        "table_at": [0, *accumulate(len(row) for row in tables.cycles)],
        "table": [cycles for row in tables.cycles for cycles in row],
        "room": [s.pages if s.tensor else s.bits for s in tables.switches],
        "replicas": [tables.replicas(s.tensor) for s in tensors],
        "owner": [s.chunk if s.chunk >= 0 else 0 for s in tables.switches],
    }
    for name, rows in lists.items():
        flat[f"{name}_at"] = [0, *accumulate(len(row) for row in rows)]
        flat["layer_switches" if name == "switches" else name] = [x for row in rows for x in row]
    made = PlanProblem(
        len(place),
        chunks + 1,
        len(tensors),
        len(tables.switches),
        PAGE_BITS,
        tables.uram_groups,
        URAM_PAGES,
    )
    for name, values in flat.items():
        setattr(made, name, ctypes.cast((_I64 * max(1, len(values)))(*values), ctypes.POINTER(_I64)))
    return made


Start = tuple[Collection[int], Sequence[int], Schedule]
"""Where the search for a plan starts: switches that are on, URAM groups of a copy of each tensor, and a schedule with
the orders and periods."""


def plan(
    native: ctypes.CDLL, asked: PlanProblem, room: int, start: Start, within: tuple[int, int], tries: int, seed: int,
) -> tuple[frozenset[int], Schedule, tuple[int, ...]] | None:  # fmt: skip
    """(switches that are on, schedule, URAM groups of a copy of each tensor) of a plan that fits `room` pages and the
    URAM, its interval from the first to below the second of `within`; None if none was found from this start, a plan
    and its schedule."""
    switches, dealt, schedule = start
    on = (_I64 * max(1, asked.switches))(*(n in switches for n in range(asked.switches)))
    groups = (_I64 * max(1, asked.tensors))(*dealt)
    starts = (_I64 * asked.layers)(*schedule.starts)
    interval = native.nashc_plan(
        ctypes.byref(asked), _I64(within[0]), _I64(within[1]), _I64(schedule.interval), _I64(room), _I64(tries),
        _I64(seed), on, groups, starts,
    )  # fmt: skip
    if interval == -2:
        raise MemoryError("plan search")
    if interval <= 0:
        return None
    kept = frozenset(n for n in range(asked.switches) if on[n])
    return kept, Schedule(interval, tuple(starts), 0), tuple(groups)[: asked.tensors]
