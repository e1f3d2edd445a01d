"""What `nashc compile -v` says about a design is what the design and the cost model say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from handmade import compiled

from nashc.artifact import Compiled
from nashc.compiler import compile_model
from nashc.core.design import MemoryPlan
from nashc.core.options import Options
from nashc.hw.machine import PAGE_BANKS, pages
from nashc.report.deliver import human_form
from nashc.report.explain import explained
from nashc.report.tables import memory_plan
from nashc.report.text import render

MNIST = "examples/models/mnist-conv.onnx"


def said(value: Compiled) -> str:
    return " ".join(render(explained(value)).split())


@pytest.fixture(scope="module")
def mnist() -> Compiled:
    return compile_model(MNIST, "fpga-zc706", options=Options(batch=4, budget_seconds=5))


@pytest.fixture(scope="module")
def nothing_kept() -> Compiled:
    return compile_model(MNIST, "fpga-zc706", options=Options(batch=1, budget_seconds=5, memory_plan=False))


def test_it_comes_with_v_only(mnist):
    assert "What sets the interval" in render(human_form(mnist, None, verbose=True))
    assert "What sets the interval" not in render(human_form(mnist, None))


def test_layers_and_chunks(mnist):
    text = said(mnist)
    assert "Convolution28 Conv + Plus30 + ReLU32 (relu) in one pass" in text
    assert "2 other layers one node each, nothing fused" in text
    assert "1 node removed: computed at compile time: it depends on constants only" in text
    assert "conv takes all layers of the unit conv with weights of up to 8 bits: 3 layers" in text


def test_interval(mnist):
    design, text = mnist.design, said(mnist)
    busy = [sum(r.cycles for r in design.layers if r.chunk == i) for i in range(2)]
    for cycles in busy:
        assert f"busy {cycles:,} cycles" in text
    name = ("conv", "vector")[busy.index(max(busy))]
    assert f"bottleneck {name}: busy {max(busy):,} of {design.interval_cycles:,} cycles" in text
    assert f"{100 * (1 - min(busy) / max(busy)):.1f}% below" in text


def test_batch_and_certificate(mnist):
    design, text = mnist.design, said(mnist)
    alone = dict(mnist.alternatives)["batch 1"]
    assert "4 images as asked for" in text
    assert f"{design.fps / alone.fps:.2f}x the FPS" in text
    c = design.certificate
    assert f"{c.space:,} declared, {c.refined:,} priced in full" in text


def test_memory_that_is_off(nothing_kept):
    """Every feature map and weight is in DRAM, and no bank could hold one."""
    text, network = said(nothing_kept), nothing_kept.design.network
    for layer in network.layers[:-1]:
        banks = pages(network.tensor[layer.output].total_bits) * PAGE_BANKS
        assert re.search(rf"{layer.output} DRAM: [0-9.]+ KiB a copy, {banks} banks, more than there are", text)
    assert text.count("streamed once a batch") == sum(layer.weights is not None for layer in network.layers)
    assert "kept on chip" not in text
    assert "pinned on chip" not in text


def test_a_map_that_the_schedule_has_room_for(mnist):
    """Taken out of the plan of a design and asked for, a resident map brings the peak back to where it was."""
    design = mnist.design
    name, plan = design.plan.resident[0][0], design.plan
    larger = plan.peak_banks + 64
    changed = MemoryPlan(plan.resident[1:], plan.pinned, larger, plan.peak_banks)
    peak = re.search(
        rf"{name} DRAM: [0-9.]+ KiB a copy, [0-9]+ banks; with it ([0-9]+) at the peak: would fit, the search",
        said(replace(mnist, design=replace(design, plan=changed))),
    )
    assert peak
    assert plan.peak_banks <= int(peak[1]) <= larger
    tight = replace(changed, banks=plan.peak_banks, peak_banks=plan.peak_banks)
    if int(peak[1]) > plan.peak_banks:
        assert "does not fit this schedule" in said(replace(mnist, design=replace(design, plan=tight)))


def test_feature_maps_in_uram():
    """All URAM that may be used and is not is offered to a map that was taken out of the plan."""
    made = compile_model(MNIST, "fpga-kv260", options=Options(batch=16, budget_seconds=5, max_bram36=30))
    design, text = made.design, said(made)
    plan, usable = design.plan, made.board.usable_uram // PAGE_BANKS * PAGE_BANKS
    assert plan.in_uram
    assert (
        f"{design.resources.uram} URAM, {plan.peak_urams} of them for feature maps, "
        f"{usable - design.resources.uram} more unused"
    ) in text
    assert f"{design.resources.uram} URAM ({plan.peak_urams} of them for feature maps)" in render(memory_plan(design))
    name, left = plan.resident[0][0], tuple(u for u in plan.in_uram if u[0] != plan.resident[0][0])
    fewer = replace(plan, resident=plan.resident[1:], in_uram=left)
    assert re.search(rf"{name} DRAM: [^:]*: would fit", said(replace(made, design=replace(design, plan=fewer))))
    full = replace(design.resources, uram=usable)
    tight = replace(design, plan=replace(fewer, banks=0, peak_banks=0), resources=full)
    assert re.search(rf"{name} DRAM: [^:]*, more than there are", said(replace(made, design=tight)))


def test_layers_that_wait(mnist, nothing_kept):
    for value in (mnist, nothing_kept):
        waiting = [r for r in value.design.layers if r.bound == "bandwidth"]
        text = said(value)
        for result in waiting:
            assert f"array busy {result.compute_cycles:,} of {result.cycles:,} cycles" in text
        assert text.count("array busy") == len(waiting)
    assert "DRAM takes" in said(nothing_kept)


def test_host_and_names_from_files():
    assert "on the host CPU: no unit of the accelerator has NonZero" in said(compiled(host=True))
    assert "the host reads or writes it" in said(compiled(host=True))
    layers = compiled().design.network.layers
    evil = replace(layers[0], nodes=("stem", "a\x1b[2J\u202e"))
    value = compiled()
    network = replace(value.design.network, layers=(evil, *layers[1:]))
    text = render(explained(replace(value, design=replace(value.design, network=network))))
    assert "\x1b" not in text
    assert "a\\x1b[2J\\u202e" in text
