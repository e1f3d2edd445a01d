"""Whole designs: every one is legal, fits its limits, repeats byte for byte and never beats its certificate."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import networks

from nashc.board import load_board
from nashc.core.design import accepts
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import OBJECTIVES, Options
from nashc.errors import NashcError
from nashc.hw.machine import pages
from nashc.hw.resources import usable
from nashc.search.baselines import BASELINES, baseline
from nashc.search.bound import PRECISION
from nashc.search.fixed import Fixed
from nashc.search.nodes import _BOUNDED
from nashc.search.solve import Search, nearest, solve
from nashc.search.space import partitions

BOARD = load_board("fpga-pynq-z2")


def check(design, network, options):
    limit = usable(BOARD, options.max_lut, options.max_dsp, options.max_bram36)
    assert design.resources.fits(limit)
    assert [r.layer for r in design.layers] == [layer.name for layer in network.layers]
    busy = [0] * len(design.accelerator.chunks)
    taken = {}
    for layer, result in zip(network.layers, design.layers, strict=True):
        chunk = design.accelerator.chunks[result.chunk]
        assert accepts(chunk, layer)
        assert 0 < result.compute_cycles <= result.cycles
        assert 0 < result.utilisation <= 1
        busy[result.chunk] += result.cycles
        at = result.start % design.interval_cycles
        taken.setdefault(result.chunk, []).append((at, result.cycles))
        for name in layer.inputs:
            for p in network.producers.get(name, ()):
                assert design.layers[p].start + design.layers[p].cycles <= result.start
    assert max(busy) <= design.interval_cycles
    for spans in taken.values():
        spans.sort()
        ring = [*spans, (spans[0][0] + design.interval_cycles, 0)]
        assert all(a + length <= b for (a, length), (b, _) in pairwise(ring))
    assert sum(c.dram_bits for c in design.accelerator.chunks) <= BOARD.dram_bytes_per_cycle * 8
    assert design.plan.peak_banks <= design.plan.banks
    for name, copies in design.plan.resident:
        assert copies >= 1
        assert pages(network.tensor[name].total_bits * design.accelerator.batch) * 8 <= design.plan.banks
    assert design.certificate.value >= design.certificate.bound
    assert design.certificate.optimal == (design.certificate.value <= design.certificate.bound)


@settings(max_examples=4, deadline=None)
@given(networks(), st.sampled_from(OBJECTIVES), st.sampled_from([None, 1, 3]))
def test_designs_are_legal(network, objective, batch):
    options = Options(objective=objective, batch=batch)
    design = solve(network, BOARD, options)
    check(design, network, options)


@settings(max_examples=3, deadline=None)
@given(networks(), st.sampled_from(OBJECTIVES), st.sampled_from(OBJECTIVES))
def test_designs_repeat_whatever_was_searched_before(network, objective, before):
    options = Options(objective=objective, batch=1)
    _BOUNDED.clear()
    alone = solve(network, BOARD, options)
    solve(network, BOARD, Options(objective=before, batch=1))
    assert solve(network, BOARD, options) == alone


@settings(max_examples=4, deadline=None)
@given(networks())
def test_limits_are_kept_and_never_help(network):
    tight = Options(batch=1, max_lut=20_000, max_dsp=120, max_bram36=60)
    try:
        design = solve(network, BOARD, tight)
    except NashcError as error:
        if "fits" not in str(error):
            raise
        return
    check(design, network, tight)
    free = solve(network, BOARD, Options(batch=1)).certificate
    assert design.certificate.value >= free.bound
    assert design.certificate.bound >= free.bound * (1 - PRECISION)  # both are found by bisection, to that


@settings(max_examples=3, deadline=None)
@given(networks())
def test_baselines_are_legal_designs_of_the_plain_network(network):
    for name in BASELINES:
        try:
            design = baseline(name, network, BOARD, Options(batch=1))
        except NashcError as error:
            if "fit" not in str(error):
                raise
            continue
        check(design, design.network, Options())
        if name != "nasa-f":
            assert not {layer.unit for layer in design.network.layers} & {Unit.SHIFT, Unit.ADDER}


def test_latency_limit_is_kept():
    network = Network(
        "one",
        (Layer("l", "Conv", Unit.CONV, LoopNest(1, 64, 64, 16, 16, 3, 3, 16, 16, pad=(1, 1, 1, 1)), ("a",), "b",
               Weights("w")),),
        (Tensor("a", 64, 16, 16), Tensor("b", 64, 16, 16)), ("a",), ("b",),
    )  # fmt: skip
    free = solve(network, BOARD, Options())
    limited = solve(network, BOARD, Options(max_latency_ms=free.latency_ms / 3))
    assert limited.latency_ms <= free.latency_ms / 3
    with pytest.raises(NashcError, match="max-latency"):
        solve(network, BOARD, Options(max_latency_ms=1e-6))


def test_four_bit_layers_use_the_chunk_made_for_them():
    wide = LoopNest(1, 32, 32, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1))
    layers = tuple(
        Layer(f"l{i}", "Conv", Unit.CONV, wide, (f"t{i}",), f"t{i + 1}", Weights(f"w{i}", bits))
        for i, bits in enumerate((8, 4, 8, 4))
    )
    network = Network("mixed", layers, tuple(Tensor(f"t{i}", 32, 8, 8) for i in range(5)), ("t0",), ("t4",))
    design = solve(network, BOARD, Options(batch=1))
    for layer, result in zip(network.layers, design.layers, strict=True):
        assert design.accelerator.chunks[result.chunk].weight_bits == layer.weights.bits


def test_network_without_layers_for_the_accelerator():
    nest = LoopNest(10, 1, 1, 1, 1, 1, 1, 1, 1)
    network = Network(
        "host", (Layer("s", "Softmax", Unit.HOST, nest, ("a",), "b"),),
        (Tensor("a", 10, 1, 1), Tensor("b", 10, 1, 1)), ("a",), ("b",),
    )  # fmt: skip
    with pytest.raises(NashcError, match="no node of the model"):
        Search(network, BOARD, replace(Options())).run()


class OutOfTime(Search):
    """A search whose budget is spent from the start."""

    def out_of_time(self, share=1.0):
        return True


@settings(max_examples=3, deadline=None)
@given(networks(), st.sampled_from(["fps", "latency", "energy"]))
def test_a_spent_budget_leaves_most_nodes_unseen_and_the_bound_holds(network, objective):
    options = Options(objective=objective)
    seen = []
    hurried = OutOfTime(network, BOARD, options, table=lambda slot: seen.append(slot) or hurried_table(slot))
    whole = Search(network, BOARD, options)
    hurried_table = whole.options_of
    nodes = hurried.nodes()
    looked_into = [n for n in nodes if n.slots]
    assert {n.key[:2] for n in looked_into} == {(0, 0)}
    assert len({n.key[:2] for n in nodes}) == len(partitions(network)) * len(hurried.space.batches)
    every = whole.nodes()
    for node in nodes:
        if not node.slots:
            assert node.bound <= min(n.bound for n in every if n.key[:2] == node.key[:2])
    design = hurried.run()
    assert design.certificate.stopped in {"budget", "proven"}
    assert design.certificate.bound <= whole.run().certificate.value
    check(design, network, options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limits", [{"max_lut": 10}, {"max_lut": 2_000}, {"max_bram36": 1, "max_lut": 8_000}])
def test_what_fits_no_board_says_so(limits):
    with pytest.raises(NashcError, match="no accelerator for 'slow' fits"):
        solve(two_units(), BOARD, Options(**limits))


def two_units():
    """Dense and depthwise layers of two units."""
    nests = (
        LoopNest(1, 16, 16, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1)),
        LoopNest(16, 1, 1, 8, 8, 3, 3, 8, 8, pad=(1,) * 4),
    )
    layers = tuple(
        Layer(f"l{i}", "Conv", unit, nests[i % 2], (f"t{i}",), f"t{i + 1}", Weights(f"w{i}", 4))
        for i, unit in enumerate((Unit.SHIFT, Unit.SHIFT, Unit.ADDER, Unit.ADDER))
    )
    return Network("slow", layers, tuple(Tensor(f"t{i}", 16, 8, 8) for i in range(5)), ("t0",), ("t4",))


def with_dram(bytes_per_second):
    return replace(BOARD, dram=replace(BOARD.dram, bytes_per_second=bytes_per_second, efficiency=1))


@pytest.mark.parametrize(("bits", "chunks"), [(20, {2, 4}), (7, {2, 4}), (3, {2})])
def test_shares_of_a_slow_dram_add_up_to_no_more_than_it_delivers(bits, chunks):
    """Below 32 bits a cycle a 32nd is less than a bit; no chunk gets less than one, and all together no more."""
    board = with_dram((bits + 0.1) / 8 * BOARD.clock_mhz * 1e6)
    design = solve(two_units(), board, Options(batch=1))
    shares = [chunk.dram_bits for chunk in design.accelerator.chunks]
    assert len(shares) in chunks
    assert min(shares) >= 1
    assert sum(shares) <= bits


def test_a_dram_of_fewer_bits_than_chunks_or_none_is_an_error():
    with pytest.raises(NashcError, match="no accelerator for 'slow' fits"):
        solve(two_units(), with_dram(1.1 / 8 * BOARD.clock_mhz * 1e6), Options(batch=1))
    with pytest.raises(NashcError, match="delivers less than a bit a cycle at 100 MHz"):
        solve(two_units(), with_dram(1e6), Options(batch=1))


def one_layer(name, bits, symmetric=True, activation_bits=8):
    nest = LoopNest(1, 16, 16, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1))
    weights = Weights("w", bits, symmetric=symmetric)
    return Network(
        name, (Layer("l", "Conv", Unit.CONV, nest, ("a",), "b", weights),),
        (Tensor("a", 16, 8, 8, activation_bits), Tensor("b", 16, 8, 8)), ("a",), ("b",),
    )  # fmt: skip


def test_a_given_accelerator_takes_what_its_lanes_compute_alone():
    small = Options(batch=1, max_lut=6_000, max_dsp=64)
    design = solve(one_layer("packed", 8), BOARD, small)
    (chunk,) = design.accelerator.chunks
    assert (chunk.lanes, chunk.symmetric) == ("mac", True)
    fixed = Fixed.of(design, BOARD, small)
    assert fixed.fps(one_layer("same", 8)) >= fixed.design(one_layer("same", 8)).fps > 0
    for other in (one_layer("weight of -128", 8, symmetric=False), one_layer("wide maps", 8, activation_bits=16)):
        assert fixed.fps(other) == 0
        with pytest.raises(NashcError, match="no chunk of the accelerator runs layer 'l'"):
            fixed.design(other)


def test_a_bound_on_a_given_accelerator_leaves_the_host_out():
    network = one_layer("one", 8)
    host = Layer("s", "Softmax", Unit.HOST, LoopNest(16, 1, 1, 8, 8, 1, 1, 8, 8), ("b",), "c")
    both = replace(network, layers=(*network.layers, host), tensors=(*network.tensors, Tensor("c", 16, 8, 8)),
                   outputs=("c",))  # fmt: skip
    fixed = Fixed.of(solve(network, BOARD, Options(batch=1)), BOARD, Options(batch=1))
    assert fixed.fps(both) >= fixed.design(both).fps > 0


def test_baselines_of_four_bit_convolutions_are_what_they_are_called():
    layers = [replace(one_layer("n", bits).layers[0], name=f"l{bits}", inputs=(f"t{i}",), output=f"t{i + 1}")
              for i, bits in enumerate((4, 8))]  # fmt: skip
    network = Network("mixed", tuple(layers), tuple(Tensor(f"t{i}", 16, 8, 8) for i in range(3)), ("t0",), ("t2",))
    alone = baseline("conv-only-dsp", network, BOARD, Options(batch=1))
    assert {chunk.lanes for chunk in alone.accelerator.chunks} == {"mac"}
    assert alone.resources.dsp >= sum(chunk.unroll.lanes for chunk in alone.accelerator.chunks) // 2
    assert len(baseline("single-chunk", network, BOARD, Options(batch=1)).accelerator.chunks) == 1


def test_of_batches_that_are_as_fast_the_least_is_taken():
    """The host sets the pace, 1024 elements at 10 cycles each, once a batch shares the weights that a layer reads."""
    nest = LoopNest(1, 1024, 1024, 1, 1, 1, 1, 1, 1)
    network = Network(
        "waits for the host",
        (Layer("l0", "Conv", Unit.CONV, nest, ("t0",), "t1", Weights("w0")),
         Layer("l1", "Odd", Unit.HOST, replace(nest, c=1), ("t1",), "t2")),
        (Tensor("t0", 1024, 1, 1), Tensor("t1", 1024, 1, 1), Tensor("t2", 1024, 1, 1)),
        ("t0",), ("t2",),
    )  # fmt: skip
    board = replace(BOARD, host=replace(BOARD.host, elements_per_second=BOARD.clock_mhz * 1e5))
    options = Options(memory_plan=False)
    values = {}
    for batch in (1, 2, 4, 8, 16):
        search = Search(network, board, replace(options, batch=batch))
        last, values[batch] = search.descend(search.nodes())
    least = min(values.values())
    assert values[1] > least == values[16]
    smallest = min(batch for batch, value in values.items() if value == least)
    search = Search(network, board, options)
    assert search.sooner(search.nodes(), last, least).accelerator.batch == smallest
    assert search.run().accelerator.batch == smallest


KEYS = st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 5))


@given(st.dictionaries(KEYS, st.floats(1, 10), min_size=1), KEYS)
def test_what_is_expected_of_a_node_is_what_its_neighbours_reached(known, key):
    if key in known:
        assert nearest(known, key) == known[key]
    value = nearest(known, key)
    assert min(known.values()) <= value <= max(known.values())
    far = {(p, b + 20, m): v + 1 for (p, b, m), v in known.items()}
    assert nearest({**far, **known}, key) == value
    assert nearest({}, key) == 1
