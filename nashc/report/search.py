"""A search from the user's side: progress, the pairs beside their rivals, the front as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from nashc.files import replacing
from nashc.nas.job import Job, save_job, url_of
from nashc.nas.job import encoded as encoded_job
from nashc.nas.pairs import Found, Pair, Pareto, finish
from nashc.nas.search import CONV, HYBRID, Worker
from nashc.nas.study import History
from nashc.report.progress import progress_bar
from nashc.report.text import cell, figure, percent, safe, table

STUDY = "nashc search"


def search_shown(job: Job, folder: Path, seconds: float | None, design_seconds: float) -> Pareto:
    """Search, or go on with the search of that folder, and write its result there."""
    job.check()
    save_job(job, folder)
    history = History(url_of(job, folder), STUDY, encoded_job(job).decode())
    with progress_bar() as progress:
        Worker(job, history).run(seconds, progress)
        made = finish(job, history, folder, design_seconds, progress)
    if has_matplotlib():
        draw(made, folder / "pareto.png")
    return made


def join_shown(job: Job, folder: Path, seconds: float | None) -> int:
    """Work on a study until it is done; the candidates that this worker scored."""
    history = History(url_of(job, folder), STUDY, encoded_job(job).decode())
    with progress_bar() as progress:
        return Worker(job, history).run(seconds, progress)


def search_report(made: Pareto, folder: Path) -> Group:
    """Pairs, each with its rival below it, and what was written."""
    job, found = made.job, made.candidates
    count = {family: sum(f.family == family for f in found) for family in (HYBRID, CONV)}
    head = (
        f"{safe(job.space.name)} for {safe(job.target)}: {count[HYBRID]} hybrids and {count[CONV]} networks of "
        f"convolutions scored by '{safe(job.proxy)}'"
    )
    parts: list[RenderableType] = [Text(head, style="bold")]
    shown = table(
        "Pairs, each with its multiplication-only rival", "", "architecture", ">score", ">MMACs", ">conv", ">shift",
        ">adder", ">FPS", ">DSP only", ">accuracy",
    )  # fmt: skip
    for pair in made.pairs:
        if found[pair.candidate].family == HYBRID:
            shown.add_row(*_row(pair, found[pair.candidate], "pair"))
            if pair.rival >= 0:
                rival = made.pairs[pair.rival]
                shown.add_row(*_row(rival, found[rival.candidate], f"rival, 1/{pair.fps / rival.fps:.2f}"))
    files = ["pareto.json", *(["pareto.png"] if (folder / "pareto.png").exists() else [])]
    parts += [shown, Text(f"wrote {', '.join(files)} and {len(made.pairs)} folders of model.onnx and design.json "
                          f"in {safe(str(folder))}")]  # fmt: skip
    return Group(*parts)


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
    accuracy = ["" if value is None else f"{value:.2%}" for value in (pair.integer_accuracy or pair.accuracy,)]
    dsp = "" if pair.dsp_fps is None else figure(pair.dsp_fps)
    return [what, str(cell(found.architecture)), f"{found.score:.2f}", figure(total / 1e6), *shares, figure(pair.fps),
            dsp, *accuracy]  # fmt: skip
