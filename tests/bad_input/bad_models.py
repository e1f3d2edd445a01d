"""Named models that are wrong, or hostile and still right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from judge import Case
from onnx import TensorProto, helper, numpy_helper

X, Y = "float[1,4,8,8] x", "float[1,4,8,8] y"
HEADER = '<ir_version: 9, opset_import: ["" : 17, "ai.nashc" : 1, "com.example" : 1]>'
CONV = "y = Conv<pads=[1,1,1,1]>(x, w)"
Change = Callable[[onnx.ModelProto], object]


def net(body: str, x: str = X, y: str = Y, **weights: Any) -> onnx.ModelProto:
    """A model in ONNX text; weights are arrays, or shapes to fill with random numbers."""
    model = onnx.parser.parse_model(f"{HEADER} net ({x}) => ({y}) {{ {body} }}")
    rng = np.random.default_rng(len(body))
    for name, value in weights.items():
        data = rng.standard_normal(value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        model.graph.initializer.append(numpy_helper.from_array(data, name))
    return model


def conv() -> onnx.ModelProto:
    return net(CONV, w=(4, 4, 3, 3))


def case(
    kind: str, name: str, model: Callable[[], onnx.ModelProto], words: str = "", code: int = 2, *flags: str
) -> Case:
    def prepare(folder: Path) -> Sequence[str]:
        path = folder / "net.onnx"
        path.write_bytes(model().SerializeToString())
        return ["inspect", str(path), *flags]

    return Case(kind, name, prepare, words, code)


def changed(kind: str, name: str, change: Change, words: str = "", code: int = 2, *flags: str) -> Case:
    """The one-convolution model after a change in place."""

    def model() -> onnx.ModelProto:
        made = conv()
        change(made)
        return made

    return case(kind, name, model, words, code, *flags)


def graph_case(name: str, body: str, words: str = "", code: int = 2, *flags: str, **rest: Any) -> Case:
    return case("graph", name, lambda: net(body, **rest), words, code, *flags)


def compile_case(name: str, body: str, words: str, **rest: Any) -> Case:
    """A model that `inspect` may describe, but that no board runs."""

    def prepare(folder: Path) -> Sequence[str]:
        path, out = folder / "net.onnx", folder / "out"
        path.write_bytes(net(body, **rest).SerializeToString())
        return ["compile", str(path), "--target", "fpga-zc706", "--budget", "1s", "--batch", "1", "-o", str(out)]

    return Case("compile", name, prepare, words)


def shape_case(name: str, body: str, words: str = "", code: int = 2, *flags: str, **rest: Any) -> Case:
    return case("shapes", name, lambda: net(body, **rest), words, code, *flags)


def attribute(text: str, words: str = "", w: tuple[int, ...] = (4, 4, 3, 3), op: str = "Conv") -> Case:
    return case("attributes", f"{op} {text}", lambda: net(f"y = {op}<{text}>(x, w)", w=w, y="float[n,c,h,k] y"), words)


def without_last_weight(m: onnx.ModelProto) -> None:
    del m.graph.initializer[:]


def two_dims(m: onnx.ModelProto) -> None:
    del m.graph.input[0].type.tensor_type.shape.dim[2:]


def dim(value: int, axis: int = 2) -> Change:
    def change(m: onnx.ModelProto) -> None:
        m.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = value

    return change


def symbol(axis: int) -> Change:
    def change(m: onnx.ModelProto) -> None:
        m.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "size"

    return change


def weight(**fields: Any) -> Change:
    """The stored weight with other fields."""

    def change(m: onnx.ModelProto) -> None:
        tensor = m.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                tensor.dims[:] = value
            else:
                setattr(tensor, name, value)

    return change


def rename(name: str) -> Change:
    """Node, weight, input and graph with a hostile name."""

    def change(m: onnx.ModelProto) -> None:
        node = m.graph.node[0]
        node.name = m.graph.name = m.graph.initializer[0].name = node.input[1] = name
        m.graph.input[0].name = node.input[0] = f"{name}.in"

    return change


def calls_itself(m: onnx.ModelProto) -> None:
    node = helper.make_node("F", ["a"], ["b"], domain="com.example")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    m.functions.append(helper.make_function("com.example", "F", ["a"], ["b"], [node], opsets))
    m.graph.node[0].CopyFrom(helper.make_node("F", ["x"], ["y"], domain="com.example"))


def function_bomb(m: onnx.ModelProto) -> None:
    """40 functions that call the next one twice: 2^40 nodes when inlined."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    for i in range(40):
        op, domain = (f"F{i + 1}", "com.example") if i < 39 else ("Relu", "")
        nodes = [helper.make_node(op, ["a"], ["t"], domain=domain), helper.make_node(op, ["t"], ["b"], domain=domain)]
        m.functions.append(helper.make_function("com.example", f"F{i}", ["a"], ["b"], nodes, opsets))
    m.graph.node[0].CopyFrom(helper.make_node("F0", ["x"], ["y"], domain="com.example"))


def function(*nodes: onnx.NodeProto) -> Change:
    """The node becomes a call of a function (a) => (b) of these nodes."""

    def change(m: onnx.ModelProto) -> None:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
        m.functions.append(helper.make_function("com.example", "F", ["a"], ["b"], nodes, opsets))
        m.graph.node[0].CopyFrom(helper.make_node("F", ["x"], ["y"], domain="com.example"))

    return change


def two_functions_of_one_name(m: onnx.ModelProto) -> None:
    for op in ("Relu", "Abs"):
        function(helper.make_node(op, ["a"], ["b"]))(m)


def long_chain(nodes: int) -> onnx.ModelProto:
    body = " ".join(f"a{i + 1} = Relu(a{i})" for i in range(nodes))
    return net(f"a0 = Abs(x) {body} y = Abs(a{nodes})")


def one_number(value: float, kind: Any = np.int64) -> np.ndarray:
    return np.array([value], kind)


def if_node(m: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["nowhere"], ["r"])], "then", [], [helper.make_empty_tensor_value_info("r")]
    )
    m.graph.node[0].CopyFrom(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


GRAPHS = (
    changed(
        "graph",
        "cycle of two",
        lambda m: (
            m.graph.node.extend([helper.make_node("Relu", ["y"], ["z"])]) or m.graph.node[0].input.__setitem__(0, "z")
        ),
        "cycle",
    ),
    changed("graph", "node that reads itself", lambda m: m.graph.node[0].input.__setitem__(0, "y"), "cycle"),
    changed("graph", "missing initialiser", without_last_weight, "reads 'w', which nothing produces"),
    changed(
        "graph", "output that nothing makes", lambda m: setattr(m.graph.output[0], "name", "q"), "produced by nothing"
    ),
    changed(
        "graph",
        "node read twice from nowhere",
        lambda m: m.graph.node[0].input.__setitem__(0, "xx"),
        "did you mean 'x'",
    ),
    changed("graph", "value made twice", lambda m: m.graph.node.append(m.graph.node[0]), "'y' is defined twice"),
    changed(
        "graph",
        "node that makes the input",
        lambda m: m.graph.node[0].output.__setitem__(0, "x"),
        "'x' is defined twice",
    ),
    changed("graph", "weight stored twice", lambda m: m.graph.initializer.append(m.graph.initializer[0]), "w"),
    changed(
        "graph",
        "node that overwrites a weight",
        lambda m: m.graph.node.append(helper.make_node("Relu", ["x"], ["w"])),
        "w",
    ),
    changed("graph", "no nodes", lambda m: m.graph.ClearField("node"), "produced by nothing"),
    changed("graph", "nothing at all", lambda m: m.graph.Clear(), "net.onnx"),
    changed("graph", "no outputs", lambda m: m.graph.ClearField("output"), "output"),
    changed("graph", "no graph", lambda m: m.ClearField("graph"), "it has no graph"),
    changed("graph", "no opset_import", lambda m: m.ClearField("opset_import"), "no opset_import"),
    changed("graph", "opset 999", lambda m: setattr(m.opset_import[0], "version", 999), "opset 999"),
    changed("graph", "opset -1", lambda m: setattr(m.opset_import[0], "version", -1), "opset -1"),
    changed("graph", "node without operator", lambda m: setattr(m.graph.node[0], "op_type", ""), "no such operator"),
    changed("graph", "node without output", lambda m: m.graph.node[0].ClearField("output"), "produced by nothing"),
    changed("graph", "convolution without weights", lambda m: m.graph.node[0].input.pop(), "Conv"),
    changed("graph", "convolution without inputs", lambda m: m.graph.node[0].ClearField("input"), "Conv"),
    changed("graph", "seven inputs", lambda m: m.graph.node[0].input.extend("x" * 5), "Conv"),
    changed("graph", "function that calls itself", calls_itself, "net.onnx"),
    changed("graph", "functions of 2^40 nodes", function_bomb, "net.onnx"),
    changed(
        "graph", "function that reads nothing known", function(helper.make_node("Relu", ["q"], ["b"])), "reads 'q'"
    ),
    changed("graph", "function without result", function(helper.make_node("Relu", ["a"], ["q"])), "output 'b'"),
    changed("graph", "two functions of one name", two_functions_of_one_name, "'com.example.F' is defined twice"),
    changed("graph", "branch that reads nothing known", if_node, "reads 'nowhere'"),
    graph_case("unknown operator", "y = Convv(x)", "did you mean 'Conv'"),
    graph_case("unknown operator of ai.nashc", "y = ai.nashc.ShiftConvv(x)", "did you mean 'ShiftConv'"),
    graph_case("unknown domain goes to the host", "y = com.example.Secret(x)", "HOST", 0),
    graph_case("undeclared domain", "y = com.undeclared.Secret(x)", "com.undeclared", 0),
    case("graph", "chain of 2,000 nodes", lambda: long_chain(2000), "net", 0),
)

SHAPES = (
    changed("shapes", "image of two axes", two_dims, "net.onnx"),
    changed(
        "shapes", "image without shape", lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "--shape x="
    ),
    changed(
        "shapes",
        "image that is a sequence",
        lambda m: (
            m.graph.input[0].type.Clear() or m.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent()
        ),
        "x",
    ),
    changed("shapes", "image without type", lambda m: m.graph.input[0].ClearField("type"), "x"),
    changed(
        "shapes",
        "image of text",
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING),
        "net.onnx",
    ),
    changed(
        "shapes", "element type 99", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "net.onnx"
    ),
    changed("shapes", "symbolic size", symbol(2), "--shape x="),
    changed("shapes", "zero rows", dim(0), "net.onnx"),
    changed("shapes", "negative rows", dim(-5), "net.onnx"),
    changed("shapes", "2^40 rows", dim(2**40), "net.onnx"),
    changed("shapes", "2^62 rows", dim(2**62), "net.onnx"),
    changed("shapes", "batch of 2^31: --shape and batch 1 stand in", dim(2**31, 0), "net", 0),
    changed("shapes", "five channels for four", dim(5, 1), "net.onnx"),
    changed("shapes", "--shape of another rank", lambda m: None, "--shape", 2, "--shape", "x=1,4,8"),
    changed("shapes", "--shape of another channel count", lambda m: None, "net.onnx", 2, "--shape", "x=1,5,8,8"),
    changed("shapes", "--shape beyond reason", symbol(2), "net.onnx", 2, "--shape", "x=1,4,999999999,999999999"),
    changed("shapes", "weight of rank 1", weight(dims=[144]), "net.onnx"),
    changed("shapes", "weight of rank 0", weight(dims=[], raw_data=b"1234"), "net.onnx"),
    changed("shapes", "weight with a zero axis", weight(dims=[0, 4, 3, 3], raw_data=b""), "net.onnx"),
    changed("shapes", "weight with negative axes", weight(dims=[-4, -4, 3, 3]), "negative dimension"),
    changed("shapes", "weight of 2^80 elements", weight(dims=[2**40, 2**40, 1, 1]), "tensor 'w'"),
    changed("shapes", "weight with too few bytes", weight(raw_data=b"1234"), "tensor 'w'"),
    changed("shapes", "weight with too many bytes", weight(raw_data=bytes(4000)), "tensor 'w'"),
    changed("shapes", "weight without type", weight(data_type=0), "has no data type"),
    changed("shapes", "weight of type 99", weight(data_type=99), "99 is not a valid"),
    changed("shapes", "weight of text", weight(data_type=TensorProto.STRING), "tensor 'w'"),
    changed("shapes", "weight in two fields", lambda m: m.graph.initializer[0].float_data.extend([1.0]), "tensor 'w'"),
    shape_case("window larger than the image", "y = Conv(x, w)", "net.onnx", w=(4, 4, 9, 9)),
    shape_case("bias of other length", "y = Conv(x, w, b)", "net.onnx", w=(4, 4, 3, 3), b=(5,)),
    shape_case("transposed weights of other depth", "y = ConvTranspose(x, w)", "net.onnx", w=(5, 4, 3, 3)),
    shape_case("depth to space by 3", "y = DepthToSpace<blocksize=3>(x)", "net.onnx"),
    shape_case("matrices that do not fit", "y = MatMul(x, w)", "net.onnx", w=(9, 9)),
    shape_case("Gemm of four axes", "y = Gemm(x, w)", "net.onnx", w=(8, 8)),
    shape_case("reshape to another size", "y = Reshape(x, s)", "net.onnx", y="float[n] y", s=one_number(7)),
    shape_case("concatenation along axis 9", "y = Concat<axis=9>(x, x)", "net.onnx"),
    shape_case("transpose by [0, 0, 1, 2]", "y = Transpose<perm=[0,0,1,2]>(x)", "net.onnx"),
    shape_case("sum of shapes that differ", "y = Add(x, w)", "net.onnx", w=(3, 5)),
    shape_case("batch norm of other length", "y = BatchNormalization(x, s, s, s, s)", "net.onnx", s=(7,)),
    shape_case(
        "shift codes of 99",
        "y = ai.nashc.ShiftConv(x, w, s)",
        "net.onnx",
        w=np.full((1, 4, 4, 1, 1), 99, np.int8),
        s=(4,),
    ),
    shape_case(
        "shift codes of no term",
        "y = ai.nashc.ShiftConv(x, w, s)",
        "net.onnx",
        w=np.zeros((0, 4, 4, 1, 1), np.int8),
        s=(4,),
    ),
    shape_case("shift codes that are floats", "y = ai.nashc.ShiftConv(x, w, s)", "net.onnx", w=(1, 4, 4, 1, 1), s=(4,)),
    shape_case("adder weights of other depth", "y = ai.nashc.AdderConv(x, w)", "net.onnx", w=(4, 7, 1, 1)),
    shape_case("constant of 2^50 elements", "s = ConstantOfShape(n) y = Add(x, s)", "net.onnx", n=one_number(2**50)),
    shape_case(
        "range of 2^40 numbers",
        "r = Range(a, b, c) y = Add(x, r)",
        "net.onnx",
        a=np.array(0.0, np.float32),
        b=np.array(2.0**40, np.float32),
        c=np.array(1.0, np.float32),
    ),
    shape_case(
        "expand to 2^60 elements",
        "y = Expand(x, s)",
        "net.onnx",
        y="float[a,b,c,d] y",
        s=np.array([2**20, 4, 2**20, 2**20]),
    ),
    shape_case(
        "pad by 2^40", "y = Pad(x, p)", "net.onnx", y="float[a,b,c,d] y", p=np.array([0, 0, 2**40, 0, 0, 0, 2**40, 0])
    ),
    shape_case(
        "resize by 10^12",
        "y = Resize(x, , s)",
        "net.onnx",
        y="float[a,b,c,d] y",
        s=np.array([1, 1, 1e12, 1e12], np.float32),
    ),
)

ATTRIBUTES = (
    attribute("strides=[0,0]", "net.onnx"),
    attribute("strides=[-1,1]", "net.onnx"),
    attribute("strides=[1]", "net.onnx"),
    attribute("dilations=[0,1]", "net.onnx"),
    attribute("dilations=[1000000,1]", "net.onnx"),
    attribute("pads=[-9,0,0,0]", "net.onnx"),
    attribute("pads=[1,1,1]", "net.onnx"),
    attribute("pads=[1099511627776,0,1099511627776,0]", "net.onnx"),
    attribute("group=0", "net.onnx"),
    attribute("group=3", "net.onnx"),
    attribute("group=-1", "net.onnx"),
    attribute("kernel_shape=[5,5]", "net.onnx"),
    attribute('auto_pad="SIDEWAYS"', "net.onnx"),
    attribute("pads=1.5", "net.onnx"),
    attribute('group="four"', "net.onnx"),
    attribute("group=5", "net.onnx", op="ai.nashc.AdderConv"),
    attribute("strides=[0,0]", "net.onnx", op="ai.nashc.AdderConv"),
)

HOSTILE = {
    "quotes": "a'b\"c`d",
    "tags": "<script>alert(1)</script><b>",
    "bidirectional text": "abc\u202edcba\u2066x\u200f",
    "10,000 characters": "n" * 10_000,
    "newlines": "one\ntwo\r\nerror: three",
    "rich markup": "[bold red]x[/bold red][link=file:///etc]y[/]",
    "terminal escapes": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "NUL": "a\0b",
    "zero width": "a\u200bb\ufeff\u2028c",
    "format fields": "{0}{x!r}%s%(a)d$HOME",
    "paths": "../../etc/passwd",
    "emoji and combining marks": "e" + "\u0301" * 500 + "\U0001f469\u200d\U0001f4bb",
}


def on_host(m: onnx.ModelProto) -> None:
    m.graph.node[0].CopyFrom(helper.make_node("[red]Op\x1b", ["x"], ["y"], domain="com.example"))


def operator_named(name: str) -> Change:
    return lambda m: setattr(m.graph.node[0], "op_type", name)


def same_name(m: onnx.ModelProto) -> None:
    m.graph.node.append(helper.make_node("Relu", ["y"], ["z"], name=m.graph.node[0].name))


NAMES = (
    *(changed("names", label, rename(name), "", 0) for label, name in HOSTILE.items()),
    *(changed("names", f"{label}, -v", rename(name), "", 0, "-v") for label, name in HOSTILE.items()),
    changed("names", "weight without name", rename(""), "net.onnx"),
    changed("names", "markup in an operator of the host", on_host, "HOST", 0),
    changed("names", "markup in an unknown operator", operator_named("[red]\x1b[2J\u202e"), "no such operator"),
    changed("names", "10,000 characters that nothing makes", lambda m: m.graph.node[0].input.append("n" * 10_000), "n"),
    changed("names", "10,000 characters in an error", operator_named("o" * 10_000), "no such operator"),
    changed("names", "two nodes of one name", same_name, "", 0),
)

COMPILED = (
    compile_case(
        "pad by 2^40", "y = Pad(x, p)", "net.onnx", y="float[a,b,c,d] y", p=np.array([0, 0, 2**40, 0, 0, 0, 2**40, 0])
    ),
    compile_case(
        "convolution of 2^41 rows",
        f"y = Conv<pads=[{2**40},0,{2**40},0]>(x, w)",
        "net.onnx",
        y="float[a,b,c,d] y",
        w=(4, 4, 3, 3),
    ),
    compile_case(
        "dilation beyond the image",
        "y = Conv<dilations=[1000000,1]>(x, w)",
        "net.onnx",
        y="float[a,b,c,d] y",
        w=(4, 4, 3, 3),
    ),
    compile_case("size that is missing", "y = Relu(x)", "--shape x=", x="float[1,4,h,8] x"),
    compile_case("unknown operator", "y = Convv(x)", "did you mean 'Conv'"),
)

MODELS = (*GRAPHS, *COMPILED, *SHAPES, *ATTRIBUTES, *NAMES)
