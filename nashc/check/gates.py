"""The gates: what each measures, in which direction, and what it needs. A new gate is a new line of GATES and a new
field of Request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from nashc.check.request import Request
from nashc.core.design import Design
from nashc.errors import NashcError
from nashc.runtime.accuracy import Measured, Scores

Number = Fraction | float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a check measured. `compiled` is None without a target or design, `measured` without data."""

    measured: Measured | None
    design: Design | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A gate that may be asked for. `needs` are "data", "labels", "against" and "design"; `measure` gives a Fraction
    where `unit` is "%", and None where the model has nothing of the kind, which `lacking` says."""

    name: str
    what: str
    unit: str
    needs: tuple[str, ...]
    measure: Callable[[Evidence], Number | None]
    lacking: str = ""

    @property
    def at_least(self) -> bool:
        return self.name.startswith("min-")


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule with its limit and what was found; a value on the limit passes."""

    rule: Rule
    limit: Number
    found: Number

    @property
    def passed(self) -> bool:
        return self.found >= self.limit if self.rule.at_least else self.found <= self.limit  # NaN fails


NO_CLASSES = "no output of the model is [images, classes]"
NO_NUMBERS = "no output is a tensor of numbers"
FEW_CLASSES = f"{NO_CLASSES} with more than 5 classes"

GATES = (
    Rule(
        "min-accuracy", "top-1 accuracy", "%", ("data", "labels"), lambda e: _share(e, _of(e).model, "top1"), NO_CLASSES
    ),
    Rule("min-top5", "top-5 accuracy", "%", ("data", "labels"), lambda e: _share(e, _of(e).model, "top5"), FEW_CLASSES),
    Rule("max-drop", "drop of top-1", "%", ("data", "labels", "against"), lambda e: drop(_of(e)), NO_CLASSES),
    Rule("min-agreement", "top-1 agreement", "%", ("data", "against"), lambda e: agreement(_of(e)), NO_CLASSES),
    Rule(
        "min-sqnr-db", "SQNR", "dB", ("data", "against"), lambda e: sqnr_db(_of(e)), "no output is a tensor of numbers"
    ),
    Rule("min-fps", "throughput", "FPS", ("design",), lambda e: _design(e).fps),
    Rule("max-latency-ms", "latency of a batch", "ms", ("design",), lambda e: _design(e).latency_ms),
    Rule("max-lut", "LUT", "", ("design",), lambda e: _design(e).resources.lut),
    Rule("max-dsp", "DSP", "", ("design",), lambda e: _design(e).resources.dsp),
    Rule("max-bram", "BRAM36", "", ("design",), lambda e: _design(e).resources.bram18 / 2),
)
NO_NAN = Rule("no-nan", "images with NaN in an output", "", ("data",), lambda e: _of(e).nan_images)
"""Stands whenever images are run: a maximum of 0 that nobody has to ask for."""


def asked(request: Request) -> dict[Rule, Number]:
    """The gates of a request with their limits."""
    given = {rule: getattr(request, rule.name.replace("-", "_")) for rule in GATES}
    return {rule: limit for rule, limit in given.items() if limit is not None}


def refuse_unmeasurable(rules: Iterable[Rule], there: dict[str, bool]) -> None:
    """Raises NashcError for a gate without what it needs: it would pass without a measurement."""
    hints = {
        "data": "give --data",
        "labels": "give --labels, or data with labels",
        "against": "give the model to compare with: --against",
        "design": "give --target or --design",
    }
    for rule in rules:
        for need in rule.needs:
            if not there[need]:
                raise NashcError(f"needs {need}", where=f"--{rule.name}", hint=hints[need])


def judge(limits: dict[Rule, Number], evidence: Evidence) -> tuple[Gate, ...]:
    """Every gate with its verdict. Raises NashcError for one that the model has no figure for."""
    gates = []
    for rule, limit in limits.items():
        found = rule.measure(evidence)
        if found is None:
            raise NashcError(f"cannot be measured: {rule.lacking}", where=f"--{rule.name}", hint="leave the gate out")
        gates.append(Gate(rule, limit, found))
    return (*gates, *([Gate(NO_NAN, 0, NO_NAN.measure(evidence) or 0)] if evidence.measured is not None else []))


def drop(measured: Measured) -> Fraction | None:
    """Top-1 of the other model minus that of the model."""
    if measured.model is None or measured.against is None:
        return None
    return Fraction(measured.against.top1 - measured.model.top1, measured.images)


def agreement(measured: Measured) -> Fraction | None:
    """On which share of the images both models have the same best class, at the output with the lowest."""
    counts = [output.agreeing for output in measured.outputs if output.agreeing is not None]
    return Fraction(min(counts), measured.images) if counts else None


def sqnr_db(measured: Measured) -> float | None:
    """Of the output with the lowest."""
    return min((output.sqnr_db for output in measured.outputs), default=None)


def _of(evidence: Evidence) -> Measured:
    assert evidence.measured is not None
    return evidence.measured


def _design(evidence: Evidence) -> Design:
    assert evidence.design is not None
    return evidence.design


def _share(evidence: Evidence, scores: Scores | None, name: str) -> Fraction | None:
    count = None if scores is None else getattr(scores, name)
    return None if count is None else Fraction(count, _of(evidence).images)
