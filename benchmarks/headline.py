"""The pairs of a search on CIFAR-10 beside their multiplication-only rivals, trained alike: speed and integer accuracy.

    nashc search --space resnet-cifar --target fpga-zc706 --data CIFAR -o RUN --candidates 600 --pairs 3
    python benchmarks/headline.py CIFAR RUN [RUN ...] [--epochs 8] [--seeds 3] [--out out/headline]

Every network is trained from scratch, as often as there are seeds, with the space's recipe but for the epochs; it is
quantised, and the integer model classifies all test images in the runtime. The rival, convolutions alone, is compiled
three times: one 8x8 MAC on a DSP, two packed on one, and DSPs with MACs in LUTs, which is the search's own rival. The
smallest networks come first. A run that was interrupted goes on, checkpoints included; OUT/results.jsonl has a line for
each network and seed that is finished.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from results import Row, note, rows, spread

from nashc.artifact import load
from nashc.board import Board
from nashc.compiler import target_board
from nashc.core.design import Design
from nashc.core.network import Network, Unit
from nashc.core.options import Options
from nashc.nas.architecture import Architecture
from nashc.nas.found import Pair
from nashc.nas.job import Job, train_and_test
from nashc.nas.pairs import Pareto, architecture_of, export_net
from nashc.nas.pairs import load as load_pareto
from nashc.nas.recipe import Recipe
from nashc.nas.space import Space
from nashc.nas.trained import FLOAT, Lesson, integer_model, train_network
from nashc.search.baselines import without_lut_macs
from nashc.search.solve import solve

SEARCH_SECONDS = 60.0
"""Of each accelerator search, the same for a pair and its rivals."""
RIVALS = ("DSP", "DSP packed", "DSP packed + LUT")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--worker", default="0/1", metavar="I/N", help="train every N-th network alone, from the I-th on"
    )
    parser.add_argument("--out", type=Path, default=Path("out/headline"))
    return parser.parse_args()


def packs_none(network: Network) -> Network:
    """The network as if no two of its weights could share a DSP."""
    return replace(
        network,
        layers=tuple(
            replace(layer, weights=replace(layer.weights, symmetric=False))
            if layer.unit is Unit.CONV and layer.weights is not None
            else layer
            for layer in network.layers
        ),
    )


def designs(network: Network, board: Board, options: Options, *, rival: bool) -> dict[str, Design]:
    """The designs of one network by name: its own, or the three of a rival."""
    options = replace(options, budget_seconds=SEARCH_SECONDS)
    if not rival:
        return {"hybrid": solve(network, board, options)}
    dsp = without_lut_macs(board)
    wanted = ((packs_none(network), dsp), (network, dsp), (network, board))
    return {name: solve(own, where, options) for name, (own, where) in zip(RIVALS, wanted, strict=True)}


def digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:8]


def named(job: Job, one: Pair) -> str:
    """A network of a search, whatever its folder is called."""
    return f"{digest(job)}/{one.folder}"


def search(results: Path, run: Path, one: Pair, job: Job, *, rival: bool) -> None:
    """Note the designs of a network, unless they are there."""
    network = named(job, one)
    if any(r["kind"] == "design" and r["network"] == network for r in rows(results)):
        return
    board = target_board(job.target, job.limits)
    found = load(run / one.folder / "design.json").design.network
    for name, design in designs(found, board, job.limits, rival=rival).items():
        note(results, designed(network, name, design))


def designed(network: str, name: str, design: Design) -> Row:
    return {"kind": "design", "network": network, "name": name, "fps": round(design.fps, 1),
            "gops": round(design.gops, 2), "gap": design.certificate.gap}  # fmt: skip


def train(results: Path, architecture: Architecture, space: Space, lesson: Lesson, folder: Path) -> None:
    """Train a network and note the accuracy of its integer model, unless it is there."""
    recipe = lesson.recipe
    name = f"{architecture} {digest([space, recipe])}"
    if any(r["kind"] == "trained" and r["name"] == name for r in rows(results)):
        return
    net = train_network(architecture, space, lesson, folder)
    export_net(net, folder / FLOAT)
    reached = integer_model(space, lesson, folder)
    note(results, {"kind": "trained", "name": name, "architecture": str(architecture), "seed": recipe.seed,
                   "trained_as": trained_as(space, recipe), "integer_accuracy": reached})  # fmt: skip


def trained_as(space: Space, recipe: Recipe) -> str:
    """A digest of all but the seed that a training follows: accuracies of one digest compare."""
    return digest([space, replace(recipe, seed=0)])


def accuracies(found: list[Row], architecture: str, how: str) -> np.ndarray:
    """In per cent, of the seeds of a network that were trained as said."""
    mine = [r for r in found if r["kind"] == "trained" and r["architecture"] == architecture]
    return 100 * np.array([r["integer_accuracy"] for r in mine if r.get("trained_as") == how])


def main() -> None:
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    found = [(run, made, pair) for run in options.runs for made in [load_pareto(run)] for pair in made.pairs]
    jobs = [job for job in found if job[2].rival >= 0]
    jobs.sort(key=lambda job: sum(job[1].candidates[job[2].candidate].macs.values()))
    space = jobs[0][1].job.space
    for _, made, _ in jobs:
        if made.job.accelerator or made.job.space != space:
            raise SystemExit("give searches of one space, without --accelerator: on a given one nothing has a rival")
    worker, workers = map(int, options.worker.split("/"))
    for n, (run, made, pair) in enumerate(jobs):
        for i, one in enumerate((pair, made.pairs[pair.rival])):
            if (n + i) % workers == worker:
                search(results, run, one, made.job, rival=one is not pair)
    images, test, _ = train_and_test(space, options.cifar)
    for _, made, pair in jobs:
        for seed in range(options.seeds):
            for n, one in enumerate((pair, made.pairs[pair.rival])):
                if (seed + n) % workers == worker:
                    lesson = Lesson(images, test, replace(space.recipe, epochs=options.epochs, seed=seed))
                    folder = options.out / f"{named(made.job, one).replace('/', '-')}-s{seed}-e{options.epochs}"
                    train(results, architecture_of(made.candidates[one.candidate], space), space, lesson, folder)
    print(table(options.runs, rows(results), trained_as(space, replace(space.recipe, epochs=options.epochs))))


def table(runs: list[Path], found: list[Row], how: str) -> str:
    """A line for each pair and kind of rival: ratios, and the difference of the mean accuracies."""
    shown = [
        "| board | pair | rival | lanes of the rival | FPS | rival's | FPS ratio | throughput ratio | accuracy % | "
        "rival's | difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        made = load_pareto(run)
        for pair in made.pairs:
            if pair.rival >= 0:
                shown += _rows(made, pair, found, how)
    return "\n".join(shown)


def _rows(made: Pareto, pair: Pair, found: list[Row], how: str) -> list[str]:
    rival = made.pairs[pair.rival]
    names = [made.candidates[one.candidate].architecture for one in (pair, rival)]
    reached = [accuracies(found, name, how) for name in names]
    of = {(r["network"], r["name"]): r for r in found if r["kind"] == "design"}
    own, theirs = (of.get((named(made.job, one), name)) for one, name in ((pair, "hybrid"), (rival, RIVALS[-1])))
    if own is None or theirs is None or not all(map(len, reached)):
        return []
    shares = tuple(map(spread, reached))
    difference = f"{reached[0].mean() - reached[1].mean():+.2f}"
    shown, best = [], {"fps": 0.0}
    for name in RIVALS:  # a design of a smaller space is one of the larger, too, where the search found none as good
        other = best = max(best, of[named(made.job, rival), name], key=lambda r: r["fps"])
        shown.append(
            f"| {made.job.target} | {names[0]} | {names[1]} | {name} | {own['fps']:,.0f} | {other['fps']:,.0f} | "
            f"{own['fps'] / other['fps']:.2f} | {own['gops'] / other['gops']:.2f} | {shares[0]} | {shares[1]} | "
            f"{difference} |"
        )
    return shown


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
