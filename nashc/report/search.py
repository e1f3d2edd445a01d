"""A search from the user's side: progress, the pairs beside their rivals, the front as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from nashc.artifact import load
from nashc.files import replacing
from nashc.nas.found import Found, Pair, trained_apart
from nashc.nas.job import Job, load_job, refuse_another, save_job
from nashc.nas.pairs import PARETO_FILE, Pareto, finish
from nashc.nas.search import CONV, HYBRID, Worker, read_inputs
from nashc.nas.strategies.run import run_strategy
from nashc.nas.study import open_history
from nashc.report.progress import note_held_out, progress_bar
from nashc.report.text import cell, figure, percent, safe, table, wrote
from nashc.report.written import DESIGN, PARETO_PAGE, REPORT, design_page, pareto_page, write_page


def search_shown(job: Job, folder: Path, seconds: float | None, design_seconds: float, storage: str = "") -> Pareto:
    """Search, or go on with the search of that folder, and write its result there. `storage`: with its password."""
    job.check()
    images = read_inputs(job)
    job = msgspec.structs.replace(job, images=images.digest)
    refuse_another(job, folder)
    folder.mkdir(parents=True, exist_ok=True)
    history = open_history(job, folder, storage)  # a server that cannot be reached leaves no search behind
    save_job(job, folder)
    with progress_bar() as progress:
        Worker(job, history, images).run(seconds, progress)
        made = finish(job, history, folder, design_seconds, progress)
    draw_all(made, folder)
    return made


def draw_all(made: Pareto, folder: Path) -> None:
    """A page for each pair whose design is newer than its page, pareto.html, and pareto.png where matplotlib is."""
    for pair in made.pairs:
        design, shown = folder / pair.folder / DESIGN, folder / pair.folder / REPORT
        if not shown.exists() or shown.stat().st_mtime < design.stat().st_mtime:
            reached = pair.integer_accuracy
            tiles = [] if reached is None else [(f"{reached:.2%}", "top-1 of the integer model")]
            write_page(design_page(load(design), tiles), shown)
    write_page(pareto_page(folder / PARETO_FILE, folder / PARETO_PAGE), folder / PARETO_PAGE)
    if has_matplotlib():
        draw(made, folder / "pareto.png")


def join_shown(folder: Path, seconds: float | None, data: str | None = None, storage: str = "") -> int:
    """Work on the study of a folder until it is done; how many candidates this worker scored.

    data, storage: where this machine has the images and reaches the server, if not as the search's own.
    """
    job = load_job(folder)
    job = job if data is None else msgspec.structs.replace(job, data=data)
    history = open_history(job, folder, storage)
    with progress_bar() as progress:
        return Worker(job, history).run(seconds, progress)


def strategy_shown(name: str, job: Job, epochs: float, images: int | None, folder: Path) -> Group:
    """Search and train one network by a strategy, and say what it cost."""
    job.check()
    with progress_bar() as progress:
        found, done, held_out = run_strategy(name, job, epochs, images, folder, progress)
    if held_out:
        note_held_out(job.data, held_out)
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in found.cpu_seconds.items())
    lines = [
        f"network   {found.architecture}",
        f"accuracy  {done.integer_accuracy:.2%} as integers, {done.accuracy:.2%} as trained",
        f"speed     {figure(done.compiled.design.fps)} FPS on {safe(job.target)}",
        f"CPU time  {stages}",
    ]
    if found.conflict is not None:
        lines.append(f"gradients {found.conflict.pairs:.1%} of pairs of candidates disagree on the weights they share")
    return Group(*map(Text, lines), wrote(f"weights and models in {folder}"))


def search_report(made: Pareto, folder: Path) -> Group:
    """Pairs, each with its rival below it, and what was written."""
    job, found = made.job, made.candidates
    count = {family: sum(f.family == family for f in found) for family in (HYBRID, CONV)}
    head = (
        f"{safe(job.space.name)} for {safe(job.target)}: {count[HYBRID]} hybrids and {count[CONV]} networks of "
        f"convolutions scored by '{safe(job.proxy)}'"
    )
    parts: list[RenderableType] = [Text(head, style="bold")]
    rival = "convolutions on the same accelerator" if job.accelerator else "multiplication-only rival"
    shown = table(
        f"Pairs, each with its {rival}", "", "architecture", ">score", ">MMACs", ">conv", ">shift", ">adder", ">FPS",
        ">gap", ">DSP only", ">accuracy",
    )  # fmt: skip
    for pair in made.pairs:
        if found[pair.candidate].family == HYBRID:
            shown.add_row(*_row(pair, found[pair.candidate], "pair"))
            if pair.rival >= 0:
                other = made.pairs[pair.rival]
                shown.add_row(*_row(other, found[other.candidate], _beside(pair, other, found)))
    files = [name for name in (PARETO_FILE, PARETO_PAGE, "pareto.png") if (folder / name).exists()]
    parts += [shown, Text(LEGEND, style="dim")]
    if any(pair.accuracy is None for pair in made.pairs):
        parts.append(Text(f"Weights of models without an accuracy are random: nashc train {safe(str(folder))}"))
    apart = trained_apart(made.pairs)
    if apart:
        parts.append(Text(f"note: {apart}", style="yellow"))
    if len(found) < job.candidates:
        parts.append(Text(f"note: {len(found)} of {job.candidates} candidates were scored", style="yellow"))
    slow = [pair.folder for pair in made.pairs if pair.fps < job.min_fps]
    if slow:
        text = f"note: slower than --min-fps {figure(job.min_fps)} once their designs were searched: {', '.join(slow)}"
        parts.append(Text(text, style="yellow"))
    what = f"{len(made.pairs)} folders of model.onnx, design.json and report.html in {folder}"
    parts.append(wrote(f"{', '.join(files)} and {what}"))
    return Group(*parts)


LEGEND = (
    "Scores are ranks among all candidates, no accuracies. gap: how much faster a design may be that the search did "
    "not find; where it is large, --budget finds a better one. Accuracy: of the integer model."
)


def _beside(pair: Pair, rival: Pair, found: Sequence[Found]) -> str:
    """The rival by what the pair is next to it, and whether it scores as much."""
    less = ", scores less" if found[rival.candidate].score < found[pair.candidate].score else ""
    return f"rival: pair is {pair.fps / rival.fastest:.2f}x{less}"


def draw(made: Pareto, path: Path) -> None:
    """FPS over score (or accuracy, where pairs are trained): every candidate, both fronts, the pairs."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    picture = Figure(figsize=(8, 5), layout="constrained")
    axes = picture.add_subplot()
    for family, color, label in ((CONV, "gray", "convolutions alone"), (HYBRID, "tab:blue", "hybrids")):
        own = [f for f in made.candidates if f.family == family]
        axes.plot(*_columns(own), ".", color=color, alpha=0.25, markersize=4)
        best = sorted((f for f in own if f.pareto), key=lambda f: f.score)
        axes.plot(*_columns(best), "o-", color=color, markersize=4, label=f"{label}: front")
    pairs = [(made.candidates[p.candidate], p) for p in made.pairs]
    axes.plot([f.score for f, _ in pairs], [p.fps for _, p in pairs], "*", color="tab:red", markersize=12,
              label="pairs and rivals, exact")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel(f"score of '{made.job.proxy}'")
    axes.set_ylabel(f"FPS on {made.job.target}")
    axes.legend(fontsize=8)
    with replacing(path) as written:
        picture.savefig(written, dpi=120)


def has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return False
    return True


def _columns(found: Sequence[Found]) -> tuple[list[float], list[float]]:
    return [f.score for f in found], [f.coarse_fps for f in found]


def _row(pair: Pair, found: Found, what: str) -> list[str]:
    total = sum(found.macs.values())
    shares = [percent(found.macs[name], total) for name in ("conv", "shift", "adder")]
    accuracy = "" if pair.integer_accuracy is None else f"{pair.integer_accuracy:.2%}"
    gap = "" if pair.gap is None else f"{pair.gap:.0%}"
    dsp = "" if pair.dsp_fps is None else figure(pair.dsp_fps)
    return [
        what, str(cell(found.architecture)), f"{found.score:.2f}", figure(total / 1e6), *shares, figure(pair.fps), gap,
        dsp, accuracy,
    ]  # fmt: skip
