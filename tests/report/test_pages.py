"""Pages, Markdown and CSV: complete, equal to the design, and deaf to what a model file writes into its names."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from dataclasses import replace
from io import StringIO

import pytest
from handmade import board, compiled, design, hybrid
from hypothesis import given, settings
from hypothesis import strategies as st
from test_artifact import designs

from nashc.artifact import Compiled, dump
from nashc.compiler import compile_model
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.report.helps import MORE, RESOURCES, score, sentence, what_helps
from nashc.report.html.design import design_data
from nashc.report.html.names import shown
from nashc.report.html.page import CHARTS, _asset
from nashc.report.layers import layers_csv, paired_layers
from nashc.report.markdown import design_markdown, diff_markdown
from nashc.report.text import render
from nashc.report.written import Ask, design_page, diff_page, found, report_csv, report_markdown, report_page
from nashc.search.solve import solve

MNIST = "examples/models/mnist-conv.onnx"
ECHARTS = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
"""SHA-256 of dist/echarts.min.js of echarts 6.1.0 on npm."""
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>",
    "<!--<script>",
    "]]>",
    "\u202egnp.exe\u2066",
    "a\x00b\x1b[2Jc\r\nd",
    "javascript:alert(1)",
    "{{7*7}} ${7*7}",
    "\u2028\u2029",
    "\\u003cscript\\u003e",
    "|||`` `|@everyone #1",
    '=HYPERLINK("http://x")',
    "x" * 10_000,
    "名前😀",
]


@pytest.fixture(scope="module")
def mnist() -> Compiled:
    """A real design, with host time, feature maps in DRAM or on chip as the search chose."""
    return compile_model(MNIST, "fpga-pynq-z2", options=Options(budget_seconds=3.0), baselines=("conv-only-dsp",))


def embedded(page: str) -> dict:
    """The data that a page carries."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def named(name: str) -> Compiled:
    """The hand-written design with that name wherever a file can put one."""
    value = compiled(host=True, name=name)
    network = value.design.network
    layers = tuple(
        replace(layer, op=name, activation=name, note=name, nodes=(name, name), name=f"{i}{name}")
        for i, layer in enumerate(network.layers)
    )
    ran = tuple(replace(r, layer=layer.name) for r, layer in zip(value.design.layers, layers, strict=True))
    tensors = {t.name: f"{t.name}{name}" for t in network.tensors}
    layers = tuple(
        replace(layer, inputs=tuple(tensors[i] for i in layer.inputs), output=tensors[layer.output]) for layer in layers
    )
    own = replace(
        network, name=name, layers=layers, tensors=tuple(replace(t, name=tensors[t.name]) for t in network.tensors),
        inputs=tuple(tensors[i] for i in network.inputs), outputs=tuple(tensors[o] for o in network.outputs),
    )  # fmt: skip
    plan = replace(
        value.design.plan,
        resident=tuple((tensors[n], c) for n, c in value.design.plan.resident),
        pinned=(layers[0].name,),
    )
    made = replace(value.design, network=own, layers=ran, plan=plan)
    return replace(
        value, design=made, alternatives=((name, made),), missing=((name, name),),
        removed=tuple(replace(skip, node=name, reason=name) for skip in value.removed),
        board=replace(value.board, part=name),
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_name_is_markup(name):
    value = named(name)
    dump(value)  # the design is sound
    plain = design_page(compiled(host=True))
    for page, like in (
        (design_page(value), plain),
        (diff_page(value, value, (name, name)), diff_page(compiled(), compiled(), ("a", "b"))),
    ):
        for mark in ("<script", "</script", "<img", "<svg", "<!--"):
            assert page.count(mark) == like.count(mark), mark
        data = embedded(page)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00\x1b]", json.dumps(data, ensure_ascii=False))
    assert embedded(design_page(value))["layers"][0]["op"] == shown(name)


def test_a_long_name_is_shortened_and_says_so():
    text = shown("x" * 10_000)
    assert len(text) < 200
    assert "(10,000 characters)" in text
    assert shown("short") == "short"


def test_scripts_are_those_that_the_policy_knows():
    page = design_page(compiled())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none';")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts} == allowed
    own = page.replace(_asset(CHARTS), "")
    assert not re.search(r"https?://", own)
    assert "innerHTML" not in own
    assert "insertAdjacentHTML" not in own


def test_the_plotting_library_is_the_published_file():
    assert hashlib.sha256(_asset(CHARTS).encode()).hexdigest() == ECHARTS


@given(designs(board()), designs(board()))
@settings(max_examples=40, deadline=None)
def test_every_design_has_a_page(first, second):
    a, b = (Compiled(d, board(), Options(), (), (("batch 1", d),)) for d in (first, second))
    data = embedded(design_page(a))
    assert [row["cycles"] for row in data["layers"]] == [r.cycles for r in first.layers]
    assert len(embedded(diff_page(a, b, ("a", "b")))["layers"]) == len(paired_layers(first, second))
    assert design_markdown(a)
    assert diff_markdown(a, b, ("a", "b"))
    assert len(list(csv.reader(StringIO(layers_csv(a))))) == 1 + len(first.layers)


def test_operands_move_what_the_layer_moves(mnist):
    """The traffic of the operands is that of the layer, which the cost model gave."""
    for design_ in (mnist.design, *(d for _, d in mnist.alternatives)):
        data = design_data(replace(mnist, design=design_))
        for row in data["layers"]:
            moved = {"DRAM": 0, "on chip": 0}
            for _, _, place, bits, _ in row["operands"]:
                moved[place] += bits
            assert moved == {"DRAM": sum(row["dram"]), "on chip": sum(row["chip"])}, row["name"]


def test_no_layer_is_above_its_roof(mnist):
    """A lane does one operation a cycle, and DRAM gives the chunk its share."""
    data = design_data(mnist)
    for row in data["layers"]:
        chunk = data["chunks"][row["chunk"]]
        assert row["ops"] / row["cycles"] <= chunk["lanes"]
        assert sum(row["dram"]) / row["cycles"] <= chunk["dram_bits"]
        assert max(row["compute"], row["bus"], row["port"]) <= row["cycles"]


def test_loop_nests_multiply_to_the_layer(mnist):
    """Tiles x steps x lanes of every nest cover the work."""
    for row, ran in zip(design_data(mnist)["layers"], mnist.design.layers, strict=True):
        tiles = [int(n) for n in re.findall(r"in (\d+) tiles", row["text"])]
        inside = row["text"].split("in steps over ")[1]
        steps = [int(n) for n in re.findall(r"(?:[a-z]+) (\d+)", inside.split(":")[0])]
        lanes = mnist.design.accelerator.chunks[ran.chunk].unroll.lanes
        product = lanes
        for factor in (*tiles, *steps):
            product *= factor
        assert product >= row["ops"]
        assert row["text"].count("load input") == 1
        assert row["text"].count("store output") == 1


def test_resources_of_the_page_add_up(mnist):
    data = design_data(mnist)["resources"]
    for n, used in enumerate(data["used"]):
        assert sum(part[1 + n] for part in data["parts"]) == pytest.approx(used)


def test_what_limits_it_is_the_busiest_chunk(mnist):
    data = design_data(mnist)
    busiest = max(data["chunks"], key=lambda chunk: chunk["busy"])
    assert data["limits"][0].startswith(f"The {busiest['name']} chunk is busy")
    assert "host" in " ".join(design_data(compiled(host=True))["limits"])


def test_csv_reads_back(mnist):
    rows = list(csv.DictReader(StringIO(layers_csv(mnist), newline="")))
    for row, layer, ran in zip(rows, mnist.design.network.layers, mnist.design.layers, strict=True):
        assert row["layer"] == layer.name
        assert int(row["cycles_per_batch"]) == ran.cycles
        assert int(row["dram_read_bits_per_batch"]) == ran.traffic.dram_read
        assert int(row["macs_per_image"]) == layer.nest.macs


@pytest.mark.parametrize("name", HOSTILE)
def test_a_csv_cell_is_no_formula_and_one_cell(name):
    value = named(name)
    rows = list(csv.reader(StringIO(layers_csv(value), newline="")))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not any(row[2].startswith(tuple("=+-@")) for row in rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_tables_keep_their_columns(name):
    value = named(name)
    for text in (design_markdown(value), diff_markdown(compiled(), value, (name, "b"))):
        tables: dict[int, set[int]] = {}
        number = 0
        for line in text.splitlines():
            if line.startswith("|"):
                tables.setdefault(number, set()).add(len(re.findall(r"(?<!\\)\|", line)))
            else:
                number += 1
                assert not line.startswith(("<script", "<img"))
        assert all(len(counts) == 1 for counts in tables.values()), tables


@st.composite
def names(draw: st.DrawFn) -> str:
    return draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))


@given(names())
def test_a_name_in_markdown_is_one_span_of_code(name):
    from nashc.report.markdown import escaped

    text = escaped(name)
    fence = re.match("`+", text)[0]
    assert text.endswith(fence)
    inside = text[len(fence) : -len(fence)]
    assert fence not in re.findall("`+", inside)
    assert "\n" not in text
    assert not re.search(r"(?<!\\)\|", text)


def test_diff_pairs_layers_by_name():
    a, b = design(hybrid()), design(hybrid(host=True))
    pairs = paired_layers(a, b)
    assert [pair.name for pair in pairs][:5] == [layer.name for layer in a.network.layers]
    assert [(pair.a is None, pair.b is None) for pair in pairs if pair.name == "odd"] == [(True, False)]


def test_a_clock_that_was_asked_for_can_be_faster(mnist):
    """The clock of the options is the board's by then; a tenth more has to be a tenth more. Searches end before 8 s."""
    slow = replace(mnist.board, clock_mhz=80.0)
    made = solve(mnist.design.network, slow, replace(mnist.options, budget_seconds=8.0))
    asked = replace(mnist, board=slow, design=made, options=replace(mnist.options, clock_mhz=80.0))
    row = next(row for row in what_helps(asked, seconds=8.0).rows if row.name == "clock")
    assert row.fps > 1.05 * made.fps


def test_more_of_a_resource_never_makes_it_worse(mnist):
    helps = what_helps(mnist, seconds=1.0)
    gains = {row.name: row.gain for row in helps.rows if row.gain is not None}
    assert {"LUTs", "DSPs", "BRAM36 blocks", "DRAM bandwidth", "clock"} <= set(gains)
    assert all(gain >= 0 for name, gain in gains.items() if name != "clock")
    assert [row.gain for row in helps.rows if row.gain is not None] == sorted(gains.values(), reverse=True)
    assert helps.base_fps >= mnist.design.fps
    # which searches find something in a second depends on the machine
    assert (helps.rows[0].name if helps.rows[0].gain else "no single resource") in sentence(helps)
    for row in helps.rows:
        if row.gain is not None:
            assert row.fps == pytest.approx(helps.base_fps * (1 + row.gain))


def test_growth_is_a_tenth_of_what_may_be_used():
    for resource in RESOURCES:
        larger, options = resource.grown(board(), Options(max_lut=1000, max_dsp=100, max_bram36=50), MORE)
        now, then = (
            float(resource.now(b, o).split()[0].replace(",", ""))
            for b, o in ((board(), Options(max_lut=1000, max_dsp=100, max_bram36=50)), (larger, options))
        )
        assert then == pytest.approx(now * MORE, rel=0.02) or now == 0


def test_score_follows_the_objective(mnist):
    slow = replace(mnist.design, interval_cycles=2 * mnist.design.interval_cycles)
    late = replace(mnist.design, latency_cycles=2 * mnist.design.latency_cycles)
    assert score(slow, "fps") < score(mnist.design, "fps")
    assert score(late, "latency") < score(mnist.design, "latency")
    assert score(late, "edp") < score(mnist.design, "edp")
    assert score(replace(mnist.design, energy_pj=2 * mnist.design.energy_pj), "energy") < score(mnist.design, "energy")


# --------------------------------------------------------------------------------------------- files


def test_a_folder_or_a_file_becomes_a_page(tmp_path, mnist):
    (tmp_path / "design.json").write_bytes(dump(mnist))
    assert "report.html" in render(report_page(Ask(str(tmp_path))))
    page = (tmp_path / "report.html").read_text()
    assert embedded(page)["summary"]["fps"] == mnist.design.fps
    assert design_page(mnist) == page  # from the file or from the search: the same bytes
    report_page(Ask(str(tmp_path / "design.json"), out=str(tmp_path / "other.html")))
    assert (tmp_path / "other.html").read_text() == page
    report_page(Ask(str(tmp_path), diff=str(tmp_path / "design.json")))
    assert len(embedded((tmp_path / "diff.html").read_text())["designs"]) == 2


CHECKED = {
    "accuracy": {
        "images": 100,
        "model": {"top1": 0.987, "top5": None},
        "outputs": [
            {"name": "y", "agreement": 0.99, "sqnr_db": 20.5},
            {"name": "z", "agreement": None, "sqnr_db": 9.5},
        ],
    }
}


def test_accuracy_stands_in_the_summary(tmp_path, mnist):
    (tmp_path / "design.json").write_bytes(dump(mnist))
    (tmp_path / "check.json").write_text(json.dumps(CHECKED))
    report_page(Ask(str(tmp_path), checked=str(tmp_path / "check.json")))
    tiles = embedded((tmp_path / "report.html").read_text())["accuracy"]["tiles"]
    assert [value for value, _ in tiles] == ["98.70%", "99.00%", "9.5 dB"]


CURVE = {
    "version": 1, "model": "</script>m.onnx", "target": "fpga-zc706", "images": 64, "measured_on": "d",
    "labelled": True,
    "baselines_fps": {"conv-only": 100.0, "conv-only-dsp": None}, "multiplication_only_fps": 100.0,
    "points": [
        {"types": name, "chosen": name == "b", "fps": fps, "why": "", "drop": drop, "agreement": 0.9, "accuracy": 0.9,
         "float_accuracy": 0.91, "sqnr_db": {"y": 10.0, "equal": None}}
        for name, fps, drop in (("a", 100.0, 0.0), ("b", 150.0, 0.01), ("c", 140.0, 0.02), ("d", None, 0.0))
    ],
}  # fmt: skip


def test_a_conversion_has_a_pareto_page(tmp_path):
    (tmp_path / "hybrid.json").write_text(json.dumps(CURVE))
    report_page(Ask(str(tmp_path / "hybrid.json")))
    data = embedded((tmp_path / "hybrid.html").read_text())
    assert [(p["name"], p["front"]) for p in data["points"]] == [
        ("a", True),
        ("b, chosen, after its own pass", True),
        ("c", False),
    ]
    assert [c["name"] for c in data["chosen"]] == ["b, chosen, after its own pass"]
    assert data["lines"] == [["original, conv-only", 100.0]]


def pareto_json() -> dict:
    candidate = {"score": -1.0, "coarse_fps": 50.0, "macs": {"conv": 5, "shift": 5}, "pareto": True}
    pair = {"fps": 40.0, "latency_ms": 1.0, "gops": 1.0, "gap": 0.1}
    return {
        "schema": "nashc-pareto", "version": 2, "job": {"space": {"name": "s"}, "target": "t", "proxy": "p"},
        "candidates": [
            {**candidate, "number": 0, "family": "hybrid", "architecture": "8/8:s3"},
            {**candidate, "number": 1, "family": "conv", "architecture": "8/8:c3"},
        ],
        "pairs": [
            {**pair, "candidate": 0, "folder": "hybrid-0", "rival": 1},
            {**pair, "candidate": 1, "folder": "../../etc", "rival": -1},
        ],
    }  # fmt: skip


def test_a_search_has_a_pareto_page_with_links_to_its_designs(tmp_path):
    (tmp_path / "run/hybrid-0").mkdir(parents=True)
    (tmp_path / "run/hybrid-0/report.html").write_text("")
    (tmp_path / "run/pareto.json").write_text(json.dumps(pareto_json()))
    report_page(Ask(str(tmp_path / "run")))
    report_page(Ask(str(tmp_path / "run"), out=str(tmp_path / "elsewhere.html")))
    for name, link in (("run/pareto.html", "hybrid-0/report.html"), ("elsewhere.html", "run/hybrid-0/report.html")):
        data = embedded((tmp_path / name).read_text())
        assert [c["link"] for c in data["chosen"]] == [link, None]  # never outside the folder of the run
        assert data["chosen"][0]["rival"]["name"] == "../../etc"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no JSON that nashc wrote"),
        ("[" * 100_000, "no JSON that nashc wrote"),
        ("{}", "not a nashc design"),
        ('{"schema": "nashc-pareto"}', "cannot be read: .*job"),
        ('{"points": []}', "cannot be read"),
        (json.dumps({**pareto_json(), "pairs": [{**pareto_json()["pairs"][0], "candidate": 7}]}), "names no candidate"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path, content, words):
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(NashcError, match=words):
        report_page(Ask(str(file)))
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_page_never_takes_the_place_of_its_source(tmp_path, mnist):
    file = tmp_path / "design.json"
    file.write_bytes(dump(mnist))
    for ask in (Ask(str(file), out=str(file)), Ask(str(file), out=str(file), diff=str(tmp_path))):
        with pytest.raises(NashcError, match="would take the place"):
            report_page(ask)
    assert file.read_bytes() == dump(mnist)


@pytest.mark.parametrize("more", [{"out": "x"}, {"checked": "x"}, {"helps": True}, {"seconds": 1.0}])
def test_what_is_printed_refuses_what_it_cannot_show(tmp_path, mnist, more):
    (tmp_path / "design.json").write_bytes(dump(mnist))
    for printed in (report_markdown, report_csv):
        with pytest.raises(NashcError, match="do not go together"):
            printed(Ask(str(tmp_path), **more))
    with pytest.raises(NashcError, match="one design"):
        report_csv(Ask(str(tmp_path), diff=str(tmp_path)))


@pytest.mark.parametrize("link", ["", "/", "x" * 5000 + "/design.json", "javascript:alert(1)"])
def test_a_curve_that_names_no_file_has_no_link(tmp_path, link):
    points = [{**point, "design": link} for point in CURVE["points"]]
    (tmp_path / "hybrid.json").write_text(json.dumps({**CURVE, "points": points}))
    report_page(Ask(str(tmp_path / "hybrid.json")))
    assert {c["link"] for c in embedded((tmp_path / "hybrid.html").read_text())["chosen"]} == {None}


def test_what_is_not_there_and_what_does_not_go_together(tmp_path, mnist):
    with pytest.raises(NashcError, match="no such file"):
        found(str(tmp_path / "no"))
    with pytest.raises(NashcError, match=r"neither design\.json nor pareto\.json"):
        found(str(tmp_path))
    (tmp_path / "pareto.json").write_text(json.dumps(pareto_json()))
    with pytest.raises(NashcError, match="is no design"):
        report_page(Ask(str(tmp_path), helps=True))
    (tmp_path / "design.json").write_bytes(dump(mnist))
    with pytest.raises(NashcError, match="--diff shows two designs alone"):
        report_page(Ask(str(tmp_path), diff=str(tmp_path), helps=True))
    with pytest.raises(NashcError, match="no such folder"):
        report_page(Ask(str(tmp_path), out=str(tmp_path / "no/x.html")))
    (tmp_path / "check.json").write_text("{}")
    with pytest.raises(NashcError, match="nashc check --json"):
        report_page(Ask(str(tmp_path), checked=str(tmp_path / "check.json")))
    assert not (tmp_path / "report.html").exists()
