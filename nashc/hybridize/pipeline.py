"""A trained float CNN in, an integer hybrid that is as accurate and runs faster on a board out.

Reconstruct each layer as each type and measure what it costs at the outputs; let the frontier of speed and loss give
candidates; measure the integer model of each and search its accelerator; take the fastest within the accuracy budget,
reconstruct it anew in one pass, and measure that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from nashc.board import Board
from nashc.core.design import Design
from nashc.core.network import Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError, did_you_mean
from nashc.hybridize.choose import LANES, Candidate, Choosable, candidates, frontier, retyped, shortlist
from nashc.hybridize.fidelity import Fidelity, class_output, fidelity, refuse_outputs
from nashc.hybridize.integers import BASE
from nashc.hybridize.layer_types import TYPES, LayerType
from nashc.hybridize.original import Original, with_batch
from nashc.hybridize.sensitivity import Measured, sensitivities
from nashc.hybridize.stages import Weighted
from nashc.hybridize.steps import CALIBRATIONS
from nashc.hybridize.walk import ranges, steps, walk
from nashc.hybridize.write import integer_model
from nashc.runtime import Session
from nashc.runtime.chain import Step
from nashc.search.baselines import without_lut_macs
from nashc.search.solve import solve

Array = NDArray[Any]
Progress = Callable[[str, float], None]
Confirm = Callable[[onnx.ModelProto], Fidelity]
DEFAULT_TYPES = ("conv8", "conv4", "shift1", "shift2")
MAX_DROP, MIN_SQNR_DB = 0.005, 20.0
RIVALS = 2
"""Choices of multiplying types alone that are searched in any case: a gain is one over them, too."""
MULTIPLYING = frozenset(LANES)
SEARCH_SECONDS = 20.0
"""Of each of the many searches, where the user says nothing."""


@dataclass(frozen=True)
class HybridOptions:
    """What the user asks for.

    types: that layers may have. keep: patterns of node names that stay 8-bit convolutions. force: patterns -> type.
    max_drop: share of images, None: MAX_DROP where the model scores classes. min_sqnr_db: of every output, None:
    MIN_SQNR_DB where it does not.
    measured: images for sensitivities. searches: accelerators that are searched. search: options of each.
    """

    types: tuple[str, ...] = DEFAULT_TYPES
    keep: tuple[str, ...] = ()
    force: Mapping[str, str] = field(default_factory=dict)
    max_drop: float | None = None
    min_sqnr_db: float | None = None
    calibration: str = "mse"
    measured: int = 32
    searches: int = 6
    search: Options = field(default_factory=lambda: Options(budget_seconds=SEARCH_SECONDS))
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Point:
    """A choice of types (type name of each convolution), measured. design None: it does not fit, `why` says more. loss:
    sum of sensitivities, which orders choices and says nothing else."""

    name: str
    choice: Mapping[str, str]
    loss: float
    fidelity: Fidelity
    design: Design | None
    why: str = ""

    @property
    def fps(self) -> float | None:
        return None if self.design is None else self.design.fps


@dataclass(frozen=True)
class Hybrid:
    """model: the integer model of `chosen`; points: every choice that was measured and searched, `chosen` among them
    as it came out of the last pass. originals: designs of the original's 8-bit convolutions by baseline name, None
    where it does not fit. adders: number of adder layers, and their work in multiply-accumulates."""

    original: Original
    model: onnx.ModelProto
    chosen: Point
    points: tuple[Point, ...]
    originals: Mapping[str, Design | None]
    layers: tuple[Weighted, ...]
    losses: Mapping[str, Mapping[str, float]]
    classifies: bool
    images: int
    adders: tuple[int, int]
    max_drop: float
    min_sqnr_db: float

    def keeps_budget(self, point: Point) -> bool:
        """Whether what was measured of a point is within the budget."""
        return keeps(point.fidelity, self.max_drop, self.min_sqnr_db)

    @property
    def floor(self) -> dict[str, float | None]:
        """FPS of the original's convolutions by baseline name."""
        return {name: None if design is None else design.fps for name, design in self.originals.items()}

    @property
    def not_ruled_out(self) -> float | None:
        """FPS that the original's convolutions may have for all that is proven, where time ended a search for their
        accelerator; else None."""
        cut = [d for d in self.originals.values() if d is not None and d.certificate.stopped == "budget"]
        return max((d.fps * (1 + d.certificate.gap) for d in cut if d.certificate.gap is not None), default=None)

    @property
    def multiplying(self) -> float | None:
        """FPS of the fastest design that only multiplies: of the original's convolutions, or of a point within the
        budget that has no other types."""
        found = [fps for fps in self.floor.values() if fps is not None]
        alone = () if self.adders[0] else self.points
        multiplying = [p for p in alone if set(p.choice.values()) <= MULTIPLYING and self.keeps_budget(p)]
        found += [p.fps for p in multiplying if p.fps is not None]
        return max(found, default=None)


@dataclass(frozen=True, slots=True)
class Judge:
    """Images that choices are measured on, [N, 1, ...], with what the reference model makes of them."""

    images: Array
    labels: Array | None
    wanted: Mapping[str, Array]


def hybridize(
    original: Original,
    calibration: Array,
    board: Board,
    options: HybridOptions,
    *,
    judge: Judge | None = None,
    confirm: Confirm | None = None,
    plain: Network | None = None,
    progress: Progress | None = None,
) -> Hybrid:
    """calibration: images [N, 1, ...] without labels. judge: other images to measure choices on, else the same ones.

    confirm: measures the integer model that is about to be chosen on more images than the judge's; one that misses the
    budget there is not.
    plain: the network of convolutions to compare with, where the original has adder layers in the place of some.
    Raises NashcError where no choice keeps the budget or fits the board, and where the original's outputs cannot be
    compared: none is float, or one is not finite.
    """
    return _Run(original, calibration, board, options, judge, confirm, plain or original.network, progress).hybrid()


class _Run:
    def __init__(
        self,
        original: Original,
        calibration: Array,
        board: Board,
        options: HybridOptions,
        judge: Judge | None,
        confirm: Confirm | None,
        plain: Network,
        progress: Progress | None,
    ) -> None:
        self.original, self.board, self.options, self.progress = original, board, options, progress
        self.confirm = confirm
        self.plain = plain
        self.images = {original.input: calibration}
        self.staged = original.staged
        self.layers = tuple(s.weighted for s in self.staged.stages if s.weighted is not None)
        self.types = _types(self.layers, options)
        self._report("calibrate", 0.0)
        seen, wanted = ranges(self.staged, self.images, workers=options.workers)
        refuse_outputs(wanted, original.name)
        self.step: dict[str, Step] = steps(self.staged, seen, CALIBRATIONS.get(options.calibration))
        self.judge = judge or Judge(calibration, None, wanted)
        self.classifies = class_output(self.judge.wanted) is not None
        self.max_drop, self.min_sqnr_db = _budget(self.classifies, options, original.name)
        self.measured: Measured = sensitivities(
            self.staged,
            self.step,
            self.images,
            wanted,
            {node: [TYPES.get(n) for n in names if n != BASE] for node, names in self.types.items()},
            TYPES.get(BASE),
            count=options.measured,
            workers=options.workers,
            progress=lambda share: self._report("sensitivities", share),
        )
        self.fidelities: dict[tuple[str, ...], Fidelity] = {}

    def hybrid(self) -> Hybrid:
        floor = self._floor()
        found = self._candidates()
        theta = self._most_loss(found)
        self._refuse_hopeless(found, theta)
        wanted = shortlist(found, theta, self.options.searches)
        multiplying = [c for c in found if set(c.choice.values()) <= MULTIPLYING and not _is_base(c.choice)]
        rivals = shortlist(multiplying, self._most_loss(multiplying), RIVALS) if multiplying else []
        wanted += [c for c in rivals if c not in wanted]
        points = [self._point(c) for c in wanted if not _is_base(c.choice)]
        points += self._around(points, found, theta)
        points += self._base(floor)
        chosen, model = self._final(points)
        return Hybrid(
            self.original,
            model,
            chosen,
            (*points, chosen),
            floor,
            self.layers,
            self.measured.losses,
            self.classifies,
            len(self.judge.images),
            _adders(self.original.network),
            self.max_drop,
            self.min_sqnr_db,
        )

    def _report(self, stage: str, share: float) -> None:
        if self.progress is not None:
            self.progress(stage, share)

    # ------------------------------------------------------------ candidates

    def _candidates(self) -> list[Candidate]:
        depthwise = {layer.node: layer.window is not None and layer.window.group > 1 for layer in self.layers}
        free = [
            Choosable(
                layer.node, layer.macs, depthwise[layer.node], {n: self.measured.losses[layer.node][n] for n in own}
            )
            for layer in self.layers
            if (own := self.types.get(layer.node)) is not None
        ]
        fixed = sum(layer.macs for layer in self.layers if layer.node not in self.types)
        return candidates(free, fixed, self.board, self.options.search)

    def _most_loss(self, found: Sequence[Candidate]) -> float:
        """The largest loss on the frontier whose integer model keeps the budget, by bisection; the least where none
        does."""
        line = frontier(found)
        low, high = 0, len(line)
        while high - low > 1:
            middle = (low + high) // 2
            self._report("accuracy", 1 - (high - low) / len(line))
            low, high = (middle, high) if self._within(self._fidelity(line[middle].choice)) else (low, middle)
        return line[low].loss

    def _refuse_hopeless(self, found: Sequence[Candidate], theta: float) -> None:
        """Raises NashcError, before any search, where 8 bits are all that is left and miss the budget."""
        left = [c for c in found if c.loss <= theta]
        if all(_is_base(c.choice) for c in left) and not self._within(self._fidelity(left[0].choice)):
            raise NashcError(self._missed(self._fidelity(left[0].choice)), where=self.original.name, hint=MISSED_HINT)

    def _around(self, points: Sequence[Point], found: Sequence[Candidate], theta: float) -> list[Point]:
        """More of the curve, with the chunks of the fastest point: more accurate ones, and one that is faster."""
        fast = max((p for p in points if p.fps is not None), key=lambda p: p.fps or 0.0, default=None)
        if fast is None:
            return []
        chunks = next(c.chunks for c in found if c.choice == fast.choice)
        same = sorted((c for c in found if c.chunks == chunks), key=lambda c: c.loss)
        wanted = [
            max((c for c in same if c.loss <= theta * share), key=lambda c: c.loss, default=None)
            for share in (0.25, 4.0)
        ]
        known = [p.choice for p in points]
        return [self._point(c) for c in wanted if c is not None and c.choice not in known and not _is_base(c.choice)]

    def _base(self, floor: Mapping[str, Design | None]) -> list[Point]:
        """All layers of 8 bits, where that is allowed: no hybrid may be slower. Its speed is the original's best."""
        choice = dict.fromkeys(self.types, BASE)
        if any(BASE not in names for names in self.types.values()):
            return []
        loss = sum(self.measured.losses[node][BASE] for node in choice)
        if self.plain is self.original.network:
            design = max((d for d in floor.values() if d is not None), key=lambda d: d.fps, default=None)
        else:
            design = self._design(choice, self.board)[0]
        return [Point(BASE, choice, loss, self._fidelity(choice), design, "" if design else "does not fit")]

    # ------------------------------------------------------------- measuring

    def _model(self, choice: Mapping[str, str]) -> onnx.ModelProto:
        """Put together from the weights that the sensitivities were measured with."""
        rounded = {node: own[choice.get(node, BASE)] for node, own in self.measured.weights.items()}
        return integer_model(self.staged, self.step, rounded)

    def _fidelity(self, choice: Mapping[str, str]) -> Fidelity:
        key = tuple(choice.values())
        if key not in self.fidelities:
            self.fidelities[key] = self._judged(self._model(choice))
        return self.fidelities[key]

    def _judged(self, model: onnx.ModelProto) -> Fidelity:
        found = outputs_of(model, self.original.input, self.judge.images, self.options.workers)
        return fidelity(self.judge.wanted, found, self.judge.labels)

    def _within(self, measured: Fidelity) -> bool:
        return keeps(measured, self.max_drop, self.min_sqnr_db)

    def _point(self, candidate: Candidate) -> Point:
        self._report(f"search {_name(candidate.choice)}", 0.0)
        design, why = self._design(candidate.choice, self.board)
        return Point(
            _name(candidate.choice), candidate.choice, candidate.loss, self._fidelity(candidate.choice), design, why
        )

    def _design(self, choice: Mapping[str, str], board: Board) -> tuple[Design | None, str]:
        network = retyped(self.original.network, {node: TYPES.get(name) for node, name in choice.items()})
        return self._searched(network, board)

    def _searched(self, network: Network, board: Board) -> tuple[Design | None, str]:
        try:
            return solve(network, board, self.options.search), ""
        except NashcError as error:
            return None, str(error)

    def _floor(self) -> dict[str, Design | None]:
        self._report("search original", 0.0)
        return {
            "conv-only": self._searched(self.plain, self.board)[0],
            "conv-only-dsp": self._searched(self.plain, without_lut_macs(self.board))[0],
        }

    # ----------------------------------------------------------------- result

    def _final(self, points: Sequence[Point]) -> tuple[Point, onnx.ModelProto]:
        """The fastest point that keeps the budget after its own pass, in which each layer makes good what those before
        it lost."""
        fitting = [p for p in points if p.fps is not None]
        if not fitting:
            raise NashcError(
                f"no choice of layer types fits {self.board.name}: {points[0].why}", hint="try a larger board"
            )
        order = sorted(fitting, key=lambda p: (not self._within(p.fidelity), -(p.fps or 0.0), _wrong(p.fidelity)))
        missed: list[Fidelity] = []
        for point in order:
            model, measured = self._passed(point.choice)
            if self._within(measured) and self.confirm is not None:
                measured = self.confirm(model)
            if self._within(measured):
                return replace(point, fidelity=measured), model
            missed.append(measured)
        raise NashcError(self._missed(min(missed, key=_wrong)), where=self.original.name, hint=MISSED_HINT)

    def _missed(self, best: Fidelity) -> str:
        goal = f"a drop of {self.max_drop:.2%}" if self.classifies else f"{self.min_sqnr_db:g} dB"
        drop = "" if best.drop is None else f"drops {best.drop:.2%} and "
        return f"no choice of layer types keeps {goal}; the best {drop}has {best.least_sqnr_db:.1f} dB"

    def _passed(self, choice: Mapping[str, str]) -> tuple[onnx.ModelProto, Fidelity]:
        """The integer model of a choice, reconstructed on what its own layers give, or of the weights at hand where
        these measure better."""
        apart = self._model(choice), self._fidelity(choice)
        kinds: dict[str, LayerType] = {layer.node: TYPES.get(choice.get(layer.node, BASE)) for layer in self.layers}
        made, _ = walk(
            self.staged,
            self.step,
            self.images,
            kinds,
            workers=self.options.workers,
            progress=lambda share: self._report("last pass", share),
        )
        model = integer_model(self.staged, self.step, made)
        joint = model, self._judged(model)
        model, measured = min(apart, joint, key=lambda pair: _wrong(pair[1]))
        return with_batch(model, self.original), measured


MISSED_HINT = "allow more with --max-drop or --min-sqnr-db, give more --calib images, or more --types"


def _budget(classifies: bool, options: HybridOptions, where: str) -> tuple[float, float]:
    """Largest drop and least SQNR in dB."""
    if classifies:
        drop = MAX_DROP if options.max_drop is None else options.max_drop
        return drop, -np.inf if options.min_sqnr_db is None else options.min_sqnr_db
    if options.max_drop is not None:
        raise NashcError("the model scores no classes", where=where, hint="give --min-sqnr-db in place of --max-drop")
    return np.inf, MIN_SQNR_DB if options.min_sqnr_db is None else options.min_sqnr_db


def _adders(network: Network) -> tuple[int, int]:
    found = [layer.nest.macs for layer in network.layers if layer.unit is Unit.ADDER]
    return len(found), sum(found)


def _wrong(measured: Fidelity) -> tuple[float, float]:
    """The order of what is lost: classes first, then noise."""
    return measured.drop or 0.0, -measured.least_sqnr_db


def keeps(measured: Fidelity, max_drop: float, min_sqnr_db: float) -> bool:
    """Within a budget. A drop on its limit is: it is a number of images, and 1 - 0.95 is more than 0.05 in floats."""
    return measured.least_sqnr_db >= min_sqnr_db and (measured.drop or 0.0) <= max_drop + 1e-9


def _is_base(choice: Mapping[str, str]) -> bool:
    return set(choice.values()) == {BASE}


def _name(choice: Mapping[str, str]) -> str:
    """The types of a choice, those of most layers first: conv4+conv8."""
    names = list(choice.values())
    return "+".join(sorted(set(names), key=lambda n: (-names.count(n), n)))


def _types(layers: Sequence[Weighted], options: HybridOptions) -> dict[str, tuple[str, ...]]:
    """The types that each convolution but the first may have; all other layers with weights are 8-bit convolutions."""
    for name in (*options.types, *options.force.values()):
        TYPES.get(name)
    convolutions = [layer.node for layer in layers if layer.window is not None]
    free = dict.fromkeys(convolutions[1:], options.types)
    for pattern in options.keep:
        for node in matching(pattern, convolutions, "--keep"):
            free.pop(node, None)
    for pattern, name in options.force.items():
        for node in matching(pattern, convolutions, "--force"):
            free[node] = (name,)
    if not free:
        raise NashcError("no layer is left to choose", where="hybridize", hint="keep fewer layers")
    return free


def matching(pattern: str, names: Sequence[str], flag: str) -> list[str]:
    """The names of convolutions that a pattern of a flag means. Raises NashcError where there is none."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise NashcError(f"no convolution is named '{pattern}'", where=flag, hint=did_you_mean(pattern, names))
    return found


def outputs_of(model: onnx.ModelProto, name: str, images: Array, workers: int) -> dict[str, Array]:
    """Outputs [N, ...] of a model for images [N, 1, ...], image by image."""
    session = Session(model, threads=1)

    def one(image: Array) -> dict[str, Array]:
        return session.run({name: image})

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(one, images))
    return {key: np.stack([values[key] for values in found]) for key in found[0]}
