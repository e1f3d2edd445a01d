"""Arrays from .npy files, results into an .npz file, and one run from files to results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nashc.errors import NashcError
from nashc.files import replacing
from nashc.ops.native import available
from nashc.passes import Skip
from nashc.runtime.compare import Difference, compare
from nashc.runtime.prepare import prepare
from nashc.runtime.reference import run_reference, tensors
from nashc.runtime.session import Array, Session, Tensor


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run gave. `native` says whether the kernels were there; `differences` is None unless asked for."""

    outputs: Mapping[str, Array]
    native: bool
    skips: tuple[Skip, ...] = ()
    differences: tuple[Difference, ...] | None = None


def run_files(
    model: str,
    inputs: Sequence[str],
    *,
    reference: bool = False,
    against_reference: bool = False,
    threads: int | None = None,
    out: str | None = None,
) -> Ran:
    """Run `model` on .npy files (FILE or NAME=FILE) and write its outputs into the .npz file `out`.

    reference: in NumPy instead of onnxruntime. against_reference: also compare the two, node by node.
    """
    native = available()
    skips: tuple[Skip, ...] = ()
    if reference:
        arrays = read_inputs(tensors(prepare(model, native=True).source), inputs)
        outputs = run_reference(model, arrays)
    else:
        session = Session(model, threads=threads, native=native)
        arrays = read_inputs(session.inputs, inputs)
        outputs, skips = session.run(arrays), session.skips
    differences = compare(model, arrays, threads=threads, native=native) if against_reference else None
    if out is not None:
        write_outputs(out, outputs)
    return Ran(outputs, native, skips, differences)


def read_inputs(wanted: Sequence[Tensor], given: Sequence[str]) -> dict[str, Array]:
    """The arrays of FILE (where the model has one input) or NAME=FILE arguments, by input name."""
    names = [tensor.name for tensor in wanted]
    arrays: dict[str, Array] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).is_file():
            if len(names) != 1:
                hint = f"write NAME=FILE for each of {', '.join(names)}"
                raise NashcError(f"the model has {len(names)} inputs", where=text, hint=hint)
            name, path = names[0], text
        if name in arrays:
            raise NashcError(f"input '{name}' is given twice", where=text, hint="give one file for each input")
        arrays[name] = read_array(path)
    return arrays


def read_array(path: str) -> Array:
    """The array of a .npy file, which nobody vouches for: no pickle is read, and no more than the file holds."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise NashcError("no such file", where=path, hint="give a .npy file (numpy.save)") from None
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror or error}", where=path, hint="check the path") from None
    except Exception:  # other formats, pickles, files that were cut off; of damaged headers tokenize.TokenError, too
        raise NashcError("not a whole .npy file of numbers", where=path, hint="write one with numpy.save") from None
    if not isinstance(found, np.ndarray):
        raise NashcError("holds several arrays", where=path, hint="give a .npy file (numpy.save)")
    return np.array(found)


def write_outputs(path: str, outputs: Mapping[str, Array]) -> None:
    """Write an .npz file that takes the place of an earlier one when it is complete."""
    with replacing(path) as written, written.open("wb") as file:
        np.savez(file, **outputs)  # type: ignore[arg-type]
