"""Joint search against other ways to spend the same number of scored networks: hypervolume of (score, FPS).

    python benchmarks/search_quality.py DATA [--space resnet-cifar] [--target fpga-zc706] [--candidates 150] [--seeds 5]

joint: nashc's search, every candidate with the FPS of its own best accelerator. model first: the same evolution for
the score alone, the accelerators afterwards. random: no evolution. nasa-f: the same evolution with the forerunner's
estimate of speed, where a shift or adder layer costs 1/1.88 of a convolution of its size; priced properly afterwards.
All score with the same proxy; a score is the share of all candidates of all runs that are no better, so that they
compare. The reference point is the worst of both axes; FPS counts by its logarithm. A line of JSON for each run goes to
--out, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import torch
from results import Row, note, rows
from scipy.stats import spearmanr

from nashc.nas.architecture import Architecture, parse, sample
from nashc.nas.evolve import comparable, front, hypervolume, propose
from nashc.nas.job import SCORED_ON, Job, open_images
from nashc.nas.layout import layout, macs
from nashc.nas.proxies import PROXIES, Candidate, combined
from nashc.nas.search import Pricing, pricing
from nashc.nas.space import load_space
from nashc.nas.surrogate import Surrogate, encoded

GUESSED_FROM = (24, 48, 96)
METHODS = ("joint", "model first", "random", "nasa-f")
MULTIPLIER_AREA = 1.88
"""Of a shift or adder unit of the forerunner, in its own tables."""


def nasa_speed(architecture: Architecture, price: Pricing) -> float:
    work = macs(layout(architecture, price.space))
    return 1e9 / (work["conv"] + (work["shift"] + work["adder"]) / MULTIPLIER_AREA)


def run(
    method: str, seed: int, count: int, job: Job, price: Pricing, images: tuple[torch.Tensor, torch.Tensor]
) -> dict:
    """The candidates of one run, in their order."""
    speeds: dict[str, Callable[[Architecture], float]] = {
        "joint": price.fps, "model first": lambda _: 1.0, "random": price.fps,
        "nasa-f": lambda a: nasa_speed(a, price),
    }  # fmt: skip
    speed, proxy = speeds[method], PROXIES.get(job.proxy)
    price.fps.cache_clear()  # each run pays for its own prices
    found: list[Architecture] = []
    terms, begin = [], time.process_time()
    for number in range(count):
        random = Random(f"{method} {seed} {number}")
        if method == "random":
            made: Architecture | None = sample(job.space, random)
        else:
            points = np.column_stack([combined(terms), [speed(a) for a in found]]) if found else np.zeros((0, 2))
            made = propose(job.space, found, points, {str(a) for a in found}, speed, random)
        assert made is not None
        found.append(made)
        terms.append(dict(proxy.terms(Candidate(made, job.space, *images))))
    seconds = round(time.process_time() - begin, 1)
    return {"architectures": [str(a) for a in found], "terms": terms, "seconds": seconds}


def table(found: list[Row], price: Pricing) -> None:
    """Mean hypervolume over the seeds and its standard error, in shares of the joint search's."""
    scores = combined([t for row in found for t in row["terms"]])
    fps = np.array([price.fps(parse(a, price.space)) for row in found for a in row["architectures"]])
    points = comparable(np.column_stack([scores, fps]))
    worst = points.min(axis=0)
    begins = np.cumsum([0] + [len(row["terms"]) for row in found])
    volumes: dict[str, list[float]] = {method: [] for method in METHODS}
    for row, a, b in zip(found, begins[:-1], begins[1:], strict=True):
        volumes[row["method"]].append(hypervolume(points[a:b][front(points[a:b])], worst))
    joint = np.mean(volumes["joint"])
    print("| method | hypervolume, joint = 1 | standard error | seeds | CPU s a run |\n|---|---|---|---|---|")
    for method, own in volumes.items():
        if own:
            error = np.std(own, ddof=1) / np.sqrt(len(own)) / joint if len(own) > 1 else float("nan")
            cost = np.mean([row["seconds"] for row in found if row["method"] == method])
            print(f"| {method} | {np.mean(own) / joint:.3f} | {error:.3f} | {len(own)} | {cost:.0f} |")
    guesses(found, price)


def guesses(found: list[Row], price: Pricing) -> None:
    """How the guesses from the first candidates of a run order its others, means over the seeds."""
    print("\n| candidates of | guessed from the first | score: Spearman | FPS: Spearman |\n|---|---|---|---|")
    for method, count in product(("random", "joint"), GUESSED_FROM):
        reached = []
        for row in (row for row in found if row["method"] == method):
            made = [parse(a, price.space) for a in row["architectures"]]
            values = comparable(np.column_stack([combined(row["terms"]), [price.fps(a) for a in made]]))
            known = [encoded(a, price.space) for a in made]
            guessed, _ = Surrogate(known[:count], values[:count]).guess(known[count:])
            reached.append([spearmanr(guessed[:, n], values[count:, n]).statistic for n in range(2)])
        if reached:
            score, fps = np.mean(reached, axis=0)
            print(f"| {method} | {count} | {score:.2f} | {fps:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--space", default="resnet-cifar")
    parser.add_argument("--target", default="fpga-zc706")
    parser.add_argument("--proxy", default="hybrid")
    parser.add_argument("--candidates", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/search_quality.jsonl"))
    options = parser.parse_args()
    job = Job(space=load_space(options.space), target=options.target, data=options.data, proxy=options.proxy)
    images = open_images(job.space, job.data, "train", SCORED_ON)
    batch = images.batch(np.arange(len(images))), images.labels
    price = pricing(job)
    setting = {name: getattr(options, name) for name in ("space", "target", "proxy", "candidates")}
    setting["images"] = images.digest
    done = {(row["method"], row["seed"]) for row in rows(options.out) if row.get("setting") == setting}
    for seed in range(options.seeds):
        for method in METHODS:
            if (method, seed) not in done:
                found = run(method, seed, options.candidates, job, price, batch)
                note(options.out, {"setting": setting, "method": method, "seed": seed, **found})
    table([row for row in rows(options.out) if row.get("setting") == setting], price)


if __name__ == "__main__":
    main()
