"""Each pass: what it removes, what it leaves alone, and that the function stays the same."""

import numpy as np
import pytest
from nashc.ops import embed_functions
from onnx import helper
from onnx_nets import assert_same_function, net, save

from nashc.errors import NashcError
from nashc.passes import load, removed, simplify, sources

BN = "b = BatchNormalization<epsilon=0.01>(a, g, t, m, v)"
X8 = "(float[1,3,8,8] x) => (float[1,?,?,?] y)"


def simplified(tmp_path, model):
    """The simplified model, after comparing it with the original and checking that no node is lost."""
    after = simplify(load(save(model, tmp_path)), {})
    assert_same_function(model, after)
    names = [node.name or f"{node.op_type}_{i}" for i, node in enumerate(model.graph.node)]
    found = [n for node in after.graph for n in sources(node)] + [skip.node for skip in removed(after)]
    assert set(found) == set(names)
    return after


def ops(model):
    return [node.op_type for node in model.graph]


def norm(channels):
    spread = np.random.default_rng(0).uniform(0.5, 2, channels).astype(np.float32)
    return {"g": (channels,), "t": (channels,), "m": (channels,), "v": spread}


@pytest.mark.parametrize(
    ("before", "weights"),
    [
        ("a = Conv(x, w)", {"w": (6, 3, 3, 3)}),
        ("a = Conv<group=3>(x, w, c)", {"w": (6, 1, 3, 3), "c": (6,)}),
        ("a = ConvTranspose<strides=[2,2]>(x, w)", {"w": (3, 6, 3, 3)}),
        ("a = ConvTranspose<group=3>(x, w, c)", {"w": (3, 2, 3, 3), "c": (6,)}),
    ],
)
def test_batchnorm_folds(tmp_path, before, weights):
    assert len(ops(simplified(tmp_path, net(X8, f"{before} {BN} y = Relu(b)", **weights, **norm(6))))) == 2


@pytest.mark.parametrize("attributes", ["transB=1", "transB=0,alpha=0.5,beta=2.0"])
def test_batchnorm_folds_into_gemm(tmp_path, attributes):
    shape = (6, 8) if "transB=1" in attributes else (8, 6)
    body = f"a = Gemm<{attributes}>(x, w, c) {BN} y = Relu(b)"
    model = net("(float[1,8] x) => (float[1,6] y)", body, w=shape, c=(6,), **norm(6))
    assert ops(simplified(tmp_path, model)) == ["Gemm", "Relu"]


@pytest.mark.parametrize("shape", [(1, 6), (1,), (1, 1)])
def test_gemm_bias_of_another_shape(tmp_path, shape):
    model = net("(float[1,8] x) => (float[1,6] y)", f"a = Gemm(x, w, c) {BN} y = Relu(b)", w=(8, 6), c=shape, **norm(6))
    assert ops(simplified(tmp_path, model)) == ["Gemm", "Relu"]


def test_two_batchnorms_fold(tmp_path):
    body = f"a = Conv(x, w) {BN} y = BatchNormalization(b, g, t, m, v)"
    assert ops(simplified(tmp_path, net(X8, body, w=(6, 3, 1, 1), **norm(6)))) == ["Conv"]


def test_shared_weights_are_not_scaled_twice(tmp_path):
    body = f"a = Conv(x, w) {BN} c = Conv(x, w) y = Add(b, c)"
    assert ops(simplified(tmp_path, net(X8, body, w=(6, 3, 1, 1), **norm(6)))) == ["Conv", "Conv", "Add"]


def test_batchnorm_stays_where_another_node_reads_the_convolution(tmp_path):
    body = f"a = Conv(x, w) {BN} y = Add(a, b)"
    assert "BatchNormalization" in ops(simplified(tmp_path, net(X8, body, w=(6, 3, 1, 1), **norm(6))))


@pytest.mark.parametrize(
    "body",
    [
        "a = Identity(x) y = Relu(a)",
        "a = Dropout(x) y = Relu(a)",
        "a = Cast<to=1>(x) y = Relu(a)",
        "p = Constant<value_ints=[0,0,0,0,0,0,0,0]>() a = Pad(x, p) y = Relu(a)",
        "s = Shape(x) a = Reshape(x, s) y = Relu(a)",
        "a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,3,1,2]>(a) y = Relu(b)",
        "a = Relu(x) dead = Exp(x) deader = Log(dead) y = Identity(a)",
    ],
)
def test_nothing_is_removed(tmp_path, body):
    assert ops(simplified(tmp_path, net(X8, body))) == ["Relu"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("g = GlobalAveragePool(x) s = Shape(x) e = Expand(g, s) y = Mul(x, e)", ["GlobalAveragePool", "Mul"]),
        ("g = GlobalMaxPool(x) s = Shape(x) e = Expand(g, s) y = Add(e, e)", ["GlobalMaxPool", "Expand", "Add"]),
        ("g = GlobalAveragePool(x) s = Shape(x) y = Expand(g, s)", ["GlobalAveragePool", "Expand"]),
        (
            "g = GlobalAveragePool(x) s = Shape(x) e = Expand(g, s) a = Mul(x, e) b = Relu(e) y = Add(a, b)",
            ["GlobalAveragePool", "Expand", "Mul", "Relu", "Add"],
        ),
    ],
)
def test_an_expand_goes_where_all_its_readers_broadcast(tmp_path, body, left):
    assert ops(simplified(tmp_path, net(X8, body))) == left


def test_identity_between_input_and_output_stays(tmp_path):
    assert ops(simplified(tmp_path, net(X8, "y = Identity(x)"))) == ["Identity"]


def test_pad_folds_into_convolution_and_average_pool(tmp_path):
    pads = np.array([0, 0, 1, 2, 0, 0, 3, 0], np.int64)
    model = net(X8, "a = Pad(x, p) y = Conv<pads=[1,0,0,1]>(a, w)", w=(6, 3, 3, 3), p=pads)
    after = simplified(tmp_path, model)
    assert ops(after) == ["Conv"]
    assert after.graph[0].attributes.get_ints("pads") == (2, 2, 3, 1)
    model = net(X8, "a = Pad(x, p) y = AveragePool<kernel_shape=[4,4]>(a)", p=pads)
    assert ops(simplified(tmp_path, model)) == ["AveragePool"]


@pytest.mark.parametrize(
    "body",
    [
        'a = Pad<mode="reflect">(x, p) y = Conv(a, w)',
        "a = Pad(x, p, one) y = Conv(a, w)",
        "a = Pad(x, p) y = MaxPool<kernel_shape=[2,2]>(a)",
        'a = Pad(x, p) y = Conv<auto_pad="SAME_UPPER">(a, w)',
        "a = Pad(x, p) y = AveragePool<kernel_shape=[4,4],pads=[1,1,1,1]>(a)",
        "a = Pad(x, p) y = AveragePool<kernel_shape=[2,2]>(a)",
    ],
)
def test_pad_that_is_no_zero_border_stays(tmp_path, body):
    pads = np.array([0, 0, 1, 2, 0, 0, 3, 0], np.int64)
    weights = {"w": (6, 3, 3, 3)} if "Conv" in body else {}
    one = {"one": np.float32(1)} if "one" in body else {}
    assert ops(simplified(tmp_path, net(X8, body, p=pads, **weights, **one)))[0] == "Pad"


def test_transposes_merge(tmp_path):
    body = "a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,2,1,3]>(a) y = Relu(b)"
    after = simplified(tmp_path, net(X8, body))
    assert ops(after) == ["Transpose", "Relu"]
    assert after.graph[0].attributes.get_ints("perm") == (0, 3, 2, 1)


def test_shape_arithmetic_becomes_a_constant(tmp_path):
    body = """s = Shape(x) zero = Constant<value_ints=[0]>() n = Gather(s, zero) rest = Constant<value_ints=[-1]>()
              t = Concat<axis=0>(n, rest) y = Reshape(x, t)"""
    assert ops(simplified(tmp_path, net("(float[1,3,8,8] x) => (float[1,192] y)", body))) == ["Reshape"]


def test_weights_in_constant_nodes_and_behind_a_transpose(tmp_path):
    body = "w = Transpose<perm=[3,2,0,1]>(hwio) y = Conv(x, w)"
    assert ops(simplified(tmp_path, net(X8, body, hwio=(3, 3, 3, 6)))) == ["Conv"]


def test_huge_constant_is_not_made(tmp_path):
    body = (
        """s = Constant<value_ints=[1,3,100000,100000]>() big = ConstantOfShape(s) m = ReduceMax(big) y = Add(x, m)"""
    )
    after = simplify(load(save(net(X8, body), tmp_path)), {})
    assert "ConstantOfShape" in ops(after)


def test_functions_are_inlined_but_not_ours(tmp_path):
    model = net(
        "(float[1,3,8,8] x) => (float[1,4,6,6] y)",
        "y = ai.nashc.ShiftConv(x, w, s)",
        w=np.ones((1, 4, 3, 3, 3), np.int8), s=np.ones(1, np.float32),
    )  # fmt: skip
    after = simplify(load(save(embed_functions(model), tmp_path)), {})
    assert ops(after) == ["ShiftConv"]


@pytest.mark.parametrize("size", [4, 8])
def test_if_of_known_condition_becomes_its_branch(tmp_path, size):
    """As exporters write a squeeze of a dim that may be 1."""
    body = """s = Shape(x) two = Constant<value_ints=[2]>() d = Gather(s, two) eight = Constant<value_ints=[8]>()
              c = Equal(d, eight)
              a = If(c) <then_branch = t () => (float[?,?,?,?] p) {
                           k = Constant<value_float=2.0>() q = Mul(x, k) p = Relu(q)
                         },
                        else_branch = e () => (float[?,?,?,?] r) { r = Neg(x) }>
              y = Abs(a)"""
    model = net(f"(float[1,3,{size},8] x) => (float[1,3,{size},8] y)", body)
    assert ops(simplified(tmp_path, model)) == (["Mul", "Relu", "Abs"] if size == 8 else ["Neg", "Abs"])


@pytest.mark.parametrize(
    ("body", "weights", "why"),
    [
        ("y = Conv<kernel_shape=[5,5]>(x, w)", {"w": (4, 3, 3, 3)}, r"kernel_shape=\[5, 5\] but the weights are"),
        ('y = Conv<auto_pad="SAME_UPER">(x, w)', {"w": (4, 3, 3, 3)}, "'SAME_UPER'; did you mean 'SAME_UPPER'"),
        ('y = MaxPool<auto_pad="SIDEWAYS",kernel_shape=[2,2]>(x)', {}, "unknown auto_pad 'SIDEWAYS'"),
        ("y = Conv(x, w)", {"w": (4, 2, 3, 3)}, "3 input channels do not fit 1 groups of 2"),
        ("y = ConvTranspose(x, w)", {"w": (5, 4, 3, 3)}, "3 input channels do not fit 1 groups of 5"),
        ("y = Conv(x, w, b)", {"w": (4, 3, 3, 3), "b": (5,)}, r"a bias of shape \[5\] for 4 output channels"),
        ("f = Flatten(x) y = Gemm(f, w, b)", {"w": (192, 6), "b": (5,)}, r"a bias of shape \[5\]"),
        ("y = Reshape(x, s)", {"s": np.array([7])}, r"\[1, 3, 8, 8\] cannot become \[7\]"),
        ("y = DepthToSpace<blocksize=2>(x)", {}, "another number of elements"),
        ("y = ai.nashc.ShiftConv(x, w, s)", {"w": np.full((1, 4, 3, 1, 1), -16, np.int8), "s": (4,)}, "magnitude 16"),
        ("y = ai.nashc.ShiftConvInteger<pmax=2>(q, w)", {"w": np.full((1, 4, 3, 1, 1), 4, np.int8)}, r"in -3\.\.3"),
        ("y = ai.nashc.ShiftConvInteger<pmax=15>(q, w)", {"w": np.zeros((1, 4, 3, 1, 1), np.int8)}, "pmax=15"),
    ],
)
def test_nodes_that_no_runtime_would_run(tmp_path, body, weights, why):
    """onnx's own checker and shape inference accept every one of them."""
    quantised = "q = Cast<to=3>(x) " if "(q" in body else ""
    model = net("(float[1,3,8,8] x) => (float y)", quantised + body, **weights)
    with pytest.raises(NashcError, match=why) as caught:
        simplify(load(save(model, tmp_path)), {})
    assert "node '" in caught.value.where
    assert caught.value.hint


def calls(functions, uses):
    """A model of so many uses of the first function; function i calls the next one twice."""
    chain = " ".join(f"a{i + 1} = com.example.F0(a{i})" for i in range(uses))
    model = net("(float[1,3,8,8] x) => (float[1,3,8,8] y)", f"a0 = Abs(x) {chain} y = Abs(a{uses})")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    for i in range(functions):
        op, domain = (f"F{i + 1}", "com.example") if i < functions - 1 else ("Relu", "")
        nodes = [helper.make_node(op, [a], [b], domain=domain) for a, b in ("ab", "bc")]
        model.functions.append(helper.make_function("com.example", f"F{i}", ["a"], ["c"], nodes, opsets))
    return model


def test_inlining_has_a_limit(tmp_path):
    assert len(simplify(load(save(calls(3, 5), tmp_path)), {}).graph) == 5 * 2**3 + 2
    with pytest.raises(NashcError, match=rf"make {2**40:,} nodes, more than 10,000; inline them with onnx.inliner"):
        simplify(load(save(calls(40, 1), tmp_path)), {})
    with pytest.raises(NashcError, match="make 16,384 nodes"):
        simplify(load(save(calls(1, 8192), tmp_path)), {})


def test_function_that_calls_itself(tmp_path):
    model = calls(2, 1)
    model.functions[1].node[0].CopyFrom(helper.make_node("F0", ["a"], ["b"], domain="com.example"))
    with pytest.raises(NashcError, match=r"a function calls itself: 'F0' calls 'F1' calls 'F0'|'F1' calls 'F0'"):
        simplify(load(save(model, tmp_path)), {})
