"""Trains a network of a space on labelled images, with a recipe that suits its operators.

SGD with Nesterov's momentum, a linear warm-up and a cosine; label smoothing; BN and biases without decay. Adder layers
begin as convolutions, which learn faster, and go on as adder layers that imitate those. They scale their own gradient
(nashc.nn.adder, eta), so their rate is one of its own, and they have no decay: the distance to 0 means nothing for
them. Everything random depends on the seed and the step alone, so a run that goes on from a checkpoint, at whatever
step, ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from nashc.errors import NashcError
from nashc.files import replacing
from nashc.nas.build import HybridNet
from nashc.nas.processes import device, place
from nashc.nas.recipe import Recipe
from nashc.nn import AdderConv2d, ShiftConv2d
from nashc.nn.augment import moved_and_flipped
from nashc.nn.weights import read_checkpoint

MOMENTUM = 0.9
LEAST_BATCH = 2
"""A BN needs more than one value a channel."""
MEASURED_ON = 256
"""Images from which adder layers take their steps."""
IMITATED_PIXELS = 2**20
"""Of at most MEASURED_ON images on which adder layers imitate convolutions."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done and to do, mean loss since the last report, seconds since this run began."""

    step: int
    steps: int
    loss: float
    seconds: float


class Images:
    """Labelled images in memory: bytes [N, C, H, W], int64 labels [N], and mean and deviation of each channel."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, like: Images | None = None) -> None:
        if len(pixels) != len(labels) or pixels.ndim != 4:
            raise NashcError(f"{pixels.shape} images and {len(labels)} labels", where="training data")
        self.pixels, self.labels = pixels, torch.from_numpy(np.ascontiguousarray(labels, np.int64))
        if like is None:
            flat = pixels.astype(np.float32)
            # in the digits that a model's metadata holds
            self.mean = flat.mean((0, 2, 3)).round(4)[:, None, None]
            self.deviation = flat.std((0, 2, 3)).round(4).clip(1e-4)[:, None, None]
        else:
            self.mean, self.deviation = like.mean, like.deviation

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def digest(self) -> str:
        """Of pixels, labels and normalisation."""
        made = hashlib.sha256(np.ascontiguousarray(self.pixels).data)
        for part in (self.labels.numpy(), self.mean, self.deviation):
            made.update(np.ascontiguousarray(part).data)
        return made.hexdigest()

    def batch(self, index: np.ndarray, rng: np.random.Generator | None = None) -> Tensor:
        """Normalised images float32; with `rng` moved and mirrored."""
        found = self.pixels[index]
        if rng is not None:
            found = moved_and_flipped(found, rng)
        made = torch.from_numpy(((found - self.mean) / self.deviation).astype(np.float32))
        return made.contiguous(memory_format=torch.channels_last)


class Trainer:
    """A network on its way. `step` counts; `steps` is the whole of the recipe."""

    def __init__(
        self, net: nn.Module, images: Images, recipe: Recipe, *, teacher: nn.Module | None = None, note: str = ""
    ) -> None:
        """`note` tells apart runs that must not go on from each other's checkpoints. Raises NashcError for a recipe
        that cannot be."""
        self.rank, self.processes = place()
        self.device = device()
        _check(recipe, images, teacher, self.processes)
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parallel = DistributedDataParallel(self.net) if self.processes > 1 else self.net
        self.images, self.recipe = images, recipe
        self.teacher = None if teacher is None else teacher.to(self.device)
        self.per_epoch = len(images) // recipe.batch
        self.step, self.steps = 0, self.per_epoch * recipe.epochs
        self.optimiser = torch.optim.SGD(_groups(net, recipe), lr=0.0, momentum=MOMENTUM, nesterov=True)
        self.about = note
        self.hybrid = self.net if isinstance(self.net, HybridNet) and self.net.adders else None

    @cached_property
    def note(self) -> str:
        """A digest of all that decides the weights, for checkpoints and finished weights."""
        text = json.dumps([asdict(self.recipe), self.images.digest, self.processes, self.about])
        return hashlib.sha256(text.encode()).hexdigest()

    def run(self, *, until: int | None = None, checkpoint: Path | None = None, every: float = 60.0,
            progress: Callable[[Progress], None] | None = None) -> None:  # fmt: skip
        """Train to the end, or to step `until`; a checkpoint goes to that file every so many seconds and at the end.

        Raises NashcError where the loss is no number any more.
        """
        begin = saved = time.monotonic()
        self.net.train()
        last = self.steps if until is None else min(until, self.steps)
        while self.step < last:
            total, count = 0.0, 0
            for index in self._batches():
                total, count = total + self._update(index), count + 1
                if checkpoint is not None and time.monotonic() - saved > every:
                    self.save(checkpoint)
                    saved = time.monotonic()
                if progress is not None:
                    progress(Progress(self.step, self.steps, total / count, time.monotonic() - begin))
                if self.step == last:
                    break
            if not np.isfinite(total):
                raise NashcError(f"the loss is no number after {self.step} steps", hint="lower the learning rate")
        if checkpoint is not None:
            self.save(checkpoint)

    def _batches(self) -> Iterator[np.ndarray]:
        """What is left of the present epoch."""
        epoch, done = divmod(self.step, self.per_epoch)
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.images))
        for i in range(done, self.per_epoch):
            yield order[i * self.recipe.batch : (i + 1) * self.recipe.batch]

    def _update(self, index: np.ndarray) -> float:
        if self.hybrid is not None:
            self._change(self.hybrid)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * self._rate()
        rng = np.random.default_rng([self.recipe.seed, self.step, 1]) if self.recipe.augment else None
        x, labels = self.images.batch(index, rng), self.images.labels[index]
        own = slice(self.rank, None, self.processes)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss(x[own].to(self.device), labels[own].to(self.device))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _change(self, net: HybridNet) -> None:
        """Adder layers begin as convolutions, become adder layers, and compute with bytes at last: each at its step."""
        recipe = self.recipe
        if self.step == 0 and recipe.as_conv > 0:
            net.begin_as_conv(recipe.seed)
            self._adders_learn()
        changed = False
        if self.step == self._first_of(recipe.as_conv) and recipe.as_conv > 0:
            net.end_as_conv(self._some(max(LEAST_BATCH, IMITATED_PIXELS // net.space.resolution**2)))
            self._adders_learn()
            for layer in net.adders:
                self.optimiser.state.pop(layer.adder.weight, None)
            changed = True
        if self.step == self._first_of(1 - recipe.quantised) and recipe.quantised > 0:
            net.round_adders(self._some(MEASURED_ON))
            changed = True
        if changed and self.processes > 1:  # BN statistics are each process's own, and these changes follow them
            for value in net.state_dict().values():
                distributed.broadcast(value, 0)

    def _first_of(self, share: float) -> int:
        """The step that comes after that share of them; the last one, where few are left."""
        return min(self.steps - 1, round(self.steps * share))

    def _some(self, count: int) -> Tensor:
        first = np.random.default_rng(self.recipe.seed).permutation(len(self.images))[: min(count, MEASURED_ON)]
        return self.images.batch(first).to(self.device)

    def _adders_learn(self) -> None:
        """At the rate and with the decay of what they are now."""
        assert self.hybrid is not None
        recipe, as_conv = self.recipe, self.hybrid.adders[0].as_conv
        for group in self.optimiser.param_groups:
            if group["adder"]:
                group["share"] = 1.0 if as_conv else recipe.adder_rate
                group["weight_decay"] = recipe.weight_decay if as_conv else 0.0

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy with smoothed labels and, if there is a teacher, with its soft targets."""
        scores = self.parallel(x)
        loss = functional.cross_entropy(scores, labels, label_smoothing=self.recipe.label_smoothing)
        if self.teacher is None or not self.recipe.distil:
            return loss
        t = self.recipe.temperature
        with torch.no_grad():
            target = functional.log_softmax(self.teacher(x) / t, 1)
        soft = functional.kl_div(functional.log_softmax(scores / t, 1), target, reduction="batchmean", log_target=True)
        return (1 - self.recipe.distil) * loss + self.recipe.distil * t**2 * soft

    def _rate(self) -> float:
        rising = max(1, round(self.recipe.warm_up * self.steps))
        if self.step < rising:
            return self.recipe.rate * (self.step + 1) / rising
        return self.recipe.rate * (1 + cos(pi * (self.step - rising) / max(1, self.steps - rising))) / 2

    def save(self, path: Path) -> None:
        """Weights, momentum and step; atomic. Of several processes the first one writes."""
        if self.rank:
            return
        tensors = {f"net/{name}": value for name, value in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            momentum = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum/{name}"] = momentum
        with replacing(path) as written:
            save_file(
                {n: t.contiguous() for n, t in tensors.items()}, written, {"note": self.note, "step": str(self.step)}
            )

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint, if the file exists. Raises NashcError where it is of another run."""
        if not path.is_file():
            return False
        tensors, said = read_checkpoint(path)
        if said.get("note") != self.note or not said.get("step", "").isdecimal():
            raise NashcError(
                "the checkpoint is of another network, other images or another recipe",
                where=str(path),
                hint="give another folder, or delete it to start anew",
            )
        self.step = int(said["step"])
        self.net.load_state_dict({n.removeprefix("net/"): t for n, t in tensors.items() if n.startswith("net/")})
        for name, parameter in self.net.named_parameters():
            momentum = tensors.get(f"momentum/{name}")
            if momentum is not None:
                self.optimiser.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        if self.hybrid is not None:
            as_conv = self.recipe.as_conv > 0 and 0 < self.step <= self._first_of(self.recipe.as_conv)
            for layer in self.hybrid.adders:
                layer.as_conv = as_conv
            self._adders_learn()
        return True


@torch.no_grad()
def accuracy(net: nn.Module, images: Images, batch: int = 500) -> float:
    """Share of images whose highest score is at their label, in eval mode."""
    training = net.training
    net.eval()
    where = next(net.parameters()).device
    found = share_right(lambda x: net(x.to(where)).cpu(), images, batch)
    net.train(training)
    return found


def share_right(
    scores_of: Callable[[Tensor], Tensor],
    images: Images,
    batch: int = 500,
    progress: Callable[[float], None] | None = None,
) -> float:
    """Share of images whose highest score is at their label, for whatever gives scores [N, classes] of images."""
    right = 0
    for start in range(0, len(images), batch):
        index = np.arange(start, min(start + batch, len(images)))
        right += int((scores_of(images.batch(index)).argmax(1) == images.labels[index]).sum())
        if progress is not None:
            progress(start / len(images))
    return right / len(images)


def _groups(net: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Parameters by what their updates need: {"params", "share" of the rate, "weight_decay", "adder"}."""
    adders: list[nn.Parameter] = []
    shifts: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim == 1:
                plain.append(parameter)
            elif isinstance(module, AdderConv2d):
                adders.append(parameter)
            else:
                (shifts if isinstance(module, ShiftConv2d) else others).append(parameter)
    made = (
        (adders, recipe.adder_rate, 0.0),
        (shifts, recipe.shift_rate, recipe.weight_decay),
        (others, 1.0, recipe.weight_decay),
        (plain, 1.0, 0.0),
    )
    return [{"params": p, "share": share, "weight_decay": decay, "adder": p is adders} for p, share, decay in made if p]


def _check(recipe: Recipe, images: Images, teacher: nn.Module | None, processes: int) -> None:
    least = LEAST_BATCH * processes
    if not least <= recipe.batch <= len(images):
        raise NashcError(f"batches of {recipe.batch} of {len(images)} images", hint=f"give {least} to {len(images)}")
    for problem in recipe.problems():
        raise NashcError(problem, where="recipe")
    if recipe.distil and teacher is None:
        raise NashcError(f"distil={recipe.distil} without a teacher", where="recipe", hint="give a teacher")
