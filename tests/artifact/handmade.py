"""A small hybrid network and a design for it, written by hand: its numbers are plausible and need no search."""

from __future__ import annotations

from nashc.artifact import Compiled
from nashc.board import Board, load_board
from nashc.core.design import (
    Accelerator,
    Buffers,
    Certificate,
    Chunk,
    Design,
    LayerResult,
    Mapping,
    MemoryPlan,
    Placement,
    Resources,
    Tile,
    Traffic,
    accepts,
)
from nashc.core.loops import LoopNest, Unroll
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.importer import Skip


def board() -> Board:
    return load_board("fpga-zc706")


def hybrid(host: bool = False, name: str = "hybrid") -> Network:
    """Conv, shift and adder layers, a pooling, a residual; a host node at the end if asked for."""
    tensors = [
        Tensor("image", 3, 32, 32),
        Tensor("a", 16, 32, 32),
        Tensor("b", 16, 32, 32),
        Tensor("c", 16, 16, 16),
        Tensor("d", 32, 16, 16),
    ]
    layers = [
        Layer("stem", "Conv", Unit.CONV, nest(16, 3, 32), ("image",), "a", Weights("w0"), "relu", ("stem", "relu0")),
        Layer("shift1", "ShiftConv", Unit.SHIFT, nest(16, 16, 32), ("a", "a2"), "b", Weights("w1", 4, 2), "", ("s1",)),
        Layer("pool", "MaxPool", Unit.VECTOR, pool(16, 16), ("b",), "c", None, "", ("pool",)),
        Layer("adder2", "AdderConv", Unit.ADDER, nest(32, 16, 16), ("c",), "d", Weights("w2"), "", ("a2", "bn")),
    ]
    tensors.insert(1, Tensor("a2", 16, 32, 32))
    layers.insert(1, Layer("conv1", "Conv", Unit.CONV, nest(16, 16, 32), ("a",), "a2", Weights("w3"), "", ("conv1",)))
    if host:
        tensors.append(Tensor("e", 32, 16, 16))
        why = "no unit of the accelerator has NonZero"
        layers.append(Layer("odd", "NonZero", Unit.HOST, pool(32, 16), ("d",), "e", None, "", ("odd",), note=why))
    return Network(name, tuple(layers), tuple(tensors), ("image",), (tensors[-1].name,))


def nest(k: int, c: int, size: int) -> LoopNest:
    return LoopNest(1, k, c, size, size, 3, 3, size, size, pad=(1, 1, 1, 1))


def pool(channels: int, size: int) -> LoopNest:
    return LoopNest(channels, 1, 1, size, size, 2, 2, 2 * size, 2 * size, (2, 2))


def design(network: Network, batch: int = 2, resident: tuple[str, ...] = ("a", "c")) -> Design:
    """Every layer on its unit's chunk at 80 % utilisation; `resident` tensors and the stem's weights on chip."""
    kinds = (
        (Unit.CONV, "mac", 8, Unroll(k=16, c=8)),
        (Unit.SHIFT, "shift", 4, Unroll(k=16, c=8)),
        (Unit.ADDER, "adder", 8, Unroll(k=16, c=4)),
        (Unit.VECTOR, "vector", 8, Unroll(g=16)),
    )
    buffers = Buffers(8 * 8192, 16 * 8192, 32 * 8192)
    chunks = tuple(Chunk(unit, "all", lanes, unroll, bits, 16, buffers, 12) for unit, lanes, bits, unroll in kinds)
    results, clock = [], 0
    for layer in network.layers:
        chunk = next((i for i, c in enumerate(chunks) if accepts(c, layer)), -1)
        lanes = chunks[chunk].unroll.lanes if chunk >= 0 else 1
        issue = batch * layer.nest.macs // lanes
        n = layer.nest
        mapping = Mapping(Tile(batch, n.g, n.k, n.c, n.oy // 2, n.ox), "output-stationary, pixels outer")
        placement = Placement(
            tuple(i in resident for i in layer.inputs), layer.output in resident, layer.name == "stem"
        )
        moved = Traffic(100_000, 200_000, 30_000, 40_000)
        cycles = issue * 5 // 4
        bound = "compute" if chunk != 3 else "bandwidth"
        results.append(
            LayerResult(layer.name, chunk, mapping, placement, cycles, issue, bound, issue / cycles, moved, clock)
        )
        clock += cycles
    interval = max(sum(r.cycles for r in results if r.chunk == i) for i in range(-1, len(chunks)))
    each = (
        Resources(9_000, 8_000, 128, 60),
        Resources(14_000, 9_000, 0, 50),
        Resources(8_000, 6_000, 0, 50),
        Resources(2_000, 1_500, 0, 20),
    )
    total = sum((*each, Resources(lut=3_000, bram18=128)), Resources())
    value = interval / batch
    certificate = Certificate("fps", value, value / 1.04, False, 123_456, 42, "the time limit of 30 s")
    plan = MemoryPlan(tuple((name, 2) for name in resident), ("stem",), 64, 61)
    return Design(
        board="fpga-zc706",
        clock_mhz=board().clock_mhz,
        network=network,
        accelerator=Accelerator(chunks, batch),
        layers=tuple(results),
        plan=plan,
        interval_cycles=interval,
        latency_cycles=clock,
        resources=total,
        chunk_resources=each,
        energy_pj=2.5e9,
        certificate=certificate,
    )


def compiled(host: bool = False, name: str = "hybrid") -> Compiled:
    """The design with batch 2, its batch-1 variant and a baseline."""
    network = hybrid(host, name)
    others = (("batch 1", design(network, 1)), ("conv-only", design(network, 2, ())))
    return Compiled(design(network), board(), Options(), (Skip("drop", "dropout does nothing at inference"),), others)
