"""Checkpoints in safetensors files: tensors by name, no pickle, nothing that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nashc.errors import NashcError, did_you_mean
from nashc.files import replacing

MOST_PROBLEMS = 8


def save(module: nn.Module, path: str | Path, said: Mapping[str, str] | None = None) -> None:
    """Write the state of module; a tensor of several names is written once, under the first. Atomic.

    `said` goes into the file's metadata.
    """
    first = _first_names(module)
    tensors = {n: t.detach().cpu().clone(memory_format=torch.contiguous_format)  # parts of one memory are two tensors
               for n, t in _state(module).items() if first[n] == n}  # fmt: skip
    with replacing(path) as written:
        save_file(tensors, written, None if said is None else dict(said))


def metadata(path: str | Path) -> dict[str, str]:
    """What a file says beside its tensors. Raises NashcError for a file that is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, ValueError, OSError) as error:
        raise NashcError(f"no safetensors file: {error}", where=str(path), hint="write it with nashc.nn.save") from None


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a training that goes on. Raises NashcError for a file that is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise NashcError(f"no checkpoint: {error}", where=str(path), hint="delete it to start anew") from None


def load(module: nn.Module, path: str | Path) -> nn.Module:
    """Read the state that `save` wrote into module, in place, and return it.

    Raises NashcError where the file is no safetensors file, or names, shapes or types differ; module is then unchanged.
    """
    if not Path(path).is_file():
        raise NashcError("there is no such file", where=str(path), hint="write it with nashc.nn.save")
    try:
        found = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise NashcError(f"no safetensors file: {error}", where=str(path), hint="write it with nashc.nn.save") from None
    state, first = _state(module), _first_names(module)
    if problems := list(_problems(state, first, found)):
        more = f", and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise NashcError(
            f"the weights do not fit the module: {'; '.join(problems[:MOST_PROBLEMS])}{more}",
            where=str(path),
            hint="build the module as it was when they were saved",
        )
    with torch.no_grad():
        for name, tensor in found.items():
            state[name].copy_(tensor)
    return module


def _state(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise NashcError(f"'{name}' is {type(value).__name__}, not a tensor", hint="keep state in buffers")
    return state


def _first_names(module: nn.Module) -> dict[str, str]:
    """For each name the first one of the same tensor, or of another one on the same memory."""
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for name, t in _state(module).items():
        own = (t.data_ptr(), t.shape, t.stride(), t.dtype, t.device) if t.numel() and not t.is_meta else (id(t),)
        found[name] = first.setdefault(own, name)
    return found


def _problems(state: dict[str, Tensor], first: dict[str, str], found: dict[str, Tensor]) -> Iterator[str]:
    present = {first.get(name, name) for name in found}
    for name in state:
        if first[name] == name and name not in present:
            yield f"'{name}' is missing"
    for name, tensor in found.items():
        if name not in state:
            close = did_you_mean(name, state)
            yield f"'{name}' is not in the module" + (f" ({close})" if close.startswith("did you mean") else "")
        elif tensor.shape != state[name].shape or tensor.dtype != state[name].dtype:
            yield f"'{name}' is {_kind(tensor)}, the module has {_kind(state[name])}"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
