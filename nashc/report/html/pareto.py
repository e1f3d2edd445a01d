"""What the Pareto pages show: of a search (pareto.json), and of a conversion (the .json beside the hybrid)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from nashc.errors import NashcError
from nashc.nas.found import Found, Pair, trained_apart
from nashc.report.html.names import shown
from nashc.report.text import figure

Data = dict[str, Any]
MAX_BYTES = 64 * 2**20
AGAIN = "give the .json that `nashc hybridize` or `nashc search` wrote"


class _Space(msgspec.Struct):
    name: str


class _Job(msgspec.Struct):
    space: _Space
    target: str
    proxy: str


class _Pareto(msgspec.Struct):
    """pareto.json, without what only a search needs: nashc.nas.pairs reads all of it, and needs torch for that."""

    job: _Job
    candidates: list[Found]
    pairs: list[Pair]


class _Point(msgspec.Struct):
    types: str
    chosen: bool
    fps: float | None
    why: str
    drop: float | None
    agreement: float | None
    accuracy: float | None
    float_accuracy: float | None
    sqnr_db: dict[str, float | None]
    design: str | None = None


class _Curve(msgspec.Struct):
    model: str
    target: str
    images: int
    measured_on: str
    labelled: bool
    baselines_fps: dict[str, float | None]
    multiplication_only_fps: float | None
    points: list[_Point]


def pareto_data(path: Path, page: Path) -> Data:
    """Of a pareto.json: every candidate, the fronts, the pairs with links from where the page is."""
    made = _decoded(path, _Pareto)
    for pair in made.pairs:
        if not 0 <= pair.candidate < len(made.candidates) or not -1 <= pair.rival < len(made.pairs):
            raise NashcError("inconsistent: a pair names no candidate", where=str(path), hint=AGAIN)
    found = made.candidates
    pairs = [p for p in made.pairs if found[p.candidate].family == "hybrid"]
    return {
        "name": f"{shown(made.job.space.name)} for {shown(made.job.target)}",
        "text": f"{len(found):,} candidates, scored by '{shown(made.job.proxy)}'. Scores are ranks among all, no "
        "accuracies; FPS of a candidate is the coarse stage's, which a design may not reach, FPS of a pair that of its "
        "design." + (f" Of the pairs {apart}." if (apart := trained_apart(made.pairs)) else ""),
        "x": "score", "y": f"FPS on {shown(made.job.target)}",
        "groups": ["convolutions alone", "hybrids"],
        "points": [
            {
                "name": f"{f.family} {f.number}", "about": shown(f.architecture), "x": f.score, "y": f.coarse_fps,
                "group": int(f.family == "hybrid"), "front": f.pareto,
            }
            for f in found
        ],
        "chosen": [
            {
                "name": shown(pair.folder), "about": shown(found[pair.candidate].architecture),
                "x": found[pair.candidate].score, "y": pair.fps, "link": _link(path.parent, pair.folder, page),
                "macs": found[pair.candidate].macs, "gap": pair.gap,
                "dsp_fps": pair.dsp_fps, "accuracy": pair.integer_accuracy,
                "rival": _rival(made, pair),
            }
            for pair in [*pairs, *(p for p in made.pairs if p not in pairs)]
        ],
        "lines": [],
    }  # fmt: skip


def _rival(made: _Pareto, pair: Pair) -> Data | None:
    if pair.rival < 0:
        return None
    rival = made.pairs[pair.rival]
    less = made.candidates[rival.candidate].score < made.candidates[pair.candidate].score
    return {"name": shown(rival.folder), "fps": rival.fastest, "less": less}


def _link(folder: Path, name: str, page: Path) -> str | None:
    """From the page to the report of a pair, or to its design.json; None where there is neither."""
    if Path(name).name != name or name in (".", ".."):
        return None
    return _file_link(folder / "pareto.json", f"{name}/design.json", page)


def _file_link(path: Path, design: str | None, page: Path) -> str | None:
    """From the page to a design.json that a file at `path` names, or better to the report beside it."""
    if design is None:
        return None
    there = path.parent / design
    if there.name != "design.json":
        return None
    try:
        found = [file for file in (there.with_name("report.html"), there) if file.is_file()]
    except (OSError, ValueError):  # a name that no file can have
        return None
    return quote(os.path.relpath(found[0], page.parent)) if found else None


def curve_data(path: Path, page: Path) -> Data:
    """Of a conversion: FPS over what is lost for each choice of types, and the original's own FPS."""
    curve = _decoded(path, _Curve)
    drops = any(point.drop is not None for point in curve.points)
    known = [p for p in curve.points if p.fps is not None and _lost(p, drops) is not None]
    points = [_point(p, path, page, drops) for p in known]
    for point in points:
        point["front"] = not any(
            other["y"] >= point["y"]
            and other["x"] <= point["x"]
            and (other["y"], other["x"]) != (point["y"], point["x"])
            for other in points
        )
    return {
        "name": f"{shown(curve.model)} for {shown(curve.target)}",
        "text": f"Types of layers that were measured on {curve.images:,} images of {shown(curve.measured_on)} and "
        "searched on the board." + _missing(len(curve.points) - len(known))
        + ("" if curve.labelled else " Without labels: what counts is the original's class."),
        "x": "points of top-1 lost" if drops else "noise at the worst output, -dB",
        "y": f"FPS on {shown(curve.target)}", "groups": ["types of layers"], "points": points,
        "chosen": sorted((p for p in points if p["chosen"] or p["link"]), key=lambda p: not p["chosen"]),
        "lines": [[f"original, {shown(name)}", fps] for name, fps in curve.baselines_fps.items() if fps is not None],
    }  # fmt: skip


def _missing(count: int) -> str:
    return f" {count} more do not fit the board, or equal the original so that no loss can be drawn." if count else ""


def _point(point: _Point, path: Path, page: Path, drops: bool) -> Data:
    parts = []
    if point.accuracy is not None and point.float_accuracy is not None:
        parts.append(f"top-1 {point.accuracy:.2%}, float {point.float_accuracy:.2%}")
    parts += [f"same class {point.agreement:.2%}"] if point.agreement is not None else []
    parts += [f"{shown(name)} {figure(value)} dB" for name, value in [*point.sqnr_db.items()][:4] if value is not None]
    return {
        "name": shown(point.types) + ", chosen, after its own pass" * point.chosen, "about": "; ".join(parts),
        "x": _lost(point, drops),
        "y": point.fps, "group": 0, "chosen": point.chosen, "link": _file_link(path, point.design, page),
        "accuracy": point.accuracy, "gap": None, "dsp_fps": None, "macs": None, "rival": None,
    }  # fmt: skip


def _lost(point: _Point, drops: bool) -> float | None:
    """Points of top-1, or the noise at the worst output in -dB; None where nothing is lost that dB could tell."""
    if drops:
        return None if point.drop is None else 100 * point.drop
    known = [value for value in point.sqnr_db.values() if value is not None]
    return -min(known) if known else None


def _decoded(path: Path, kind: type[Any]) -> Any:
    """The file as a value of that kind. Raises NashcError for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise NashcError(f"larger than {MAX_BYTES // 2**20} MiB", where=str(path), hint=AGAIN)
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except RecursionError:
        raise NashcError("nested too deeply", where=str(path), hint=AGAIN) from None
    except msgspec.DecodeError as error:
        raise NashcError(f"cannot be read: {error}", where=str(path), hint=AGAIN) from None
