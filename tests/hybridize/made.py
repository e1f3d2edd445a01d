"""Small float models with everything that stages are cut at, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import onnx
from onnx_nets import net

from nashc.core.network import Network
from nashc.hybridize.layer_types import TYPES, LayerType
from nashc.hybridize.original import Original, original
from nashc.hybridize.reconstruct import Rounded
from nashc.hybridize.steps import CALIBRATIONS
from nashc.hybridize.walk import ranges, steps, walk
from nashc.hybridize.write import integer_model
from nashc.importer import import_ir
from nashc.passes import checked, simplify
from nashc.runtime import Session
from nashc.runtime.chain import Step

Array = np.ndarray
IMAGE = "(float[N,3,8,8] x) => (float[N,{}] y)"


def _model(body: str, out: str, signature: str = IMAGE, **weights: Any) -> onnx.ModelProto:
    return net(signature.format(out), body, 21, **weights)


STEM = "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) "
STEM_WEIGHTS = {"w1": (8, 3, 3, 3), "b1": (8,)}
P = "<pads=[1,1,1,1]>"
MODELS: dict[str, onnx.ModelProto] = {
    "plain": _model(f"{STEM} y = Conv(r, w2, b2)", "6,8,8", **STEM_WEIGHTS, w2=(6, 8, 1, 1), b2=(6,)),
    "without bias": _model("a = Conv(x, w1) r = Relu(a) y = Conv(r, w2)", "6,4,4", w1=(8, 3, 3, 3), w2=(6, 8, 3, 3)),
    "depthwise": _model(
        f"{STEM} d = Conv<pads=[1,1,1,1],group=8>(r, w2, b2) e = Clip(d, lo, hi) y = Conv(e, w3)",
        "6,8,8", **STEM_WEIGHTS, w2=(8, 1, 3, 3), b2=(8,), w3=(6, 8, 1, 1), lo=0.0, hi=1.0,
    ),
    "grouped, dilated, strided": _model(
        f"{STEM} y = Conv<pads=[2,1,1,2],group=2,dilations=[2,2],strides=[2,1]>(r, w2, b2)",
        "6,4,7", **STEM_WEIGHTS, w2=(6, 4, 3, 3), b2=(6,),
    ),
    "same padding": _model(
        f'{STEM} s = Conv<auto_pad="SAME_UPPER",strides=[2,2]>(r, w2, b2) y = Conv<auto_pad="SAME_LOWER">(s, w3)',
        "6,4,4", **STEM_WEIGHTS, w2=(8, 8, 3, 3), b2=(8,), w3=(6, 8, 2, 2),
    ),
    "residual": _model(
        f"{STEM} b = Conv{P}(r, w2, b2) s = Add(b, r) t = Relu(s) c = Conv{P}(t, w3) u = Add(t, c) y = Conv(u, w4)",
        "6,8,8", **STEM_WEIGHTS, w2=(8, 8, 3, 3), b2=(8,), w3=(8, 8, 3, 3), w4=(6, 8, 1, 1),
    ),
    "concat": _model(
        f"{STEM} b = Conv(r, w2) c = Conv(r, w3) k = Concat<axis=1>(b, c, r) y = Conv(k, w4)",
        "6,8,8", **STEM_WEIGHTS, w2=(4, 8, 1, 1), w3=(8, 8, 1, 1), w4=(6, 20, 1, 1),
    ),
    "concat with a constant": _model(
        f"{STEM} b = Conv(r, w2) k = Concat<axis=1>(b, c) y = Conv(k, w4)",
        "6,8,8", signature="(float[1,3,8,8] x) => (float[1,{}] y)",
        **STEM_WEIGHTS, w2=(4, 8, 1, 1), w4=(6, 6, 1, 1), c=10 * np.ones((1, 2, 8, 8), np.float32),
    ),
    "pools": _model(
        f"{STEM} m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r) b = Conv{P}(m, w2)"
        " p = AveragePool<kernel_shape=[2,2]>(b) c = Conv(p, w3) g = GlobalAveragePool(c)"
        " f = Flatten(g) y = Gemm<transB=1>(f, w4, b4)",
        "5", **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(8, 8, 1, 1), w4=(5, 8), b4=(5,),
    ),
    "hard swish": _model(
        "a = Conv(x, w1, b1) h = HardSwish(a) b = Conv(h, w2, b2) s = Sigmoid(b) y = Mul(h, s)",
        "8,6,6", **STEM_WEIGHTS, w2=(8, 8, 1, 1), b2=(8,),
    ),
    "squeeze and excite": _model(
        f"{STEM} g = GlobalAveragePool(r) b = Conv(g, w2, b2) c = Relu(b) d = Conv(c, w3, b3) s = HardSigmoid(d)"
        " m = Mul(r, s) y = Conv(m, w4)",
        "6,8,8", **STEM_WEIGHTS, w2=(4, 8, 1, 1), b2=(4,), w3=(8, 4, 1, 1), b3=(8,), w4=(6, 8, 1, 1),
    ),
    "softmax": _model(
        f"{STEM} b = Conv{P}(r, w2) g = GlobalAveragePool(b) f = Reshape(g, shape) z = MatMul(f, w3) u = Add(z, b3)"
        " y = Softmax(u)",
        "5", **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(8, 5), b3=(5,), shape=np.array([-1, 8]),
    ),
    "gemm": _model(
        f"{STEM} b = Conv<strides=[2,2]>(r, w2) f = Flatten(b) z = Gemm(f, w3, b3) q = Relu(z)"
        " y = Gemm<transB=1>(q, w4)",
        "5", **STEM_WEIGHTS, w2=(4, 8, 3, 3), w3=(36, 7), b3=(7,), w4=(5, 7),
    ),
    "gemm biases": _model(
        f"{STEM} b = Conv<strides=[2,2]>(r, w2) f = Flatten(b) z = Gemm(f, w3, b3) y = Gemm(z, w4, b4)",
        "5", **STEM_WEIGHTS, w2=(4, 8, 3, 3), w3=(36, 7), b3=(1, 7), w4=(7, 5), b4=(1,),
    ),
    "gemm scaled": _model(
        f"{STEM} b = Conv<strides=[2,2]>(r, w2) f = Flatten(b) y = Gemm<alpha=0.5>(f, w3, b3)",
        "7", **STEM_WEIGHTS, w2=(4, 8, 3, 3), w3=(36, 7), b3=(7,),
    ),
    "grouped transposed convolution": _model(
        f"{STEM} t = ConvTranspose<strides=[2,2],group=4>(r, w3, b3) y = Conv(t, w4)",
        "6,16,16", **STEM_WEIGHTS, w3=(8, 3, 2, 2), b3=(12,), w4=(6, 12, 1, 1),
    ),
    "gemm with factors": _model(
        f"{STEM} g = GlobalAveragePool(r) f = Flatten(g) z = Gemm<alpha=2.0,beta=0.5>(f, w3, b3) q = Relu(z)"
        " y = Gemm<alpha=-0.5,transB=1>(q, w4)",
        "5", **STEM_WEIGHTS, w3=(8, 7), b3=(7,), w4=(5, 7),
    ),
    "matrix with more axes": _model(f"{STEM} z = MatMul(r, w2) y = Relu(z)", "8,8,5", **STEM_WEIGHTS, w2=(1, 1, 8, 5)),
    "transposed convolution": _model(
        f"{STEM} b = Conv{P}(r, w2) t = ConvTranspose<strides=[2,2]>(b, w3, b3) v = Relu(t) y = Conv(v, w4)",
        "6,16,16", **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(8, 5, 2, 2), b3=(5,), w4=(6, 5, 1, 1),
    ),
    "shared weights": _model(
        f"{STEM} b = Conv{P}(r, w2, b1) c = Relu(b) d = Conv{P}(c, w2, b1) e = Relu(d) g = GlobalAveragePool(e)"
        " f = Flatten(g) z = MatMul(f, w3) q = Relu(z) y = MatMul(q, w3)",
        "8", **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(8, 8),
    ),
    "one-dimensional": _model(
        "a = Conv<pads=[1,1]>(x, w1, b1) r = Relu(a) b = Conv<pads=[0,2],dilations=[2],strides=[2]>(r, w2) y = Relu(b)",
        "8,8", signature="(float[N,3,16] x) => (float[N,{}] y)", **{"w1": (8, 3, 3), "b1": (8,)}, w2=(8, 8, 2),
    ),
    "normalised": _model(
        "a = Conv(x, w1) n = BatchNormalization(a, g, b, m, v) r = Relu(n) c = Conv(r, w2)"
        " y = BatchNormalization(c, g, b, m, v)",
        "8,4,4", w1=(8, 3, 3, 3), w2=(8, 8, 3, 3), g=(8,), b=(8,), m=(8,), v=np.linspace(0.2, 2, 8),
    ),
    "views": _model(
        f"{STEM} t = Transpose<perm=[0,2,3,1]>(r) z = MatMul(t, w2) u = Transpose<perm=[0,3,1,2]>(z)"
        " b = Conv(u, w3) f = Reshape(b, shape) y = Identity(f)",
        "4,64", **STEM_WEIGHTS, w2=(8, 8), w3=(4, 8, 1, 1), shape=np.array([-1, 4, 64]),
    ),
    "split and slice": _model(
        f"{STEM} c, d = Split<axis=1,num_outputs=2>(r) b = Conv(c, w2) k = Add(b, d) s = Slice(k, one, four, one)"
        " y = Conv(s, w3)",
        "6,8,8", **STEM_WEIGHTS, w2=(4, 4, 1, 1), w3=(6, 3, 1, 1), one=np.array([1]), four=np.array([4]),
    ),
    "padded and resized": _model(
        f"{STEM} p = Pad(r, pads, minus) b = Conv(p, w2) z = Resize<mode=\"nearest\">(b, , scales) y = Conv(z, w3)",
        "6,16,16", **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(6, 8, 1, 1), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        minus=-2.0, scales=np.array([1, 1, 2, 2], np.float32),
    ),
    "two outputs": _model(
        f"{STEM} b = Conv{P}(r, w2) y = Relu(b) z = Conv(y, w3) s = Sigmoid(z)",
        "8,8,8", signature="(float[N,3,8,8] x) => (float[N,{}] y, float[N,2,8,8] s, float[N,2,8,8] z)",
        **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(2, 8, 1, 1),
    ),
    "classes of pixels": _model(
        f"{STEM} b = Conv{P}(r, w2) y = ArgMax<axis=1,keepdims=0>(b)",
        "8,8", signature="(float[N,3,8,8] x) => (int64[N,{}] y)", **STEM_WEIGHTS, w2=(4, 8, 3, 3),
    ),
    "same operands": _model(
        f"{STEM} s = Add(r, r) m = Mul(s, s) y = Conv(m, w2)", "6,8,8", **STEM_WEIGHTS, w2=(6, 8, 1, 1),
    ),
    "adder": _model(
        f"{STEM} b = ai.nashc.AdderConv{P}(r, w2) n = Mul(b, minus) y = Conv(n, w3)",
        "6,8,8", **STEM_WEIGHTS, w2=(8, 8, 3, 3), w3=(6, 8, 1, 1), minus=-0.1,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """A model with its layers as types in turn, as the walk has it and as it is written."""

    source: Original
    images: Array
    choice: dict[str, LayerType]
    step: dict[str, Step]
    rounded: dict[str, Rounded]
    walked: dict[str, Array]
    wanted: dict[str, Array]
    model: onnx.ModelProto

    def network(self) -> Network:
        return import_ir(simplify(checked(self.model), {}), self.source.network.name).network

    def run(self) -> dict[str, Array]:
        """Outputs [N, ...] in nashc.runtime, image by image."""
        session = Session(self.model, threads=1)
        found = [session.run({self.source.input: image}) for image in self.images]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}


def images(shape: tuple[int, ...], count: int = 6, seed: int = 0) -> Array:
    """Smooth random images [N, *shape]."""
    values = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    return (values + np.roll(values, 1, -1) + values.mean(-1, keepdims=True)).astype(np.float32)


def converted(proto: onnx.ModelProto, names: tuple[str, ...] = tuple(TYPES), rule: str = "mse") -> Converted:
    """Convolutions get the types `names` in turn, all other layers with weights conv8 and conv4."""
    source = original(proto, {}, "net", "net.onnx")
    staged = source.staged
    x = {source.input: images(source.shape)}
    found, wanted = ranges(staged, x, workers=1)
    step = steps(staged, found, CALIBRATIONS.get(rule))
    kinds, plain = cycle(names), cycle(("conv8", "conv4"))
    layers = [s.weighted for s in staged.stages if s.weighted is not None]
    choice = {layer.node: TYPES.get(next(kinds if layer.window is not None else plain)) for layer in layers}
    rounded, walked = walk(staged, step, x, choice, workers=1)
    model = integer_model(staged, step, rounded)
    return Converted(source, x[source.input], choice, step, rounded, walked, wanted, model)
