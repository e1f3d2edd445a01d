"""Random layers and one-node models for the tests of every registered operator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from nashc.ops import DOMAIN, OPERATORS, OPSET, ConvGeometry, Operator, conv_geometry, reference_ops
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One layer: inputs in the order of the schema (None where absent) and all attributes that the node carries."""

    operator: Operator
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any]
    geometry: ConvGeometry

    def __repr__(self) -> str:
        shapes = [None if a is None else f"{a.dtype}{list(a.shape)}" for a in self.inputs]
        return f"{self.operator.name}({shapes}, {self.attributes})"


@st.composite
def layers(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """x shape, w shape (without terms) and Conv attributes that fit together; defaults are sometimes left out."""
    rank = draw(st.integers(1, 2))
    group = draw(st.integers(1, 3))
    c, k = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, strides = draw(sizes), draw(sizes)
    dilations = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    auto_pad = draw(st.sampled_from(("NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")))
    pads = [0] * (2 * rank)
    if auto_pad == "NOTSET":
        pads = draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
    spans = [(f - 1) * d + 1 for f, d in zip(kernel, dilations, strict=True)]
    least = [1 if "SAME" in auto_pad else max(s - pads[i] - pads[rank + i], 1) for i, s in enumerate(spans)]
    spatial = [n + draw(st.integers(0, 4)) for n in least]
    attributes: dict[str, Any] = {"group": group, "strides": strides, "dilations": dilations, "kernel_shape": kernel}
    attributes |= {"pads": pads} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    defaults = {"group": 1, "strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank}
    kept = {n: v for n, v in attributes.items() if v != defaults.get(n) or draw(st.booleans())}
    if draw(st.booleans()):
        kept.pop("kernel_shape", None)
    return (draw(st.integers(1, 2)), group * c, *spatial), (group * k, c, *kernel), kept


@st.composite
def wide_layers(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Layers with many channels, pixels and taps: whole and partial vectors, blocks and lanes of the kernels."""
    group = draw(st.sampled_from((1, 1, 1, 2, 13)))
    c = draw(st.integers(1, 3) if group == 13 else st.integers(1, 70))
    k = draw(st.integers(1, 3) if group == 13 else st.integers(1, 30))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides = draw(st.tuples(*2 * [st.sampled_from((1, 1, 2, 3, 3, 5))])), draw(pair)
    dilations, pads = draw(st.sampled_from(((1, 1), (1, 1), (2, 1), (1, 3)))), draw(st.tuples(*4 * [st.integers(0, 3)]))
    least = [(f - 1) * d + 1 for f, d in zip(kernel, dilations, strict=True)]
    spatial = [least[0] + draw(st.integers(0, 12)), least[1] + draw(st.integers(0, 40))]
    attributes = {"group": group, "strides": strides, "dilations": dilations, "pads": pads}
    return (draw(st.sampled_from((1, 1, 2, 9))), group * c, *spatial), (group * k, c, *kernel), attributes


@st.composite
def cases(draw: st.DrawFn, name: str, shapes: st.SearchStrategy[Any] | None = None) -> Case:
    x_shape, w_shape, attributes = draw(layers() if shapes is None else shapes)
    geometry = conv_geometry(x_shape, w_shape, where="test", **attributes)
    operator = OPERATORS.get(name)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs, own = operator.sample(rng, geometry)
    return Case(operator, tuple(inputs), {**attributes, **own}, geometry)


def tensor_type(array: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def model_of(*layers_: Case, onnx_opset: int = 21, symbolic: bool = False) -> onnx.ModelProto:
    """Each case as an independent node with its own input x{i}, other inputs as initialisers, and output y{i}.

    symbolic: neither the batch nor the spatial size of the inputs is in the file.
    """
    nodes, inputs, outputs, constants = [], [], [], []
    for i, case in enumerate(layers_):
        names = [f"{formal.name.lower()}{i}" for formal in case.operator.schema.inputs]
        used = [n if a is not None else "" for n, a in zip(names, case.inputs, strict=True)]
        while not used[-1]:
            used.pop()
        x = case.inputs[0]
        assert x is not None
        shape: list[Any] = list(x.shape)
        if symbolic:
            shape = [f"n{i}", x.shape[1], *(f"s{i}_{axis}" for axis in range(x.ndim - 2))]
        inputs.append(helper.make_tensor_value_info(names[0], tensor_type(x), shape))
        kind = case.operator.schema.outputs[0].type_str
        element = TensorProto.INT32 if kind == "tensor(int32)" else TensorProto.FLOAT
        outputs.append(helper.make_tensor_value_info(f"y{i}", element, [f"y{i}_{axis}" for axis in range(x.ndim)]))
        pairs = zip(names[1:], case.inputs[1:], strict=True)
        constants += [numpy_helper.from_array(a, n) for n, a in pairs if a is not None]
        nodes.append(helper.make_node(case.operator.name, used, [f"y{i}"], domain=DOMAIN, **case.attributes))
    graph = helper.make_graph(nodes, "layers", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", onnx_opset), helper.make_opsetid(DOMAIN, OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def feeds(*layers_: Case) -> dict[str, Array]:
    return {f"x{i}": case.inputs[0] for i, case in enumerate(layers_) if case.inputs[0] is not None}


def stock(model: onnx.ModelProto, inputs: dict[str, Array], library: Path | None = None) -> list[Array]:
    """Outputs of the model in onnxruntime, all optimisations on: as it comes, or with our library registered."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if library is not None:
        options.register_custom_ops_library(str(library))
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def evaluate(model: onnx.ModelProto, inputs: dict[str, Array], kernels: bool = False) -> list[Array]:
    """Outputs of the model in onnx's own evaluator, with our NumPy references as kernels or through functions."""
    outputs = ReferenceEvaluator(model, new_ops=reference_ops() if kernels else None).run(None, inputs)
    assert isinstance(outputs, list)
    return outputs


def brute_force(case: Case) -> tuple[Array, Array]:
    """(output, sum of tap magnitudes) by plain loops over Python numbers, with padding rules written anew."""
    x, w = case.inputs[0], case.inputs[1]
    assert x is not None
    assert w is not None
    own = {**case.operator.own_defaults, **case.attributes}
    scalar = case.operator.scalar(case.inputs, own)
    if not case.operator.weight_lead:
        w = w[None]
    filters, kernel, spatial, rank = w.shape[1], w.shape[3:], x.shape[2:], x.ndim - 2
    strides, dilations = own.get("strides", [1] * rank), own.get("dilations", [1] * rank)
    begin, end = [0] * rank, [0] * rank
    if own.get("auto_pad", "NOTSET") == "NOTSET":
        pads = own.get("pads", [0] * 2 * rank)
        begin, end = pads[:rank], pads[rank:]
    spans = [(f - 1) * d + 1 for f, d in zip(kernel, dilations, strict=True)]
    for a in range(rank if "SAME" in own.get("auto_pad", "") else 0):
        wanted = (spatial[a] + strides[a] - 1) // strides[a]
        missing = max(0, (wanted - 1) * strides[a] + spans[a] - spatial[a])
        begin[a] = missing // 2 if own["auto_pad"] == "SAME_UPPER" else (missing + 1) // 2
        end[a] = missing - begin[a]
    output = [(n + b + e - s) // t + 1 for n, b, e, s, t in zip(spatial, begin, end, spans, strides, strict=True)]
    y = np.zeros((x.shape[0], filters, *output), dtype=object)
    magnitude = np.zeros(y.shape)
    per_group = filters // own.get("group", 1)
    for n, m, *at in itertools.product(*map(range, y.shape)):
        total, size = 0, 0.0
        for c, *tap in itertools.product(*map(range, w.shape[2:])):
            i = [o * s + f * d - b for o, s, f, d, b in zip(at, strides, tap, dilations, begin, strict=True)]
            inside = all(0 <= position < limit for position, limit in zip(i, spatial, strict=True))
            element = scalar.load(x[(n, m // per_group * w.shape[2] + c, *i)]) if inside else 0
            term = scalar.tap(element, tuple(w[t][(m, c, *tap)] for t in range(w.shape[0])))
            total, size = total + term, size + abs(term)
        y[(n, m, *at)] = scalar.finish(total, m)
        magnitude[(n, m, *at)] = abs(scalar.finish(size, m)) + abs(scalar.finish(0, m))
    return y, magnitude


def assert_same(case: Case, found: Array, expected: Array, magnitude: Array, run: str = "") -> None:
    """Integers bit for bit; floats within one float32 rounding per summed term and `tolerance` more.

    `magnitude` bounds every partial sum, so taps + tolerance roundings of half an ulp err by at most their product.
    """
    assert found.shape == expected.shape
    if case.operator.tolerance is None:
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected.astype(np.int64), run)
        return
    assert found.dtype == np.float32
    roundings = case.geometry.taps + case.operator.tolerance
    bound = roundings * np.finfo(np.float32).eps * magnitude + np.finfo(np.float32).tiny
    error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    assert (error <= bound).all(), f"{run}: error {error.max()} beyond {bound.flat[error.argmax()]}"
