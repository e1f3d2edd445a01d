"""What a search is asked: a value that its folder and its study hold, so that workers can join from anywhere."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from nashc.core.options import Options
from nashc.data import Dataset, Preprocess, open_data
from nashc.errors import NashcError
from nashc.files import replacing
from nashc.nas.proxies import PROXIES
from nashc.nas.space import Space, check_space
from nashc.nas.train import Images

JOB_FILE = "search.json"
LAYOUT_CHANNELS = {1: "gray", 3: "rgb"}
SCORED_ON = 32
"""Images that a proxy sees of a candidate: what one batch of training would hold on a small machine."""
HELD_OUT = 5
"""Every so manieth image is for the test, where data has no images of its own for that."""
MOST_CANDIDATES = 10**6


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """space, board (name or file) and data set (path); `candidates` to score in all, hybrid and multiplication-only
    ones in turn; `pairs` to compile at the end; `limits` of the accelerator, or `accelerator`: a design.json whose
    accelerator all networks run on. `images`: the digest of those that the proxy sees, which tells searches on other
    data apart; "" before they are read."""

    space: Space
    target: str
    data: str
    proxy: str = "hybrid"
    candidates: int = 400
    pairs: int = 3
    min_fps: float = 0.0
    seed: int = 0
    limits: Options = Options()
    storage: str = ""
    accelerator: str = ""
    images: str = ""

    def check(self) -> None:
        """Raises NashcError for what cannot be searched."""
        PROXIES.get(self.proxy)
        check_space(self.space, self.space.name)
        if all(stage.operators == ("conv",) for stage in self.space.stages):
            raise NashcError(
                "convolutions are its only operator", where=self.space.name, hint="give it shift or adder layers, too"
            )
        if not 0 <= self.min_fps < float("inf"):
            raise NashcError(f"{self.min_fps:g} FPS", where="--min-fps", hint="give a number that is not negative")
        if not 1 <= self.candidates <= MOST_CANDIDATES or not 1 <= self.pairs <= self.candidates:
            raise NashcError(
                f"{self.pairs} pairs of {self.candidates} candidates",
                hint=f"give 1 to {MOST_CANDIDATES:,} candidates, and no more pairs than those",
            )
        if self.space.channels not in LAYOUT_CHANNELS:
            raise NashcError(
                f"images of {self.space.channels} channels", where=self.space.name, hint="data sets have 1 or 3"
            )


def refuse_another(job: Job, folder: Path) -> None:
    """Raises NashcError where the folder holds another search."""
    if (folder / JOB_FILE).exists() and load_job(folder) != job:
        raise NashcError(
            "the folder holds another search", where=str(folder),
            hint="give another -o, or `nashc search --join` to go on with that one",
        )  # fmt: skip


def save_job(job: Job, folder: Path) -> None:
    """Write search.json; what is there already must be the same. Raises NashcError where it is not."""
    path = folder / JOB_FILE
    refuse_another(job, folder)
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as written:
        written.write_bytes(msgspec.json.format(encoded(job), indent=2) + b"\n")


def load_job(folder: Path) -> Job:
    """The search of a folder. Raises NashcError where there is none."""
    path = folder / JOB_FILE
    if not path.is_file():
        raise NashcError(f"there is no {JOB_FILE}", where=str(folder), hint="start it with `nashc search -o FOLDER`")
    return decoded(path.read_bytes(), str(path))


def encoded(job: Job) -> bytes:
    return msgspec.json.encode(job)


def decoded(text: bytes | str, where: str) -> Job:
    try:
        job = msgspec.json.decode(text, type=Job)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NashcError(f"no search: {error}", where=where) from None
    job.check()
    return job


def open_images(space: Space, path: str, split: str, count: int | None = None, like: Images | None = None) -> Images:
    """Labelled images of a data set at the space's resolution, in memory; the same subset for the same `count`.

    Raises NashcError where the data is no bytes, has no labels, or more classes than the space.
    """
    return _loaded(space, _opened(space, path, split), path, count, like)


def _opened(space: Space, path: str, split: str) -> Dataset:
    side = space.resolution
    preprocess = Preprocess(resize=(side, side), interpolation="box", channels=LAYOUT_CHANNELS[space.channels])
    return open_data(path, preprocess, (None, space.channels, side, side), split=split)


def _loaded(space: Space, found: Dataset, path: str, count: int | None, like: Images | None) -> Images:
    if found.source.ready:
        raise NashcError("the images are already preprocessed", where=path, hint="give images of bytes, 0 to 255")
    if found.labels is None:
        raise NashcError("the images have no labels", where=path, hint="give a data set with labels")
    if int(found.labels.max()) >= space.classes:
        raise NashcError(
            f"{int(found.labels.max()) + 1} classes, the space '{space.name}' has {space.classes}", where=path,
            hint="write a space of your own with that many",
        )  # fmt: skip
    index = np.arange(len(found)) if count is None else found.chosen(count)
    parts = [found[some].round().astype(np.uint8) for some in np.array_split(index, max(1, len(index) // 1000))]
    return Images(np.concatenate(parts), found.labels[index], like)


def train_and_test(space: Space, path: str, count: int | None = None) -> tuple[Images, Images, bool]:
    """Images to train on, at most `count`, and others to test on; and whether those had to be held out.

    Data that has no test split of its own gives up a fifth of its images, always the same ones, and as far as there
    are enough others none of those that proxies look at. Raises NashcError where the splits have other classes.
    """
    sets = [_opened(space, path, split) for split in ("train", "test")]
    missing = sorted(set(sets[0].classes) ^ set(sets[1].classes))
    if missing:  # each split numbers its own classes
        raise NashcError(
            f"its splits differ in the class '{missing[0]}'", where=path, hint="give both images of every class"
        )
    train = _loaded(space, sets[0], path, None, None)
    test = _loaded(space, sets[1], path, None, train)
    held_out = len(test) == len(train) and np.array_equal(test.pixels, train.pixels)
    if held_out:
        order, labels = np.random.default_rng(0).permutation(len(train)), train.labels.numpy()
        held = len(order) // HELD_OUT
        if not held:
            raise NashcError(f"{len(order)} images and none to test on", where=path, hint=f"give {HELD_OUT} or more")
        rest, last = order[:-held], order[-held:]  # `Dataset.chosen` gives proxies the first ones
        train, whole = Images(train.pixels[rest], labels[rest]), train
        test = Images(whole.pixels[last], labels[last], train)
    if count is not None and count < len(train):
        some = np.random.default_rng(0).permutation(len(train))[:count]
        train = Images(train.pixels[some], train.labels.numpy()[some], train)
    return train, test, held_out
