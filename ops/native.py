"""The native kernels of the operators (kernels/*.cpp) for NumPy arrays, through ctypes, if the install built them.

One shared library holds the kernels and the adapter that onnxruntime loads. It uses no Python and no onnxruntime
symbols, so one file serves every version of both.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from nashc.ops.geometry import ConvGeometry
from numpy.typing import NDArray

import nashc
from nashc.errors import NashcError

FILE = Path("kernels") / "nashc_ops.so"
Array = NDArray[Any]


class Op(IntEnum):
    """What is summed over the taps, and the type of x; as in kernels/kernels.h."""

    ADDER_F32 = 0
    ADDER_S8 = 1
    ADDER_U8 = 2
    MULTIPLY_F32 = 3
    MULTIPLY_S8 = 4
    MULTIPLY_U8 = 5


class Output(IntEnum):
    """What becomes of a sum; as in kernels/kernels.h."""

    SUM = 0
    F32 = 1
    S8 = 2
    U8 = 3


X_TYPE = {
    Op.ADDER_F32: np.float32,
    Op.ADDER_S8: np.int8,
    Op.ADDER_U8: np.uint8,
    Op.MULTIPLY_F32: np.float32,
    Op.MULTIPLY_S8: np.int8,
    Op.MULTIPLY_U8: np.uint8,
}
WEIGHT_TYPE = {
    Op.ADDER_F32: np.float32,
    Op.ADDER_S8: np.int8,
    Op.ADDER_U8: np.int8,
    Op.MULTIPLY_F32: np.float32,
    Op.MULTIPLY_S8: np.int32,
    Op.MULTIPLY_U8: np.int32,
}


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("op", "output", "in_channels", "out_channels", "groups")),
        ("kernel", ctypes.c_int32 * 2),
        ("strides", ctypes.c_int32 * 2),
        ("dilations", ctypes.c_int32 * 2),
        ("pads", ctypes.c_int32 * 4),
        ("output_zero_point", ctypes.c_int32),
        ("lowest", ctypes.c_float),
        ("highest", ctypes.c_float),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Window:
    """The sliding window of a layer in two dimensions, y before x; pads are top, left, bottom, right."""

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, geometry: ConvGeometry) -> Window:
        """Of a geometry whose pads are known; a 1-D layer is one row high."""
        nest = geometry.nest
        return cls(nest.stride, nest.pad, nest.dilation, geometry.group)


def available() -> bool:
    """Whether the kernels were compiled when nashc was installed."""
    return _found() is not None


def library() -> Path:
    """The file for onnxruntime's SessionOptions.register_custom_ops_library; NashcError where it was not compiled."""
    found = _found()
    if found is None:
        raise NashcError(
            "the native kernels were not compiled when nashc was installed",
            where="nashc.ops",
            hint="install a C++17 compiler and nashc again; "
            "without them models run through their functions (nashc.ops.embed_functions)",
        )
    return found


@cache
def _found() -> Path | None:
    """In the folder of the installed package, which is not this one where the install is editable."""
    places = [Path(__file__).parent, *(Path(path) / "ops" for path in nashc.__path__)]
    files = (place / FILE for place in (*places, Path(sysconfig.get_path("platlib")) / "nashc" / "ops"))
    return next((file for file in files if file.is_file()), None)


@cache
def _functions() -> ctypes.CDLL:
    found = ctypes.CDLL(str(library()))
    p, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name, result, arguments in (
        ("nashc_kernel_create", p, (ctypes.POINTER(_Layer), p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)),
        ("nashc_kernel_destroy", None, (p,)),
        ("nashc_kernel_instruction_set", ctypes.c_char_p, (p,)),
        ("nashc_kernel_output_size", ctypes.c_int, (p, i64, i64, ctypes.POINTER(i64), ctypes.POINTER(i64))),
        ("nashc_kernel_run", ctypes.c_int, (p, p, i64, i64, i64, i32, p, p, p, i32)),
        ("nashc_pool_resize", None, (i32,)),
        (
            "nashc_adder_input_gradient",
            ctypes.c_int,
            (ctypes.POINTER(_Layer), p, p, p, i64, i64, i64, p, ctypes.c_char_p, p, p, i32),
        ),
        ("nashc_instruction_sets", ctypes.c_char_p, ()),
    ):
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets of this machine that the kernels are compiled for, best first; NashcError as library()."""
    return tuple(_functions().nashc_instruction_sets().decode().split(","))


def _pool(threads: int) -> tuple[Any, int]:
    """The built-in pool as a parallel_for argument; None where one thread does the work."""
    if threads < 1:
        raise NashcError(f"threads={threads}", where="nashc.ops.native", hint="give at least 1")
    if threads == 1:
        return None, 1
    functions = _functions()
    functions.nashc_pool_resize(threads)
    return ctypes.cast(functions.nashc_pool_run, ctypes.c_void_p), threads


def _layer(op: Op, output: Output, weights: Array, window: Window) -> _Layer:
    m, c, *kernel = weights.shape
    return _Layer(
        op,
        output,
        c * window.groups,
        m,
        window.groups,
        (ctypes.c_int32 * 2)(*kernel),
        (ctypes.c_int32 * 2)(*window.strides),
        (ctypes.c_int32 * 2)(*window.dilations),
        (ctypes.c_int32 * 4)(*window.pads),
        0,
        -np.inf,
        np.inf,
        None,
        None,
    )


class Kernel:
    """One layer with its packed weights; may run on several threads at once.

    `weights` [M, C/groups, kernel y, kernel x] in WEIGHT_TYPE[op]. With output F32, S8 or U8 a sum becomes
    min(max(sum * scale[m] + bias[m], lowest), highest), for S8 and U8 rounded half to even, plus output_zero_point and
    saturated. Raises NashcError where the layer is refused.
    """

    def __init__(
        self,
        op: Op,
        weights: Array,
        window: Window,
        *,
        output: Output = Output.SUM,
        scale: Array | None = None,
        bias: Array | None = None,
        lowest: float = -np.inf,
        highest: float = np.inf,
        output_zero_point: int = 0,
        instruction_set: str | None = None,
    ) -> None:
        self._pointer = None
        packed = _dense(weights, WEIGHT_TYPE[op], "weights", axes=4)
        layer = _layer(op, output, packed, window)
        m = packed.shape[0]
        kept = [_dense(np.ones(m) if scale is None else scale, np.float32, "scale", axes=1)]
        layer.scale = kept[0].ctypes.data
        if bias is not None:
            kept.append(_dense(bias, np.float32, "bias", axes=1))
            layer.bias = kept[1].ctypes.data
        if any(vector.size != m for vector in kept):
            raise NashcError(f"{[v.size for v in kept]} scales and biases for {m} channels", where="nashc.ops.native")
        layer.lowest, layer.highest, layer.output_zero_point = lowest, highest, output_zero_point
        message = ctypes.create_string_buffer(512)
        name = None if instruction_set is None else instruction_set.encode()
        self._functions = _functions()
        self._pointer = self._functions.nashc_kernel_create(
            layer, packed.ctypes.data, name, message, ctypes.sizeof(message)
        )
        if not self._pointer:
            raise NashcError(message.value.decode(), where="nashc.ops.native")
        self.op, self.in_channels, self.out_channels = op, int(layer.in_channels), m
        integer = op not in (Op.ADDER_F32, Op.MULTIPLY_F32)
        sums = np.int32 if integer else np.float32
        self.y_type = {Output.SUM: sums, Output.F32: np.float32, Output.S8: np.int8, Output.U8: np.uint8}[output]

    def __del__(self) -> None:
        if self._pointer:
            self._functions.nashc_kernel_destroy(self._pointer)
            self._pointer = None

    @property
    def instruction_set(self) -> str:
        name: bytes = self._functions.nashc_kernel_instruction_set(self._pointer)
        return name.decode()

    def output_shape(self, x_shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Shape of y for x [N, C, height, width]; NashcError where the window does not fit."""
        if len(x_shape) != 4 or x_shape[1] != self.in_channels or min(x_shape) < 1:
            raise NashcError(
                f"x has shape {list(x_shape)}", where="nashc.ops.native", hint=f"give [N, {self.in_channels}, H, W]"
            )
        height, width = ctypes.c_int64(), ctypes.c_int64()
        if self._functions.nashc_kernel_output_size(self._pointer, *x_shape[2:], height, width):
            raise NashcError(f"the window does not fit into x {list(x_shape)}", where="nashc.ops.native")
        return x_shape[0], self.out_channels, height.value, width.value

    def run(self, x: Array, *, x_zero_point: int = 0, threads: int = 1) -> Array:
        """y [N, M, height, width] of x [N, C, height, width] in X_TYPE[op]."""
        x = _dense(x, X_TYPE[self.op], "x", axes=4)
        y = np.empty(self.output_shape(x.shape), self.y_type)
        self.run_at(x.ctypes.data, x.shape, y.ctypes.data, x_zero_point=x_zero_point, threads=threads)
        return y

    def run_at(self, x: int, x_shape: Sequence[int], y: int, *, x_zero_point: int = 0, threads: int = 1) -> None:
        """The same on dense memory at the addresses x and y; the caller vouches for types and sizes."""
        batch, _, height, width = x_shape
        pool, parts = _pool(threads)
        if self._functions.nashc_kernel_run(self._pointer, x, batch, height, width, x_zero_point, y, pool, None, parts):
            raise NashcError(f"no memory for x of shape {list(x_shape)}", where="nashc.ops.native")


def adder_input_gradient(
    x: Array, weights: Array, dy: Array, window: Window, *, instruction_set: str | None = None, threads: int = 1
) -> Array:
    """dx = sum over m, taps of dy * HardTanh(w - x), float32 [N, C, H, W] (AdderNet, arXiv 1912.13200, eq. 6)."""
    x = _dense(x, np.float32, "x", axes=4)
    weights = _dense(weights, np.float32, "weights", axes=4)
    dy = _dense(dy, np.float32, "dy", axes=4)
    dx = np.empty_like(x)
    adder_input_gradient_at(
        x.ctypes.data,
        x.shape,
        weights,
        dy.ctypes.data,
        dx.ctypes.data,
        window,
        instruction_set=instruction_set,
        threads=threads,
    )
    return dx


def adder_input_gradient_at(
    x: int,
    x_shape: Sequence[int],
    weights: Array,
    dy: int,
    dx: int,
    window: Window,
    *,
    instruction_set: str | None = None,
    threads: int = 1,
) -> None:
    """The same on dense memory at the addresses x, dy and dx; the caller vouches for types and sizes."""
    layer = _layer(Op.ADDER_F32, Output.SUM, weights, window)
    name = None if instruction_set is None else instruction_set.encode()
    pool, parts = _pool(threads)
    batch, _, height, width = x_shape
    if _functions().nashc_adder_input_gradient(
        layer, x, weights.ctypes.data, dy, batch, height, width, dx, name, pool, None, parts
    ):
        raise NashcError(f"no gradient for x {list(x_shape)}, weights {list(weights.shape)}", where="nashc.ops.native")


def _dense(array: Array, dtype: Any, name: str, axes: int) -> Array:
    found = np.ascontiguousarray(array, dtype)
    if found.ndim != axes or 0 in found.shape:
        raise NashcError(f"{name} has shape {list(found.shape)}", where="nashc.ops.native", hint=f"give {axes} axes")
    return found
