"""Convolutions of a trained ONNX model as adder layers, trained to give what the model gave before.

The model is its own teacher: images need no labels. Each chosen convolution becomes an AdderNorm that starts close to
it; then all weights train on the outputs (Kullback-Leibler divergence) and on what the convolutions gave (squared
error in units of its variance), with Adam whose rate is a share of each tensor's size. In the last epochs the inputs
and weights of adder layers are rounded to the 8 bits that they share. docs/finetune.md has the measurements.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from nashc.errors import NashcError
from nashc.files import replacing
from nashc.importer.ops import KEEPS_VALUES
from nashc.nn.adder_norm import AdderNorm, Rounding
from nashc.nn.augment import moved_and_flipped
from nashc.nn.distill import Distillation
from nashc.nn.graph import Graph, Step, node_names
from nashc.nn.weights import read_checkpoint
from nashc.ops import DOMAIN
from nashc.ops.adder_conv import SAME_STEP, STEP, step_said

Array = NDArray[Any]
Augment = Callable[[Array, np.random.Generator], Array]
START_IMAGES = 256
STATISTICS_IMAGES = 2048
WARM_UP = 0.05
"""Share of all steps in which the rate rises."""
BETAS = (0.9, 0.99)
SMALLEST = 1e-3
"""Size of a tensor of zeros, for its rate."""
TIMED_STEPS = 5
LARGEST_VALUES = 2**26
"""Elements of one layer's map over the images of the start: fewer images where maps are large."""
CHECKPOINT = "finetune.safetensors"


class Images(Protocol):
    """What the model gets: float32 [N, ...], normalised as it expects. An array, or anything that reads like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """How long and how fast.

    epochs: 0 leaves the layers as they start. minutes: fewer steps where the first ones are too slow for that many
    epochs. quantised: share of the steps that round to 8 bits, the last ones; 0 leaves the weights in float.
    adder_rate: of adder weights, in standard deviations of their input a step; rate: of all others, in their root mean
    square. features: weight of the error inside the model. bfloat16: None takes it where the CPU multiplies it itself.
    checkpoint: a folder.
    """

    epochs: int = 10
    minutes: float | None = None
    batch: int = 128
    quantised: float = 0.25
    adder_rate: float = 0.05
    rate: float = 0.005
    features: float = 1.0
    temperature: float = 2.0
    seed: int = 0
    bfloat16: bool | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """After a step: means of the two parts of the loss, and seconds, since the epoch began."""

    step: int
    steps: int
    divergence: float
    features: float
    seconds: float
    quantised: bool


@dataclass(frozen=True, slots=True)
class Finetuned:
    """`match`: squared correlation of each adder layer with its convolution before training, over filters. `steps` of
    training. The model's adder weights are whole multiples of `shared[node]`, its step."""

    model: onnx.ModelProto
    match: dict[str, float]
    steps: int
    shared: dict[str, float]


def finetune(
    model: onnx.ModelProto,
    adders: Collection[str],
    images: Images,
    options: FinetuneOptions | None = None,
    *,
    augment: Augment | None = moved_and_flipped,
    progress: Callable[[Progress], None] | None = None,
) -> Finetuned:
    """A model whose Conv nodes `adders` (by name) are AdderConv with a BatchNormalization.

    The model has one input; `images` are [N, ...] for it, at least a batch of them. With options.checkpoint, a folder,
    a run that was interrupted goes on after its last whole epoch and ends with the same model. Raises NashcError.
    """
    run = _Run(model, adders, images, options or FinetuneOptions(), augment)
    if not run.resume():
        run.start()
        run.schedule()
    while run.step < run.steps:
        run.epoch(progress)
        run.save()
    return run.finished()


class _Run:
    """The two networks, the optimiser and where the training stands."""

    def __init__(
        self,
        model: onnx.ModelProto,
        adders: Collection[str],
        images: Images,
        options: FinetuneOptions,
        augment: Augment | None,
    ) -> None:
        self.images, self.options, self.augment = images, options, augment
        self.teacher, self.student = Graph(model).eval().requires_grad_(False), Graph(model)
        _check(self.teacher, adders, images, options)
        self.layers = {name: self._swapped(name) for name in self.teacher.steps if name in set(adders)}
        self.sources = {name: self._sources(name) for name in self.layers}
        self.roundings = {values: Rounding() for values in dict.fromkeys(self.sources.values())}
        for values, rounding in self.roundings.items():
            for value in values:
                self.student.round_value(value, rounding)
        self.given: dict[tuple[str, ...], float] = {}
        for name, known in _known_steps(model).items():  # of layers that were trained already, to whole steps
            self.student.weight(self.student.step_of(name).inputs[1]).requires_grad_(False)
            sources = self._sources(name)
            if abs(self.given.setdefault(sources, known) - known) > SAME_STEP * known:
                raise NashcError(
                    f"adder layers on the same values have the steps {known:g} and {self.given[sources]:g}",
                    where=f"node '{name}'", hint="fine-tune the model that they were made from",
                )  # fmt: skip
        self.step, self.match = 0, dict.fromkeys(self.layers, 0.0)
        self.per_epoch = len(images) // options.batch
        self.steps = options.epochs * self.per_epoch
        self.loss = Distillation(
            self.teacher, self.student, [self.teacher.steps[name].outputs[0] for name in self.layers],
            weight=options.features, temperature=options.temperature,
            half=_has_bfloat16() if options.bfloat16 is None else options.bfloat16,
        )  # fmt: skip
        self.sizes: dict[str, float] = {}
        self.fingerprint = _fingerprint(model, sorted(self.layers), len(images), options)

    def _swapped(self, name: str) -> AdderNorm:
        step = self.teacher.steps[name]
        layer = AdderNorm(self.teacher.weight(step.inputs[1]).shape, step.run.keywords)
        self.student.swap(name, layer)
        return layer

    def _sources(self, name: str) -> tuple[str, ...]:
        """The values whose step the layer's input has, as moves keep it, and what is moved together shares it: those of
        them that are no move's result, in the model's order."""
        moves = [step for step in self.teacher.steps.values() if step.op in KEEPS_VALUES]
        together = [{*(v for v in self._moved(step)), *step.outputs} for step in moves]
        found = {self.teacher.steps[name].inputs[0]}
        while grown := [values for values in together if values & found and not values <= found]:
            found |= set().union(*grown)
        made = {out for step in moves for out in step.outputs}
        order = [*self.teacher.inputs, *(out for step in self.teacher.steps.values() for out in step.outputs)]
        return tuple(value for value in order if value in found - made)

    def _moved(self, step: Step) -> Sequence[str]:
        """What a move moves: its first input; a Concat's are all that are computed."""
        return [v for v in step.inputs if not self.teacher.is_stored(v)] if step.op == "Concat" else step.inputs[:1]

    def some(self, count: int) -> Tensor:
        """So many images, drawn once for the whole run."""
        chosen = np.random.default_rng(self.options.seed).permutation(len(self.images))[:count]
        return _tensor(self.images[np.sort(chosen)])

    @torch.no_grad()
    def start(self) -> None:
        """Give the layers, one after the other, weights with which they imitate their convolutions."""
        batch = self.some(START_IMAGES)
        self.student.eval()
        for name, layer in self.layers.items():
            step = self.teacher.steps[name]
            x = self.student.values([batch], step.inputs[:1])[step.inputs[0]]
            y = self.teacher.values([batch], step.outputs)[step.outputs[0]]
            few = max(1, LARGEST_VALUES // max(x[0].numel(), y[0].numel()))
            match = layer.start(self.teacher.weight(step.inputs[1]), x[:few], y[:few])
            self.match[name] = float(match.mean())
        self._optimise({n: float(p.detach().square().mean().sqrt()) for n, p in self.student.named_parameters()})

    def _optimise(self, sizes: dict[str, float]) -> None:
        """Adam with one rate for each tensor, as a share of its size."""
        self.sizes = sizes
        units = {id(layer.weight): float(layer.unit) * self.options.adder_rate for layer in self.layers.values()}
        groups = [
            {"params": [p], "rate": units.get(id(p), max(sizes[n], SMALLEST) * self.options.rate)}
            for n, p in self.student.named_parameters()
            if p.requires_grad
        ]
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=BETAS)

    def schedule(self) -> None:
        """As many steps as fit into the minutes, measured on steps that change nothing."""
        if self.options.minutes is None:
            return
        self.student.train()
        state = {name: value.clone() for name, value in self.student.state_dict().items()}
        batch = self._batch(np.arange(self.options.batch), np.random.default_rng(0))
        took = []
        for _ in range(TIMED_STEPS):
            begin = time.perf_counter()
            loss, _, _ = self.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            took.append(time.perf_counter() - begin)
        self.optimiser.zero_grad()
        self.student.load_state_dict(state)
        self.steps = min(self.steps, max(1, int(self.options.minutes * 60 / float(np.median(took)))))

    def _batch(self, indices: Array, rng: np.random.Generator) -> Tensor:
        batch = np.asarray(self.images[indices], np.float32)
        return _tensor(batch if self.augment is None else self.augment(batch, rng))

    def epoch(self, progress: Callable[[Progress], None] | None) -> None:
        """All images once, or what is left of the steps. Its random numbers depend on nothing before it."""
        number = self.step // self.per_epoch
        rng = np.random.default_rng([self.options.seed, number])
        order = rng.permutation(len(self.images))[: self.per_epoch * self.options.batch]
        begin, sums = time.perf_counter(), np.zeros(2)
        self.student.train()
        for i, chosen in enumerate(order.reshape(self.per_epoch, -1)):
            if self.step == self.steps:
                break
            if not self.quantised and self.step >= round(self.steps * (1 - self.options.quantised)):
                self.quantise()
                self.student.train()
            loss, *parts = self.loss(self._batch(np.sort(chosen), rng))
            if not np.isfinite(parts).all():
                raise NashcError(
                    f"the loss is not finite after {self.step} steps", where="finetune", hint="lower the rates"
                )
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for group in self.optimiser.param_groups:
                group["lr"] = group["rate"] * self._rate()
            self.optimiser.step()
            for layer in self.layers.values():
                layer.project()
            self.step += 1
            sums += parts
            if progress is not None:
                seconds = time.perf_counter() - begin
                means = (sums / (i + 1)).tolist()
                progress(Progress(self.step, self.steps, means[0], means[1], seconds, self.quantised))

    def _rate(self) -> float:
        """Rises, then falls along a cosine to 0."""
        done = (self.step + 1) / self.steps
        return min(1.0, done / WARM_UP) * (1 + cos(pi * self.step / self.steps)) / 2

    @property
    def quantised(self) -> bool:
        return any(bool(rounding.step) for rounding in self.roundings.values())

    @torch.no_grad()
    def quantise(self) -> None:
        """From now on adder layers read bytes and have byte weights, at steps that suit what they read now."""
        self.student.eval()
        batch = self.some(START_IMAGES)
        for values, rounding in self.roundings.items():
            seen = self.student.values([batch], values)
            step = rounding.measure(torch.cat([seen[value].flatten() for value in values]), self.given.get(values))
            for name, layer in self.layers.items():
                if self.sources[name] == values:
                    layer.round_to(step)

    @torch.no_grad()
    def finished(self) -> Finetuned:
        """With the statistics that the final weights have on images as they are."""
        if self.options.quantised and not self.quantised:
            self.quantise()
        images = self.some(STATISTICS_IMAGES)
        self.student.train()
        done = 0
        for batch in images.tensor_split(max(1, len(images) // self.options.batch)):  # none is a small rest
            done += len(batch)
            for layer in self.layers.values():
                layer.momentum = len(batch) / done
            self.student(batch)
        self.student.eval()
        shared = {name: float(layer.step) for name, layer in self.layers.items() if layer.step}
        return Finetuned(self.student.to_onnx(), dict(self.match), self.steps, shared)

    # -------------------------------------------------------------- checkpoints

    def save(self) -> None:
        if self.options.checkpoint is None:
            return
        tensors = {f"model/{name}": value for name, value in self.student.state_dict().items()}
        for name, parameter in self.student.named_parameters():
            for kind, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser/{kind}/{name}"] = value
        state = {
            "fingerprint": self.fingerprint, "step": self.step, "steps": self.steps, "match": self.match,
            "sizes": self.sizes,
        }  # fmt: skip
        with replacing(self.options.checkpoint / CHECKPOINT) as written:
            apart = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
            save_file(apart, written, {"state": json.dumps(state)})

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one."""
        if self.options.checkpoint is None:
            return False
        path = self.options.checkpoint / CHECKPOINT
        if not path.is_file():
            return False
        tensors, said = read_checkpoint(path)
        try:
            state = json.loads(said.get("state", "{}"))
        except ValueError as error:
            raise NashcError(f"no checkpoint: {error}", where=str(path), hint="delete it to start anew") from None
        if state.get("fingerprint") != self.fingerprint:
            raise NashcError(
                "the checkpoint is of another model, other images or other options",
                where=str(path),
                hint="give another folder, or delete it to start anew",
            )
        self.step, self.steps, self.match = state["step"], state["steps"], state["match"]
        self.student.load_state_dict(
            {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        )
        self._optimise(state["sizes"])
        for name, parameter in self.student.named_parameters():
            known = {k: tensors.get(f"optimiser/{k}/{name}") for k in ("step", "exp_avg", "exp_avg_sq")}
            if None not in known.values():
                self.optimiser.state[parameter] = known
        return True


def _known_steps(model: onnx.ModelProto) -> dict[str, float]:
    """Of the adder layers that say at which step they were trained. Raises NashcError for what is no step."""
    found = {}
    for name, node in zip(node_names(model.graph), model.graph.node, strict=True):
        text = next((p.value for p in node.metadata_props if p.key == STEP), None)
        if text is not None and (node.op_type, node.domain) == ("AdderConv", DOMAIN):
            found[name] = step_said(text, f"node '{name}' (AdderConv)")
    return found


def _tensor(batch: Array) -> Tensor:
    made = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
    return made.contiguous(memory_format=torch.channels_last) if made.dim() == 4 else made


def _has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 itself."""
    known = getattr(torch.cpu, "get_capabilities", None)  # of torch 2.10 and newer
    return known is not None and bool(known().get("amx_bf16", False))


def _check(graph: Graph, adders: Collection[str], images: Images, options: FinetuneOptions) -> None:
    """The layers can be adders, and there are images enough."""
    if len(graph.inputs) != 1:
        raise NashcError(f"the model has {len(graph.inputs)} inputs", where="finetune", hint="one can be trained")
    if not adders:
        raise NashcError("no layer is to become an adder layer", where="finetune", hint="name Conv nodes")
    for name in adders:
        step = graph.step_of(name)
        if step.op != "Conv":
            raise NashcError("only a Conv can become an adder layer", where=step.where)
        if not graph.is_weight(step.inputs[1]):
            raise NashcError("its weights are not stored as float32", where=step.where, hint="leave it a convolution")
        if graph.weight(step.inputs[1]).dim() > 4:
            raise NashcError("adder layers have one or two spatial axes", where=step.where)
    if len(images) < options.batch or options.epochs < 0 or options.batch < 2:
        raise NashcError(
            f"{len(images)} images, batch={options.batch}, epochs={options.epochs}",
            where="finetune",
            hint="give at least one batch of images, of two or more; epochs=0 only starts the layers",
        )


def _fingerprint(model: onnx.ModelProto, adders: list[str], images: int, options: FinetuneOptions) -> str:
    """Of all that decides the result."""
    plain = {name: value for name, value in asdict(options).items() if name != "checkpoint"}
    text = json.dumps([adders, images, plain], sort_keys=True).encode()
    return hashlib.sha256(model.SerializeToString(deterministic=True) + text).hexdigest()
