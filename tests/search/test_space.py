"""Slots ask for lanes, ports and packing that all of their layers can use."""

import re
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nashc.board import load_board
from nashc.core.loops import LoopNest
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.resources import buffer_resources, chunk_resources, machine_of
from nashc.search.space import DUAL_PRICES, lanes_of, most_lanes, partitions, products, slot_options

BOARD = load_board("fpga-pynq-z2")
MACHINE = machine_of(BOARD)


def network(unit, *weights, activation_bits=8, extra=False):
    """A chain of 3x3 layers with the given weights; with `extra` the last one adds the map two layers before."""
    nest = LoopNest(1, 16, 16, 8, 8, 3, 3, 8, 8, pad=(1, 1, 1, 1))
    tensors = [Tensor(f"t{i}", 16, 8, 8, activation_bits) for i in range(len(weights) + 1)]
    layers = [Layer(f"l{i}", "Conv", unit, nest, (f"t{i}",), f"t{i + 1}", w) for i, w in enumerate(weights)]
    if extra:
        layers[-1] = replace(layers[-1], inputs=(*layers[-1].inputs, f"t{len(weights) - 2}"))
    return Network("n", tuple(layers), tuple(tensors), ("t0",), (tensors[-1].name,))


def only_slot(net):
    ((slot,),) = partitions(net)
    return slot


@pytest.mark.parametrize(
    ("unit", "weight_bits", "activation_bits", "kind"),
    [
        (Unit.ADDER, 6, 6, "adder6"),
        (Unit.ADDER, 6, 8, "adder"),
        (Unit.ADDER, 8, 6, "adder"),
        (Unit.SHIFT, 4, 8, "shift_mac"),
        (Unit.SHIFT, 5, 8, "shift5"),
        (Unit.CONV, 4, 8, "mac4"),
        (Unit.CONV, 5, 8, "mac"),
    ],
)
def test_lanes_hold_weights_and_activations(unit, weight_bits, activation_bits, kind):
    slot = only_slot(network(unit, Weights("w", weight_bits), activation_bits=activation_bits))
    assert lanes_of(slot, BOARD, "fps") == kind
    assert lanes_of(slot, BOARD, "energy") == ("shift" if kind == "shift_mac" else kind)


def test_one_layer_with_wide_activations_widens_the_chunk():
    net = network(Unit.ADDER, Weights("a", 6), Weights("b", 6), activation_bits=6)
    assert lanes_of(only_slot(net), BOARD, "fps") == "adder6"
    wide = replace(net, tensors=tuple(replace(t, bits=8) if t.name == "t1" else t for t in net.tensors))
    assert lanes_of(only_slot(wide), BOARD, "fps") == "adder"
    output = replace(net, tensors=tuple(replace(t, bits=8) if t.name == "t2" else t for t in net.tensors))
    assert lanes_of(only_slot(output), BOARD, "fps") == "adder6"


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(16, 8), (8, 16)])
def test_wider_than_any_lane_is_an_error(weight_bits, activation_bits):
    net = network(Unit.CONV, Weights("w"), Weights("v", weight_bits), activation_bits=activation_bits)
    words = (
        "layer 'l0': " if activation_bits == 16 else "layer 'l1': "
    ) + "no conv lane of fpga-pynq-z2 is wide enough: it takes 8-bit activations and 8-bit weights, the network reads"
    with pytest.raises(NashcError, match=re.escape(words)):
        slot_options(only_slot(net), net, BOARD, MACHINE, Options())


def test_one_layer_with_minus_128_keeps_the_chunk_from_packing():
    even = network(Unit.CONV, Weights("a"), Weights("b"))
    odd = network(Unit.CONV, Weights("a"), Weights("b", symmetric=False))
    packed, plain = (slot_options(only_slot(n), n, BOARD, MACHINE, Options()) for n in (even, odd))
    assert packed.chunk(0, 0, 8).symmetric
    assert not plain.chunk(0, 0, 8).symmetric
    where = {(*tuple(f), p): i for i, (f, p) in enumerate(zip(packed.factors.tolist(), packed.post, strict=True))}
    dearer = 0
    for i, (factors, post) in enumerate(zip(plain.factors.tolist(), plain.post, strict=True)):
        before = packed.prices[:, where[(*factors, post)]]
        assert (plain.prices[:, i] >= before - 1e-9).all()
        dearer += bool((plain.prices[:, i] > before + 1e-9).any())
        assert factors[1] % 2 == 0 or (plain.prices[:, i] == before).all()
    assert dearer


@pytest.mark.parametrize("unit", [Unit.CONV, Unit.SHIFT, Unit.ADDER])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_table_agrees_with_the_exact_resources(unit, symmetric):
    """With extras, without packing: BRAM18 of every level, and no dual price above a real split."""
    net = network(unit, Weights("a", 4), Weights("b", 4, symmetric=symmetric), extra=True)
    slot = only_slot(net)
    assert (slot.extra_bits, slot.symmetric) == (8, symmetric)
    options = slot_options(slot, net, BOARD, MACHINE, Options())
    for i in range(0, len(options), max(1, len(options) // 50)):
        for level, (luts, bram18) in enumerate(zip(options.luts, options.bram18, strict=True)):
            chunk = options.chunk(i, level, 8)
            buffers = buffer_resources(BOARD, chunk)
            assert (luts[i], bram18[i]) == (buffers.lut, buffers.bram18)
        for dsp in (0, 60, 200):
            used = chunk_resources(BOARD, (chunk,), dsp)[0]
            assert (
                options.prices[:, i] + options.luts[-1, i] <= used.lut + np.array(DUAL_PRICES) * used.dsp + 1e-6
            ).all()


def test_no_chunk_that_fits_has_more_lanes_than_the_bound():
    net = network(Unit.CONV, Weights("w", 4))
    options = slot_options(only_slot(net), net, BOARD, MACHINE, Options())
    limit = chunk_resources(BOARD, (options.chunk(0, 0, 8),), 200)[0]
    each = {"mac4": (64.4, 2), "mac": (147.5, 2), "shift_mac": (42.9, 1), "shift": (42.9, 0), "adder": (21.9, 0)}
    for kind, (luts, on_a_dsp) in each.items():
        assert most_lanes(BOARD, [kind], limit) == int(limit.lut / luts + on_a_dsp * limit.dsp)
    assert most_lanes(BOARD, list(each), limit) == max(most_lanes(BOARD, [kind], limit) for kind in each)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 200))
def test_products_are_all_choices_within_the_limit(axes, most):
    found = products(axes, most)
    assert [tuple(row) for row in found.tolist()] == [c for c in product(*axes) if prod(c) <= most]
