"""Speed of the joint search: networks a second through the coarse stage, candidates a second scored, and workers.

    python benchmarks/search_speed.py DATA [--space resnet-cifar] [--target fpga-zc706] [--candidates 100]

Coarse stage: new random networks on one core, the tables built before (their seconds stand beside). Scoring: each
proxy alone on random networks, one thread. Workers: whole searches of so many candidates from an empty folder, without
the exact stage, by one and by two processes of one thread each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
import torch

from nashc.nas.architecture import sample
from nashc.nas.job import SCORED_ON, Job, open_images, save_job
from nashc.nas.proxies import PROXIES, Candidate
from nashc.nas.search import Worker, pricing
from nashc.nas.space import load_space
from nashc.nas.study import open_history

NETWORKS, SCORED = 300, 20
WORK = "import sys; from benchmarks.search_speed import work; work(sys.argv[1])"


def work(folder: str) -> None:
    """One worker, until the study is done; prints the seconds without its start."""
    from nashc.nas.job import load_job  # noqa: PLC0415

    torch.set_num_threads(1)
    job = load_job(Path(folder))
    worker = Worker(job, open_history(job, Path(folder)))
    begin = time.perf_counter()
    print(worker.run(), time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--space", default="resnet-cifar")
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--candidates", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    job = Job(space=load_space(options.space), target=options.target, data=options.data, candidates=options.candidates)
    begin = time.perf_counter()
    price = pricing(job)
    built = time.perf_counter() - begin
    random = Random(1)
    drawn = [sample(job.space, random) for _ in range(NETWORKS)]
    begin = time.perf_counter()
    for architecture in drawn:
        price.fps(architecture)
    took = time.perf_counter() - begin
    print(f"coarse stage: {NETWORKS / took:.0f} new networks a second; tables {built:.1f} s before\n")
    images = open_images(job.space, job.data, "train", SCORED_ON)
    x, labels = images.batch(np.arange(len(images))), images.labels
    print("| proxy | networks a second, one thread |\n|---|---|")
    for proxy in PROXIES.values():
        begin = time.perf_counter()
        for architecture in drawn[:SCORED]:
            proxy.terms(Candidate(architecture, job.space, x, labels))
        print(f"| {proxy.name} | {SCORED / (time.perf_counter() - begin):.1f} |", flush=True)
    print("\n| workers | candidates | seconds | a second |\n|---|---|---|---|")
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            save_job(job, Path(folder))
            open_history(job, Path(folder))
            command = [sys.executable, "-c", WORK, folder]
            started = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
                for _ in range(workers)
            ]
            said = [process.communicate()[0].split() for process in started]
        seconds = max(float(s) for _, s in said)
        count = sum(int(n) for n, _ in said)
        print(f"| {workers} | {count} | {seconds:.1f} | {count / seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
