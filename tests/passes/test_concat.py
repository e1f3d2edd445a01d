"""Concats that copy what another one has copied: fewer of them, the same function, every source node accounted for."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_nets import assert_same_function, net

from nashc.importer import import_ir
from nashc.passes import checked, removed, simplify, sources

X = "(float[1,4,6,6] x) => (float[1,?,?,?] y)"


def simplified(body, signature=X, **weights):
    model = net(signature, body, **weights)
    after = simplify(checked(model), {})
    assert_same_function(model, after)
    names = [f"{node.op_type}_{i}" for i, node in enumerate(model.graph.node)]
    assert sorted([n for node in after.graph for n in sources(node)] + [s.node for s in removed(after)]) == sorted(
        names
    )
    return after


def concats(model):
    return [[v.name for v in node.inputs] for node in model.graph if node.op_type == "Concat"]


def test_every_layer_of_a_dense_block_copies_its_own_map_only():
    """As torch exports DenseNet: layer i joins the maps of all layers before it."""
    lines, maps = [], ["x"]
    for i in range(6):
        lines.append(
            f"j{i} = Concat<axis=1>({','.join(maps)}) r{i} = Relu(j{i}) m{i} = Conv<pads=[1,1,1,1]>(r{i}, w{i})"
        )
        maps.append(f"m{i}")
    weights = {f"w{i}": (4, 4 * (i + 1), 3, 3) for i in range(6)}
    after = simplified(" ".join([*lines, f"y = Concat<axis=1>({','.join(maps)})"]), **weights)
    first, *others = concats(after)
    assert first == ["x", "m0"]
    assert [parts[1:] for parts in others] == [[f"m{i}"] for i in range(1, 6)]
    moves = [layer for layer in import_ir(after).network.layers if layer.op == "Concat"]
    assert len(moves) == 2 * 6


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Relu(x) b = Exp(x) c = Concat<axis=1>(a, b) y = Concat<axis=-3>(x, c, a)", [["x", "a", "b", "a"]]),
        ("c = Concat<axis=1>(x, x) d = Concat<axis=1>(c, x) y = Concat<axis=1>(d, x)", [["x", "x", "x", "x"]]),
        ("c = Concat<axis=2>(x, x) y = Concat<axis=1>(c, c)", [["x", "x"], ["c", "c"]]),
        ("a = Relu(x) c = Concat<axis=1>(x, a) d = Concat<axis=1>(x, a) y = Add(c, d)", [["x", "a"]]),
        ("a = Relu(x) c = Concat<axis=1>(x, a) d = Concat<axis=1>(a, x) y = Add(c, d)", [["x", "a"], ["a", "x"]]),
        ("a = Relu(x) c = Concat<axis=1>(x, a) d = Relu(c) y = Concat<axis=1>(x, a)", [["x", "a"]]),
    ],
)  # fmt: skip
def test_concats_are_merged_and_shared(body, left):
    found = simplified(body)
    assert concats(found) == left


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_any_graph_of_concats_keeps_its_function(seed):
    chance = Random(seed)
    values, lines = ["x"], []
    for i in range(chance.randint(2, 9)):
        name = f"v{i}"
        if chance.random() < 0.3:
            lines.append(f"{name} = {chance.choice(['Relu', 'Sigmoid'])}({chance.choice(values)})")
        else:
            start = chance.choice([[], *(line.split("(")[1][:-1].split(", ") for line in lines if "Concat" in line)])
            parts = [*start[: chance.randint(0, len(start))], *chance.choices(values, k=chance.randint(1, 3))]
            lines.append(f"{name} = Concat<axis={chance.choice([1, -3])}>({', '.join(parts)})")
        values.append(name)
    outputs = [*{f"v{chance.randrange(len(lines))}", values[-1]}]
    simplified(" ".join(lines), f"(float[1,2,3,3] x) => ({', '.join(f'float[1,?,3,3] {v}' for v in outputs)})")


def test_a_long_chain_of_concats_is_one():
    n = 400
    body = " ".join(f"c{i + 1} = Concat<axis=1>(c{i}, x)" for i in range(n)).replace("(c0,", "(x,")
    after = simplified(f"{body} y = Relu(c{n})", "(float[1,1,2,2] x) => (float[1,?,2,2] y)")
    assert [len(parts) for parts in concats(after)] == [n + 1]
    assert np.prod([d for d in after.graph.outputs[0].shape if isinstance(d, int)]) == 4 * (n + 1)
