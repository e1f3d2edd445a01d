"""Random damage to valid models and boards, from fixed seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from bad_files import BOARD, MNIST
from bad_models import net
from judge import Case
from nashc.ops import embed_functions, register_schemas
from onnx import AttributeProto, TensorProto, helper

OPS = (
    "Conv Gemm MatMul Loop If Scan LSTM Resize Concat Split Transpose Pad TopK ConvTranspose Reshape Slice Gather "
    "Einsum BatchNormalization MaxPool GlobalAveragePool QuantizeLinear DequantizeLinear Clip Cast Expand Where Shape "
    "ShiftConv"
).split()
VALUES = (-1, 0, 1, 7, 2**31, 2**62, -(2**63))
SIZES = (-1, 0, 1, 3, 7, 2**16, 2**23, 2**40, 2**62)
NAMES = ("", "x", "nowhere", "a\0b", "\x1b[2J", "[red]", "\u202e", "n" * 500, "../x", "<b>")
COMPILE_EVERY, BOARD_EVERY = 16, 12
"""Of so many mutations one is compiled, and one damages a board instead of a model."""


@cache
def originals() -> tuple[bytes, ...]:
    """Valid models, small, of every kind of layer."""
    register_schemas()
    four, codes = np.ones(4, np.float32), np.array([[[[[1]], [[-3]], [[0]], [[7]]]] * 4], np.int8)
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    two_axes = {"s": np.array([1, -1]), "w": (256, 10), "y": "float[1,10] y"}
    models = [
        net(
            "a = Conv<pads=[1,1,1,1]>(x, w) b = BatchNormalization(a, s, s, s, s) c = Relu(b) y = Add(c, x)",
            w=(4, 4, 3, 3),
            s=four,
        ),
        net(
            "a = Conv<group=4,pads=[1,1,1,1]>(x, w) b = Clip(a, l, h)"
            " c = GlobalAveragePool(b) d = Sigmoid(c) y = Mul(b, d)",
            w=(4, 1, 3, 3),
            l=np.array(0.0, np.float32),
            h=np.array(6.0, np.float32),
        ),
        embed_functions(
            net(
                "a = ai.nashc.ShiftConv(x, w, s) b = Relu(a)"
                " c = ai.nashc.AdderConv<group=2>(b, v) y = BatchNormalization(c, s, s, s, s)",
                w=codes,
                v=(4, 2, 1, 1),
                s=four,
            )
        ),
        net("a = Reshape(x, s) b = MatMul(a, w) y = Softmax(b)", **two_axes),
        net(
            "a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,3,1,2]>(a)"
            " c, d = Split<axis=1>(b, n) y = Concat<axis=1>(d, c)",
            n=np.array([2, 2]),
        ),
        net(
            "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) a = Conv(d, w) y = HardSwish(a)",
            s=scale,
            z=zero,
            w=(4, 4, 1, 1),
        ),
        net(
            "a = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x) b = ConvTranspose<strides=[2,2]>(a, w)"
            " p = Pad(b, n) y = Slice(p, f, t, i)",
            w=(4, 4, 2, 2),
            n=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            f=np.array([1, 1]),
            t=np.array([9, 9]),
            i=np.array([2, 3]),
        ),
        net("a = Relu(x) n = Shape(x) y = Reshape(a, n)"),
    ]
    return (MNIST.read_bytes(), *(m.SerializeToString() for m in models))


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(rng: random.Random, data: bytes) -> bytes:
    """Other bytes, in the whole file or in its last 2,000, where the graph is."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(max(0, len(data) - 2000) if rng.random() < 0.5 else 0, len(data))] = rng.randrange(256)
    return bytes(changed)


def move(rng: random.Random, data: bytes) -> bytes:
    """A stretch of the file is lost, twice there, or zero."""
    at = rng.randrange(len(data))
    end = at + rng.choice((1, 8, 200))
    return data[:at] + rng.choice((b"", data[at:end] * 2, bytes(len(data[at:end])))) + data[end:]


def rewire(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    names = [n for other in model.graph.node for n in (*other.input, *other.output)]
    side = node.input if node.input and rng.random() < 0.7 else node.output
    if side:
        side[rng.randrange(len(side))] = rng.choice((*names, *NAMES))


def operands(rng: random.Random, model: onnx.ModelProto) -> None:
    side = rng.choice(model.graph.node).input
    if side and rng.random() < 0.7:
        side.pop(rng.randrange(len(side)))
    else:
        side.append(rng.choice((*side, "", "x")))


def operator(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(OPS)
    node.domain = rng.choice((node.domain, "", "ai.nashc", "com.example", "no.such"))


def nodes(rng: random.Random, model: onnx.ModelProto) -> None:
    kept = list(model.graph.node)
    chosen = rng.randrange(len(kept))
    change = rng.choice(("lose", "repeat", "swap"))
    if change == "swap":
        rng.shuffle(kept)
    elif change == "lose":
        kept.pop(chosen)
    else:
        kept.append(kept[chosen])
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def attributes(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute] or list(model.graph.node))
    if not node.attribute or rng.random() < 0.2:
        name = rng.choice(("axis", "group", "pads", "strides", "perm", "auto_pad", "kernel_shape", "to"))
        node.attribute.append(helper.make_attribute(name, rng.choice((*VALUES, "x", [1, 2], 0.5))))
        return
    old = rng.choice(node.attribute)
    kind = rng.randrange(5)
    if kind == 0:
        node.attribute.remove(old)
    elif kind == 1 and old.ints:
        old.ints[rng.randrange(len(old.ints))] = rng.choice(VALUES)
    elif kind == 2:
        old.type = rng.choice((AttributeProto.INT, AttributeProto.INTS, AttributeProto.TENSOR, AttributeProto.GRAPH, 0))
    elif kind == 3:
        old.name = rng.choice(("axis", "group", "pads", *NAMES))
    else:
        value = rng.choice((*VALUES, [0], [2**40] * 4, "x", [1, 2], 0.5, float("nan"), [1.5]))
        old.CopyFrom(helper.make_attribute(old.name, value))


def sizes(rng: random.Random, model: onnx.ModelProto) -> None:
    kind = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type
    dims = kind.shape.dim
    if dims and rng.random() < 0.6:
        dims[rng.randrange(len(dims))].dim_value = rng.choice(SIZES)
    elif dims and rng.random() < 0.5:
        dims.pop()
    else:
        kind.elem_type = rng.choice((0, TensorProto.STRING, TensorProto.INT64, TensorProto.FLOAT16, 99))


def weights(rng: random.Random, model: onnx.ModelProto) -> None:
    stored = model.graph.initializer
    if not stored:
        return
    tensor = rng.choice(stored)
    kind = rng.randrange(6)
    if kind == 0:
        stored.remove(tensor)
    elif kind == 1:
        tensor.dims[:] = rng.sample([*tensor.dims, *rng.choices(SIZES, k=2)], len(tensor.dims))
    elif kind == 2:
        tensor.dims[:] = rng.choice(([], [*tensor.dims, 1], [1, *tensor.dims], list(reversed(tensor.dims))))
    elif kind == 3:
        tensor.data_type = rng.choice((0, 2, 3, 6, 7, 8, 9, 10, 11, 16, 22, 99))
    elif kind == 4:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    else:
        tensor.raw_data = rng.choice((b"\xff", b"\0", b"\x7f\x80")) * len(tensor.raw_data)


def text(rng: random.Random, model: onnx.ModelProto) -> None:
    chosen = rng.choice(
        (model.graph, rng.choice(model.graph.node), rng.choice([*model.graph.input, *model.graph.output]))
    )
    chosen.name = rng.choice(NAMES)


def versions(rng: random.Random, model: onnx.ModelProto) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        model.ir_version = rng.choice((0, 3, 4, 99, 2**62))
    elif kind == 1:
        model.opset_import[0].domain = rng.choice(("ai.nashc", "com.example", "[red]"))
    elif kind == 2 and model.functions:
        function = rng.choice(model.functions)
        function.ClearField(rng.choice(("node", "input", "output", "attribute", "opset_import")))
    else:
        model.opset_import[0].version = rng.choice((0, 1, 7, 9, 10, 11, 13, 21, 26, 99, 2**40))


BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {"cut": cut, "flipped bytes": flip, "moved bytes": move}
GRAPHS: dict[str, Callable[[random.Random, onnx.ModelProto], None]] = {
    "rewired": rewire,
    "operands": operands,
    "operator": operator,
    "nodes": nodes,
    "attributes": attributes,
    "sizes and types": sizes,
    "weights": weights,
    "names": text,
    "versions": versions,
}


def damaged_board(rng: random.Random) -> str:
    """A board with a line lost, repeated, cut, or with another word in it."""
    lines = BOARD.splitlines()
    at = rng.randrange(len(lines))
    words = lines[at].split(" ")
    words[rng.randrange(len(words))] = rng.choice(
        ("", "nan", "-1", "0", "1e400", '"x"', "{", "]", "true", "9" * 50, "\x1b")
    )
    lines[at : at + 1] = rng.choice(([], [lines[at]] * 2, [lines[at][: rng.randrange(40)]], [" ".join(words)]))
    return "\n".join(lines)


def mutation(seed: int) -> Case:
    """The mutation of that seed: the same in every run."""
    rng = random.Random(seed)
    if seed % BOARD_EVERY == BOARD_EVERY - 1:
        table = damaged_board(rng)
        return Case("mutated board", f"seed {seed}", lambda folder: on_board(folder, table))
    data = rng.choice(originals())
    kind = rng.choice((*BYTES, *GRAPHS, *GRAPHS))
    if kind in BYTES:
        data = BYTES[kind](rng, data)
    else:
        model = onnx.ModelProto.FromString(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            if model.graph.node:
                GRAPHS[kind](rng, model)
        data = model.SerializeToString()
    command = "compile" if seed % COMPILE_EVERY == 0 else "inspect"
    return Case(f"mutated: {kind}", f"seed {seed} ({command})", lambda folder: on_model(folder, data, command))


def on_model(folder: Path, data: bytes, command: str) -> Sequence[str]:
    path = folder / "x.onnx"
    path.write_bytes(data)
    search = ["--target", "fpga-zc706", "--budget", "1s", "--batch", "1", "-o", str(folder / "out")]
    return [command, str(path), *(search if command == "compile" else ["-v"])]


def on_board(folder: Path, table: str) -> Sequence[str]:
    path = folder / "mine.toml"
    path.write_bytes(table.encode())
    return ["inspect", str(MNIST), "--target", str(path)]


def valid(number: int) -> Case:
    """An original as it is: the command succeeds."""
    data = originals()[number]
    return Case("valid", f"original {number}", lambda folder: on_model(folder, data, "compile"), "", 0)
