"""Write MobileNetV1 or MobileNetV2 (224 x 224, width 1.0, 1000 classes) as ONNX, with random weights.

    python examples/mobilenet.py OUT.onnx [--version 1|2] [--seed 0]

The structures are the published ones: table 1 of MobileNets (arXiv 1704.04861) and table 2 of MobileNetV2
(arXiv 1801.04381). Every convolution has no bias and is followed by a BN node, which nashc folds as it imports; every
activation is ReLU6, as in the published code; the projections of MobileNetV2 are linear. The last depthwise layer of
MobileNetV1 has stride 1: its table says 2, but keeps the map at 7 x 7. All 3x3 windows are padded by 1 on each side.

| | MobileNetV1 | MobileNetV2 |
|---|---|---|
| published: MMAC an image, million parameters | 569, 4.2 | 300, 3.4 |
| here: MAC an image, classifier included | 568,740,352 | 300,774,272 |
| here: parameters that are trained (BN scale and bias included) | 4,231,976 | 3,504,872 |
| here: with the means and variances of the BNs | 4,253,864 | 3,538,984 |
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

RESOLUTION, CLASSES, STEM = 224, 1000, 32
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels and stride of each depthwise separable layer."""
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and stride of each stage; the stride is that of its first block."""
V2_HEAD = 1280
ZERO, SIX = "relu6.zero", "relu6.six"


@dataclass
class Writer:
    """An ONNX graph that grows node by node; every method returns the name of its output."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(
        self, name: str, x: str, channels: tuple[int, int], kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        """A convolution and its BN; channels are (in, out). A variance of 2 / fan-in keeps activations in range."""
        shape = (channels[1], channels[0] // group, kernel, kernel)
        w = self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        y = self.node(
            "Conv", name, [x, self.constant(f"{name}.weight", w)],
            kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4, group=group,
        )  # fmt: skip
        statistics = {
            "scale": self.rng.uniform(0.5, 1.5, channels[1]),
            "bias": self.rng.normal(0, 0.1, channels[1]),
            "mean": self.rng.normal(0, 0.1, channels[1]),
            "var": self.rng.uniform(0.5, 1.5, channels[1]),
        }
        names = [self.constant(f"{name}_bn.{part}", value) for part, value in statistics.items()]
        return self.node("BatchNormalization", f"{name}_bn", [y, *names])

    def conv_relu6(
        self, name: str, x: str, channels: tuple[int, int], kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        return self.node("Clip", f"{name}_relu6", [self.conv(name, x, channels, kernel, stride, group), ZERO, SIX])

    def depthwise(self, name: str, x: str, channels: int, stride: int) -> str:
        return self.conv_relu6(name, x, (channels, channels), kernel=3, stride=stride, group=channels)


def v1(w: Writer, y: str) -> tuple[str, int]:
    """The layers behind the stem: (the last feature map, its channels)."""
    channels = STEM
    for i, (wide, stride) in enumerate(V1):
        y = w.depthwise(f"layer{i}_depthwise", y, channels, stride)
        y = w.conv_relu6(f"layer{i}_pointwise", y, (channels, wide))
        channels = wide
    return y, channels


def v2(w: Writer, y: str) -> tuple[str, int]:
    """The inverted residuals and the head behind the stem: (the last feature map, its channels)."""
    channels = STEM
    for i, (expansion, narrow, repeats, first_stride) in enumerate(V2):
        for j in range(repeats):
            name, x, wide, stride = f"stage{i}_{j}", y, channels * expansion, first_stride if j == 0 else 1
            if expansion > 1:
                y = w.conv_relu6(f"{name}_expand", y, (channels, wide))
            y = w.depthwise(f"{name}_depthwise", y, wide, stride)
            y = w.conv(f"{name}_project", y, (wide, narrow))
            if stride == 1 and channels == narrow:
                y = w.node("Add", f"{name}_add", [y, x])
            channels = narrow
    return w.conv_relu6("head", y, (channels, V2_HEAD)), V2_HEAD


VERSIONS = {1: v1, 2: v2}


def mobilenet(version: int = 2, seed: int = 0) -> onnx.ModelProto:
    """The network as a checked model, input "x" [1, 3, 224, 224], output "logits" [1, 1000]; a key of VERSIONS."""
    w = Writer(np.random.default_rng(seed))
    w.constant(ZERO, np.array(0.0))
    w.constant(SIX, np.array(6.0))
    y = w.conv_relu6("stem", "x", (3, STEM), kernel=3, stride=2)
    y, channels = VERSIONS[version](w, y)
    y = w.node("Flatten", "flatten", [w.node("GlobalAveragePool", "pool", [y])])
    classifier = w.constant("classifier.weight", w.rng.normal(0, np.sqrt(1 / channels), (CLASSES, channels)))
    names = [classifier, w.constant("classifier.bias", np.zeros(CLASSES))]
    w.nodes.append(helper.make_node("Gemm", [y, *names], ["logits"], name="classifier", transB=1))
    graph = helper.make_graph(
        w.nodes,
        f"mobilenet_v{version}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, RESOLUTION, RESOLUTION])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        w.weights,
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="nashc")
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Write MobileNetV1 or V2 as ONNX, with random weights.")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument("--version", type=int, choices=VERSIONS, default=2, help="of MobileNet (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    args = parser.parse_args()
    model = mobilenet(args.version, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, args.out)
    print(f"wrote {args.out}: MobileNetV{args.version}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
