"""A space of 24 networks that train, search and export in no time, and images for it."""

from pathlib import Path

import numpy as np

from nashc.nas.job import Job
from nashc.nas.space import parse_space

TOML = """
name = "tiny"
source = "the tests"
block = "basic"
resolution = 8
classes = 4
stems = [8]

[[stages]]
widths = [8, 12]
depths = [1, 2]
stride = 2
"""
SPACE = parse_space(TOML, "tiny")
SIZES = "[4, 8, 12, 16, 20, 24]"
WIDER = parse_space(TOML.replace("[8]", SIZES).replace("[8, 12]", SIZES).replace("tiny", "wider"), "wider")
"""432 networks, 72 of them of convolutions alone."""


def images(count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random bytes [N, 3, 8, 8] with a bright quarter, whose place is the label."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 120, (count, 3, 8, 8), np.uint8), np.arange(count) % 4
    for image, label in zip(x, y, strict=True):
        image[:, 4 * (label // 2) :, 4 * (label % 2) :][:, :4, :4] += 120
    return x, y


def job(folder: Path, **changes: object) -> Job:
    """A search with a proxy that takes no time, of the wider space if none is given; its images are in the folder."""
    path = folder / "images.npz"
    if not path.exists():
        x, y = images()
        np.savez(path, x=x.transpose(0, 2, 3, 1), y=y)
    given = {"target": "fpga-pynq-z2", "proxy": "flops", "candidates": 24, "pairs": 1}
    return Job(**({"space": WIDER, "data": str(path)} | given | changes))
