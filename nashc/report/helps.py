"""What would help a design next: the search again with a tenth more of one resource at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group
from rich.text import Text

from nashc.artifact import Compiled
from nashc.board import Board
from nashc.compiler import Progress
from nashc.core.design import Design
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS
from nashc.hw.resources import usable
from nashc.report.text import figure, percent, table
from nashc.search.solve import solve

MORE = 1.1
SEARCH_SECONDS = 30.0
"""Of each search, where neither the design's request nor the user says how long."""
SCARCE = 0.9
"""A resource of which less than this share is used cannot be what holds a design back; it gets no search."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A figure of the board that may grow: its name, what it is now, and board and options with `factor` times as much.
    `keeps`: a design for the board is one for the larger board, too, and as fast there."""

    name: str
    now: Callable[[Board, Options], str]
    grown: Callable[[Board, Options, float], tuple[Board, Options]]
    share: Callable[[Compiled], float]
    keeps: bool = True


@dataclass(frozen=True, slots=True)
class Help:
    """What a tenth more of a resource brings: FPS and gain of the best design known for the larger board, its gap to
    the bound that the search proved there; None where nothing was searched (`why`)."""

    name: str
    now: str
    then: str
    fps: float | None
    gain: float | None
    gap: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Helps:
    """`base_fps`: of the best design without any change, the request's own or the one that the same search finds now;
    `found_better`: it is the latter; `found_less`: FPS of the latter where it falls short of the request's own."""

    objective: str
    base_fps: float
    found_better: bool
    found_less: float | None
    seconds: float
    rows: tuple[Help, ...]


def _count(field: str, limit: str | None) -> Callable[[Board, Options, float], tuple[Board, Options]]:
    """More of what the board has, and of what the user lets a design use of it."""

    def grown(board: Board, options: Options, factor: float) -> tuple[Board, Options]:
        more: dict[str, Any] = {field: round(getattr(board, field) * factor)}
        if field == "lut":
            more["lutram"] = round(board.lutram * factor)
        own = None if limit is None else getattr(options, limit)
        return replace(board, **more), options if own is None else replace(options, **{str(limit): round(own * factor)})

    return grown


def _bandwidth(board: Board, options: Options, factor: float) -> tuple[Board, Options]:
    return replace(board, dram=replace(board.dram, bytes_per_second=board.dram.bytes_per_second * factor)), options


def _clock(board: Board, options: Options, factor: float) -> tuple[Board, Options]:
    return replace(board, clock_mhz=board.clock_mhz * factor), replace(options, clock_mhz=None)


def _used(part: Callable[[Any], float]) -> Callable[[Compiled], float]:
    def share(compiled: Compiled) -> float:
        o = compiled.options
        limit = part(usable(compiled.board, o.max_lut, o.max_dsp, o.max_bram36))
        return part(compiled.design.resources) / limit if limit > 0 else 0.0

    return share


def _usable(part: Callable[[Any], float]) -> Callable[[Board, Options], str]:
    return lambda board, o: f"{part(usable(board, o.max_lut, o.max_dsp, o.max_bram36)):,g}"


RESOURCES = (
    Resource("LUTs", _usable(lambda r: r.lut), _count("lut", "max_lut"), _used(lambda r: r.lut)),
    Resource("DSPs", _usable(lambda r: r.dsp), _count("dsp", "max_dsp"), _used(lambda r: r.dsp)),
    Resource("BRAM36 blocks", _usable(lambda r: r.bram18 / 2), _count("bram36", "max_bram36"),
             _used(lambda r: r.bram18)),
    Resource("URAM blocks", _usable(lambda r: r.uram), _count("uram", None), _used(lambda r: r.uram // PAGE_BANKS)),
    Resource("flip-flops", _usable(lambda r: r.ff), _count("ff", None), _used(lambda r: r.ff)),
    Resource("DRAM bandwidth", lambda b, _: f"{b.dram.bytes_per_second / 1e9:.4g} GB/s", _bandwidth, lambda _: 1.0),
    Resource("clock", lambda b, _: f"{b.clock_mhz:.4g} MHz", _clock, lambda _: 1.0, keeps=False),
)  # fmt: skip
ALWAYS = ("LUTs", "DSPs", "BRAM36 blocks")
"""These trade with each other, so they are searched however much of them is used."""


def what_helps(compiled: Compiled, seconds: float | None = None, progress: Progress | None = None) -> Helps:
    """Search again with a tenth more of each resource; the most helpful one comes first.

    The unchanged board is searched again, too, for as long: what that finds is no gain of a resource. Raises NashcError
    where nothing fits the board, which a design.json of another version may lead to.
    """
    board, network = compiled.board, compiled.design.network
    limit = seconds or compiled.options.budget_seconds or SEARCH_SECONDS
    options = replace(compiled.options, budget_seconds=limit)
    wanted = [r for r in RESOURCES if r.name in ALWAYS or r.share(compiled) >= SCARCE]

    def searched(n: int, name: str, on: Board, within: Options) -> Design:
        if progress is not None:
            progress(f"with more {name}" if n else "as it is", n / (len(wanted) + 1))
        return solve(network, on, within)

    again = searched(0, "", board, options)
    base = max((compiled.design, again), key=lambda design: score(design, options.objective))
    reached = score(base, options.objective)
    less = again.fps if score(again, options.objective) < reached else None
    rows = []
    for n, resource in enumerate(RESOURCES):
        larger, within = resource.grown(board, options, MORE)
        now, then = resource.now(board, options), resource.now(larger, within)
        if resource not in wanted:
            share = resource.share(compiled)
            if share > 0:
                rows.append(Help(resource.name, now, then, None, None, None, f"{share:.0%} used: not searched"))
            continue
        try:
            design = searched(n + 1, resource.name, larger, within)
        except NashcError as error:
            rows.append(Help(resource.name, now, then, None, None, None, str(error)))
            continue
        bound = design.certificate.bound
        better = score(design, options.objective) > reached
        if resource.keeps and not better:
            design = base
        gain = score(design, options.objective) / reached - 1
        rows.append(Help(resource.name, now, then, design.fps, gain, _gap(design, bound)))
    rows.sort(key=lambda row: (row.gain is None, -(row.gain or 0.0)))
    return Helps(options.objective, base.fps, base is again and again != compiled.design, less, limit, tuple(rows))


def _gap(design: Design, bound: float) -> float | None:
    """How far a design is from the bound that was proven for a larger board."""
    return design.certificate.value / bound - 1 if bound > 0 else None


def score(design: Design, objective: str) -> float:
    """What the objective asks to maximise: FPS, or the inverse of time, energy or both."""
    energy = design.energy_pj / design.accelerator.batch
    values = {
        "fps": design.fps, "latency": 1 / design.latency_ms, "energy": 1 / energy if energy else 0.0,
        "edp": 1 / (energy * design.latency_ms) if energy else 0.0,
    }  # fmt: skip
    return values[objective]


def sentence(helps: Helps) -> str:
    """What the searches say, in words."""
    best = helps.rows[0]
    short = "" if helps.found_less is None else (
        f" Searches of that length do not find the design itself again ({figure(helps.found_less)} FPS), so gains are "
        "at least these: give a longer --budget."
    )  # fmt: skip
    found = "A search of the same length finds a better design without any change" if helps.found_better else ""
    said = f"{found}: {figure(helps.base_fps)} FPS; gains are over that one. " if found else ""
    if best.gain is None or best.gain <= 0:
        searched = f"in searches of {helps.seconds:g} s"
        return f"{said}A tenth more of no single resource led to a better design {searched}.{short}"
    equal = [row.name for row in helps.rows if row.gain is not None and row.gain > best.gain - 0.001]
    return (
        f"{said}A tenth more {' or '.join(equal)} brings most: {best.gain:.1%} for '{helps.objective}'. Each row is a "
        f"search of at most {helps.seconds:g} s; gains below its gap may be the search's own.{short}"
    )


def helps_table(helps: Helps) -> Group:
    """For the terminal."""
    shown = table("What would help next", "a tenth more", ">now", ">then", ">FPS", ">gain", ">gap")
    for row in helps.rows:
        gap = "-" if row.gap is None else percent(row.gap, 1)
        gain = "-" if row.gain is None else f"{row.gain:+.1%}"
        shown.add_row(row.name, row.now, row.then, row.why if row.fps is None else figure(row.fps), gain, gap)
    return Group(shown, Text(sentence(helps)))


def helps_data(helps: Helps) -> dict[str, Any]:
    """For the page."""
    rows = [
        {"what": r.name, "from": r.now, "to": r.then, "fps": r.fps, "gain": r.gain, "gap": r.gap, "why": r.why}
        for r in helps.rows
    ]
    return {"text": sentence(helps), "rows": rows}
