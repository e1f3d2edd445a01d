"""Write a mid-size network of the NASA-F space for CIFAR-100 as ONNX, with random weights.

    python examples/nasa_f_network.py OUT.onnx [--mix conv|hybrid|shift|adder] [--seed 0]

The space (resolution 32, stem with stride 1, MBConv blocks, 100 classes) allows for each stage a range of widths,
depths, expansions and kernels; the operator type is chosen for each block. `STAGES` below is one choice inside it
with 21 blocks, made by enumerating the space for the published mid-size figures:

| | published | here |
|---|---|---|
| MMAC an image (depthwise, squeeze-excite and head included) | 32.8 | 32.62 |
| weights, million (without biases and batch norms) | 3.7 | 3.68 |
| feature maps of the convolutions in and out, MB at 8 bit | 1.17 | 1.155, with those of squeeze-excite 1.171 |

What the space leaves open: all kernels are 3x3; squeeze-excite has a quarter of the *block input's* channels, as in
EfficientNet (a quarter of the expanded ones would add 3 million weights); activations are ReLU; the head is a 1x1 layer
with 1,792 channels, global pooling and the classifier. A block adds its input where the shapes agree.

--mix conv: every block with multiplications. shift, adder: every block of that type. hybrid: a third of the blocks
each, in turn: block 0 conv, 1 shift, 2 adder, 3 conv, and so on. The type holds for the two pointwise layers and the
depthwise layer of a block. Stem, squeeze-excite, head and classifier are always convolutions.

Every layer but the classifier has a BN with the statistics of a few random images, so activations stay in range
through all blocks of every type. It is folded into conv and shift layers, as exporters do; behind an adder layer it
stays a node, because a scale does not move into |x - w|. Shift weights are one power of two in codes of 4 bits. The
functions of the `ai.nashc` operators travel with the file, so stock onnxruntime runs it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nashc.ops import DOMAIN, OPSET, embed_functions, encode_shift, reference_ops, register_schemas
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

MIXES = {"conv": ("conv",), "hybrid": ("conv", "shift", "adder"), "shift": ("shift",), "adder": ("adder",)}
"""Operator types of the blocks, repeated in turn."""
RESOLUTION, CLASSES, STEM, HEAD = 32, 100, 16, 1792
SHIFT_PMAX = 6
"""Exponents 0 to 6 and a sign: codes of 4 bits."""
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, OPSET)]
EPSILON, IMAGES = 1e-5, 8
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width; the first has the stride. `excite`: with squeeze-excite."""

    name: str
    channels: int
    depth: int
    expansion: int
    stride: int
    excite: bool


STAGES = (
    Stage("mb1", 16, 2, 1, 1, False),
    Stage("mb2", 24, 3, 4, 2, False),
    Stage("mb3", 40, 3, 4, 2, True),
    Stage("mb4", 64, 4, 6, 2, False),
    Stage("mb5", 112, 5, 6, 1, True),
    Stage("mb6", 192, 3, 6, 2, True),
    Stage("mb7", 224, 1, 6, 1, True),
)


@dataclass
class Writer:
    """An ONNX graph that grows node by node; every method returns the name of its output.

    `seen` holds what each node gives for a few random images, from which the batch norms take their statistics.
    """

    rng: np.random.Generator
    seen: dict[str, Array]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        self.seen[name] = value
        return name

    def node(self, op: str, name: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, domain=domain, **attributes))
        self.seen[f"{name}_out"] = evaluate(self.nodes[-1], [self.seen[i] for i in inputs])
        return f"{name}_out"

    def layer(
        self, kind: str, name: str, x: str, channels: tuple[int, int], kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        """A layer of one type with its BN, folded where it folds; channels are (in, out)."""
        shape = (channels[1], channels[0] // group, kernel, kernel)
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
        w = self.rng.standard_normal(shape, np.float32)
        if kind == "adder":
            y = self.node("AdderConv", name, [x, self.constant(f"{name}.weight", w)], DOMAIN, **attributes)
            statistics = dict(zip(("scale", "bias", "mean", "var"), self.batch_norm(self.seen[y]), strict=True))
            names = [self.constant(f"{name}_bn.{part}", value) for part, value in statistics.items()]
            return self.node("BatchNormalization", f"{name}_bn", [y, *names], epsilon=EPSILON)
        operator, inputs = ("Conv", [w]) if kind == "conv" else ("ShiftConv", [*encode_shift(w, pmax=SHIFT_PMAX)])
        raw = helper.make_node(
            operator, ["x", *"ws"[: len(inputs)]], ["y"], domain=DOMAIN * (kind == "shift"), **attributes
        )
        scale, bias, mean, var = self.batch_norm(evaluate(raw, [self.seen[x], *inputs]))
        factor = scale / np.sqrt(var + EPSILON)
        if kind == "conv":
            names = [self.constant(f"{name}.weight", w * factor[:, None, None, None])]
        else:
            codes, shift_scale = inputs
            names = [self.constant(f"{name}.codes", codes), self.constant(f"{name}.scale", shift_scale * factor)]
        names.append(self.constant(f"{name}.bias", bias - mean * factor))
        return self.node(operator, name, [x, *names], raw.domain, **attributes)

    def batch_norm(self, y: Array) -> tuple[Array, Array, Array, Array]:
        """Random scale and bias, and the mean and variance of the channels of y, as a BN would hold them.

        Where a channel has one value an image, too few for a variance, that of all channels stands in.
        """
        scale, bias = self.rng.uniform(0.5, 1.5, y.shape[1]), self.rng.normal(0, 0.1, y.shape[1])
        mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3)) if y[:, 0].size > len(y) else np.full(y.shape[1], y.var())
        return (*(v.astype(np.float32) for v in (scale, bias, mean, var)),)

    def relu(self, x: str) -> str:
        return self.node("Relu", f"{x.removesuffix('_out')}_relu", [x])

    def excite(self, name: str, x: str, channels: int, squeezed: int) -> str:
        """Squeeze-excite: one gate for each channel."""
        y = self.node("GlobalAveragePool", f"{name}_pool", [x])
        y = self.relu(self.layer("conv", f"{name}_reduce", y, (channels, squeezed)))
        y = self.layer("conv", f"{name}_expand", y, (squeezed, channels))
        return self.node("Mul", f"{name}_scale", [x, self.node("Sigmoid", f"{name}_gate", [y])])

    def block(self, kind: str, name: str, x: str, channels: int, stage: Stage, stride: int) -> str:
        """MBConv: expand, depthwise, squeeze-excite, project, and the shortcut where shapes agree."""
        wide = channels * stage.expansion
        y = x
        if stage.expansion > 1:
            y = self.relu(self.layer(kind, f"{name}_expand", y, (channels, wide)))
        y = self.relu(self.layer(kind, f"{name}_depthwise", y, (wide, wide), kernel=3, stride=stride, group=wide))
        if stage.excite:
            y = self.excite(f"{name}_se", y, wide, _multiple_of_8(channels / 4))
        y = self.layer(kind, f"{name}_project", y, (wide, stage.channels))
        return self.node("Add", f"{name}_add", [y, x]) if stride == 1 and channels == stage.channels else y


def evaluate(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """What one node gives, by the references of onnx and nashc."""
    names = list(node.input)
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in zip(names, inputs, strict=True)
    ]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", values, [output])
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10)
    found = ReferenceEvaluator(model, new_ops=reference_ops()).run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(found[0])


def _multiple_of_8(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


def nasa_f_network(mix: str = "conv", seed: int = 0) -> onnx.ModelProto:
    """The network as a checked model, input "x" [1, 3, 32, 32], output "logits" [1, 100]; mix is a key of MIXES."""
    rng = np.random.default_rng(seed)
    w = Writer(rng, {"x": rng.standard_normal((IMAGES, 3, RESOLUTION, RESOLUTION), np.float32)})
    kinds = MIXES[mix]
    y, channels, index = w.relu(w.layer("conv", "stem", "x", (3, STEM), kernel=3)), STEM, 0
    for stage in STAGES:
        for depth in range(stage.depth):
            kind = kinds[index % len(kinds)]
            name = f"{stage.name}_{depth}_{kind}"
            y = w.block(kind, name, y, channels, stage, stage.stride if depth == 0 else 1)
            channels, index = stage.channels, index + 1
    y = w.relu(w.layer("conv", "head", y, (channels, HEAD)))
    y = w.node("Flatten", "flatten", [w.node("GlobalAveragePool", "pool", [y])])
    classifier = w.rng.normal(0, 0.01, (CLASSES, HEAD)).astype(np.float32)
    names = [w.constant("classifier.weight", classifier), w.constant("classifier.bias", np.zeros(CLASSES, np.float32))]
    w.nodes.append(helper.make_node("Gemm", [y, *names], ["logits"], name="classifier", transB=1))
    graph = helper.make_graph(
        w.nodes,
        f"nasa_f_{mix}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, RESOLUTION, RESOLUTION])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        w.weights,
    )
    opsets = OPSETS[:1] if mix == "conv" else OPSETS
    model = embed_functions(helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="nashc"))
    register_schemas()
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a mid-size NASA-F network as ONNX, with random weights.")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument("--mix", choices=MIXES, default="conv", help="operator types of the blocks (default: conv)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    args = parser.parse_args()
    model = nasa_f_network(args.mix, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, args.out)
    print(f"wrote {args.out}: 21 blocks ({args.mix}), {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
