"""How search time grows with the number of layers and with the size of the space, as markdown tables.

python benchmarks/growth.py [--target fpga-zc706] [--layers 10,20,50,100,200,300] [--spaces 1e3,1e4,1e5,1e6]
                            [--space-layers 50] [--budget SECONDS]

The networks are chains of inverted residuals in the stages of MobileNetV2 at 224 x 224. "repeated": all blocks of a
stage have one width, as published networks do, so layers repeat and share their mappings. "distinct": width and
expansion change from block to block, so nearly every layer has a shape of its own. The spaces are those of one
"repeated" chain at batch 1, thinned: each slot keeps options evenly spaced by lanes. The exponent is the slope of
log(CPU seconds) over log(n), 1 for linear; a row that a budget or limit stopped counts as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import prod

import numpy as np
from machine import heading
from measure import counted, per_cent, timed

from nashc.board import Board, load_board
from nashc.core.design import Design
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.resources import machine_of
from nashc.search.solve import Search, solve
from nashc.search.space import BUFFER_LEVELS, MEMORY_EIGHTHS, Slot, SlotOptions, partitions, slot_options, work_of

WIDTHS, STRIDES = (16, 24, 32, 64, 96, 160, 320), (1, 2, 2, 2, 1, 2, 1)
"""Stages of MobileNetV2; blocks are spread evenly over the first so many, as far as there are blocks."""
RESOLUTION, STEM, HEAD, CLASSES, EXPANSION = 224, 32, 4, 1000, 6
"""The head has four times the channels of the last block."""
EXPANSIONS = (3, 4, 5, 6)
"""Of the blocks of a "distinct" chain, in turn."""
COLUMNS = ("CPU s", "CPU s per n, first row = 1", "FPS", "batch", "gap", "refined", "stopped")


@dataclass
class Chain:
    """A network that grows layer by layer; every method returns the output tensor."""

    layers: list[Layer] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=lambda: [Tensor("x", 3, RESOLUTION, RESOLUTION)])

    def add(self, op: str, unit: Unit, nest: LoopNest, *inputs: Tensor) -> Tensor:
        name = f"layer{len(self.layers)}"
        out = Tensor(f"{name}_out", nest.g * nest.k, nest.oy, nest.ox)
        weights = Weights(f"{name}_weights") if unit is Unit.CONV else None
        self.layers.append(Layer(name, op, unit, nest, tuple(t.name for t in inputs), out.name, weights))
        self.tensors.append(out)
        return out

    def conv(self, x: Tensor, channels: int, taps: int = 1, stride: int = 1, extra: tuple[Tensor, ...] = ()) -> Tensor:
        return self.add("Conv", Unit.CONV, _nest(x, 1, channels, x.channels, taps, stride), x, *extra)

    def depthwise(self, x: Tensor, stride: int) -> Tensor:
        return self.add("Conv", Unit.CONV, _nest(x, x.channels, 1, 1, 3, stride), x)

    def pool(self, x: Tensor) -> Tensor:
        nest = LoopNest(x.channels, 1, 1, 1, 1, x.rows, x.columns, x.rows, x.columns)
        return self.add("GlobalAveragePool", Unit.VECTOR, nest, x)


def _nest(x: Tensor, g: int, k: int, c: int, taps: int, stride: int) -> LoopNest:
    """A square window with the padding that keeps the map, cut by the stride."""
    size, pad = -(-x.rows // stride), taps // 2
    far = max(0, (size - 1) * stride + taps - pad - x.rows)
    return LoopNest(g, k, c, size, size, taps, taps, x.rows, x.columns, (stride, stride), pad=(pad, pad, far, far))


def chain(layers: int, *, distinct: bool) -> Network:
    """A network of exactly so many layers, at least 6: stem, blocks, head, pooling and classifier.

    A block has three layers; the first one or two have no expansion, so two, where the number needs it.
    """
    if layers < 6:
        raise ValueError(f"a chain of {layers} layers; the shortest has 6")
    plain = (4 - layers) % 3
    blocks = (layers - 4 - 2 * plain) // 3 + plain
    net = Chain()
    y, last = net.conv(net.tensors[0], STEM, 3, 2), -1
    for i in range(blocks):
        place = i * len(WIDTHS) / max(blocks, len(WIDTHS))
        stage = int(place)
        width, stride = WIDTHS[stage], STRIDES[stage] if stage != last else 1
        if distinct:
            width = 4 * round(float(np.interp(place, range(len(WIDTHS)), WIDTHS)) / 4)
        x, last = y, stage
        if i >= plain:
            y = net.conv(y, x.channels * (EXPANSIONS[i % len(EXPANSIONS)] if distinct else EXPANSION))
        y = net.depthwise(y, stride)
        y = net.conv(y, width, extra=(x,) if stride == 1 and x.channels == width else ())
    net.conv(net.pool(net.conv(y, HEAD * y.channels)), CLASSES)
    name = f"chain of {len(net.layers)}"
    return Network(name, tuple(net.layers), tuple(net.tensors), ("x",), (net.layers[-1].output,))


def space_size(parts: Iterable[tuple[Slot, ...]], kept: dict[Slot, int]) -> int:
    """Accelerators at one batch when each slot keeps so many options, as a certificate counts them."""
    return sum(prod(kept[s] * len(BUFFER_LEVELS) for s in slots) for slots in parts) * len(MEMORY_EIGHTHS)


def thinned(network: Network, board: Board, options: Options, size: float) -> dict[Slot, SlotOptions]:
    """Options of each slot, evenly spaced by lanes, in the same share of all, for a space of about `size`, or all."""
    parts = partitions(network)
    slots = dict.fromkeys(slot for slots in parts for slot in slots)
    full = {s: slot_options(s, network, board, machine_of(board), options) for s in slots}

    def kept(share: float) -> dict[Slot, int]:
        return {s: max(1, round(share * len(t))) for s, t in full.items()}

    shares = np.geomspace(1 / max(len(t) for t in full.values()), 1, 2000)
    share = min(shares, key=lambda f: abs(space_size(parts, kept(f)) / size - 1)) if np.isfinite(size) else 1.0
    found = {}
    for slot, count in kept(share).items():
        order = np.argsort(full[slot].lanes, kind="stable")
        found[slot] = full[slot].take(np.sort(order[(2 * np.arange(count) + 1) * len(order) // (2 * count)]))
    return found


def thin_search(network: Network, board: Board, options: Options, tables: dict[Slot, SlotOptions]) -> Design:
    return Search(network, board, options, None, None, tables.__getitem__).run()


def table(title: str, rows: Iterable[tuple[list[str], Callable[[], Design], Callable[[Design], float]]]) -> None:
    """A row for each run: what it is, its search, and the n that its time is held against."""
    print(f"\n| {title} | " + " | ".join(COLUMNS) + " |")
    print("|---" * (title.count("|") + 1 + len(COLUMNS)) + "|")
    points: list[tuple[float, float]] = []
    for cells, run, n_of in rows:
        try:
            d, seconds = timed(run)
        except NashcError as error:
            print(f"| {' | '.join(cells)} | {error} |", flush=True)
            continue
        points.append((n_of(d), seconds))
        (n0, s0), c = points[0], d.certificate
        row = [cell or counted(c.space) for cell in cells]
        row += [f"{seconds:.2f}", f"{seconds / n_of(d) / (s0 / n0):.2g}", f"{d.fps:,.1f}", str(d.accelerator.batch)]
        row += [per_cent(c.gap), str(c.refined), c.stopped]
        print("| " + " | ".join(row) + " |", flush=True)
    if len(points) > 1:
        n, seconds = np.log(np.array(points)).T
        steps = ", ".join(f"{(b[1] - a[1]) / (b[0] - a[0]):.2f}" for a, b in pairwise(zip(n, seconds, strict=True)))
        print(f"\nexponent {np.polyfit(n, seconds, 1)[0]:.2f} (from row to row: {steps})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--layers", default="10,20,50,100,200,300", help="none: ''")
    parser.add_argument("--spaces", default="1e3,1e4,1e5,1e6", help="about so many accelerators each; none: ''")
    parser.add_argument("--space-layers", type=int, default=50, help="of the network whose space is thinned")
    parser.add_argument("--budget", type=float, default=None, help="wall seconds of each search")
    args = parser.parse_args()
    board, options = load_board(args.target), Options(budget_seconds=args.budget)
    print(heading())
    solve(chain(10, distinct=False), board, replace(options, budget_seconds=1.0))  # what only the first search does
    for kind in ("repeated", "distinct"):
        rows = []
        for count in map(int, filter(None, args.layers.split(","))):
            network = chain(count, distinct=kind == "distinct")
            shapes = len({work_of(network, layer, 1) for layer in network.layers})
            cells = [str(count), str(shapes), f"{network.macs / 1e6:,.0f}", ""]
            rows.append((cells, partial(solve, network, board, options), lambda _, n=count: float(n)))
        table(f"layers n ({kind}) | shapes | MMAC | space", rows)
    network, options = chain(args.space_layers, distinct=False), Options(batch=1, budget_seconds=args.budget)
    rows = []
    for size in [float(x) for x in args.spaces.split(",") if x] + [float("inf")] * bool(args.spaces):
        tables = thinned(network, board, options, size)
        cells = ["", " + ".join(str(len(t)) for t in tables.values())]
        rows.append(
            (cells, partial(thin_search, network, board, options, tables), lambda d: float(d.certificate.space))
        )
    table(f"space n ({args.space_layers} layers) | options of each slot", rows)


if __name__ == "__main__":
    main()
