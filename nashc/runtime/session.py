"""A model in onnxruntime, with the native kernels of ai.nashc where they are compiled."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from nashc.core.options import MOST_THREADS
from nashc.errors import NashcError, did_you_mean
from nashc.ops import library
from nashc.ops.native import available
from nashc.runtime.exact import exact, saturates
from nashc.runtime.prepare import Source, prepare

Array = NDArray[Any]
NOTICE = (
    "the native kernels were not compiled: operators of ai.nashc run through their functions in standard operators, "
    "many times slower; install a C++17 compiler and CMake and install nashc again"
)
ROUNDING_PASSES = ["WeightBiasQuantization"]
"""Of onnxruntime: it rounds the float weights of a layer between DequantizeLinear and QuantizeLinear to bytes."""
TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model: NumPy type (or onnxruntime's name where NumPy has none) and shape; sizes that are
    not fixed are None, and so is a shape of which not even the axes are known."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


class Session:
    """Runs a model; `run` may be called from several threads at once.

    model: a path, or a model in memory. threads: of one run; None is one for each core. native None takes the native
    kernels if they are compiled and warns otherwise; False never takes them. QDQ around operators of ai.nashc is fused
    to integer kernels; `skips` names the operators for which that is not possible, with the reason. `metadata` are the
    model's metadata_props. Raises NashcError.
    """

    def __init__(self, model: Source, *, threads: int | None = None, native: bool | None = None) -> None:
        self.native = available() if native is None else native
        if native is None and not self.native:
            warnings.warn(NOTICE, stacklevel=2)
        prepared = prepare(model, native=self.native)
        self.skips = prepared.skips
        self._session = start(prepared.model, threads, native=self.native)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        ranked = {v.name for v in (*prepared.model.graph.input, *prepared.model.graph.output)
                  if v.type.tensor_type.HasField("shape")}  # fmt: skip
        self.inputs, self.outputs = (
            tuple(_tensor(found, ranked=found.name in ranked) for found in ends)
            for ends in (self._session.get_inputs(), self._session.get_outputs())
        )

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Outputs by name, of all or of those asked for. Raises NashcError for inputs that do not fit."""
        check_inputs(self.inputs, inputs)
        names = [tensor.name for tensor in self.outputs]
        for name in outputs or ():
            if name not in names:
                raise NashcError(f"no output '{name}'", where="run", hint=did_you_mean(name, names))
        wanted = names if outputs is None else list(outputs)
        found = run(self._session, wanted, inputs) if wanted else []  # onnxruntime takes none for all
        return dict(zip(wanted, found, strict=True))


def start(model: onnx.ModelProto, threads: int | None, *, native: bool) -> onnxruntime.InferenceSession:
    """The model as it is in onnxruntime. Raises NashcError for what onnxruntime refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # its own choice rounds x to bytes
    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise NashcError(f"threads={threads}", where="Session", hint=f"give 1 to {MOST_THREADS}")
        options.intra_op_num_threads = threads
        options.add_session_config_entry("nashc.threads", str(threads))
    try:
        if native:
            options.register_custom_ops_library(str(library()))
        return onnxruntime.InferenceSession(
            exact(model, unsigned=saturates()).SerializeToString(), options, providers=["CPUExecutionProvider"],
            disabled_optimizers=ROUNDING_PASSES,
        )  # fmt: skip
    except NashcError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        raise NashcError(_message(error), where="onnxruntime", hint="the model cannot be run as it is") from None


def run(session: onnxruntime.InferenceSession, outputs: list[str], inputs: Mapping[str, Array]) -> list[Array]:
    try:
        return list(session.run(outputs, {name: np.asarray(value) for name, value in inputs.items()}))
    except Exception as error:
        raise NashcError(_message(error), where="onnxruntime", hint="check the inputs") from None


def check_inputs(tensors: Sequence[Tensor], inputs: Mapping[str, Array]) -> None:
    """Raises NashcError unless the inputs are those of the model in name, type and shape."""
    names = [tensor.name for tensor in tensors]
    for name in inputs:
        if name not in names:
            raise NashcError(f"the model has no input '{name}'", where="run", hint=did_you_mean(name, names))
    for tensor in tensors:
        if tensor.name not in inputs:
            raise NashcError(f"input '{tensor.name}' is missing", where="run", hint=f"give {_text(tensor)}")
        value = np.asarray(inputs[tensor.name])
        fits = tensor.shape is None or (
            len(value.shape) == len(tensor.shape)
            and all(wanted in (None, size) for size, wanted in zip(value.shape, tensor.shape, strict=True))
        )
        if str(value.dtype) != tensor.dtype or not fits:
            raise NashcError(
                f"input '{tensor.name}' is {value.dtype}{list(value.shape)}",
                where="run",
                hint=f"give {_text(tensor)}",
            )


def _tensor(argument: Any, *, ranked: bool) -> Tensor:
    """onnxruntime says [] of a scalar and of a tensor whose axes are not known alike."""
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
    return Tensor(argument.name, TYPES.get(argument.type, argument.type), shape if ranked or shape else None)


def _text(tensor: Tensor) -> str:
    if tensor.shape is None:
        return f"{tensor.dtype} of any shape"
    return f"{tensor.dtype}[{', '.join('any' if size is None else str(size) for size in tensor.shape)}]"


def _message(error: Exception) -> str:
    """onnxruntime's message without its codes and source lines."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"(\S+/)?[\w.]+\.(cc|h):\d+ [^\n]*?\) ", "", text)
    return " ".join(text.split()) or type(error).__name__
