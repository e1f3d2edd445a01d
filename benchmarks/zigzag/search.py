"""The exact best of the declared mappings of one layer: bounds first, prices in the order of the bounds.

    python benchmarks/zigzag/search.py LAYERS.json --template roomy [--axes k,c] [--only NAME,NAME] [--truncated]

prints one JSON object: the mapping of each layer as `run_zigzag.py --fixed` reads it, with its cycles, the CPU seconds
of the search, and those of the process, imports included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from latency import Prices, array_bound
from numpy.typing import NDArray
from orders import Spatial, all_orders, count_orders, spatials, split
from template import TEMPLATES, Nests, States, Template

from nashc.core.loops import LoopNest

LOOP_LIMIT = 6
"""Temporal loops of an order; ZigZag's default (`lpf_limit`)."""
FIRST, BATCH = 48, 8192
"""Mappings of a layer that are priced first; mappings that go through each step together."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best mapping of a layer, as `run_zigzag.py --fixed` reads it, and what the search did.

    considered: mappings in the declared space; bounded: those whose bound was computed; exact: those priced.
    """

    mapping: dict[str, object]
    cycles: float
    considered: int
    bounded: int
    exact: int


def mapping_of(spatial: Spatial, column: int) -> dict[str, object]:
    """A mapping as `run_zigzag.py --fixed` reads it; an axis that unrolls nothing names the columns."""
    axes = [(dim if factor > 1 else "ox", factor) for dim, factor in spatial.axes]
    kinds = split(spatial.left, LOOP_LIMIT)
    order = all_orders(tuple(count for _, _, count in kinds)).kinds[:, column]
    return {
        "spatial": {f"D{i + 1}": [f"{dim.upper()}, {factor}"] for i, (dim, factor) in enumerate(axes)},
        "temporal": [[kinds[kind][0].upper(), kinds[kind][1]] for kind in order],
    }


@dataclass(slots=True)
class _Layer:
    """The search of one layer so far: unrollings not yet tried, fewest cycles first, and the best mapping."""

    nest: LoopNest
    choices: list[Spatial]
    considered: int
    best: float = np.inf
    found: tuple[Spatial, int] | None = None
    bounded: int = 0
    exact: int = 0

    def next_choices(self, template: Template) -> list[tuple[Spatial, States]]:
        """Of the unrollings with the fewest cycles those with the least bound; then all that may still be better."""
        if not self.choices:
            return []
        limit: float = self.choices[0].cycles if self.found is None else self.best
        states = {s: States.of(self.nest, s, LOOP_LIMIT) for s in self.choices if s.cycles <= limit}
        bounds = {s: array_bound(template, of) if len(self.choices) > 1 else 0.0 for s, of in states.items()}
        limit = min(bounds.values()) if self.found is None else self.best
        chosen = [s for s, bound in bounds.items() if bound <= limit]
        self.choices = [s for s in self.choices if s not in chosen] if self.found is None else []
        return [(s, states[s]) for s in chosen]


def best_mappings(
    nests: list[LoopNest], template: Template, axes: tuple[str, str] | None = None, *, truncated: bool = False
) -> list[Best]:
    """The mapping with the fewest cycles of each layer; ties broken by the order of enumeration.

    All layers go through each step together, so that short arrays do not cost more in calls than in arithmetic.
    axes: dims along the two array axes, if they are given; truncated: also mappings that ZigZag prices though they
    compute a part of the layer only.
    """
    layers = []
    for nest in nests:
        choices = spatials(nest, template.rows, template.columns, axes, truncated=truncated)
        considered = sum(count_orders(tuple(n for _, _, n in split(s.left, LOOP_LIMIT))) for s in choices)
        layers.append(_Layer(nest, choices, considered))
    while tried := [(layer, *choice) for layer in layers for choice in layer.next_choices(template)]:
        for some in _batches(tried):
            _refine(some, template)
    for layer in layers:
        assert layer.found is not None, f"no mapping of {layer.nest} fits in the memories"
    return [
        Best(mapping_of(*layer.found), layer.best, layer.considered, layer.bounded, layer.exact)
        for layer in layers
        if layer.found is not None
    ]


def best_mapping(
    nest: LoopNest, template: Template, axes: tuple[str, str] | None = None, *, truncated: bool = False
) -> Best:
    """`best_mappings` of one layer."""
    return best_mappings([nest], template, axes, truncated=truncated)[0]


Tried = tuple[_Layer, Spatial, States]


def _batches(tried: list[Tried]) -> Iterator[list[Tried]]:
    """Whole unrollings of at most BATCH orders together, or one."""
    some: list[Tried] = []
    size = 0
    for entry in tried:
        width = entry[2].orders.kinds.shape[1]
        if some and size + width > BATCH:
            yield some
            some, size = [], 0
        some.append(entry)
        size += width
    yield some


def _refine(tried: list[Tried], template: Template) -> None:
    """Bounds all orders of the unrollings, prices the most promising of each layer, then all that may be better."""
    layers = list({id(layer): layer for layer, _, _ in tried}.values())
    nests = Nests.of([states for _, _, states in tried])
    bound = Prices(template, nests).bound()
    index = {id(layer): i for i, layer in enumerate(layers)}
    owner = np.array([index[id(layer)] for layer, _, _ in tried])[nests.spatial]
    for layer, _, states in tried:
        layer.bounded += states.orders.kinds.shape[1]
    first = []
    for i, layer in enumerate(layers):
        open_ = np.flatnonzero((owner == i) & (bound < layer.best))
        first.append(open_ if len(open_) <= FIRST else open_[np.argpartition(bound[open_], FIRST)[:FIRST]])
    _price(np.concatenate(first), owner, layers, tried, nests, template)
    bound[np.concatenate(first)] = np.inf
    rest = np.flatnonzero(bound < np.array([layer.best for layer in layers])[owner])
    for start in range(0, len(rest), BATCH):
        _price(rest[start : start + BATCH], owner, layers, tried, nests, template)


def _price(
    some: NDArray[np.int64],
    owner: NDArray[np.int64],
    layers: list[_Layer],
    tried: list[Tried],
    nests: Nests,
    template: Template,
) -> None:
    """Prices some mappings and keeps the best of each layer."""
    if not len(some):
        return
    price = Prices(template, nests.take(some)).cycles()
    whose = owner[some]
    for i, layer in enumerate(layers):
        mine = np.flatnonzero(whose == i)
        layer.exact += len(mine)
        if len(mine):
            at = mine[np.argmin(price[mine])]
            if price[at] < layer.best:
                entry = some[at]
                layer.best = float(price[at])
                layer.found = (tried[nests.spatial[entry]][1], int(nests.column[entry]))


def nest_of(layer: dict[str, int]) -> LoopNest:
    """The loop nest of a layer as the peers' files list it."""
    g, k, c, oy, ox, fy, fx, iy, ix = (layer[d] for d in ("G", "K", "C", "OY", "OX", "FY", "FX", "IY", "IX"))
    stride, pad = layer["stride"], layer["pad"]
    return LoopNest(g, k, c, oy, ox, fy, fx, iy, ix, stride=(stride, stride), pad=(pad, pad, pad, pad))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", type=Path)
    parser.add_argument("--template", choices=TEMPLATES, default="roomy")
    parser.add_argument("--axes", help="dims along the two array axes, e.g. k,c; all pairs without it")
    parser.add_argument("--only", help="names of layers, with commas")
    parser.add_argument("--truncated", action="store_true", help="also mappings that compute a part of the layer")
    asked = parser.parse_args()
    first, *second = asked.axes.split(",") if asked.axes else ("",)
    axes = (first, second[0]) if second else None
    chosen = asked.only.split(",") if asked.only else None
    listed = [layer for layer in json.loads(asked.layers.read_text()) if chosen is None or layer["name"] in chosen]
    begin = time.process_time()
    nests = [nest_of(layer) for layer in listed]
    found = best_mappings(nests, TEMPLATES[asked.template], axes, truncated=asked.truncated)
    seconds = time.process_time() - begin
    layers = {layer["name"]: asdict(best) for layer, best in zip(listed, found, strict=True)}
    print(json.dumps({"layers": layers, "cpu_seconds": seconds, "process_cpu_seconds": time.process_time()}))


if __name__ == "__main__":
    main()
