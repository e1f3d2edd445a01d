"""nashc train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nashc.cli.command import Command, given_options, refuse_options
from nashc.cli.options import limit_options
from nashc.cli.show import show
from nashc.cli.types import BOARD, SEED, SPACE, File, Positive
from nashc.errors import NashcError

if TYPE_CHECKING:
    from rich.console import Group


@click.command("train", cls=Command, examples={
    "nashc train runs/a --data cifar10/": "every pair of a search, each checked and compiled in the end",
    "nashc train --space resnet-cifar --architecture '16/16:c3/32:s3,s3/64:a3' --target fpga-zc706 --data cifar10/ "
    "-o trained": "one architecture, written as nashc search prints it",
})  # fmt: skip
@click.argument("run", type=File(), required=False)
@click.option("--data", required=True, type=File(), help="Labelled images with a train and a test split.")
@click.option("--pair", "pairs", multiple=True, metavar="NAME", help="Of RUN, this folder alone.  [default: all]")
@click.option("--space", type=SPACE, help="Instead of RUN: a space ...")
@click.option("--architecture", metavar="TEXT", help="... one of its architectures, as `nashc search` prints them ...")
@click.option("--target", type=BOARD, help="... a board ...")
@click.option("-o", "--out", type=File(), help="... and the folder to write into.")
@click.option("--images", type=click.IntRange(min=1), help="Train on so many images.  [default: all]")
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option("--batch-size", type=click.IntRange(min=2), help="Instead of the recipe's.")
@click.option("--rate", type=Positive(), help="Highest learning rate, instead of the recipe's.")
@click.option("--teacher", metavar="TEXT", help="Train this architecture first and distil from it.")
@click.option("--seed", type=SEED, help="Instead of the recipe's.")
@click.option("-v", "--verbose", is_flag=True, help="A traceback for internal errors.")
@limit_options
@click.pass_context
def train_command(
    ctx: click.Context, /, run: str | None, data: str, pairs: tuple[str, ...], space: str | None,
    architecture: str | None, target: str | None, out: str | None, images: int | None, epochs: int | None,
    batch_size: int | None, rate: float | None, teacher: str | None, seed: int | None, verbose: bool, **limits: Any,
) -> None:  # fmt: skip
    """Train the pairs of a search, or one architecture of a space.

    RUN is the folder of the search. Each network is trained with its space's recipe, quantised, measured on the test
    images and compiled. An interrupted training goes on with the same command.
    """
    from nashc.core.options import Options
    from nashc.nas.job import Job, load_job
    from nashc.nas.processes import place, together
    from nashc.nas.space import load_space
    from nashc.report import search, train

    alone = {"--space": space, "--architecture": architecture, "--target": target, "--out": out}
    if (run is None) != all(alone.values()) or (run is not None and any(alone.values())):
        raise NashcError("give the folder of a search, or all of " + ", ".join(alone), where="nashc train")
    asked = given_options(ctx)
    refuse_options(ctx, asked & ({"pairs"} if run is None else set(limits)), f"with{'out' * (run is None)} RUN")
    chosen = load_job(Path(run)).space if run is not None else load_space(str(space))
    recipe = train.recipe_of(chosen, epochs=epochs, batch=batch_size, rate=rate, seed=seed, teacher=teacher)
    wanted = train.Wanted(data, recipe, images, teacher)
    with together(os.environ):
        if run is not None:
            made = train.train_pairs(Path(run), wanted, pairs)
            shown: Group | None = search.search_report(made, Path(run))
        else:
            job = Job(space=chosen, target=str(target), data=data, limits=Options(**limits))
            done = train.train_one(job, str(architecture), wanted, Path(str(out)))
            shown = None if done is None else train.trained_report(done, Path(str(out)))
        if place()[0] == 0 and shown is not None:
            show(shown)
