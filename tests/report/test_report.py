"""Tables: complete, within 100 columns, plain, and deaf to what a model file writes into its names."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from handmade import board, compiled, hybrid
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group
from rich.text import Text

from nashc.board import board_names, load_board
from nashc.compiler import chunk_labels
from nashc.core.loops import Unroll
from nashc.importer import import_model
from nashc.report.boards import board_report, boards_table
from nashc.report.deliver import host_warning, human_form
from nashc.report.network import network_report
from nashc.report.progress import progress_bar
from nashc.report.tables import certificate, design_report
from nashc.report.text import WIDTH, figure, render, safe, wrote

MNIST = "examples/models/mnist-conv.onnx"


def report(**kwargs) -> str:
    return render(design_report(compiled(**kwargs), verbose=True))


def test_headline():
    text = report()
    assert "7,310 FPS, 92.7 GOPS" in text
    assert "2 images every 54,720 cycles at 200 MHz" in text
    assert "1.25 mJ an image" in text
    assert "DRAM        91.6 KiB an image" in text


def test_every_layer_chunk_tensor_and_removed_node_is_in_the_report():
    value = compiled()
    text = render(design_report(value, verbose=True))
    network = value.design.network
    for name in (*(layer.name for layer in network.layers), *chunk_labels(value.design.accelerator), "drop"):
        assert re.search(rf"\b{name}\b", text), name
    for tensor in network.tensors:
        if tensor.name not in (*network.inputs, *network.outputs):
            assert re.search(rf"^ (feature map)? *{tensor.name} ", text, re.MULTILINE), tensor.name


def test_resources_add_up():
    text = report()
    assert re.search(r"used +36,000 +0 +24,500 +128 +154 +0\n", text)
    assert re.search(r"on-chip memory +3,000 +0 +0 +0 +64 +0\n", text)
    assert re.search(r"used / usable +20\.6% +0\.0% +7\.0% +15\.0% +29\.8% +-\n", text)
    tight = replace(compiled(), options=replace(compiled().options, max_dsp=200))
    assert re.search(r"used / usable +20\.6% +0\.0% +7\.0% +64\.0%", render(design_report(tight)))


def test_host_nodes_are_loud():
    text = report(host=True)
    assert "WARNING: HOST NODES" in text
    assert "1 of 6 layers (0.5% of the operations) run on the HOST CPU" in re.sub(r"[\s│]+", " ", text)
    assert "no unit of the accelerator has NonZero" in text
    assert text.index("WARNING") < text.index("Accelerator\n") < text.index("Layers\n")
    assert "HOST" not in report()
    assert host_warning(compiled(host=True)) == "warning: on the host CPU, not on the accelerator: 'odd'\n"
    assert host_warning(compiled()) == ""


def test_comparison_has_ratios_and_reasons():
    value = replace(compiled(), missing=(("nasa-f", "no accelerator fits"),))
    text = render(design_report(value))
    assert re.search(r"batch 1 +1 +\S+ +1\.00x +\S+ +2\.5 +2\.00x", text)
    assert "nasa-f: no accelerator fits" in text


def test_certificate_in_words():
    design = compiled().design
    proven = replace(design.certificate, optimal=True, bound=design.certificate.value, stopped="proven")
    assert certificate(replace(design, certificate=proven)).startswith(
        "Proven optimal for 'fps' in the declared space of 123,456 accelerators (42 priced in full)"
    )
    assert "gap 4.00% proven" in certificate(design)
    assert "stopped because the time limit of 30 s." in certificate(design)
    unknown = replace(design.certificate, objective="energy", bound=0.0, stopped="budget")
    text = certificate(replace(design, certificate=unknown))
    assert "No bound is proven" in text
    assert "the time budget ran out" in text
    assert "gap" not in text


@pytest.mark.parametrize("host", [False, True])
def test_fits_100_columns_and_is_plain(host):
    text = report(host=host)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_colour_only_where_asked():
    assert "\x1b[" in render(design_report(compiled(host=True)), color=True)


HOSTILE = [
    "[bold red]x[/]",
    "[/]",
    "a\x1b[2Jb",
    "a\nb\rc\x00",
    "\u202egnp",
    "\u2066x\u2069",
    "\u200b",
    "x" * 500,
    ":smile:",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_data(name):
    value = compiled(host=True, name=name)
    network = value.design.network
    tensors = tuple(replace(t, name=t.name + name) for t in network.tensors)
    layers = tuple(
        replace(
            layer,
            name=layer.name + name,
            op=layer.op + name,
            note=layer.note + name,
            activation=name,
            inputs=tuple(i + name for i in layer.inputs),
            output=layer.output + name,
        )
        for layer in network.layers
    )
    renamed = replace(
        network,
        layers=layers,
        tensors=tensors,
        inputs=(network.inputs[0] + name,),
        outputs=(network.outputs[0] + name,),
    )
    results = tuple(replace(r, layer=r.layer + name) for r in value.design.layers)
    plan = replace(
        value.design.plan,
        resident=tuple((n + name, c) for n, c in value.design.plan.resident),
        pinned=tuple(n + name for n in value.design.plan.pinned),
    )
    value = replace(value, design=replace(value.design, network=renamed, layers=results, plan=plan))
    text = render(human_form(value, "out" + name, verbose=True))
    *tables, files = text.splitlines()
    assert files.startswith("wrote out")
    assert max(map(len, tables)) <= WIDTH
    assert safe(text.replace("\n", "")) == text.replace("\n", "")
    joined = re.sub(r"[\s│]+", "", text)
    assert re.sub(r"\s+", "", safe(name)) in joined


@given(st.text())
def test_safe_text_is_printable_and_stays(text):
    assert safe(text) == safe(safe(text))
    assert all(c.isprintable() for c in safe(text))


def test_figures():
    assert [figure(v) for v in (0, 0.0014965, 1.5, 999.96, 1000, 326563.9)] == [
        "0", "0.001497", "1.5", "1000", "1,000", "326,564",
    ]  # fmt: skip


def test_chunks_of_one_name_are_told_apart():
    accelerator = compiled().design.accelerator
    conv = accelerator.chunks[0]
    two = replace(accelerator, chunks=(conv, replace(conv, weight_bits=4)))
    assert chunk_labels(two) == ("conv-8bit", "conv-4bit")


def test_network_report():
    text = render(network_report(import_model(MNIST), board(), verbose=True))
    assert "'Input3' 1x28x28 (8 bit) -> 'Plus214_Output_0' 10x1x1 (8 bit)" in text
    assert re.search(r"conv +3 +0\.787 +98\.9%", text)
    assert "Times212_reshape1" in text
    assert "HOST" not in text
    imported = replace(import_model(MNIST), network=hybrid(host=True))
    assert "WARNING: these run on the HOST CPU" in render(network_report(imported))


def test_boards():
    text = render(boards_table())
    assert all(name in text for name in board_names())
    for name in board_names():
        target = load_board(name)
        shown = re.sub(r"\s+", "", render(board_report(target), width=200))
        assert all(dotted in shown for dotted in target.sources)
    shown = render(board_report(load_board("fpga-zc706")))
    assert re.search(r"dsp +900 +dsp", shown)
    assert re.search(r"conv, each on a DSP +855 +171 ", shown)
    assert re.search(r"conv \+ adder +10% ", shown)


def test_progress_only_on_a_terminal():
    with progress_bar(Console(file=open("/dev/null", "w"))) as progress:
        assert progress is None
    with progress_bar(Console(file=open("/dev/null", "w"), force_terminal=True)) as progress:
        assert progress is not None
        progress("design: planning [b]", 0.5)


def test_long_rows_still_show_every_column():
    value = compiled()
    chunk = value.design.accelerator.chunks[0]
    wide = replace(chunk, role="depthwise", unroll=Unroll(128, 1, 1, 14, 14, 3, 3), dram_bits=270)
    accelerator = replace(value.design.accelerator, chunks=(wide, *value.design.accelerator.chunks[1:]))
    text = render(design_report(replace(value, design=replace(value.design, accelerator=accelerator))))
    assert "225,792 mac" in text
    assert "g128" in text
    assert "ox14" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_where_a_file_is_stays_on_one_line():
    name = "/a/" + "long/" * 60 + "report.html"
    assert render(wrote(name)) == f"wrote {name}\n"
    assert render(Group(Text("x " * 200), wrote(name)), width=80).splitlines()[-1] == f"wrote {name}"
