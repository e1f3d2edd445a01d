"""What a search ends with: the Pareto set, and a few pairs of a model and its exact accelerator, beside their rivals.

The rival of a pair is the fastest network of convolutions alone that the same search found with at least the pair's
score, on the strongest multiplication-only accelerator; where no such network has that score, the one that comes next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch

from nashc.artifact import Compiled
from nashc.compiler import Progress, compile_model, compile_on, write
from nashc.errors import NashcError
from nashc.export import export
from nashc.files import replacing
from nashc.nas.architecture import Architecture, parse
from nashc.nas.build import HybridNet, NormedLayer, build
from nashc.nas.evolve import front
from nashc.nas.found import Found, Pair
from nashc.nas.job import Job
from nashc.nas.layout import layout, macs
from nashc.nas.search import CONV, FAMILIES, HYBRID, given_accelerator, spaces_of
from nashc.nas.space import Space
from nashc.nas.study import History, points
from nashc.ops.adder_conv import STEP

PARETO_FILE = "pareto.json"
FOLDER = re.compile(r"(hybrid|conv)-[0-9]{1,9}", re.ASCII)
SEARCH_SECONDS = 30.0
"""Of the exact search of one pair's accelerator."""
GOOD_SHARE = 0.5
"""Pairs come from the better so many of the front: the fastest networks of a space are those that do least."""
VERSION = 2
"""Of pareto.json. Recipes of the first one did not say that adder layers begin as convolutions, and theirs did not."""
INPUT = "image"
DSP_ONLY = "conv-only-dsp"


class Pareto(msgspec.Struct, frozen=True, kw_only=True):
    """pareto.json: the job, every candidate in the order of numbers, and the chosen pairs, rivals last."""

    job: Job
    candidates: tuple[Found, ...]
    pairs: tuple[Pair, ...]
    schema: str = "nashc-pareto"
    version: int = VERSION


def candidates(job: Job, history: History) -> tuple[Found, ...]:
    """The history with scores among all, and which of them are on the front of their family: that of convolutions
    alone has those of the whole space, too, that turned out to be such."""
    spaces = spaces_of(job.space)
    scored = history.scored()
    read = [parse(s.architecture, spaces[s.family]) for s in scored]
    known = [replace(s, family=CONV if is_conv(a) else HYBRID) for s, a in zip(scored, read, strict=True)]
    table = points(known)
    on_front = set[int]()
    for family in FAMILIES:
        own = np.array([i for i, s in enumerate(known) if s.family == family], np.int64)
        on_front |= {int(own[i]) for i in front(table[own])} if len(own) else set()
    return tuple(
        Found(
            number=s.number, family=s.family, architecture=s.architecture, score=float(table[i, 0]), coarse_fps=s.fps,
            macs=macs(layout(read[i], job.space)), pareto=i in on_front,
        )
        for i, s in enumerate(known)
    )  # fmt: skip


def chosen(found: Sequence[Found], count: int) -> list[int]:
    """Indices of so many hybrids, spread over the better part of the front, the best score first."""
    order = sorted((i for i, f in enumerate(found) if f.pareto and f.family == HYBRID), key=lambda i: -found[i].score)
    good = order[: max(count, round(GOOD_SHARE * len(order)))]
    return [good[i] for i in dict.fromkeys(np.linspace(0, len(good) - 1, min(count, len(good))).round().astype(int))]


def rival_of(found: Sequence[Found], pair: int) -> int | None:
    """Index of the convolutions-only candidate that a pair is compared with; None where there is none."""
    convs = [i for i, f in enumerate(found) if f.family == CONV]
    as_good = [i for i in convs if found[i].score >= found[pair].score]
    if as_good:
        return max(as_good, key=lambda i: (found[i].coarse_fps, found[i].score))
    return max(convs, key=lambda i: (found[i].score, found[i].coarse_fps), default=None)


def finish(
    job: Job, history: History, folder: Path, seconds: float = SEARCH_SECONDS, progress: Progress | None = None
) -> Pareto:
    """Search the accelerators of the chosen pairs and their rivals, and write everything below the folder."""
    found = candidates(job, history)
    if not found:
        raise NashcError("no candidate was scored", where=str(folder), hint="give the search more time")
    hybrids = chosen(found, job.pairs)
    rival = {i: rival_of(found, i) for i in hybrids}
    order = [*hybrids, *dict.fromkeys(i for i in rival.values() if i is not None)]
    earlier = {pair.folder: pair for pair in load(folder).pairs} if (folder / PARETO_FILE).exists() else {}
    pairs = []
    for n, i in enumerate(order):
        if progress is not None:
            progress(f"accelerator {n + 1} of {len(order)}", n / len(order))
        name = f"{found[i].family}-{found[i].number}"
        other = rival.get(i)
        number = order.index(other) if other is not None else -1
        if name in earlier:  # searched already, and perhaps trained
            pairs.append(msgspec.structs.replace(earlier[name], candidate=i, rival=number))
        else:
            pairs.append(pair_of(_compiled(job, found[i], folder / name, seconds), i, name, number))
    made = Pareto(job=job, candidates=found, pairs=tuple(pairs))
    save(made, folder)
    return made


def save(made: Pareto, folder: Path) -> None:
    with replacing(folder / PARETO_FILE) as written:
        written.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")


def load(folder: Path) -> Pareto:
    """The result of a search. Raises NashcError where there is none yet, or no readable one."""
    path = folder / PARETO_FILE
    if not path.is_file():
        raise NashcError(f"there is no {PARETO_FILE}", where=str(folder), hint="finish `nashc search` first")
    try:
        made = msgspec.json.decode(path.read_bytes(), type=Pareto)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NashcError(f"no result of a search: {error}", where=str(path)) from None
    if made.version != VERSION:
        raise NashcError(
            f"a result of version {made.version}, this nashc reads {VERSION}", where=str(path), hint="search again"
        )
    made.job.check()
    for pair in made.pairs:
        known = 0 <= pair.candidate < len(made.candidates) and -1 <= pair.rival < len(made.pairs)
        if not known or not FOLDER.fullmatch(pair.folder):
            raise NashcError(f"no result of a search: pair '{pair.folder}'", where=str(path))
    return made


def export_net(net: HybridNet, path: Path) -> None:
    """The network as ONNX, its functions with it; adder layers that compute with bytes say at which step."""
    space = net.space
    side = space.resolution
    steps = {
        f"{name}.conv": float(module.rounding.step)
        for name, module in net.named_modules()
        if isinstance(module, NormedLayer) and module.rounding is not None and module.rounding.step
    }
    model = export(
        net.rounded(),
        torch.zeros(1, space.channels, side, side),
        path,
        portable=True,
        opset=21,
        input_names=[INPUT],
        output_names=["scores"],
    )
    if steps:
        for node in model.graph.node:
            if node.name in steps:
                node.metadata_props.add(key=STEP, value=repr(steps[node.name]))
        with replacing(path) as written:
            onnx.save(model, written)


def is_conv(architecture: Architecture) -> bool:
    """Whether a network multiplies alone."""
    return all(block.operator == "conv" for block in architecture.blocks)


def architecture_of(found: Found, space: Space) -> Architecture:
    """A candidate's network, of the job's space or of its convolutions alone."""
    return parse(found.architecture, spaces_of(space)[found.family])


def _compiled(job: Job, candidate: Found, folder: Path, seconds: float) -> Compiled:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "source.onnx"
    export_net(build(architecture_of(candidate, job.space), job.space, job.seed), path)
    compiled = designed(job, path, seconds, alone=candidate.family == CONV)
    path.unlink()
    write(compiled, folder, {})
    return compiled


def designed(job: Job, path: Path, seconds: float, *, alone: bool) -> Compiled:
    """The design of a model of the job's space: of its own accelerator, or on the one that the job names. `alone`: it
    multiplies alone, and DSPs alone are a baseline."""
    side = job.space.resolution
    shapes = {INPUT: (1, job.space.channels, side, side)}
    if job.accelerator:
        return compile_on(path, given_accelerator(job), shapes, job.limits)
    limits = replace(job.limits, budget_seconds=job.limits.budget_seconds or seconds)
    return compile_model(path, job.target, shapes, limits, (DSP_ONLY,) if alone else ())


def pair_of(compiled: Compiled, candidate: int, folder: str, rival: int) -> Pair:
    """What pareto.json says of a design."""
    design = compiled.design
    certificate = design.certificate
    dsp = dict(compiled.alternatives).get(DSP_ONLY)
    return Pair(
        candidate=candidate, folder=folder, fps=design.fps, latency_ms=design.latency_ms, gops=design.gops,
        gap=certificate.value / certificate.bound - 1 if certificate.bound > 0 else None,
        dsp_fps=None if dsp is None else dsp.fps, rival=rival,
    )  # fmt: skip
