"""Random small networks, searches on them and plans of their accelerators; and accelerators that are only tables."""

import random
from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

from nashc.board import load_board
from nashc.core.design import Accelerator, Buffers, Chunk
from nashc.core.loops import LoopNest, Unroll
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.hw.machine import PAGE_BITS, URAM_PAGES
from nashc.hw.schedule import first_fit, periodic
from nashc.search.plan import finished, in_order, one_by_one
from nashc.search.solve import Search, compositions
from nashc.search.space import Space
from nashc.search.tables import Switch, Tables
from nashc.search.tune import Candidate

COMPUTE = (Unit.CONV, Unit.SHIFT, Unit.ADDER)


def slower_memory(board, efficiency):
    """A board on which the DRAM, not the arithmetic, is what designs wait for."""
    return replace(board, dram=replace(board.dram, efficiency=efficiency))


class _Chain:
    """A network that grows at its end; `at` is the last tensor."""

    def __init__(self, channels, rows):
        self.rows, self.layers, self.tensors = rows, [], [Tensor("t0", channels, rows, rows)]

    @property
    def at(self):
        return self.tensors[-1]

    def tensor(self, channels):
        self.tensors.append(Tensor(f"t{len(self.tensors)}", channels, self.rows, self.rows))
        return self.at

    def layer(self, draw, kind, unit, source, target, out, extra=()):
        rows, i, channels = self.rows, len(self.layers), source.channels
        taps = 3 if kind == "depthwise" else draw(st.sampled_from([1, 3]))
        pad = (taps // 2,) * 4
        g, k, c = (1, out, channels) if kind == "dense" else (channels, 1, 1)
        nest = LoopNest(g, k, c, rows, rows, taps, taps, rows, rows, pad=pad)
        bits = {Unit.CONV: draw(st.sampled_from([4, 8])), Unit.SHIFT: 4, Unit.ADDER: 8}.get(unit, 0)
        weights = Weights(f"w{i}", bits, 2 if unit is Unit.SHIFT else 1) if bits else None
        self.layers.append(Layer(f"l{i}", "Conv", unit, nest, (source.name, *extra), target.name, weights))

    def network(self):
        return Network("random", tuple(self.layers), tuple(self.tensors), ("t0",), (self.at.name,))


@st.composite
def networks(draw, most_layers=4, rows=(8, 14, 16), channels=(3, 16, 24), units=COMPUTE, kinds=None):
    """Chains of dense and depthwise layers of all units, with residuals and vector layers between them. `kinds` may
    name more: "fork" is a tensor that two layers read, which write the two parts of another one; "host"."""
    chain = _Chain(draw(st.sampled_from(channels)), draw(st.sampled_from(rows)))
    wide = sorted({c for c in (16, 32, 40) if c <= 2 * max(channels)})
    for _ in range(draw(st.integers(1, most_layers))):
        kind = draw(st.sampled_from(kinds or ["dense", "dense", "depthwise", "vector"]))
        source = chain.at
        if kind == "fork":
            parts = [draw(st.sampled_from(wide)) for _ in range(2)]
            target = chain.tensor(sum(parts))
            for part in parts:
                chain.layer(draw, "dense", draw(st.sampled_from(units)), source, target, part)
            continue
        out = draw(st.sampled_from(wide)) if kind == "dense" else source.channels
        same = [t.name for t in chain.tensors if t.channels == out and t is not source]
        extra = (draw(st.sampled_from(same)),) if same and kind != "host" and draw(st.booleans()) else ()
        unit = {"vector": Unit.VECTOR, "host": Unit.HOST}.get(kind) or draw(st.sampled_from(units))
        chain.layer(draw, kind, unit, source, chain.tensor(out), out, extra)
    return chain.network()


BOARD = load_board("fpga-pynq-z2")
TRIES = 20_000
KINDS = ["dense", "dense", "dense", "depthwise", "vector", "fork", "fork", "host"]
LIMITS = [(None, None), (None, 90), (None, 60), (25_000, 100)]
"""(LUT, BRAM36) of the whole design."""


@st.composite
def searches(draw, objective="fps"):
    """A search on a small board, whose memory holds all, some or none of a random network."""
    network = draw(networks(rows=(8, 16, 28), channels=(3, 16, 32, 64), kinds=KINDS))
    assume(any(layer.unit is not Unit.HOST for layer in network.layers))
    lut, bram36 = draw(st.sampled_from(LIMITS))
    options = Options(objective=objective, batch=draw(st.sampled_from([1, 2, 8])), max_lut=lut, max_bram36=bram36)
    board = replace(slower_memory(BOARD, draw(st.sampled_from([0.8, 0.25]))), uram=draw(st.sampled_from([0, 16])))
    return Search(network, board, options, space=Space(unrollings=draw(st.sampled_from([3, 12]))))


def accelerators(search, node, chance, count):
    """Tables of random accelerators of a node: options, buffers and shares that fit the board, half of them fast."""
    tuner, slots = search.tuner(node), len(node.slots)
    shares = list(compositions(search.space.shares, slots)) if slots < 4 else [(search.space.shares // slots,) * slots]
    found = 0
    fastest = [sorted(range(len(slot.options)), key=lambda i, s=slot: s.cycles[i]) for slot in node.slots]
    for _ in range(20 * count):
        first = chance.choice([1.0, 0.4])
        choice = tuple(order[int(chance.random() * first * len(order))] for order in fastest)
        levels = tuple(chance.choice(search.space.levels) for _ in node.slots)
        made = tuner.tuned(Candidate(choice, levels, chance.choice(shares), node.least_pages))
        if made is not None:  # it fits the board, and every layer its buffers
            yield made.tables
            if (found := found + 1) == count:
                return
    if node.picks is not None:  # what the search itself would take
        best = tuner.best([i for i, _ in node.picks], [part for _, part in node.picks], lambda *_: False)
        if best is not None:
            yield best.tables


def tables_of(search, accelerator, pages, uram_groups=0):
    return Tables(search.network, search.board, search.machine, accelerator, pages, uram_groups)


def fits(made, tables):
    """Whether a plan keeps within BRAM and URAM."""
    urams = made.peak_groups + made.pinned_groups
    return made.peak_pages <= tables.memory_pages and urams <= tables.uram_groups


def any_groups(tables, chance):
    """Some part of each tensor in URAM; None: dealt by the rule."""
    if chance.random() < 0.3:
        return None
    return [chance.randint(0, -(-s.pages // URAM_PAGES)) for s in tables.switches[: tables.tensor_count]]


def plans(tables, chance, count=12):
    """Random plans with every kind of schedule that fit the memory."""
    for _ in range(count):
        often = chance.choice([0.0, 0.3, 0.7, 1.0])
        on = frozenset(n for n in range(len(tables.switches)) if chance.random() < often)
        tasks = tables.tasks(on)
        ways = [one_by_one(tasks), first_fit(tasks), in_order(tasks)]
        ways += [periodic(tasks, segments) for segments in range(1, len(tasks))]
        made = (finished(tables, on, way, any_groups(tables, chance)) for way in dict.fromkeys(ways))
        yield from (m for m in made if fits(m, tables))


class RandomTables(Tables):
    """Tables without mappings behind them: layers, chunks, pages and cycles are given."""

    def __init__(self, network, chunk_of, memory_pages, uram_groups, switches, cycles):
        chunk = Chunk(Unit.CONV, "all", "mac", Unroll(), 8, 1, Buffers(1, 1, 1), 1)
        self.network, self.accelerator = network, Accelerator((chunk,) * (max(chunk_of) + 1), 1)
        self.works = self.layers_on = (None,) * len(chunk_of)
        self.chunk_of, self.memory_pages, self.uram_groups = chunk_of, memory_pages, uram_groups
        self.switches = switches
        self.tensor_count = sum(1 for s in switches if s.tensor)
        self.of_layer = own_switches(network, switches)
        self.cycles = cycles


def own_switches(network, switches):
    return tuple(
        tuple(n for n, s in enumerate(switches) if s.layer == i or s.tensor in (*layer.inputs, layer.output))
        for i, layer in enumerate(network.layers)
    )


@st.composite
def random_tables(draw, most_layers=6, longest=(3, 9, 40)):
    """Layers in random order on up to three chunks; tensors that several layers write or read; any cycles, so that a
    placement on chip may even be slower."""
    nest = LoopNest(1, 1, 1, 1, 1, 1, 1, 1, 1)
    layers, written = [], ["in"]
    for i in range(draw(st.integers(1, most_layers))):
        inputs = tuple(draw(st.lists(st.sampled_from(written), min_size=1, max_size=2, unique=True)))
        # a part of the last tensor, unless this layer reads it
        joins = bool(layers) and layers[-1].output not in inputs and draw(st.integers(0, 2)) == 0
        output = layers[-1].output if joins else f"t{i}"
        layers.append(Layer(f"l{i}", "Conv", Unit.CONV, nest, inputs, output))
        if not joins:
            written.append(output)
    tensors = tuple(Tensor(name, 1, 1, 1) for name in written)
    network = Network("tables", tuple(layers), tensors, ("in",), ())
    chunk_of = tuple(draw(st.integers(0, 2)) for _ in layers)
    switches = []
    for name in written[1:]:
        readers = network.consumers.get(name, ())
        if readers and draw(st.integers(0, 4)):
            replicas = len({chunk_of[i] for i in readers})
            switches.append(Switch(name, -1, -1, draw(st.integers(1, draw(st.sampled_from([3, 20])))) * replicas, 0))
    for i in range(len(layers)):
        if draw(st.integers(0, 3)) == 0:
            bits = draw(st.integers(1, draw(st.sampled_from([2, 20])) * PAGE_BITS))
            switches.append(Switch("", i, chunk_of[i], -(-bits // PAGE_BITS), bits))
    switches = tuple(switches)
    chance = random.Random(draw(st.integers(0, 10**6)))
    most = draw(st.sampled_from(longest))
    cycles = tuple(
        tuple(chance.randint(1, most) for _ in range(1 << len(own))) for own in own_switches(network, switches)
    )
    return RandomTables(network, chunk_of, draw(st.integers(0, 8)), draw(st.integers(0, 4)), switches, cycles)
