"""The pipeline of `nashc compile`: an ONNX file and a board in, a design with its certificate out."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from nashc.artifact import Compiled, dump
from nashc.board import Board, load_board
from nashc.core.design import Accelerator, Design
from nashc.core.network import Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.importer import NO_SHAPES, import_model
from nashc.passes import sources
from nashc.search.fixed import Fixed
from nashc.search.solve import explain, solve

Progress = Callable[[str, float], None]
EMBED_BYTES = 2**30
"""Weights up to this size are stored in model.onnx itself; protobuf ends at 2 GiB."""
OLD_WEIGHTS = "model-*.data"
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux: fcntl.h and linux/fs.h."""
STALE_SECONDS = 3600
"""A temporary directory this old belongs to a command that was killed."""


def compile_model(
    path: str | Path,
    target: str,
    shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES,
    options: Options = Options(),  # noqa: B008 - frozen
    baselines: Sequence[str] = (),
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> Compiled:
    """The best design found for an ONNX file on a board, by name or board file.

    A design with a larger batch comes with its "batch 1" variant; an alternative that does not fit says why.
    `strict` refuses a model with nodes for the host. The progress callback gets (stage, share done).
    options.budget_seconds holds for each search. Raises NashcError on bad input and when nothing fits.
    """
    board = target_board(target, options)
    imported = import_model(path, shapes)
    network = imported.network
    if strict:
        refuse_host(network)
    design = solve(network, board, options, _stage("design", progress))
    wanted: dict[str, Callable[[], Design]] = {}
    if design.accelerator.batch > 1:
        wanted["batch 1"] = lambda: solve(network, board, replace(options, batch=1), _stage("batch 1", progress))
    if baselines:
        from nashc.search.baselines import baseline  # noqa: PLC0415
    for name in baselines:
        wanted[name] = partial(baseline, name, network, board, options, _stage(name, progress))
    found: dict[str, Design] = {}
    missing: dict[str, str] = {}
    for name, search in wanted.items():
        try:
            found[name] = search()
        except NashcError as error:
            missing[name] = str(error)
    return Compiled(
        design, board, options, imported.removed, tuple(found.items()), tuple(missing.items()), imported.model
    )


def compile_on(
    path: str | Path, given: Compiled, shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES, options: Options | None = None
) -> Compiled:
    """The best plan and mappings of an ONNX file on the accelerator of another design, with the options of that one.

    Raises NashcError where the accelerator cannot run some layer.
    """
    options = options or given.options
    imported = import_model(path, shapes)
    design = Fixed.of(given.design, given.board, options).design(imported.network)
    return Compiled(design, given.board, options, imported.removed, (), (), imported.model)


def explain_space(
    path: str | Path,
    target: str,
    shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES,
    options: Options = Options(),  # noqa: B008
) -> str:
    """The accelerator space that a compile would search, in words and numbers."""
    board = target_board(target, options)
    return explain(import_model(path, shapes).network, board, options)


def target_board(target: str, options: Options) -> Board:
    """The board of a compile, at the clock that the options ask for."""
    board = load_board(target)
    return board if options.clock_mhz is None else replace(board, clock_mhz=options.clock_mhz)


def refuse_host(network: Network) -> None:
    """Raises NashcError that lists every node that no unit of the accelerator runs."""
    found = [f"'{layer.name}' ({layer.op}: {layer.note})" for layer in network.layers if layer.unit is Unit.HOST]
    if found:
        raise NashcError(
            f"--strict: {len(found)} of {len(network.layers)} layers run on the host: {', '.join(found)}",
            hint="replace these nodes, or compile without --strict",
        )


def write(compiled: Compiled, out: str | Path, texts: Mapping[str, str]) -> None:
    """Write design.json, the annotated model.onnx (if the design has its model) and `texts` (name -> text) into `out`.

    Everything is written and synced beside `out` first and then takes the place of an earlier result, all at once where
    the file system can do that (see `_swap`), so an interrupted command leaves earlier results as they were. Other
    files in `out` stay.
    """
    out = Path(out)
    with _beside(out) as made:
        if compiled.model is not None:
            _save_model(annotated(compiled), made)
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        (made / "design.json").write_bytes(dump(compiled))
        _move_in(made, out.resolve())


def chunk_labels(accelerator: Accelerator) -> tuple[str, ...]:
    """A name for each chunk; of two with the same unit and role, each says its weight bits."""
    names = [chunk.name for chunk in accelerator.chunks]
    return tuple(
        name if names.count(name) == 1 else f"{name}-{chunk.weight_bits}bit"
        for name, chunk in zip(names, accelerator.chunks, strict=True)
    )


def check_out(out: Path) -> None:
    """Raises NashcError where results cannot be written: better before a long search than after it."""
    if out.is_symlink() and not out.exists():
        raise NashcError("a link that leads nowhere", where=str(out), hint="give another directory with -o")
    if out.exists() and not out.is_dir():
        raise NashcError("not a directory", where=str(out), hint="give the directory to write the results into")
    full = out.resolve()
    existing = next(path for path in (full, *full.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise NashcError("cannot write here", where=str(existing), hint="give another directory with -o")


def annotated(compiled: Compiled) -> ir.Model:
    """A copy of the simplified model whose nodes say where they run: metadata_props nashc.layer, nashc.chunk,
    nashc.mapping and nashc.cycles. The cycles of a layer stand at its first node; those fused into it have 0."""
    if compiled.model is None:
        raise ValueError("a design that was read from a file has no model")
    model = compiled.model.clone()
    model.ir_version = max(model.ir_version, 4)  # before, every initializer had to be a graph input
    design = compiled.design
    member: dict[str, list[int]] = {}
    head: dict[str, list[int]] = {}
    for i, layer in enumerate(design.network.layers):
        for name in layer.nodes:
            member.setdefault(name, []).append(i)
        for name in layer.nodes[:1]:
            head.setdefault(name, []).append(i)
    for node in model.graph:
        names = sources(node)
        own = [i for name in names for i in head.get(name, ())]
        found = own or [i for name in names for i in member.get(name, ())]
        node.metadata_props.update(_node_props(design, found, own))
    return model


def _node_props(design: Design, found: list[int], own: list[int]) -> dict[str, str]:
    """What one node says: `found` are the layers that it belongs to, `own` those that it is the first node of."""
    if not found:
        return {"nashc.chunk": "none", "nashc.mapping": "no work at run time", "nashc.cycles": "0"}
    result = design.layers[found[0]]
    tile, flow = result.mapping.tile, result.mapping.dataflow
    sizes = f"n{tile.n} g{tile.g} k{tile.k} c{tile.c} oy{tile.oy} ox{tile.ox}"
    return {
        "nashc.layer": result.layer,
        "nashc.chunk": "host" if result.chunk < 0 else chunk_labels(design.accelerator)[result.chunk],
        "nashc.mapping": ("host" if result.chunk < 0 else f"{flow}; {sizes}") if own else f"fused into {result.layer}",
        "nashc.cycles": str(sum(design.layers[i].cycles for i in own)),
    }


def _save_model(model: ir.Model, folder: Path) -> None:
    """model.onnx, self-contained; weights that are too large for one protobuf go to a file named by their hash."""
    stored = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    if sum(tensor.nbytes for tensor in stored) <= EMBED_BYTES:
        ir.save(ir.external_data.load_to_model(model), folder / "model.onnx")
        return
    digest = hashlib.sha256()
    for tensor in stored:
        digest.update(tensor.tobytes())
    ir.save(model, folder / "model.onnx", external_data=f"model-{digest.hexdigest()[:16]}.data")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A new directory on the file system of `out`, in a temporary one that is removed at the end, with what killed
    commands left there.

    It is beside `out`; or in it, where the folder above belongs to somebody else or to another file system.
    """
    check_out(out)
    out = out.resolve()
    parent = out.parent
    parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and (_mount(out) != _mount(parent) or not os.access(parent, os.W_OK | os.X_OK)):
        parent = out
    prefix = f".{out.name}.nashc-"
    for old in parent.glob(f"{glob.escape(prefix)}*"):
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        made = temporary / "result"
        made.mkdir()
        yield made
    finally:
        with _no_interrupt():
            shutil.rmtree(temporary, ignore_errors=True)


def _mount(folder: Path) -> str:
    """What a rename cannot leave: on Linux a mount (a file system may have several), elsewhere a file system."""
    handle = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY))
    try:
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines()
        return next(line for line in lines if line.startswith("mnt_id"))
    except (OSError, StopIteration):
        return str(os.fstat(handle).st_dev)
    finally:
        os.close(handle)


def _move_in(made: Path, out: Path) -> None:
    """Put every file of `made` into `out`: at once, or one by one, data before the model that names it, design.json
    last."""
    files = sorted(made.iterdir(), key=lambda f: (f.name == "design.json", f.name == "model.onnx", f.name))
    for file in files:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    with _no_interrupt():
        out.mkdir(exist_ok=True)
        names = [file.name for file in files]
        if not _swap(names, made, out):
            _rename(names, made, out)


def _rename(names: Sequence[str], source: Path, out: Path) -> None:
    """One file after the other; weights of an earlier model go."""
    for name in names:
        (source / name).replace(out / name)
    for old in out.glob(OLD_WEIGHTS):
        if old.name not in names:
            old.unlink()


def _swap(names: Sequence[str], made: Path, out: Path) -> bool:
    """All files at once; False, and nothing done, where that is not possible.

    `made` gets the other files of `out` too, as hard links, and changes places with it. Out of sight the original
    directory then gets the new files and comes back: whoever works in it, its owner and its rights stay. Folders have
    no hard links, so an `out` with folders in it is left to `_rename`.
    """
    again = made.parent / "again"
    try:
        others = [p for p in out.iterdir() if p.name not in names and not p.match(OLD_WEIGHTS)]
        if any(p.is_dir() and not p.is_symlink() for p in others):
            return False
        again.mkdir()
        for name in names:
            os.link(made / name, again / name)
        for path in others:
            os.link(path, made / path.name, follow_symlinks=False)
        shutil.copymode(out, made)
        _exchange(made, out)
    except OSError:
        return False
    _rename(names, again, made)
    _exchange(made, out)
    for path in made.iterdir():  # what somebody saved in the meantime
        there = out / path.name
        if path.name not in names and not (there.exists() and there.samefile(path)):
            path.replace(there)
    return True


def _exchange(a: Path, b: Path) -> None:
    """Let two directories change places in one step. Raises OSError where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(b))
    if rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(b))


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C and termination wait for the end. (To block the signals is not enough: another thread may get them, and
    then Python raises in this one all the same.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _stage(label: str, progress: Progress | None) -> Progress | None:
    """Progress of one search among several."""
    if progress is None:
        return None
    return lambda stage, share: progress(f"{label}: {stage}", share)
