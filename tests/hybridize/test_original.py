"""Models of older opsets are the same function at the opset of hybrids, or refused."""

import numpy as np
import onnx
import pytest
from onnx_nets import net, run

from nashc.errors import NashcError
from nashc.hybridize import original as module
from nashc.hybridize.original import OPSET, original


def resized(op, opset, scales, mode):
    body = f'h = Conv<pads=[1,1,1,1]>(x, w) u = {op}<mode="{mode}">(h, s) y = Conv(u, v)'
    weights = {"w": (6, 3, 3, 3), "v": (4, 6, 1, 1), "s": np.array([1, 1, *scales], np.float32)}
    made = net("(float[1,3,8,8] x) => (float[1,4,a,b] y)", body, opset, **weights)
    del made.opset_import[1:]
    return made


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("op", "opset", "scales"),
    [("Upsample", 9, (2, 2)), ("Upsample", 9, (1.5, 3)), ("Resize", 10, (2, 2)), ("Resize", 10, (1.5, 1.25)),
     ("Resize", 10, (0.5, 0.75)), ("Resize", 10, (1, 0.6))],
)  # fmt: skip
def test_maps_grow_and_shrink_as_they_did(op, opset, scales, mode):
    model = resized(op, opset, scales, mode)
    made = original(model, {}, "net", "net").proto
    assert made.opset_import[0].version == OPSET
    x = {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(run(made, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-4)


def test_a_map_that_grows_and_shrinks_is_refused():
    with pytest.raises(NashcError, match=r"Resize. cannot be brought to opset 21"):
        original(resized("Resize", 10, (0.5, 2), "nearest"), {}, "net", "net")


def test_a_conversion_that_gives_another_function_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_resize_as_before", lambda made, where: None)
    with pytest.raises(NashcError, match="brought to opset 21 it computes another 'y'"):
        original(resized("Upsample", 9, (2, 2), "linear"), {}, "net", "net")


def test_a_new_model_is_taken_as_it_is():
    model = net("(float[1,3,8,8] x) => (float[1,4,8,8] y)", "y = Conv(x, w)", OPSET, w=(4, 3, 1, 1))
    assert original(model, {}, "net", "net").proto is model
    assert onnx.checker.check_model(model) is None


def test_a_batch_that_the_file_fixes_is_compared_as_it_is():
    model = net("(float[4,3,8,8] x) => (float[4,4,8,8] y)", "y = Conv(x, w)", 13, w=(4, 3, 1, 1))
    del model.opset_import[1:]
    assert original(model, {}, "net", "net").proto.opset_import[0].version == OPSET


def test_sizes_of_minus_one_are_open():
    model = net("(float[N,3,8,8] x) => (float[N,4,8,8] y)", "y = Conv(x, w)", 13, w=(4, 3, 1, 1))
    del model.opset_import[1:]
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = -1
    assert original(model, {"x": (1, 3, 8, 8)}, "net", "net").proto.opset_import[0].version == OPSET


def test_a_linear_map_may_grow_and_shrink():
    model = resized("Resize", 10, (0.5, 2), "linear")
    made = original(model, {}, "net", "net").proto
    x = {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(run(made, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-4)
