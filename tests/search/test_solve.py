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
from nashc.search.solve import Search, solve

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


@settings(max_examples=6, deadline=None)
@given(networks(), st.sampled_from(OBJECTIVES), st.sampled_from([None, 1, 3]))
def test_designs_are_legal(network, objective, batch):
    options = Options(objective=objective, batch=batch)
    design = solve(network, BOARD, options)
    check(design, network, options)
    assert solve(network, BOARD, options) == design


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
    assert design.certificate.bound >= solve(network, BOARD, Options(batch=1)).certificate.bound


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
