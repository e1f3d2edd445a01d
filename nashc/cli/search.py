"""nashc search."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from nashc.cli.command import Command, given_options, refuse_options
from nashc.cli.options import limit_options
from nashc.cli.proxies import NAMES
from nashc.cli.show import show
from nashc.cli.types import BOARD, SEED, SPACE, Duration, File, Positive, among
from nashc.errors import NashcError

RIVALS = ("conv-only", "conv-only-dsp")
STRATEGIES = ("zero-shot", "pre-identified", "nasa-f", "nasa")
"""For help and completion, as the library that registers them needs torch; a test holds them against it."""

KINDS = {
    "join": {"data", "seconds", "storage"},
    "model": {"target", "out"},
    "strategy": {"space", "target", "data", "out", "proxy", "min_fps", "epochs", "images", "accelerator", "seed"},
}
"""What each kind of search takes beside its own option; all but a worker that joins take the limits of designs."""
STRATEGY_ALONE = {"epochs", "images"}


def refuse_unused(ctx: click.Context, limits: Iterable[str]) -> None:
    """Raises NashcError for options that the kind of search does not take."""
    given = given_options(ctx)
    kind = next((name for name in KINDS if name in given), "")
    takes = {kind, "verbose", *KINDS[kind], *(() if kind == "join" else limits)} if kind else given - STRATEGY_ALONE
    refuse_options(ctx, given - takes, f"with --{kind}" if kind else "without --strategy")


@click.command("search", cls=Command, examples={
    "nashc search --space resnet-cifar --target fpga-zc706 --data cifar10/ -o runs/a":
        "pairs of a network and its accelerator, by a proxy that needs no training",
    "nashc search --join runs/a": "one more worker of that search, here or on another machine",
    "nashc search --space space.toml --target fpga-zc706 --data cifar10/ --strategy zero-shot --epochs 20 -o runs/b":
        "another strategy, which trains: its budget is 20 epochs of a network of median size",
})  # fmt: skip
@click.option("--space", type=SPACE, help="A space that comes with nashc, or your own .toml file.")
@click.option("--target", type=BOARD, help="A board (see `nashc targets`) or a board file.")
@click.option("--data", type=File(), help="Labelled images; a batch of them is what the proxy sees.")
@click.option("-o", "--out", type=File(), help="Folder of the search: started there, or gone on with.")
@click.option("--join", type=File(), metavar="FOLDER", help="Be one more worker of the search in that folder.")
@click.option("--storage", default="", metavar="URL", help="postgresql://... instead of a file in the folder.")
@click.option("--candidates", type=click.IntRange(min=1), default=400, show_default=True, help="To score in all.")
@click.option("--time", "seconds", type=Duration(), metavar="30s|2m|1h", help="Score no longer than that.")
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True, help="To search exactly, at last.")
@click.option(
    "--proxy", default="hybrid", show_default=True, shell_complete=among(*NAMES), help="See `nashc proxies list`."
)
@click.option("--min-fps", type=Positive(), default=None, help="Networks that cannot be as fast are not scored.")
@click.option("--strategy", shell_complete=among(*STRATEGIES),
              help=f"Instead of the joint search: {', '.join(STRATEGIES)}; they train.")  # fmt: skip
@click.option("--epochs", type=Positive(), default=40.0, show_default=True, help="Of --strategy: its whole budget.")
@click.option("--images", type=click.IntRange(min=1), help="Of --strategy: train on so many.  [default: all]")
@click.option("--model", type=File(), help="An ONNX model instead of --space: search its accelerator alone.")
@click.option("--accelerator", type=File(), help="A design.json: search models for its accelerator.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="A traceback for internal errors.")
@limit_options
@click.pass_context
def search_command(
    ctx: click.Context, /, space: str | None, target: str | None, data: str | None, out: str | None, join: str | None,
    storage: str, candidates: int, seconds: float | None, pairs: int, proxy: str, min_fps: float | None,
    strategy: str | None, epochs: float, images: int | None, model: str | None, accelerator: str | None, seed: int,
    verbose: bool, **limits: Any,
) -> None:  # fmt: skip
    """Search networks of a space together with their accelerators.

    Ends with a Pareto set of (model, accelerator) pairs, each beside the best of convolutions alone that the same
    search found. An interrupted search goes on with the same command.
    """
    from nashc.core.options import Options
    from nashc.nas.job import Job
    from nashc.nas.pairs import SEARCH_SECONDS
    from nashc.nas.space import load_space
    from nashc.nas.study import without_password
    from nashc.report import deliver
    from nashc.report import search as report

    refuse_unused(ctx, limits)
    if join is not None:
        count = report.join_shown(Path(join), seconds, data, storage)
        click.echo(f"scored {count} candidates of {join}")
        return
    if model is not None:
        if target is None or out is None:
            raise NashcError("--model needs --target and --out", where="nashc search")
        compiled = deliver.compile_to(out, model, target, {}, Options(**limits), RIVALS)
        show(deliver.human_form(compiled, out))
        return
    missing = [f"--{n}" for n, v in (("space", space), ("target", target), ("data", data), ("out", out)) if v is None]
    if space is None or target is None or data is None or out is None:
        raise NashcError(f"missing {', '.join(missing)}", where="nashc search", hint="or join one: --join FOLDER")
    job = Job(
        space=load_space(space), target=target, data=data, proxy=proxy, candidates=candidates, pairs=pairs,
        min_fps=min_fps or 0.0, seed=seed, limits=Options(**limits), storage=without_password(storage),
        accelerator=accelerator or "",
    )  # fmt: skip
    if strategy is not None:
        show(report.strategy_shown(strategy, job, epochs, images, Path(out)))
        return
    show(report.search_report(report.search_shown(job, Path(out), seconds, SEARCH_SECONDS, storage), Path(out)))
