"""A design, or two, as Markdown for the comment of a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nashc.artifact import Compiled
from nashc.compiler import chunk_labels
from nashc.core.design import Resources
from nashc.hw.resources import usable
from nashc.report.html.design import Data, limits, summary_data
from nashc.report.html.names import shown
from nashc.report.layers import FlatLayer, PairedLayer, flat_layers, paired_layers
from nashc.report.tables import busy_cycles, certificate, host_layers
from nashc.report.text import figure, percent

SLOWEST = 10
"""Layers that a comment shows."""
TICKS = re.compile("`+")


def design_markdown(compiled: Compiled) -> str:
    """Headline, what limits it, resources, chunks, and the layers that take longest."""
    design = compiled.design
    s = summary_data(compiled)
    lines = [f"### {_title(compiled)}", ""]
    lines += _table(("", ">"), [*_headline(s)])
    if host_layers(design):
        host = [escaped(layer.name, cell=False) for layer, _ in host_layers(design)]
        lines += [
            "",
            f"**Warning: {len(host)} layers run on the host CPU**, their time is a guess: {', '.join(host[:8])}",
        ]
    lines += ["", " ".join(limits(design, compiled.board)), "", certificate(design), ""]
    lines += _table(("", ">LUT", ">FF", ">DSP", ">BRAM36", ">URAM"), _resources(compiled))
    if compiled.alternatives:
        rows = [
            (escaped(name), figure(other.fps), f"{design.fps / other.fps:.2f}x", figure(other.latency_ms))
            for name, other in (("this design", design), *compiled.alternatives)
        ]
        lines += ["", *_table(("design", ">FPS", ">gain", ">latency ms"), rows)]
    slow = sorted(flat_layers(design), key=lambda layer: -layer.cycles)[:SLOWEST]
    longest = [
        (escaped(x.name), x.chunk, f"{x.cycles:,}", percent(x.cycles, design.interval_cycles), x.bound,
         f"{x.utilisation:.1%}")
        for x in slow
    ]  # fmt: skip
    count = len(design.layers)
    what = f"The {len(slow)} longest of {count} layers" if count > len(slow) else f"All {count} layers"
    lines += ["", f"<details><summary>{what}</summary>", ""]
    lines += _table(("layer", "chunk", ">cycles", ">of interval", "bound by", ">lanes used"), longest)
    return "\n".join([*lines, "", "</details>", ""])


def diff_markdown(a: Compiled, b: Compiled, names: tuple[str, str]) -> str:
    """The second design beside the first: headline, resources, and the layers that changed most."""
    first, second = summary_data(a), summary_data(b)
    rows = [
        (what, before, after, _change(x, y))
        for (what, before, x), (_, after, y) in zip(_numbers(first), _numbers(second), strict=True)
    ]
    heads = ("", f">{escaped(names[0])}", f">{escaped(names[1])}", ">change")
    lines = [f"### {_title(b)}", "", *_table(heads, rows), ""]
    used = zip(_used(a), _used(b), strict=True)
    lines += _table(heads, [(name, figure(x), figure(y), _change(x, y)) for (name, x), (_, y) in used])
    changed = sorted(paired_layers(a.design, b.design), key=lambda pair: -abs(_per_image(pair)))
    changed = [pair for pair in changed if _per_image(pair)][:SLOWEST]
    if changed:
        shown_rows = [(escaped(pair.name), *(_side(side) for side in (pair.a, pair.b)), _signed(_per_image(pair)))
                      for pair in changed]  # fmt: skip
        lines += ["", "<details><summary>Layers that changed most, microseconds an image</summary>", ""]
        lines += [*_table(("layer", *heads[1:]), shown_rows), "", "</details>"]
    return "\n".join([*lines, ""])


def escaped(name: object, *, cell: bool = True) -> str:
    """A name as code: nothing in it is a link, a mention, a tag or, in a table's cell, a column."""
    text = shown(name).replace("|", "\\|") if cell else shown(name)
    fence = "`" * (1 + max(map(len, TICKS.findall(text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _title(compiled: Compiled) -> str:
    return f"{escaped(compiled.design.network.name, cell=False)} on {escaped(compiled.board.name, cell=False)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ("---:" if head.startswith(">") else "---" for head in heads)
    body = [*([head.lstrip(">") for head in heads], [*rule]), *rows]
    return [f"| {' | '.join(row)} |" for row in body]


def _headline(s: Data) -> list[tuple[str, str]]:
    return [(what, text) for what, text, _ in _numbers(s)]


def _numbers(s: Data) -> list[tuple[str, str, float]]:
    """What, as text, as a number."""
    gap = "proven optimal" if s["optimal"] else "no bound" if s["gap"] is None else f"{s['gap']:.2%}"
    return [
        ("FPS", figure(s["fps"]), s["fps"]),
        ("latency of one batch, ms", figure(s["latency_ms"]), s["latency_ms"]),
        ("latency in the full pipeline, ms", figure(s["pipeline_ms"]), s["pipeline_ms"]),
        ("GOPS", figure(s["gops"]), s["gops"]),
        ("mJ an image", figure(s["mj_image"]), s["mj_image"]),
        ("images a batch", str(s["batch"]), s["batch"]),
        ("DRAM KiB an image", figure(s["dram_kib_image"]), s["dram_kib_image"]),
        ("gap to the proven bound", gap, 0.0),
        ("layers on the host", str(s["host_layers"]), s["host_layers"]),
    ]


def _change(a: float, b: float) -> str:
    return "" if a <= 0 or a == b else f"{b / a - 1:+.1%}"


def _resources(compiled: Compiled) -> list[tuple[str, ...]]:
    design, options = compiled.design, compiled.options
    busy = busy_cycles(design)
    rows = [
        (f"{label} (busy {percent(cycles, design.interval_cycles)})", *_counts(part))
        for label, part, cycles in zip(
            chunk_labels(design.accelerator), design.chunk_resources, busy, strict=True
        )
    ]  # fmt: skip
    rows.append(("all", *_counts(design.resources)))
    rows.append(("may be used", *_counts(usable(compiled.board, options.max_lut, options.max_dsp, options.max_bram36))))
    return rows


def _counts(r: Resources) -> tuple[str, ...]:
    return f"{r.lut:,}", f"{r.ff:,}", f"{r.dsp:,}", f"{r.bram18 / 2:,g}", f"{r.uram:,}"


def _used(compiled: Compiled) -> list[tuple[str, float]]:
    r = compiled.design.resources
    return [("LUT", r.lut), ("FF", r.ff), ("DSP", r.dsp), ("BRAM36", r.bram18 / 2), ("URAM", r.uram)]


def _per_image(pair: PairedLayer) -> float:
    """Microseconds an image that the second design takes more."""
    before, after = (0.0 if side is None else side.us_per_image for side in (pair.a, pair.b))
    return after - before


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{figure(abs(value))}"


def _side(side: FlatLayer | None) -> str:
    return "-" if side is None else f"{figure(side.us_per_image)} ({side.chunk})"
