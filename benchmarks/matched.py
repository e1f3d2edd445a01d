"""Networks of one space by name on a board, trained alike: hybrids beside the convolutions that are as accurate.

    python benchmarks/matched.py CIFAR 8/16:c3/32:c3/96:a3,a3 8/16:c3/32:c3/96:c3,c3 [--target fpga-kv260] [--seeds 3]

headline.py takes the rival of a pair by the zero-shot score, this the networks that it is told. They are trained,
tested and compiled as there, those of convolutions alone three times. A run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from headline import RIVALS, accuracies, designed, designs, train, trained_as
from machine import heading
from results import note, rows, spread

from nashc.board import Board, load_board
from nashc.core.network import Network
from nashc.core.options import Options
from nashc.nas.architecture import parse
from nashc.nas.job import train_and_test
from nashc.nas.network import network_of
from nashc.nas.space import load_space
from nashc.nas.trained import Lesson
from nashc.search.baselines import multiplication_only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar")
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--space", default="resnet-cifar")
    parser.add_argument("--target", default="fpga-kv260")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--worker", default="0/1", metavar="I/N", help="train every N-th network alone, from the I-th on"
    )
    parser.add_argument("--out", type=Path, default=Path("out/matched"))
    options = parser.parse_args()
    space, board, results = load_space(options.space), load_board(options.target), options.out / "results.jsonl"
    worker, workers = map(int, options.worker.split("/"))
    images, test, _ = train_and_test(space, options.cifar)
    for n, (seed, name) in enumerate((seed, name) for seed in range(options.seeds) for name in options.networks):
        if n % workers == worker:
            lesson = Lesson(images, test, replace(space.recipe, epochs=options.epochs, seed=seed))
            folder = options.out / f"{name.replace('/', '-').replace(':', '-')}-s{seed}-e{options.epochs}"
            train(results, parse(name, space), space, lesson, folder)
    print(heading(), "\n")
    print("| network | MMAC | FPS | gap | FPS on DSPs alone | two on a DSP | accuracy % | seeds |")
    print("|---|---|---|---|---|---|---|---|")
    how = trained_as(space, replace(space.recipe, epochs=options.epochs))
    for name in options.networks:
        network = network_of(parse(name, space), space)
        print(row(name, network, board, results, how), flush=True)


def row(name: str, network: Network, board: Board, results: Path, how: str) -> str:
    """The line of a network; its designs are searched unless they are there."""
    key, hybrid = f"{board.name} {name}", multiplication_only(network) != network
    if not any(r["kind"] == "design" and r["network"] == key for r in rows(results)):
        for lanes, design in designs(network, board, Options(), rival=not hybrid).items():
            note(results, designed(key, lanes, design))
    found = {r["name"]: r for r in rows(results) if r["kind"] == "design" and r["network"] == key}
    best = max(found.values(), key=lambda r: r["fps"])
    reached = accuracies(rows(results), name, how)
    columns = [
        f"`{name}`", f"{network.macs / 1e6:.1f}", f"{best['fps']:,.0f}", f"{best['gap']:.0%}",
        *(f"{found[lanes]['fps']:,.0f}" if lanes in found else "-" for lanes in RIVALS[:2]),
        spread(reached) if len(reached) else "-", str(len(reached)),
    ]  # fmt: skip
    return "| " + " | ".join(columns) + " |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
