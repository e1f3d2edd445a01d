"""Pages in a real Chromium: offline from disk, with keys and mouse, in light and dark, with names that attack."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import browser, needs_chromium, opened, scroll_through
from handmade import board, compiled, design, nest, pool
from test_pages import CURVE, HOSTILE, named, pareto_json

from nashc.artifact import Compiled
from nashc.compiler import compile_model
from nashc.core.network import Layer, Network, Tensor, Unit, Weights
from nashc.core.options import Options
from nashc.report.helps import Help, Helps
from nashc.report.written import Ask, design_page, diff_page, report_page

pytestmark = needs_chromium
ATTACKS = [name for name in HOSTILE if re.search("[<\u202e\x00]", name) or len(name) > 1000]


@pytest.fixture(scope="module")
def chromium():
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> tuple[Compiled, Path]:
    value = compile_model(
        "examples/models/mnist-conv.onnx",
        "fpga-zc706",
        options=Options(budget_seconds=2.0),
        baselines=("conv-only-dsp",),
    )
    file = tmp_path_factory.mktemp("page") / "report.html"
    rows = (
        Help("LUTs", "1", "2", 100.0, 0.1, 0.01),
        Help("clock", "1", "2", 80.0, -0.03, 0.01),
        Help("URAM blocks", "1", "2", None, None, None, "unused"),
    )
    file.write_text(design_page(value, (), Helps("fps", 90.0, False, None, 1.0, rows)))
    return value, file


def rows_of(page, column: int) -> list[str]:
    return page.locator(f"#layers tbody tr td:nth-child({column})").all_inner_texts()


def column_of(page, title: str) -> int:
    heads = page.locator("#layers thead th").all_inner_texts()
    return 1 + next(n for n, head in enumerate(heads) if head.strip().startswith(title))


def test_every_section_is_drawn(chromium, mnist, tmp_path):
    value, file = mnist
    with opened(chromium, file) as page:
        assert page.title() == "mnist-conv on fpga-zc706: nashc"
        assert [a.strip() for a in page.locator("nav a").all_inner_texts()] == [
            "Summary", "Board and accelerator", "Roofline", "Timeline", "Layers", "Memory plan", "Comparison",
            "What would help next", "Request and board",
        ]  # fmt: skip
        assert f"{value.design.fps:,.0f}" in page.locator("#summary").inner_text()
        scroll_through(page)
        assert page.locator("canvas").count() >= 4
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert page.locator("#sources").count() == 0
        page.locator("details summary").last.click()
        page.locator("#about td", has_text="DS190").first.wait_for()  # made when it is opened


def test_the_memory_plan_shows_what_is_in_uram(chromium, mnist, tmp_path):
    made = compile_model(
        "examples/models/mnist-conv.onnx", "fpga-kv260", options=Options(batch=16, budget_seconds=5, max_bram36=30)
    )
    plan, file = made.design.plan, tmp_path / "report.html"
    assert plan.in_uram
    file.write_text(design_page(made, (), None))
    with opened(chromium, file) as page:
        scroll_through(page)
        assert f"{made.design.resources.uram} URAM, {plan.peak_urams} of them" in page.locator("#memory").inner_text()
        table = page.locator("#memory table").first
        assert table.locator("th").all_inner_texts()[-1].strip().startswith("URAM a copy")
        shown = {row.split("\t")[1].strip(): row.split("\t")[-1].strip()
                 for row in table.locator("tbody tr").all_inner_texts()}  # fmt: skip
        assert {name: shown[name] for name, _ in plan.in_uram} == {name: str(urams) for name, urams in plan.in_uram}
    with opened(chromium, mnist[1]) as page:
        scroll_through(page)
        assert "BRAM36 banks" in page.locator("#memory").inner_text()
        assert "URAM" not in page.locator("#memory").inner_text()


def test_layers_sort_search_and_filter(chromium, mnist):
    value, file = mnist
    names = [layer.name for layer in value.design.network.layers]
    with opened(chromium, file) as page:
        assert [text.split(maxsplit=1)[1] for text in rows_of(page, 1)] == names
        cycles = column_of(page, "cycles")
        head = page.locator("#layers thead th").nth(cycles - 1)
        head.locator("button").click()
        down = [int(text.replace(",", "")) for text in rows_of(page, cycles)]
        assert down == sorted((r.cycles for r in value.design.layers), reverse=True)
        assert head.get_attribute("aria-sort") == "descending"
        head.locator("button").press("Enter")
        assert [int(text.replace(",", "")) for text in rows_of(page, cycles)] == down[::-1]
        page.get_by_label("search layers").fill("pooling")
        assert len(rows_of(page, 1)) == sum("Pooling" in name for name in names)
        page.get_by_label("search layers").fill("no such layer")
        assert rows_of(page, 1) == []
        page.get_by_label("search layers").fill("")
        page.get_by_label("chunk", exact=True).select_option("vector")
        assert len(rows_of(page, 1)) == sum(layer.unit is Unit.VECTOR for layer in value.design.network.layers)


def test_a_click_shows_the_loop_nest_and_what_bounds_it(chromium, mnist):
    value, file = mnist
    with opened(chromium, file) as page:
        page.get_by_role("button", name="Convolution110").click()
        panel = page.locator(".details")
        assert panel.is_visible()
        text = panel.inner_text()
        result = value.design.layers[2]
        assert f"{result.cycles:,} cycles a batch, bound by {result.bound}" in text
        assert "load input" in text
        assert "store output" in text
        assert re.search(r"at once: .* lanes\)", text)
        assert page.locator("tr[aria-selected='true']").count() == 1


def test_hover_and_keys_tell_of_layers(chromium, mnist):
    value, file = mnist
    with opened(chromium, file) as page:
        for section in ("roofline", "timeline"):
            box = page.locator(f"#{section} .chart")
            box.scroll_into_view_if_needed()
            page.wait_for_function("box => box.querySelector('canvas')", arg=box.element_handle())
            box.focus()
            told = set()
            for _ in value.design.layers:
                page.keyboard.press("ArrowRight")
                told.add(page.locator(f"#{section} [role=status]").inner_text().split(":")[0].split(" on ")[0])
            assert told == {layer.name for layer in value.design.network.layers}
            page.wait_for_function(
                "id => [...document.querySelectorAll(`#${id} .tip`)].some(tip => tip.textContent.includes('cycles'))",
                arg=section,
            )
            page.keyboard.press("Enter")
            assert page.locator(".details").is_visible()
        page.locator("#timeline .chart").scroll_into_view_if_needed()
        spot = page.locator("#timeline .chart").bounding_box()
        first = value.design.layers[0]
        assert first.start == 0  # the first layer begins at the left edge of its chunk's row
        page.mouse.move(spot["x"] + 120, spot["y"] + 16 + 22)
        page.wait_for_function(
            "name => [...document.querySelectorAll('#timeline .tip')].some(tip => tip.textContent.includes(name))",
            arg=first.layer,
        )


def test_the_roofline_draws_operations_and_bytes(chromium, mnist):
    """Two operations a MAC-equivalent on both axes, as GOPS have it."""
    value, file = mnist
    with opened(chromium, file) as page:
        scroll_through(page)
        points = page.evaluate("""() => {
            const chart = echarts.getInstanceByDom(document.querySelector('#roofline .chart'));
            return chart.getOption().series.filter(s => s.type === 'scatter').flatMap(s => s.data)
                .map(p => [p.layer, ...p.value]);
        }""")
        assert len(points) == len(value.design.layers)
        for index, x, y in points:
            layer, ran = value.design.network.layers[index], value.design.layers[index]
            operations = 2 * layer.nest.macs * value.design.accelerator.batch
            moved = (ran.traffic.dram_read + ran.traffic.dram_write) / 8
            assert y == pytest.approx(operations / ran.cycles * value.design.clock_mhz / 1e3)
            assert not moved or x == pytest.approx(operations / moved)
        assert "-3.0 %" in page.locator("#helps").inner_text()
        assert "+-" not in page.locator("#helps").inner_text()


def test_the_wheel_zooms_both_halves_of_the_timeline(chromium, mnist):
    _, file = mnist
    shown = """() => {
        const chart = echarts.getInstanceByDom(document.querySelector('#timeline .chart'));
        const [zoom] = chart.getOption().dataZoom;
        return zoom.endValue - zoom.startValue;
    }"""
    with opened(chromium, file) as page:
        box = page.locator("#timeline .chart")
        box.scroll_into_view_if_needed()
        page.wait_for_function("box => box.querySelector('canvas')", arg=box.element_handle())
        before = page.evaluate(shown)
        spot = box.bounding_box()
        page.mouse.move(spot["x"] + 400, spot["y"] + 40)
        for _ in range(3):
            page.mouse.wheel(0, -240)
        page.wait_for_function(f"before => ({shown})() < 0.9 * before", arg=before)


def test_light_dark_and_phone(chromium, mnist):
    _, file = mnist
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 360)):
        with opened(chromium, file, color_scheme=scheme, viewport={"width": width, "height": 740}) as page:
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            dark = sum(map(int, re.findall(r"\d+", back)[:3])) < 200
            assert dark == (scheme == "dark")
            scroll_through(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("button", name="light / dark").click()
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != back


def test_everything_is_reached_by_keys(chromium, mnist):
    _, file = mnist
    with opened(chromium, file) as page:
        seen = set()
        for _ in range(120):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className"))
        assert {"BUTTON plain", "INPUT ", "SELECT ", "A ", "DIV chart", "BUTTON ", "SUMMARY "} <= seen


@pytest.mark.parametrize("name", ATTACKS, ids=range(len(ATTACKS)))
def test_hostile_names_run_nothing_and_break_nothing(chromium, tmp_path, name):
    value = named(name)
    (tmp_path / "report.html").write_text(design_page(value))
    (tmp_path / "diff.html").write_text(diff_page(value, compiled(), (name, "b")))
    with opened(chromium, tmp_path / "report.html") as page:
        scroll_through(page)
        page.locator("#layers tbody button").first.click()
        page.locator("#timeline .chart").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert page.evaluate("document.querySelectorAll('img, svg, iframe, script[src]').length") == 0
        assert page.evaluate("document.querySelectorAll('script').length") == 5
    with opened(chromium, tmp_path / "diff.html", viewport={"width": 400, "height": 700}) as page:
        scroll_through(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def deep(layers: int) -> Compiled:
    """A chain of convolutions, shift and adder layers and poolings."""
    tensors, chain = [Tensor("t0", 16, 32, 32)], []
    for i in range(layers):
        tensors.append(Tensor(f"t{i + 1}", 16, 32, 32))
        unit = (Unit.CONV, Unit.SHIFT, Unit.ADDER, Unit.VECTOR)[i % 4]
        weights = None if unit is Unit.VECTOR else Weights(f"w{i}", 4 if unit is Unit.SHIFT else 8)
        of = pool(16, 32) if unit is Unit.VECTOR else nest(16, 16, 32)
        chain.append(Layer(f"block{i}/layer", "Conv", unit, of, (f"t{i}",), f"t{i + 1}", weights, "relu", (f"n{i}",)))
    network = Network("deep", tuple(chain), tuple(tensors), ("t0",), (f"t{layers}",))
    return Compiled(design(network, resident=("t1",)), board(), Options())


def test_three_hundred_layers_stay_small_and_whole(chromium, tmp_path):
    value = deep(300)
    plan = replace(value.design.plan, pinned=())
    text = design_page(replace(value, design=replace(value.design, plan=plan)))
    assert len(text.encode()) <= 2 * 2**20
    (tmp_path / "report.html").write_text(text)
    with opened(chromium, tmp_path / "report.html") as page:
        page.wait_for_function("() => document.querySelectorAll('#layers tbody tr').length === 300")
        scroll_through(page)
        page.get_by_label("search layers").fill("block299/")
        assert page.locator("#layers tbody tr").count() == 1
        page.locator("#layers tbody button").click()
        assert page.locator(".details").is_visible()


def test_pareto_and_diff_pages(chromium, tmp_path):
    (tmp_path / "hybrid-0").mkdir()
    (tmp_path / "hybrid-0/report.html").write_text("<title>here</title>")
    (tmp_path / "pareto.json").write_text(json.dumps(pareto_json()))
    (tmp_path / "hybrid.json").write_text(json.dumps(CURVE))
    (tmp_path / "diff.html").write_text(diff_page(compiled(), compiled(host=True), ("a", "b")))
    report_page(Ask(str(tmp_path / "pareto.json")))
    report_page(Ask(str(tmp_path / "hybrid.json")))
    with opened(chromium, tmp_path / "hybrid.html") as page:
        scroll_through(page)
        assert "</script>m.onnx" in page.locator("h1").inner_text()
        page.locator(".chart").first.focus()
        page.keyboard.press("ArrowRight")
        assert "150 FPS" in page.locator("#front [role=status]").inner_text()
    with opened(chromium, tmp_path / "diff.html") as page:
        scroll_through(page)
        assert page.locator("#layers tbody tr").count() == 6
        page.get_by_label("in", exact=True).select_option("the second alone")
        assert rows_of(page, 1) == ["odd"]
    own = chromium.new_page()
    own.goto((tmp_path / "pareto.html").as_uri())
    own.get_by_role("link", name="hybrid-0").click()
    assert own.title() == "here"
    own.close()
