"""The operators inside onnxruntime, with the native library registered: results, threads, and what it refuses."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import OPERATORS, conv_geometry, embed_functions, library
from nashc.ops.native import available
from onnx import helper, numpy_helper
from operator_cases import Array, Case, assert_same, brute_force, cases, feeds, model_of, stock

pytestmark = pytest.mark.skipif(not available(), reason="the native kernels are not compiled here")


def start(model: onnx.ModelProto, threads: int = 1, optimised: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.optimized_model_filepath = optimised
    options.add_session_config_entry("nashc.threads", str(threads))
    options.register_custom_ops_library(str(library()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(case: Case, threads: int = 1, **options: Any) -> Array:
    return np.asarray(start(model_of(case, **options), threads).run(None, feeds(case))[0])


@pytest.mark.parametrize("name", list(OPERATORS))
@settings(deadline=None, max_examples=60)
@given(data=st.data(), symbolic=st.booleans(), threads=st.integers(1, 3))
def test_every_operator_is_its_definition(name: str, data: st.DataObject, symbolic: bool, threads: int) -> None:
    case = data.draw(cases(name))
    assert_same(case, run(case, threads, symbolic=symbolic), *brute_force(case))


@pytest.mark.parametrize("name", list(OPERATORS))
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_weights_that_are_inputs(name: str, data: st.DataObject) -> None:
    """Nothing but X is known before the run, not even the size of the filter."""
    case = data.draw(cases(name))
    model = model_of(case, symbolic=True)
    values = feeds(case)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        values[tensor.name] = array
        shape = [f"{tensor.name}{axis}" for axis in range(array.ndim)]
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    del model.graph.initializer[:]
    session = start(model)
    for _ in range(2):
        assert_same(case, np.asarray(session.run(None, values)[0]), *brute_force(case))


@pytest.mark.parametrize("name", list(OPERATORS))
def test_the_library_wins_over_the_functions_in_the_file(name: str, tmp_path: Any) -> None:
    """One file: stock onnxruntime runs the function, with the library the operator stays one node."""
    geometry = conv_geometry((2, 4, 9, 9), (6, 4, 3, 3), where="test", pads=[1, 1, 1, 1])
    operator = OPERATORS.get(name)
    inputs, own = operator.sample(np.random.default_rng(7), geometry)
    case = Case(operator, tuple(inputs), {"pads": [1, 1, 1, 1], **own}, geometry)
    portable = embed_functions(model_of(case))
    file = str(tmp_path / "optimised.onnx")
    native = start(portable, optimised=file).run(None, feeds(case))[0]
    assert [(n.domain, n.op_type) for n in onnx.load(file).graph.node] == [("ai.nashc", name)]
    expected, magnitude = brute_force(case)
    assert_same(case, np.asarray(native), expected, magnitude)
    assert_same(case, stock(portable, feeds(case))[0], expected, magnitude)


def test_same_padding_follows_the_input_of_each_run() -> None:
    """With stride 2 the padding of an even and of an odd size differ: one session, sizes in turn, several threads."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    inputs = [rng.standard_normal((1, 2, h, v)).astype(np.float32) for h in (7, 8) for v in (9, 10)]
    operator = OPERATORS.get("AdderConv")
    attributes = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    geometry = operator.geometry([inputs[0].shape, w.shape], attributes)
    session = start(model_of(Case(operator, (inputs[0], w), attributes, geometry), symbolic=True))
    expected = [operator.reference(x, w, **attributes) for x in inputs]
    failures: list[BaseException] = []

    def work(turn: int) -> None:
        try:
            for i in range(20):
                k = (i + turn) % len(inputs)
                np.testing.assert_allclose(session.run(None, {"x0": inputs[k]})[0], expected[k], rtol=1e-5)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def one_node(name: str, *inputs: Array | None, stored: bool = True, **attributes: Any) -> onnx.ModelProto:
    """A model that neither onnx nor nashc has checked; every input but X is stored, or given at run time."""
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in zip(names, inputs, strict=True) if a is not None}
    node = helper.make_node(name, names, ["y"], name="layer", domain="ai.nashc", **attributes)
    infos = {n: helper.make_tensor_value_info(n, kind, None) for n, kind in kinds.items()}
    given = [a for a in inputs if a is not None]
    constants = [numpy_helper.from_array(a, n) for a, n in zip(given, kinds, strict=True)][1:] if stored else []
    graph_inputs = [infos["i0"]] if stored else list(infos.values())
    out = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node], "g", graph_inputs, [out], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.nashc", 1)], ir_version=10
    )


X = np.zeros((1, 4, 5, 5), np.float32)
W = np.zeros((6, 4, 3, 3), np.float32)
Q = np.zeros((1, 4, 5, 5), np.int8)
CODES = np.ones((1, 6, 4, 3, 3), np.int8)
S = np.ones(6, np.float32)
REFUSED: dict[str, tuple[str, tuple[Array | None, ...], dict[str, Any], str]] = {
    "channels": ("AdderConv", (X[:, :3], W), {}, "X has 3 channels but W wants 4 x group 1 = 4"),
    "group": ("AdderConv", (X, W), {"group": 4}, "6 output channels do not divide into group=4"),
    "group zero": ("AdderConv", (X, W), {"group": 0}, "do not divide into group=0"),
    "grouped channels": ("AdderConv", (X, W), {"group": 2}, "X has 4 channels but W wants 4 x group 2 = 8"),
    "rank of X": ("AdderConv", (X[0], W), {}, r"X has shape \[4, 5, 5\]"),
    "rank of W": ("AdderConv", (X, W[0, 0]), {}, r"W has shape \[3, 3\]"),
    "3-D": ("AdderConv", (X[..., None], W[..., None]), {}, "W has convolution axes"),
    "no filters": ("AdderConv", (X, W[:0]), {}, "every size must be positive"),
    "no batch": ("AdderConv", (X[:0], W), {}, r"X has shape \[0, 4, 5, 5\], which holds nothing"),
    "no pixels": ("AdderConv", (X[:, :, :0], W), {"pads": [3, 3, 3, 3]}, "which holds nothing"),
    "too small": ("AdderConv", (X[:, :, :2], W), {}, "is smaller than the filter span"),
    "kernel_shape": ("AdderConv", (X, W), {"kernel_shape": [1, 1]}, r"kernel_shape=\[1, 1\] but W has"),
    "strides": ("AdderConv", (X, W), {"strides": [1, 0]}, r"strides=\[1, 0\]"),
    "one stride": ("AdderConv", (X, W), {"strides": [1]}, r"strides=\[1\]; give 2 integers"),
    "dilations": ("AdderConv", (X, W), {"dilations": [2**40, 1]}, "dilations="),
    "pads": ("AdderConv", (X, W), {"pads": [-1, 0, 0, 0]}, r"pads=\[-1, 0, 0, 0\]"),
    "auto_pad": ("AdderConv", (X, W), {"auto_pad": "SOME"}, "unknown auto_pad 'SOME'"),
    "both pads": ("AdderConv", (X, W), {"auto_pad": "SAME_UPPER", "pads": [1, 1, 1, 1]}, "give only one"),
    "type": ("AdderConv", (X, W), {"group": 1.0}, "attribute group has the wrong type"),
    "type of pads": ("AdderConv", (X, W), {"pads": "SAME"}, "attribute pads has the wrong type"),
    "codes": ("ShiftConv", (X, 16 * CODES, S), {}, "a code of magnitude 16"),
    "codes beyond pmax": ("ShiftConvInteger", (Q, 3 * CODES), {"pmax": 1}, "a code of magnitude 3.*-2..2"),
    "code -128": ("ShiftConv", (X, -128 * CODES, S), {}, "a code of magnitude 128"),
    "pmax": ("ShiftConvInteger", (Q, CODES), {"pmax": 15}, "pmax=15"),
    "no terms": ("ShiftConv", (X, CODES[:0], S), {}, "give at least one term"),
    "scale": ("ShiftConv", (X, CODES, S[:5]), {}, r"the scale has shape \[5\] but W has 6 output channels"),
    "bias": ("ShiftConv", (X, CODES, S, S[:1]), {}, r"the bias has shape \[1\]"),
    "zero point": ("ShiftConvInteger", (Q, CODES, np.zeros(2, np.int8)), {}, r"x_zero_point has shape \[2\]"),
    "accumulator": ("ShiftConvInteger", (Q, np.ones((300, 6, 4, 3, 3), np.int8)), {}, "32-bit accumulator"),
}


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "given"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_an_error_that_says_so(what: str, stored: bool) -> None:
    """Neither a crash nor a wrong result, whether the weights are known when the session starts or not."""
    name, inputs, attributes, message = REFUSED[what]
    model = one_node(name, *inputs, stored=stored, **attributes)
    given = {f"i{k}": a for k, a in enumerate(inputs) if a is not None and (k == 0 or not stored)}
    with pytest.raises(Exception, match=message) as caught:
        start(model).run(None, given)
    assert "node 'layer' (" in str(caught.value)
