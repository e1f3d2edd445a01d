"""One check: run the models, compile or read the design, judge the gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nashc.artifact import Compiled, load
from nashc.board import load_board
from nashc.check.gates import Evidence, Gate, Number, Rule, asked, judge, refuse_unmeasurable
from nashc.check.request import Request, check_values
from nashc.compiler import compile_model
from nashc.core.network import Unit
from nashc.core.options import Options
from nashc.data import open_data
from nashc.data.choose import FIELDS, chosen_preprocess
from nashc.errors import NashcError
from nashc.importer import import_model
from nashc.ops.native import available
from nashc.runtime.accuracy import Measured, Progress, Subject, class_notes, measure, only_input
from nashc.runtime.session import NOTICE, Session

Stage = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome: figures, gates in the order of GATES, and notes that belong to the figures."""

    request: Request
    measured: Measured | None
    compiled: Compiled | None
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def check(request: Request, *, images: Progress | None = None, search: Stage | None = None) -> Checked:
    """Measure and judge. The progress callbacks get (images done, images in all) and (stage, share done).

    Raises NashcError for bad input, and for a gate that cannot be measured.
    """
    check_values(request)
    limits = asked(request)
    if not request.model:
        raise NashcError("no model to check", hint="give a model, or the key 'model' in nashc-check.toml")
    if request.data is None and request.against is not None:
        raise NashcError("--against needs images", where=request.against, hint="give --data")
    there = {
        "data": request.data is not None,
        "labels": request.data is not None,  # whether it has any shows when it is open
        "against": request.against is not None,
        "design": request.target is not None or request.design is not None,
    }
    refuse_unmeasurable(limits, there)
    if not there["data"] and not there["design"]:
        raise NashcError("nothing to measure", where=request.model, hint="give --data, or --target, or both")
    notes: list[str] = []
    subjects = _subjects(request, notes) if request.data is not None else ()
    if subjects:
        refuse_unmeasurable(limits, there | {"labels": subjects[0].data.labels is not None})
    design = _read_design(request) if request.design is not None else None
    if request.target is not None:
        load_board(request.target)  # what is wrong shows before the images run
        import_model(request.model, request.shape)
    measured = None
    if subjects:
        of_images = {rule: limit for rule, limit in limits.items() if "data" in rule.needs}
        judge(of_images, Evidence(measure(*subjects, count=1), None))  # one image shows what cannot be measured
        measured = measure(*subjects, count=request.count, seed=request.seed, progress=images)
        notes += class_notes(measured, subjects[0].data)
    compiled = design or (_compile(request, limits, notes, search) if request.target is not None else None)
    if compiled is not None:
        _note_host(compiled, notes)
    gates = judge(limits, Evidence(measured, None if compiled is None else compiled.design))
    if not limits:
        notes.append("no gate was asked for: these are figures, not a verdict")
    return Checked(request, measured, compiled, gates, tuple(notes))


def _subjects(request: Request, notes: list[str]) -> tuple[Subject, ...]:
    """The model, and the one to compare with, each with the data as it takes it."""
    if not available():
        notes.append(NOTICE)
    paths = [path for path in (request.model, request.against) if path is not None]
    sessions = [Session(path, threads=request.threads, native=available()) for path in paths]
    for session, path in zip(sessions, paths, strict=True):
        only_input(session, path)
        if session.skips:
            notes.append(
                f"{path}: {len(session.skips)} quantised layers have no integer kernel and run in float, "
                f"first '{session.skips[0].node}', which {session.skips[0].reason}"
            )
    given = {name: getattr(request, name) for name in FIELDS}
    chosen = [chosen_preprocess(session.metadata, given) for session in sessions]
    told = [preprocess for preprocess, origin in chosen if origin != "default"]
    if len(told) == 1 and len(chosen) == 2:  # a model that says nothing gets what its other form says
        chosen = [(told[0], "other" if origin == "default" else origin) for _, origin in chosen]
    data = [
        open_data(
            request.data or "",
            preprocess,
            _shape(session),
            labels=request.labels,
            split=request.split or "test",
            dtype=session.inputs[0].dtype,
        )
        for session, (preprocess, _) in zip(sessions, chosen, strict=True)
    ]
    notes += [f"{request.data}: {note}" for note in dict.fromkeys(note for one in data for note in one.notes())]
    if not data[0].source.ready:
        for path, (preprocess, origin) in zip(paths, chosen, strict=True):
            if origin == "default":
                notes.append(f"{path} stores no preprocessing and no flag says any: {preprocess}")
            elif origin == "other":
                notes.append(f"{path} stores no preprocessing and gets that of the other model: {preprocess}")
        if len({preprocess for preprocess, _ in chosen}) > 1:
            each = "; ".join(f"{path}: {preprocess}" for path, (preprocess, _) in zip(paths, chosen, strict=True))
            notes.append(f"the models take images in different forms, and each gets its own: {each}")
    return tuple(Subject(session, images) for session, images in zip(sessions, data, strict=True))


def _read_design(request: Request) -> Compiled:
    """The design of --design. Raises NashcError where it is for another network or board."""
    path = request.design or ""
    compiled = load(path)
    own = import_model(request.model, request.shape).network
    theirs = compiled.design.network
    if replace(own, name=theirs.name) != theirs:
        pairs = zip(own.layers, theirs.layers, strict=False)
        names = [layer.name for layer, other in pairs if layer != other]
        what = f"first at layer '{names[0]}'" if names else f"{len(theirs.layers)} layers for {len(own.layers)}"
        raise NashcError(
            f"a design for another network than {request.model} ({what})",
            where=path,
            hint="compile the model again, or give --target instead",
        )
    if request.target is not None:
        board = replace(load_board(request.target), clock_mhz=compiled.board.clock_mhz)  # a compile may set the clock
        if board != compiled.board:
            other = f"not for '{request.target}'" if board.name != compiled.board.name else "whose figures have changed"
            raise NashcError(
                f"a design for board '{compiled.board.name}', {other}",
                where=path,
                hint="compile for this board, or leave --target out",
            )
    return compiled


def _compile(request: Request, limits: Mapping[Rule, Number], notes: list[str], search: Stage | None) -> Compiled:
    """The fastest design within the limits; where there is none, the fastest without them, whose gates then fail."""
    free = Options(budget_seconds=request.budget)
    within = replace(
        free,
        max_latency_ms=request.max_latency_ms,
        max_lut=request.max_lut,
        max_dsp=request.max_dsp,
        max_bram36=request.max_bram,
    )
    assert request.target is not None
    if within != free:
        try:
            return compile_model(request.model, request.target, request.shape, within, progress=search)
        except NashcError as error:
            compiled = compile_model(request.model, request.target, request.shape, free, progress=search)
            notes.append(f"no design within the limits ({error}); the figures are of the best one without them")
            return compiled
    return compile_model(request.model, request.target, request.shape, free, progress=search)


def _note_host(compiled: Compiled, notes: list[str]) -> None:
    names = [layer.name for layer in compiled.design.network.layers if layer.unit is Unit.HOST]
    if names:
        notes.append(f"on the host CPU, whose time is a rough guess: {', '.join(names)}")


def _shape(session: Session) -> tuple[int | None, ...]:
    """Of the only input."""
    (given,) = session.inputs
    if given.shape is None:
        raise NashcError(f"the axes of input '{given.name}' are not known", hint="export the model with a shape")
    return given.shape
