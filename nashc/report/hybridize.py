"""A conversion from the user's side: progress, what became of the layers, the curve as a table and as a picture."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from nashc.artifact import load
from nashc.errors import NashcError
from nashc.files import check_file, replacing
from nashc.hybridize.fidelity import Fidelity
from nashc.hybridize.files import Job, Made, design_folders, hybridize_files
from nashc.hybridize.integers import BASE
from nashc.hybridize.pipeline import Hybrid, Point
from nashc.report.progress import progress_bar
from nashc.report.text import cell, exact_percent, figure, percent, safe, table, wrote
from nashc.report.written import DESIGN, REPORT, design_page, pareto_page, write_page
from nashc.runtime.accuracy import Measured

PICTURES = (".png", ".svg", ".pdf")
PAGE = ".html"


def hybridize_shown(job: Job, plot: str | None = None) -> Made:
    """The conversion with a progress bar on a terminal, and its picture where one is asked for."""
    if plot is not None:
        _check_plot(plot)
    with progress_bar() as progress:
        made = hybridize_files(job, progress)
    for folder in design_folders(made):
        write_page(design_page(load(folder / DESIGN)), folder / REPORT)
    if plot is not None:
        draw(made, plot)
    return made


def hybridize_report(made: Made, *, verbose: bool = False) -> Group:
    """Accuracy, speed, the layers by type, the curve."""
    hybrid, job = made.hybrid, made.job
    where = f"{job.data or job.calib}" + ("" if job.data else ", the images that it was calibrated on")
    parts: list[RenderableType] = [Text(f"{safe(hybrid.original.name)} for {safe(job.target)}", style="bold")]
    if made.measured is not None:
        parts.append(Text(_on_data(made.measured, job)))
    else:
        parts.append(Text(f"accuracy    {_accuracy(hybrid.chosen.fidelity)}: {hybrid.images} images of {safe(where)}"))
    parts += [Text(f"speed       {_gain(hybrid)}"), Text()]
    if not hybrid.adders[0]:
        parts.append(Text("No adder layers: they need training, which --finetune DATA does."))
    parts += [_layers(made), _curve(made)]
    if verbose:
        parts.append(_sensitivities(hybrid))
    possible, fps = made.hybrid.not_ruled_out, made.hybrid.chosen.fps or 0.0
    if possible is not None and possible > fps:
        text = (
            f"note: time ended the search for the original's accelerator, and up to {figure(possible)} FPS are not "
            "ruled out for it; a longer --budget makes the comparison firmer"
        )
        parts.append(Text(text, style="yellow"))
    parts += [Text(f"note: {safe(note)}") for note in made.notes]
    parts.append(wrote(", ".join(made.files)))
    return Group(*parts)


def draw(made: Made, path: str) -> None:
    """FPS over what is lost, a mark for each point, as a page or a picture."""
    if Path(path).suffix == PAGE:
        write_page(pareto_page(Path(made.job.out).with_suffix(".json"), Path(path), "curve"), Path(path))
        return
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    hybrid = made.hybrid
    picture = Figure(figsize=(7, 4.5), layout="constrained")
    axes = picture.add_subplot()
    points = [p for p in hybrid.points if p.fps is not None and p is not hybrid.chosen]
    axes.plot(
        [_lost(p) for p in points], [p.fps or 0.0 for p in points], "o", color="tab:blue", label="measured choices"
    )
    for point in points:
        axes.annotate(
            point.name, (_lost(point), point.fps or 0.0), fontsize=7, xytext=(4, 3), textcoords="offset points"
        )
    chosen = hybrid.chosen
    axes.plot([_lost(chosen)], [chosen.fps or 0.0], "*", markersize=14, color="tab:red", label=f"chosen: {chosen.name}")
    for style, (name, fps) in zip(("--", ":"), hybrid.floor.items(), strict=False):
        if fps is not None:
            axes.axhline(fps, linestyle=style, color="gray", label=f"original, {name}")
    axes.set_xlabel("points of top-1 lost" if hybrid.classifies else "noise at the worst output (-dB)")
    axes.set_ylabel(f"FPS on {made.job.target}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    with replacing(path) as written:
        picture.savefig(written)


def _check_plot(path: str) -> None:
    """Raises NashcError where the picture could not be written, before any work."""
    check_file(Path(path))
    if Path(path).suffix == PAGE:
        return
    if Path(path).suffix not in PICTURES:
        hint = f"give --plot FILE with {', '.join((PAGE, *PICTURES))}"
        raise NashcError("no picture that can be drawn", where=path, hint=hint)
    try:
        import matplotlib  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise NashcError("matplotlib is not installed", where="--plot", hint="run pip install 'nashc[plot]'") from None


def _lost(point: Point) -> float:
    drop = point.fidelity.drop
    return -point.fidelity.least_sqnr_db if drop is None else 100 * drop


def _gain(hybrid: Hybrid) -> str:
    """The chosen point beside the best that multiplication alone does."""
    fps, best = hybrid.chosen.fps or 0.0, hybrid.multiplying
    found = f"{figure(fps)} FPS"
    if best is None:
        return f"{found}; no multiplication-only accelerator fits the board"
    if fps <= best:
        types = "" if set(hybrid.chosen.choice.values()) == {BASE} else f" ({hybrid.chosen.name})"
        return f"{found}{types}: nothing is gained over multiplication alone, {figure(best)} FPS"
    return f"{found}, {fps / best:.2f}x the best of multiplication alone, {figure(best)} FPS"


def _accuracy(found: Fidelity) -> str:
    if found.accuracy is not None and found.float_accuracy is not None:
        return f"{found.accuracy:.2%} top-1, float {found.float_accuracy:.2%}; the same class on {found.agreement:.2%}"
    if found.agreement is not None:
        return f"the same class as the float model on {found.agreement:.2%}"
    return ", ".join(f"{safe(name)} {value:.1f} dB" for name, value in found.sqnr_db.items())


def _on_data(measured: Measured, job: Job) -> str:
    n = measured.images

    def share(count: int) -> str:
        return exact_percent(Fraction(count, n))

    parts = []
    if measured.model is not None and measured.against is not None:
        parts.append(f"{share(measured.model.top1)} top-1, float {share(measured.against.top1)}")
    parts += [
        f"{safe(output.name)} " + (f"same class {share(output.agreeing)}, " if output.agreeing is not None else "")
        + f"{output.sqnr_db:.1f} dB"
        for output in measured.outputs
    ]  # fmt: skip
    return f"accuracy    {'; '.join(parts)}: {n:,} images of {safe(job.data)}"


def _layers(made: Made) -> RenderableType:
    """Layers with weights by type, and their share of the multiply-accumulates."""
    hybrid = made.hybrid
    count: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for layer in hybrid.layers:
        name = hybrid.chosen.choice.get(layer.node, BASE)
        count[name] += 1
        macs[name] += layer.macs
    if hybrid.adders[0]:
        count["adder"], macs["adder"] = hybrid.adders
    shown = table("Layers with weights", "type", ">layers", ">MACs")
    for name in sorted(count, key=lambda n: -macs[n]):
        shown.add_row(name, str(count[name]), percent(macs[name], sum(macs.values())))
    return shown


def _curve(made: Made) -> RenderableType:
    """Every point, the fastest first; '*' where no other one is both faster and better."""
    hybrid = made.hybrid
    heading = ">drop" if hybrid.classifies else ">worst dB"
    shown = table("What was measured and searched", "types", ">FPS", heading, ">same class", "")
    for name, fps in hybrid.floor.items():
        shown.add_row(f"original, {name}", "does not fit" if fps is None else figure(fps), "", "", "")
    for point in sorted(hybrid.points, key=lambda p: -(p.fps or 0.0)):
        measured = point.fidelity
        lost = f"{measured.least_sqnr_db:.1f}" if measured.drop is None else f"{measured.drop:.2%}"
        same = "" if measured.agreement is None else f"{measured.agreement:.2%}"
        best = not any((o.fps or 0) > (point.fps or 0) and _lost(o) < _lost(point) for o in hybrid.points)
        note = "chosen, after its own pass" if point is hybrid.chosen else "*" if best else ""
        shown.add_row(cell(point.name), "does not fit" if point.fps is None else figure(point.fps), lost, same, note)
    return shown


def _sensitivities(hybrid: Hybrid) -> RenderableType:
    names = list(dict.fromkeys(name for own in hybrid.losses.values() for name in own))
    shown = table("Loss at the outputs for each layer and type", "layer", "type", *(f">{name}" for name in names))
    for layer in hybrid.layers:
        own = hybrid.losses[layer.node]
        values = [f"{own[name]:.2g}" if name in own else "" for name in names]
        shown.add_row(cell(layer.node), hybrid.chosen.choice.get(layer.node, BASE), *values)
    return shown
