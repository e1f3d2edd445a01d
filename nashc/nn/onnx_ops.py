"""ONNX operators as functions of torch tensors: positional arguments are the node's inputs, keywords its attributes.

So a node binds like a Python call, and an attribute that a function does not name is refused. Two keywords are no
attributes: `opset`, that of the model, and `batched`, whether the first input depends on the inputs of the model. Their
axis 0 is the batch: a file that fixes it to 1 still runs on many images. Windows and norms are in onnx_layers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import Any

import torch
from onnx.helper import tensor_dtype_to_np_dtype
from torch import Tensor
from torch.nn import functional

from nashc.errors import NashcError
from nashc.registry import Registry

Function = Callable[..., Any]
OPS: Registry[Function] = Registry("operator")
"""By the name of the operator; those of ai.nashc as "ai.nashc.NAME"."""


def op(name: str) -> Callable[[Function], Function]:
    """Register a function as the operator `name`."""
    return lambda function: OPS.add(name, function)


# ------------------------------------------------------------------ element by element


def _plain(function: Function) -> Function:
    """An operator without attributes, whatever torch's function takes."""

    def apply(*xs: Tensor) -> Any:
        return function(*xs)

    return apply


_PLAIN: dict[str, Function] = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil, "Cos": torch.cos,
    "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "HardSwish": functional.hardswish, "Identity": lambda x: x, "Less": torch.lt,
    "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Max": lambda *xs: reduce(torch.maximum, xs),
    "Mean": lambda *xs: reduce(torch.add, xs) / len(xs), "Min": lambda *xs: reduce(torch.minimum, xs),
    "Mish": functional.mish, "Mul": torch.mul, "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or,
    "Pow": lambda x, y: torch.pow(x, y).to(x.dtype), "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Reciprocal": torch.reciprocal, "Relu": functional.relu, "Round": torch.round, "Sigmoid": torch.sigmoid,
    "Sign": torch.sign, "Sin": torch.sin, "Softplus": functional.softplus, "Softsign": functional.softsign,
    "Sqrt": torch.sqrt, "Sub": torch.sub, "Sum": lambda *xs: reduce(torch.add, xs), "Tanh": torch.tanh,
    "Where": torch.where,
}  # fmt: skip
for _name, _function in _PLAIN.items():
    OPS.add(_name, _plain(_function))


@op("Div")
def div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


@op("Clip")
def clip(
    x: Tensor,
    lowest: Tensor | None = None,
    highest: Tensor | None = None,
    *,
    min: float | None = None,
    max: float | None = None,
) -> Tensor:
    low, high = lowest if min is None else x.new_tensor(min), highest if max is None else x.new_tensor(max)
    return x if low is None and high is None else torch.clamp(x, low, high)


@op("Dropout")
def dropout(x: Tensor, rate: Tensor | None = None, training: Tensor | None = None, **_: Any) -> Tensor:
    """As in inference."""
    if training is not None and bool(training):
        raise NashcError("training_mode=True is not known here")
    return x


@op("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


@op("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


@op("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.celu(x, alpha)


@op("Selu")
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * functional.elu(x, alpha)


@op("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, 0.0)


@op("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


@op("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


@op("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * torch.sigmoid(alpha * x)


@op("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    return x.to(torch_type(to))


def torch_type(kind: int) -> torch.dtype:
    """The type of an ONNX TensorProto.DataType."""
    name = str(tensor_dtype_to_np_dtype(kind))
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise NashcError(f"tensors of {name} are not known here")
    return found


# ------------------------------------------------------------------ along axes


def _softmax(function: Function) -> Function:
    def apply(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
        """Before opset 13 over all axes from `axis` on."""
        if opset >= 13:
            return function(x, -1 if axis is None else axis)  # type: ignore[no-any-return]
        return function(x.flatten(1 if axis is None else axis % x.dim()), -1).view(x.shape)  # type: ignore[no-any-return]

    return apply


OPS.add("Softmax", _softmax(torch.softmax))
OPS.add("LogSoftmax", _softmax(torch.log_softmax))


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Function:
    def apply(
        x: Tensor, axes: Tensor | Sequence[int] | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        chosen = () if axes is None else _ints(axes)
        if not chosen and noop_with_empty_axes:
            return x
        return function(x, chosen or tuple(range(x.dim())), bool(keepdims))

    return apply


for _name, _reduce in {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}.items():
    OPS.add(_name, _reduction(_reduce))


@op("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        raise NashcError("select_last_index=1 is not known here")
    return x.argmax(axis, bool(keepdims))


@op("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Tensor:
    a, b = a.t() if transA else a, b if transB else b.t()
    if alpha == 1.0 and (c is None or (beta == 1.0 and c.shape == b.shape[:1])):
        return functional.linear(a, b, c)
    y = alpha * functional.linear(a, b)
    return y if c is None else y + beta * c


# ------------------------------------------------------------------ the same data in another shape


def _ints(values: Tensor | Sequence[int] | int) -> tuple[int, ...]:
    found = values.tolist() if isinstance(values, Tensor) else values
    return (found,) if isinstance(found, int) else tuple(int(v) for v in found)


@op("Reshape")
def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0, batched: bool) -> Tensor:
    sizes = list(_ints(shape))
    if not allowzero:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    if batched and sizes and sizes[0] == 1 and x.dim() and (-1 in sizes or prod(sizes) != x.numel()):
        sizes[0] = x.shape[0]  # a shape for one image
    return x.reshape(sizes)


@op("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis % x.dim() if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@op("Squeeze")
def squeeze(x: Tensor, axes: Tensor | Sequence[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(_ints(axes))


@op("Unsqueeze")
def unsqueeze(x: Tensor, axes: Tensor | Sequence[int]) -> Tensor:
    rank = x.dim() + len(_ints(axes))
    for axis in sorted(axis % rank for axis in _ints(axes)):
        x = x.unsqueeze(axis)
    return x


@op("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    return x.permute(tuple(reversed(range(x.dim()))) if perm is None else tuple(perm))


@op("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    s = blocksize
    if mode == "CRD":
        return functional.pixel_shuffle(x, s)
    split = x.reshape(n, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return split.reshape(n, c // s**2, h * s, w * s)


@op("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    s = blocksize
    return x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).reshape(n, c * s**2, h // s, w // s)


@op("Concat")
def concat(*xs: Tensor, axis: int) -> Tensor:
    return torch.cat(xs, axis)


@op("Split")
def split(
    x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, split: Sequence[int] | None = None,
    num_outputs: int | None = None, outputs: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`outputs`: how many the node has."""
    wanted = sizes if split is None else split
    if wanted is not None:
        return torch.split(x, list(_ints(wanted)), axis)
    return torch.split(x, -(-x.shape[axis] // (num_outputs or outputs)), axis)


@op("Slice")
def slice_(
    x: Tensor,
    starts: Tensor | Sequence[int],
    ends: Tensor | Sequence[int],
    axes: Tensor | Sequence[int] | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begins, limits = _ints(starts), _ints(ends)
    chosen = range(len(begins)) if axes is None else _ints(axes)
    strides = [1] * len(begins) if steps is None else _ints(steps)
    for axis, begin, end, step in zip(chosen, begins, limits, strides, strict=True):
        places = range(*slice(begin, max(end, -x.shape[axis] - 1), step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, places.start if places else 0, len(places))
        else:
            x = x.index_select(axis, torch.tensor(places, device=x.device, dtype=torch.int64))
    return x


@op("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    index: list[Any] = [slice(None)] * (axis % x.dim())
    return x[(*index, indices.long())]


@op("Shape")
def shape_(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


@op("ConstantOfShape")
def constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    filler = torch.zeros(1) if value is None else value
    return filler.expand(_ints(shape)).clone() if shape.numel() else filler.reshape(())


@op("Expand")
def expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, _ints(shape)))  # type: ignore[no-untyped-call]


@op("Tile")
def tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(_ints(repeats))
