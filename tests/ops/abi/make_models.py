"""Writes small models of every operator of the native library, with inputs and the outputs of the NumPy reference.

usage: make_models.py FOLDER. The models use an ONNX opset and IR that the oldest supported onnxruntime knows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nashc.ops import DOMAIN, OPERATORS, OPSET, conv_geometry
from onnx import helper, numpy_helper, parser

from nashc.runtime import run_reference
from nashc.runtime.prepare import prepare

ONNX_OPSET, IR_VERSION = 17, 8
HEADER = f'<ir_version: {IR_VERSION}, opset_import: ["" : {ONNX_OPSET}, "{DOMAIN}" : {OPSET}]>\n'
ADDER = "y = ai.nashc.AdderConv <pads = [1, 1, 1, 1]> (x, wf)"
SHIFT = "y = ai.nashc.ShiftConv <pads = [1, 1, 1, 1]> (x, c, s)"
FUSED = {
    "FusedAdderConv": "x = Identity (f)\n y = ai.nashc.AdderConv (x, wx)\n z = Mul (y, s4)\n out = Relu (z)",
    "FusedShiftConv": "x = DequantizeLinear (s8, sx, s8_zero)\n z = Relu (x)\n"
    "y = ai.nashc.ShiftConv <group = 3> (z, d, s3)\n out = Relu (y)",
    **{
        f"{ending}{name}-{kind}{to}": f"x = DequantizeLinear ({kind}, sx, {kind}_zero)\n"
        f"wf = DequantizeLinear (w, sx, s8_zero)\n {body}\n z = Relu (y)\n {last}"
        for name, body in (("AdderConv", ADDER), ("ShiftConv", SHIFT))
        for kind in ("s8", "u8")
        for ending, to, last in (
            ("Quantized", "-s8", "out = QuantizeLinear (z, sy, s8_zero)"),
            ("Quantized", "-u8", "out = QuantizeLinear (z, sy, u8_zero)"),
            ("Dequantized", "", "out = Identity (z)"),
        )
    },
}


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    geometry = conv_geometry(
        (2, 4, 7, 6), (6, 2, 3, 3), where="make_models", group=2, strides=[2, 1], pads=[1, 0, 1, 2]
    )
    for operator in OPERATORS.values():
        for turn in range(4):  # both types of X, optional operands given and not
            inputs, own = operator.sample(rng, geometry)
            save(folder / f"{operator.name}-{turn}.onnx", *one_node(operator.name, list(inputs), own))
    weights = rng.integers(-50, 50, (4, 3, 3, 3)).astype(np.int8)
    stored: dict[str, Any] = {
        "sx": np.float32(0.1), "sy": np.float32(0.37), "s8_zero": np.int8(0), "u8_zero": np.uint8(0), "w": weights,
        "wx": weights.astype(np.float32) / 50, "c": rng.integers(-5, 6, (2, 4, 3, 3, 3)).astype(np.int8),
        "d": rng.integers(-5, 6, (2, 3, 1, 3, 3)).astype(np.int8), "s3": np.array([1, -0.5, 2], np.float32),
        "s": np.array([1, -0.5, 2, -1], np.float32), "s4": np.array([-1, -2, 1, -3], np.float32).reshape(1, 4, 1, 1),
    }  # fmt: skip
    given: dict[str, Any] = {
        "f": rng.standard_normal((2, 3, 6, 5)).astype(np.float32),
        "s8": rng.integers(-128, 128, (2, 3, 6, 5)).astype(np.int8),
        "u8": rng.integers(0, 256, (2, 3, 6, 5)).astype(np.uint8),
    }
    for name, body in FUSED.items():
        model = parsed(body, stored, given)
        native = prepare(model, native=True).model
        made = {node.op_type for node in native.graph.node if node.domain == f"{DOMAIN}.fused"}
        assert made == {name.partition("-")[0]}, (name, made)
        used = {value.name: given[value.name] for value in native.graph.input}
        save(folder / f"{name}.onnx", native, used, run_reference(model, used))


def one_node(
    name: str, inputs: list[Any], own: dict[str, Any]
) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, Any]]:
    conv = {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 2]}
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    node = helper.make_node(name, names, ["out"], name=name, domain=DOMAIN, **conv, **own)
    x = helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), inputs[0].shape)
    y = OPERATORS.get(name).reference(*inputs, **conv, **own)
    out = helper.make_tensor_value_info("out", helper.np_dtype_to_tensor_dtype(y.dtype), y.shape)
    stored = [numpy_helper.from_array(a, n) for a, n in zip(inputs, names, strict=True) if a is not None][1:]
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    graph = helper.make_graph([node], "layer", [x], [out], stored)
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), {"i0": inputs[0]}, {"out": y}


def parsed(body: str, stored: dict[str, Any], given: dict[str, Any]) -> onnx.ModelProto:
    """A model with the stored values and inputs that the body mentions."""
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    kinds = {"float32": "float", "int8": "int8", "uint8": "uint8"}
    inputs = ", ".join(f"{kinds[str(a.dtype)]}{list(a.shape)} {n}" for n, a in given.items() if n in words)
    kind = "float" if "QuantizeLinear (z" not in body else "uint8" if "u8_zero)" in body.splitlines()[-1] else "int8"
    model = parser.parse_model(f"{HEADER}g ({inputs}) => ({kind}[n, m, h, v] out) {{\n{body}\n}}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items() if n in words)
    return model


def save(path: Path, model: onnx.ModelProto, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    onnx.save(model, path)
    np.savez(path.with_suffix(".npz"), **{f"in_{n}": a for n, a in inputs.items()}, out=outputs["out"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
