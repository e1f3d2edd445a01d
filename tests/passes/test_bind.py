"""Input shapes: from the file, from --shape, or an error that says what to give."""

import pytest
from onnx_nets import net, save

from nashc.errors import NashcError
from nashc.passes import load, simplify
from nashc.passes.graph import static_shape


def bound(tmp_path, signature, shapes=None, body="y = Relu(x)"):
    model = simplify(load(save(net(signature, body), tmp_path)), shapes or {})
    return static_shape(model.graph.inputs[0]), static_shape(model.graph.outputs[0])


def test_open_batch_is_one(tmp_path):
    assert bound(tmp_path, "(float[N,3,8,8] x) => (float[N,3,8,8] y)") == ((1, 3, 8, 8), (1, 3, 8, 8))


def test_static_batch_becomes_one(tmp_path):
    assert bound(tmp_path, "(float[10,3,8,8] x) => (float[10,3,8,8] y)")[0] == (1, 3, 8, 8)


def test_shape_wins_over_the_file(tmp_path):
    found = bound(tmp_path, "(float[1,3,32,32] x) => (float[1,3,9,9] y)", {"x": (1, 3, 48, 64)})
    assert found == ((1, 3, 48, 64), (1, 3, 48, 64))


def test_missing_size_names_the_flag(tmp_path):
    with pytest.raises(NashcError, match=r"shape \[N, 3, height, \?\].*\[height\], \[\?\] is open.*--shape x=1,3,H,W"):
        bound(tmp_path, "(float[N,3,height,?] x) => (float[N,3,height,?] y)")


def test_unknown_input_name(tmp_path):
    with pytest.raises(NashcError, match="did you mean 'image'"):
        bound(tmp_path, "(float[1,4] image) => (float[1,4] y)", {"imag": (1, 4)}, "y = Relu(image)")


@pytest.mark.parametrize(
    ("shape", "what"), [((2, 4), "batch 2"), ((1, 0), "sizes go from 1"), ((1, 2**40), "sizes go")]
)
def test_bad_shapes(tmp_path, shape, what):
    with pytest.raises(NashcError, match=what):
        bound(tmp_path, "(float[1,4] x) => (float[1,4] y)", {"x": shape})


def test_shape_that_the_graph_refuses_names_the_node(tmp_path):
    body = "y = Conv<kernel_shape=[3,3]>(x, w)"
    model = net("(float[1,3,8,8] x) => (float[1,4,6,6] y)", body, w=(4, 3, 3, 3))
    with pytest.raises(NashcError, match=r"node 'Conv_0' \(Conv\)"):
        simplify(load(save(model, tmp_path)), {"x": (1, 3, 2, 2)})
