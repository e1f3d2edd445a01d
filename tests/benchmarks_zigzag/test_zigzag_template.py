"""The side-by-side template: prices equal ZigZag 3.9.1's, bounds hold, the search finds the best of all orders.

The prices below were written down from runs of ZigZag; `benchmarks/zigzag/run.py` compares with a live one.
"""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest

from nashc.core.loops import LoopNest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "zigzag"))

import orders as space
from latency import Prices, array_bound
from search import LOOP_LIMIT, best_mapping, best_mappings, mapping_of
from template import TEMPLATES, Nests, States, Template

CONV2_1 = LoopNest(1, 128, 64, 16, 16, 3, 3, 32, 32, stride=(2, 2), pad=(1, 1, 1, 1))
CONV3_2 = LoopNest(1, 256, 256, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1))
CONV4_2 = LoopNest(1, 512, 512, 4, 4, 3, 3, 4, 4, pad=(1, 1, 1, 1))
POINTWISE = LoopNest(1, 24, 96, 32, 32, 1, 1, 32, 32)
DEPTHWISE = LoopNest(144, 1, 1, 16, 16, 3, 3, 32, 32, stride=(2, 2), pad=(1, 1, 1, 1))
DENSE = LoopNest(1, 10, 512, 1, 1, 1, 1, 1, 1)
UNROLLED = LoopNest(1, 16, 16, 1, 1, 1, 1, 1, 1)
CUT = LoopNest(576, 1, 1, 4, 4, 3, 3, 8, 8, stride=(2, 2), pad=(1, 1, 1, 1))
PRICES = [
    ("tight", CONV2_1, "ox16 c16", "oy4 k128 c4 fx3 fy3 oy4", 1225699),
    ("tight", CONV2_1, "ox16 k16", "c64 fy3 fx3 oy4 k8 oy4", 152039),
    ("tight", CONV3_2, "k16 c16", "k16 fy3 fx3 oy8 ox8 c16", 4982659),
    ("tight", CONV3_2, "c16 k16", "ox8 oy8 fx3 fy3 c16 k16", 462200),
    ("roomy", CONV2_1, "ox16 c16", "fx3 c4 k128 oy4 oy4 fy3", 77380),
    ("roomy", CONV2_1, "ox16 k16", "fy3 c64 oy4 fx3 k8 oy4", 73742),
    ("roomy", CONV4_2, "c16 k16", "oy4 fx3 c32 fy3 k32 ox4", 1182861),
    ("roomy", CONV4_2, "c16 k16", "c32 oy4 ox4 k32 fy3 fx3", 297489),
    ("roomy", POINTWISE, "ox16 c16", "oy8 ox2 c2 c3 k24 oy4", 18725),
    ("roomy", POINTWISE, "ox16 c16", "c3 k24 oy8 oy4 ox2 c2", 15655),
    ("roomy", DEPTHWISE, "ox16 g16", "oy4 fx3 fy3 g3 g3 oy4", 23250),
    ("roomy", DEPTHWISE, "g16 ox16", "fx3 g3 g3 fy3 oy4 oy4", 23238),
    ("tight", POINTWISE, "ox16 oy16", "c6 c16 ox2 k4 oy2 k6", 298281),
    ("tight", POINTWISE, "ox16 k12", "c6 c16 oy4 ox2 k2 oy8", 27461),
    ("tight", DEPTHWISE, "ox16 g16", "fx3 g3 oy4 g3 fy3 oy4", 136899),
    ("tight", DEPTHWISE, "g16 ox16", "fx3 fy3 oy4 oy4 g3 g3", 23211),
    ("roomy", CUT, "g8 g16", "g5 fy3 ox2 ox2 fx3 oy4", 6280),
    ("roomy", CUT, "g8 g16", "fx3 ox2 oy4 fy3 g5 ox2", 6242),
]


def factors(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((word.rstrip("0123456789"), int(word.lstrip("abcdefghijklmnopqrstuvwxyz"))) for word in text.split())


@pytest.mark.parametrize(("template", "nest", "axes", "loops", "cycles"), PRICES)
def test_prices_are_those_of_zigzag(template: str, nest: LoopNest, axes: str, loops: str, cycles: int) -> None:
    first, second = factors(axes)
    sizes = {dim: getattr(nest, dim) for dim in space.DIMS}
    if nest is CUT:
        cuts = space.truncations(sizes, "g", 16, 16)
        spatial = next(s for s in cuts if s.axes == (first, second))
        assert (spatial.unroll.g, spatial.computed * 576) == (112, 560)
    else:
        spatial = space.Spatial.of(sizes, (first, second))
    states = States.of(nest, spatial, LOOP_LIMIT)
    order = [(states.kinds[k][0], states.kinds[k][1]) for k in range(len(states.kinds))]
    wanted = np.array([order.index(loop) for loop in factors(loops)])
    column = np.flatnonzero((states.orders.kinds == wanted[:, None]).all(axis=0))
    assert len(column) == 1
    prices = Prices(TEMPLATES[template], Nests.of([states]).take(column))
    assert prices.cycles() == [cycles]
    assert prices.bound() <= cycles


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("nest", [CONV4_2, POINTWISE, DEPTHWISE, DENSE, UNROLLED, CUT])
def test_search_finds_the_best_of_all_orders_and_bounds_hold(template: Template, nest: LoopNest) -> None:
    spatials = space.spatials(nest, template.rows, template.columns)
    states = [States.of(nest, s, LOOP_LIMIT) for s in spatials]
    nests = Nests.of(states)
    prices = Prices(template, nests)
    cycles = prices.cycles()
    assert (prices.bound() <= cycles).all()
    for i, of in enumerate(states):
        assert array_bound(template, of) <= cycles[nests.spatial == i].min()
    best = best_mapping(nest, template)
    assert best.cycles == cycles.min()
    assert best.considered == len(cycles)


def test_layers_searched_together_are_searched_alike() -> None:
    nests = [CONV4_2, POINTWISE, DEPTHWISE, DENSE, UNROLLED, CUT]
    together = best_mappings(nests, TEMPLATES["tight"])
    assert [best.cycles for best in together] == [best_mapping(nest, TEMPLATES["tight"]).cycles for nest in nests]


def test_truncated_mappings_are_found_only_when_asked_for() -> None:
    whole = best_mapping(CUT, TEMPLATES["roomy"])
    assert whole.cycles == 6410
    assert best_mapping(CUT, TEMPLATES["roomy"], truncated=True).cycles == 6242


@pytest.mark.parametrize("nest", [CONV4_2, POINTWISE, DEPTHWISE, DENSE, UNROLLED])
def test_mappings_compute_the_whole_layer(nest: LoopNest) -> None:
    for spatial in space.spatials(nest, 16, 16):
        mapping = mapping_of(spatial, 0)
        found = dict.fromkeys(space.DIMS, 1)
        spatial_words = [word.split(", ") for words in mapping["spatial"].values() for word in words]
        for dim, factor in [*spatial_words, *mapping["temporal"]]:
            found[dim.lower()] *= int(factor)
        assert found == {dim: getattr(nest, dim) for dim in space.DIMS}


@pytest.mark.parametrize("counts", [(), (1,), (5,), (2, 3), (1, 1, 2, 2), (1, 1, 1, 1, 1, 1)])
def test_orders_are_all_distinct_ones(counts: tuple[int, ...]) -> None:
    found = space.all_orders(counts)
    columns = {tuple(column) for column in found.kinds.T.tolist()}
    assert len(columns) == found.kinds.shape[1] == space.count_orders(counts)
    for column in columns:
        assert [column.count(kind) for kind in range(len(counts))] == list(counts)
    assert found.inside.shape[1] == prod(count + 1 for count in counts)


def test_loops_are_split_by_the_rule_of_zigzag() -> None:
    left = (("k", 32), ("c", 32), ("oy", 4), ("ox", 4), ("fy", 3), ("fx", 3))
    assert space.split(left, 6) == tuple((dim, size, 1) for dim, size in left)
    assert space.split((("g", 9), ("oy", 16), ("fy", 3), ("fx", 3)), 6) == (
        ("g", 3, 2), ("oy", 4, 2), ("fy", 3, 1), ("fx", 3, 1),
    )  # fmt: skip


def test_the_dims_of_both_axes_can_be_fixed() -> None:
    best = best_mapping(CONV4_2, TEMPLATES["roomy"], ("k", "c"))
    assert best.mapping["spatial"] == {"D1": ["K, 16"], "D2": ["C, 16"]}
    assert best.cycles == 297489
