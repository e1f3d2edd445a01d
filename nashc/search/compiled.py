"""The compiled mapping search (native/mapping.cpp), if the install could build it.

It gives the same answers as the NumPy one in nashc.search.mapping, a hundred times faster; tests compare them.
"""

from __future__ import annotations

import ctypes
import sysconfig
from functools import cache, lru_cache
from pathlib import Path

import nashc
from nashc.core.design import Buffers, Placement, Work
from nashc.core.loops import Unroll
from nashc.hw.dataflows import DATAFLOWS, Dataflow, distinct_orders
from nashc.hw.machine import CHANNEL_BLOCK, CHANNEL_PARAMETER_BITS, PARTIAL_SUM_BITS, Machine
from nashc.hw.tiles import TILE_DIMS

MOST_EXTRAS = 8
_I64 = ctypes.c_int64
_NEST = ("g", "k", "c", "oy", "ox", "fy", "fx", "iy", "ix")
_WORK = ("batch", "input_bits", "output_bits", "weight_bits", "terms", "scattered")
_BUFFERS = ("input_bits", "weight_bits", "output_bits")
_MACHINE = (
    "burst_bits", "burst_latency", "burst_overhead", "bursts_in_flight", "port_bits",
    "step_overhead", "layer_overhead", "pipeline_depth", "post_lanes",
)  # fmt: skip
_UNROLL = ("g", "k", "c", "oy", "ox", "fy", "fx")


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
    _fields_ = (("tile", _I64 * 6), ("flow", _I64), ("cycles", _I64), ("considered", _I64), ("exact", _I64))


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None where this install has none."""
    places = [Path(path) / "search" for path in nashc.__path__]
    places.append(Path(sysconfig.get_path("platlib")) / "nashc" / "search")
    for place in places:
        file = place / "native" / "nashc_mapping.so"
        if file.exists():
            try:
                found = ctypes.CDLL(str(file))
            except OSError:  # built for another machine
                continue
            found.nashc_best_mapping.restype = _I64
            return found
    return None


@lru_cache(maxsize=4096)
def _numbers(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    return (_I64 * len(values))(*values)


@lru_cache(maxsize=8)
def flow_table(flows: tuple[Dataflow, ...]) -> ctypes.Array[Flow]:
    table = (Flow * len(flows))()
    for row, flow, fresh in zip(table, flows, distinct_orders(flows), strict=True):
        row.loops[:] = [TILE_DIMS.index(d) for d in flow.loops]
        row.fresh = sum(1 << code for code in fresh)
    return table


def problem(
    work: Work, unroll: Unroll, buffers: Buffers, dram_bits: int, machine: Machine, placement: Placement
) -> Problem:
    nest, made = work.nest, Problem()
    for name in _NEST:
        setattr(made, name, getattr(nest, name))
    made.stride[:], made.dilation[:], made.pad[:] = nest.stride, nest.dilation, nest.pad
    for name in _WORK:
        setattr(made, name, getattr(work, name))
    made.extras = len(work.extras)
    for i, (extra, on_chip) in enumerate(zip(work.extras, placement.inputs[1:], strict=True)):
        made.extra_bits[i], made.extra_full[i], made.extra_on_chip[i] = extra.bits, extra.full, on_chip
    made.input_on_chip, made.output_on_chip = placement.inputs[0], placement.output
    made.weights_on_chip = placement.weights
    made.unroll[:] = [getattr(unroll, d) for d in _UNROLL]
    made.input_buffer, made.weight_buffer, made.output_buffer = (getattr(buffers, name) for name in _BUFFERS)
    made.dram_bits = dram_bits
    for name in _MACHINE:
        setattr(made, name, getattr(machine, name))
    made.channel_block, made.partial_sum_bits = CHANNEL_BLOCK, PARTIAL_SUM_BITS
    made.channel_parameter_bits = CHANNEL_PARAMETER_BITS
    return made


def search(
    native: ctypes.CDLL,
    asked: Problem,
    lists: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> Found | None:
    """The best mapping over images x blocks (g, k, c after one another) x rows x columns; None if no tile fits."""
    images, blocks, rows, columns = lists
    flows = flow_table(tuple(DATAFLOWS.values()))
    found = Found()
    status = native.nashc_best_mapping(
        ctypes.byref(asked), flows, _I64(len(flows)), _numbers(images), _I64(len(images)), _numbers(blocks),
        _I64(len(blocks) // 3), _numbers(rows), _I64(len(rows)), _numbers(columns), _I64(len(columns)),
        ctypes.byref(found),
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
