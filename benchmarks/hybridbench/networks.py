"""The networks of hybridbench: which hybrids of which spaces are trained on which data.

Two halves, split by space: proxies may be designed on "resnet-cifar", "mobilenet-cifar" is for the final table alone.
In each group the operators' shares are drawn anew for every network, so that there are networks of nearly one operator
as well as mixtures; all other axes are drawn uniformly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import msgspec

from nashc.nas.architecture import Architecture, sample
from nashc.nas.job import open_images
from nashc.nas.recipe import Recipe
from nashc.nas.space import Space, load_space
from nashc.nas.train import Images

RESOLUTION = 16
"""Rows and columns, by the mean of what each pixel covers."""
TRAIN_IMAGES, TEST_IMAGES = 10_000, 10_000
RECIPE = Recipe(epochs=6, batch=128, rate=0.1, adder_rate=3.0, as_conv=0.0, quantised=0.0)
NETWORKS, REPEATED, SEEDS = 32, 4, 3
"""Of each group: networks, how many of them are trained with more than one seed, and with how many seeds then."""
HALVES = {"resnet-cifar": "design", "mobilenet-cifar": "final"}
DATA = {"cifar10": 3, "fashion": 1}
"""Data sets and their channels."""


@dataclass(frozen=True, slots=True)
class Job:
    space: str
    data: str
    architecture: str
    seed: int


def bench_space(name: str, data: str) -> Space:
    """The space at the resolution and with the channels of the data."""
    return msgspec.structs.replace(load_space(name), resolution=RESOLUTION, channels=DATA[data])


def jobs() -> Iterator[Job]:
    """All trainings, the groups in turn, so that a run that is stopped has the same number of each."""
    groups = {(space, data): list(_group(space, data)) for space in HALVES for data in DATA}
    for i in range(NETWORKS):
        for (space, data), found in groups.items():
            yield Job(space, data, str(found[i]), 0)
    for seed in range(1, SEEDS):
        for i in range(REPEATED):
            for (space, data), found in groups.items():
                yield Job(space, data, str(found[i]), seed)


def _group(space_name: str, data: str) -> Iterator[Architecture]:
    space, random = bench_space(space_name, data), Random(f"{space_name} {data}")
    for _ in range(NETWORKS):
        shares = [random.expovariate(1) for _ in range(3)]  # uniform over all divisions into three
        drawn = sample(space, random)
        yield replace(
            drawn,
            stages=tuple(
                replace(
                    stage,
                    blocks=tuple(
                        replace(block, operator=random.choices(("conv", "shift", "adder"), shares)[0])
                        for block in stage.blocks
                    ),
                )
                for stage in drawn.stages
            ),
        )


def images(path: Path, data: str) -> tuple[Images, Images]:
    """Training and test images of a folder that `nashc` reads."""
    space = bench_space(next(iter(HALVES)), data)  # all have the same pixels
    train = open_images(space, str(path), "train", TRAIN_IMAGES)
    return train, open_images(space, str(path), "test", TEST_IMAGES, like=train)
