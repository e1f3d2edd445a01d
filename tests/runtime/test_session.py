"""Sessions, the comparison with the reference, and `nashc run`."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nashc.ops import embed_functions
from onnx import parser
from operator_cases import Array
from test_embed import HEADER, fill, hybrid

from nashc import ops
from nashc.cli import run as nashc
from nashc.errors import NashcError
from nashc.runtime import Session, compare, run_reference, session
from nashc.runtime.prepare import prepare

X = np.random.default_rng(1).standard_normal((1, 2, 6, 6)).astype(np.float32)


def test_a_hybrid_network_runs_alike_everywhere(tmp_path: Path) -> None:
    model = hybrid()
    path = tmp_path / "hybrid.onnx"
    onnx.save(embed_functions(model), path)
    expected = run_reference(model, {"x": X})["y"]
    for found in (Session(model), Session(path, threads=1), Session(str(path), native=False)):
        assert [(t.name, t.dtype, t.shape) for t in found.inputs] == [("x", "float32", (1, 2, 6, 6))]
        np.testing.assert_allclose(found.run({"x": X})["y"], expected, rtol=1e-5, atol=1e-4)
        assert found.skips == ()


QDQ = """<ir_version: 10, opset_import: ["": 21]> g (float[1,64,4,4] x) => (float[1,8,4,4] y)
<float s = {0.01}, uint8 zx = {0}, float sw = {0.01}, int8 zw = {0}, float so = {1.0}, uint8 zo = {0}> {
    q = QuantizeLinear(x, s, zx) d = DequantizeLinear(q, s, zx) v = DequantizeLinear(w, sw, zw) c = Conv(d, v)
    e = QuantizeLinear(c, so, zo) y = DequantizeLinear(e, so, zo)
}"""


@pytest.mark.parametrize("weight", [127, -127, 100])
@pytest.mark.parametrize("native", [True, False])
def test_sums_of_large_products_do_not_saturate(weight: int, native: bool) -> None:
    """255 x 127 twice is beyond 16 bits: processors without VNNI instructions have no exact step for it."""
    model = parser.parse_model(QDQ)
    w = np.full((8, 64, 1, 1), weight, np.int8)
    w[:, ::3] = -weight
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    x = np.full((1, 64, 4, 4), 2.55, np.float32)
    expected = np.clip(round(2.55 * 0.01 * int(w[0].astype(np.int64).sum())), 0, 255)
    found = Session(model, native=native).run({"x": x})["y"]
    np.testing.assert_array_equal(found, np.full((1, 8, 4, 4), expected))


def test_shift_layers_become_convolutions_once() -> None:
    prepared = prepare(embed_functions(hybrid()), native=True)
    kinds = [(node.domain, node.op_type) for node in prepared.model.graph.node]
    assert ("", "Conv") in kinds
    assert ("ai.nashc", "ShiftConv") not in kinds
    assert ("ai.nashc", "AdderConv") in kinds
    assert not prepared.model.functions


def test_without_kernels_one_notice_and_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "available", lambda: False)
    with pytest.warns(UserWarning, match="native kernels were not compiled") as caught:
        found = Session(hybrid())
    assert len(caught) == 1
    assert not found.native
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = Session(hybrid(), native=False)
    for one in (found, quiet):
        expected = run_reference(hybrid(), {"x": X})["y"]
        np.testing.assert_allclose(one.run({"x": X})["y"], expected, rtol=1e-5, atol=1e-4)


def test_one_session_serves_many_threads() -> None:
    shared = Session(hybrid(), threads=2)
    inputs = [X * scale for scale in (0.5, 1.0, 2.0, -1.0)]
    expected = [shared.run({"x": x})["y"] for x in inputs]
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(50):
                np.testing.assert_array_equal(shared.run({"x": inputs[i]})["y"], expected[i])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"input 'x' is missing; give float32\[1, 2, 6, 6\]"),
        ({"z": X}, "no input 'z'"),
        ({"x": X.astype(np.float64)}, r"input 'x' is float64\[1, 2, 6, 6\]; give float32"),
        ({"x": X[0]}, r"input 'x' is float32\[2, 6, 6\]; give float32\[1, 2, 6, 6\]"),
        ({"x": X[:, :1]}, r"float32\[1, 1, 6, 6\]"),
    ],
)
def test_inputs_that_do_not_fit(given: dict[str, Array], message: str) -> None:
    found = Session(hybrid())
    for run in (found.run, lambda inputs: run_reference(hybrid(), inputs), lambda inputs: compare(hybrid(), inputs)):
        with pytest.raises(NashcError, match=message):
            run(given)


def test_outputs_by_name() -> None:
    found = Session(hybrid())
    assert list(found.run({"x": X}, ["y"])) == ["y"]
    with pytest.raises(NashcError, match="no output 'why'; known: y"):
        found.run({"x": X}, ["why"])
    with pytest.raises(NashcError, match="threads=0; give 1 to 1024"):
        Session(hybrid(), threads=0)


SMALL = "g (float[1, 2, 4, 4] x) => (float[1, ?, ?, ?] y) <float[2, 2, 1, 1] w> {{ y = ai.nashc.{} (x, w) }}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.format("AdderConf"), "did you mean 'AdderConv'"),
        (SMALL.format("AdderConv <stride = [2, 2]>"), r"unknown attribute \['stride'\]"),
        (SMALL.format("AdderConv <group = 2.0>"), "attribute group has the wrong type; give INT"),
        (SMALL.format("AdderConv <group = 2>"), "X has 2 channels but W wants 2 x group 2 = 4"),
        (SMALL.format("AdderConv <pads = [1]>"), r"pads=\[1\]; give 4 integers"),
        (SMALL.format("AdderConv").replace("(x, w)", "(x)"), "input W is missing; it is not optional"),
        (SMALL.format("AdderConv").replace("(x, w)", "(x, w, w)"), "too many operands"),
    ],
)
def test_models_that_do_not_fit(text: str, message: str) -> None:
    model = fill(parser.parse_model(HEADER + text), w=np.zeros((2, 2, 1, 1), np.float32))
    for native in (True, False):
        with pytest.raises(NashcError, match=message) as caught:
            Session(model, native=native)
        assert "model" in caught.value.where


def test_shapes_that_contradict_each_other() -> None:
    model = fill(parser.parse_model(HEADER + SMALL.format("AdderConv")), w=np.zeros((2, 2, 1, 1), np.float32))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [2]))
    with pytest.raises(NashcError, match=r"model: .*shape"):
        Session(model)


def test_codes_out_of_range() -> None:
    model = hybrid()
    for tensor in model.graph.initializer:
        if tensor.name == "ws":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(tensor.dims), 16, np.int8), "ws"))
    with pytest.raises(NashcError, match=r"node 'ShiftConv_2' .*: W holds a code of magnitude 16"):
        Session(model)


def test_compare_names_the_first_node_where_two_runtimes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [d for d in compare(hybrid(), {"x": X}) if d.parts]

    def wrong() -> list[Any]:
        made = ops_of()
        shift = next(op for op in made if op.__name__ == "ShiftConv")
        right = shift._run
        shift._run = lambda self, *inputs, **attributes: (right(self, *inputs, **attributes)[0] + np.float32(1),)
        return made

    ops_of = ops.reference_ops
    monkeypatch.setattr(ops, "reference_ops", wrong)
    found = {d.node: d for d in compare(hybrid(), {"x": X})}
    assert [d.node for d in found.values() if d.parts] == ["ShiftConv_2"]  # and not the nodes that read its result
    assert found["ShiftConv_2"].error == pytest.approx(1, abs=1e-3)
    assert found["ShiftConv_2"].tensor == "c"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(hybrid(), tmp_path / "hybrid.onnx")
    np.save(tmp_path / "x.npy", X)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nashc_run(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = run_reference(hybrid(), {"x": X})["y"]
    for options in (
        ["--input", "x.npy"],
        ["--input", "x=x.npy", "--threads", "1"],
        ["--input", "x.npy", "--reference"],
    ):
        assert nashc(["run", "hybrid.onnx", *options, "--output", "y.npz"]) == 0
        with np.load("y.npz") as written:
            np.testing.assert_allclose(written["y"], expected, rtol=1e-5, atol=1e-4)
        out, err = capsys.readouterr()
        assert "1 x 6 x 3 x 1" in out
        assert "wrote y.npz" in out
        assert not err
    assert sorted(path.name for path in files.iterdir()) == ["hybrid.onnx", "x.npy", "y.npz"]


def test_nashc_run_compare(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nashc(["run", "hybrid.onnx", "--input", "x.npy", "--compare", "-v"]) == 0
    text = capsys.readouterr().out
    assert "7 results compared" in text
    assert "6 AdderConv_6 (AdderConv)" in text
    assert nashc(["run", "hybrid.onnx", "--input", "x.npy", "--compare", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["outputs"]["y"]["shape"] == [1, 6, 3, 1]
    assert [d["node"] for d in document["differences"]][-1] == "AdderConv_6"
    assert not any(d["parts"] for d in document["differences"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: run: input 'x' is missing; give float32[1, 2, 6, 6]"),
        (["--input", "none.npy"], "error: none.npy: no such file; give a .npy file"),
        (["--input", "z=x.npy"], "the model has no input 'z'; known: x"),
        (["--input", "x.npy", "--input", "x=x.npy"], "input 'x' is given twice"),
        (["--input", "hybrid.onnx"], "error: hybrid.onnx: not a whole .npy file"),
        (["--input", "cut.npy"], "error: cut.npy: not a whole .npy file"),
        (["--input", "pickle.npy"], "error: pickle.npy: not a whole .npy file"),
        (["--input", "open.npy"], "error: open.npy: not a whole .npy file"),
        (["--input", "words.npy"], "error: words.npy: not a whole .npy file"),
        (["--input", "many.npz"], "holds several arrays"),
        (["--input", "x.npy", "--output", "none/y.npz"], "none: there is no such folder"),
        (["--input", "x.npy", "--threads", "0"], "0 is not in the range"),
    ],
)
def test_nashc_run_refuses(files: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "cut.npy").write_bytes((files / "x.npy").read_bytes()[:-8])
    header = (files / "x.npy").read_bytes()
    (files / "open.npy").write_bytes(header.replace(b"}", b"("))  # NumPy: tokenize.TokenError
    (files / "words.npy").write_bytes(header.replace(b"'descr'", b"de scr "))  # NumPy: SyntaxError within
    np.save(files / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.savez(files / "many.npz", x=X)
    assert nashc(["run", "hybrid.onnx", *options]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert not out
    assert err.count("\n") == 1


def shift_net(text: str, **values: Any) -> onnx.ModelProto:
    given = {"c": np.ones((1, 4, 3, 3, 3), np.int8), "s": np.ones(4, np.float32), **values}
    return fill(parser.parse_model(f"{HEADER} g {text}"), **given)


def test_names_that_a_lowered_layer_would_give_may_be_taken() -> None:
    model = shift_net("(float[1,3,8,8] x, float[4,3,3,3] conv_weights) => (float[1,4,6,6] y, float[4,3,3,3] z)"
                      "{ y = ai.nashc.ShiftConv(x, c, s) z = Neg(conv_weights) }")  # fmt: skip
    model.graph.node[0].name = "conv"
    made = Session(model, threads=1)
    assert [tensor.name for tensor in made.inputs] == ["x", "conv_weights"]
    x, given = np.ones((1, 3, 8, 8), np.float32), np.full((4, 3, 3, 3), 3, np.float32)
    assert (made.run({"x": x, "conv_weights": given})["z"] == -3).all()


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_with_dilation(auto_pad: str) -> None:
    text = (
        '(float[1,3,8,8] x) => (float[1,4,8,8] y) { y = ai.nashc.ShiftConv<auto_pad="%s", dilations=[2,2]>(x, c, s) }'
    )
    model, x = shift_net(text % auto_pad), np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        Session(model, threads=1).run({"x": x})["y"], run_reference(model, {"x": x})["y"], rtol=1e-4, atol=1e-5
    )


def test_a_layer_whose_reader_is_in_a_branch() -> None:
    value = onnx.helper.make_tensor_value_info
    branches = [
        onnx.helper.make_graph([onnx.helper.make_node(op, [x], [op])], op, [], [value(op, 1, None)])
        for op, x in (("Relu", "a"), ("Neg", "x"))
    ]
    nodes = [
        onnx.helper.make_node("AdderConv", ["x", "w"], ["a"], domain="ai.nashc"),
        onnx.helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    inputs = [value("x", 1, [1, 3, 8, 8]), value("c", 9, [])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value("y", 1, None)], [onnx.numpy_helper.from_array(w, "w")])
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("ai.nashc", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    x = -np.ones((1, 3, 8, 8), np.float32)
    assert (Session(model, threads=1).run({"x": x, "c": np.array(False)})["y"] == 1).all()
    assert Session(model, threads=1).run({"x": x, "c": np.array(True)})["y"].shape == (1, 4, 6, 6)


def test_the_reference_clips_what_is_beyond_int32() -> None:
    text = f"{HEADER} g (float[4] x) => (int8[4] y) {{ y = QuantizeLinear(x, s, z) }}"
    x = np.array([3e7, 1e30, -1e30, 0.5], np.float32)
    for opset, kind in ((21, np.int8), (13, np.int8)):
        model = fill(parser.parse_model(text.replace("21", str(opset))), s=np.float32(0.01), z=kind(3))
        np.testing.assert_array_equal(run_reference(model, {"x": x})["y"], [127, 127, -128, 53])


def test_the_reference_runs_models_of_opsets_that_quantise_nothing() -> None:
    model = parser.parse_model('<ir_version: 3, opset_import: ["": 8]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    np.testing.assert_array_equal(run_reference(model, {"x": np.array([-1, 2], np.float32)})["y"], [0, 2])


def test_arguments_at_their_limits() -> None:
    model = shift_net("(float[1,3,8,8] x) => (float[1,4,6,6] y) { y = ai.nashc.ShiftConv(x, c, s) }")
    assert Session(model, threads=1).run({"x": np.ones((1, 3, 8, 8), np.float32)}, []) == {}
    with pytest.raises(NashcError, match="threads=99999999999; give 1 to 1024"):
        Session(model, threads=99999999999)


def test_an_input_whose_axes_are_not_known_takes_any() -> None:
    model = parser.parse_model(f"{HEADER} g (float[1] x) => (float[a,b,c,d] y) {{ y = Conv(x, w) }}")
    model = fill(model, w=np.ones((4, 3, 3, 3), np.float32))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    x = np.ones((2, 3, 7, 7), np.float32)
    made = Session(model, threads=1)
    assert made.inputs[0].shape is None
    np.testing.assert_allclose(made.run({"x": x})["y"], run_reference(model, {"x": x})["y"])
    with pytest.raises(NashcError, match="give float32 of any shape"):
        made.run({"x": x.astype(np.float64)})


@pytest.mark.parametrize("operator", ["AdderConv", "AdderConvInteger"])
def test_planes_beyond_all_memory_are_refused(operator: str) -> None:
    """Their size wraps to 0 in 64 bits."""
    channels, kind, name = (2**16, np.float32, "float") if operator == "AdderConv" else (2**18, np.int8, "int8")
    d = 2**23 - 1
    result = "float" if operator == "AdderConv" else "int32"
    model = fill(parser.parse_model(
        f"{HEADER} g ({name}[1,{channels},1,1] x) => ({result}[1,1,1,1] y) {{"
        f" y = ai.nashc.{operator}<dilations=[{d},{d}], pads=[0,0,{d},{d}]>(x, w) }}"
    ), w=np.zeros((1, channels, 2, 2), kind))  # fmt: skip
    with pytest.raises(NashcError, match="no memory"):
        Session(model, threads=1).run({"x": np.zeros((1, channels, 1, 1), kind)})
