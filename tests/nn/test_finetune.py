"""Adder layers in trained ONNX models: their start, what training brings, what comes out, going on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_nets import net, run, save

from nashc.core.network import Unit
from nashc.errors import NashcError
from nashc.hybridize.integers import integers
from nashc.hybridize.original import original
from nashc.importer import import_model
from nashc.nn.adder_norm import STEP, WEIGHT_LEVELS, AdderNorm, slope_table, slopes_to_weights
from nashc.nn.augment import moved_and_flipped
from nashc.nn.distill import Distillation
from nashc.nn.finetune import CHECKPOINT, FinetuneOptions, Progress, finetune
from nashc.nn.graph import Graph, node_names
from nashc.runtime import Session

BODY = """
    a0 = Conv<pads = [1, 1, 1, 1]>(x, w0, b0) a = Relu(a0)
    c0 = Conv<pads = [1, 1, 1, 1]>(a, w1, b1) c = Relu(c0)
    d0 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(c, w2, b2) s = Conv<strides = [2, 2]>(a, w3) d1 = Add(d0, s)
    d = Relu(d1) p = GlobalAveragePool(d) f = Flatten(p) y = Gemm<transB = 1>(f, v, u)
"""
WEIGHTS = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "b1": (8,), "w2": (16, 8, 3, 3), "b2": (16,)}
ADDERS = ("Conv_2", "Conv_4")
OPTIONS = FinetuneOptions(epochs=4, batch=16, bfloat16=False)


def teacher() -> onnx.ModelProto:
    return net("(float[n,3,8,8] x) => (float[n,5] y)", BODY, **WEIGHTS, w3=(16, 8, 1, 1), v=(5, 16), u=(5,))


def pictures(count: int = 64) -> np.ndarray:
    """Smooth ones, so that neighbours have to do with each other."""
    noise = np.random.default_rng(1).standard_normal((count, 3, 10, 10)).astype(np.float32)
    return sum(noise[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 3  # type: ignore[return-value]


def divergence(model: onnx.ModelProto) -> float:
    loss = Distillation(Graph(teacher()), Graph(model).eval(), (), weight=0.0, temperature=1.0, half=False)
    return loss(torch.from_numpy(pictures(256)[64:]))[1]


@pytest.fixture(scope="module")
def tuned() -> Any:
    reports: list[Progress] = []
    return finetune(teacher(), ADDERS, pictures(), OPTIONS, progress=reports.append), reports


def test_training_brings_the_copy_closer() -> None:
    adders, images = (*ADDERS, "Conv_5"), pictures(512)
    before, after = (finetune(teacher(), adders, images, o).model for o in (replace(OPTIONS, epochs=0), OPTIONS))
    assert divergence(after) < 0.5 * divergence(before)


def test_reports(tuned: Any) -> None:
    result, reports = tuned
    assert [p.step for p in reports] == list(range(1, 17))
    assert result.steps == reports[-1].steps == 16
    assert reports[15].features < reports[3].features
    assert [p.quantised for p in reports] == [False] * 12 + [True] * 4
    assert set(result.match) == set(ADDERS)
    assert all(0.2 < match < 1 for match in result.match.values())


def test_result_has_adder_layers_at_the_same_places(tuned: Any, tmp_path: Path) -> None:
    model = tuned[0].model
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    names = [node.name or f"{node.op_type}_{i}" for i, node in enumerate(teacher().graph.node)]
    for name, node in zip(names, teacher().graph.node, strict=True):
        assert makers.pop(node.output[0]) == ("BatchNormalization" if name in ADDERS else node.op_type)
    assert set(makers.values()) == {"AdderConv"}
    layers = import_model(save(model, tmp_path), {"x": (1, 3, 8, 8)}).network.layers
    assert [layer.unit for layer in layers if layer.weights is not None].count(Unit.ADDER) == 2
    assert not [layer.name for layer in layers if layer.unit is Unit.HOST]
    assert len(layers) == len(import_model(save(teacher(), tmp_path), {"x": (1, 3, 8, 8)}).network.layers)


def test_outputs_are_those_of_the_module(tuned: Any) -> None:
    model, x = tuned[0].model, pictures(4)
    with torch.no_grad():
        expected = Graph(model).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Session(model).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_weights_are_bytes_at_the_step_in_the_metadata(tuned: Any) -> None:
    result = tuned[0]
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    nodes = [node for node in result.model.graph.node if node.op_type == "AdderConv"]
    assert [node.name for node in nodes] == list(result.shared) == list(ADDERS)
    for node in nodes:
        step = float({p.key: p.value for p in node.metadata_props}[STEP])
        assert step == result.shared[node.name]
        levels = stored[node.input[1]] / np.float32(step)
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
        assert 1 < np.abs(levels).max() <= WEIGHT_LEVELS + 1e-3


class StopError(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("last", [5, 13], ids=["float", "8 bits"])
def test_interrupted_run_ends_with_the_same_model(tuned: Any, tmp_path: Path, last: int) -> None:
    def stop(p: Progress) -> None:
        if p.step == last:
            raise StopError

    options = replace(OPTIONS, checkpoint=tmp_path)
    with pytest.raises(StopError):
        finetune(teacher(), ADDERS, pictures(), options, progress=stop)
    steps: list[int] = []
    result = finetune(teacher(), ADDERS, pictures(), options, progress=lambda p: steps.append(p.step))
    assert steps == list(range(last // 4 * 4 + 1, 17))
    assert result.model.SerializeToString() == tuned[0].model.SerializeToString()
    assert result.match == tuned[0].match
    again = finetune(teacher(), ADDERS, pictures(), options, progress=lambda _: pytest.fail("trained again"))
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=1, checkpoint=tmp_path)
    finetune(teacher(), ADDERS, pictures(), options)
    with pytest.raises(NashcError, match=r"of another model, other images or other options; give another folder"):
        finetune(teacher(), ADDERS, pictures(), replace(options, seed=1))
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(NashcError, match=r"no checkpoint: .*delete it"):
        finetune(teacher(), ADDERS, pictures(), options)


def test_minutes_limit_the_steps() -> None:
    result = finetune(teacher(), ADDERS, pictures(), replace(OPTIONS, epochs=1000, minutes=0.01))
    assert 1 <= result.steps < 4000


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"adders": ["Conv_9"]}, r"no node 'Conv_9'; did you mean 'Conv_\d'\?"),
        ({"adders": ["Gemm_10"]}, r"node 'Gemm_10' \(Gemm\): only a Conv can become an adder layer"),
        ({"adders": []}, "no layer is to become an adder layer"),
        ({"images": pictures(8)}, r"8 images, batch=16.*give at least one batch"),
        ({"images": pictures()[:, :2]}, r"node 'Conv_0' \(Conv\): fails on inputs of shape \[64, 2, 8, 8\]"),
        ({"images": np.full_like(pictures(), np.nan)}, r"the loss is not finite|holds NaN"),
    ],
)
def test_bad_requests(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(NashcError, match=text):
        finetune(**{"model": teacher(), "adders": ADDERS, "images": pictures(), "options": OPTIONS, **changes})


def test_a_model_that_ends_in_softmax_is_distilled_by_its_classes() -> None:
    model = teacher()
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["y"]))
    batch = torch.from_numpy(pictures(16))
    losses = [
        Distillation(Graph(m), Graph(other), (), weight=0.0, temperature=2.0, half=False)(batch)[1]
        for m, other in ((teacher(), _changed(teacher())), (model, _changed(model)))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] > 1e-4


def _changed(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = Graph(model)
    with torch.no_grad():
        next(p for n, p in graph.named_parameters() if n == "v").mul_(1.5)
    return graph.to_onnx()


@pytest.mark.parametrize(
    ("attributes", "shape", "size"),
    [
        ("pads = [1, 1, 1, 1]", (6, 4, 3, 3), (9, 8)),
        ("pads = [1, 1, 1, 1], group = 4, strides = [2, 2]", (8, 1, 3, 3), (9, 8)),
        ("group = 2", (6, 2, 1, 1), (5, 5)),
        ('auto_pad = "SAME_UPPER", strides = [2, 2]', (6, 4, 3, 3), (8, 8)),
        ("pads = [0, 1, 2, 0], dilations = [2, 1]", (6, 4, 2, 3), (9, 8)),
        ("pads = [1, 1]", (6, 4, 3), (16,)),
    ],
)
def test_every_window_starts_close_to_its_convolution(attributes: str, shape: tuple[int, ...], size: Any) -> None:
    sizes = ",".join(map(str, size))
    model = net(f"(float[n,4,{sizes}] x) => (float[n,m{',k' * len(size)}] y)", f"y = Conv<{attributes}>(x, w)", w=shape)
    x = np.random.default_rng(0).gamma(1.0, 0.5, (64, 4, *size)).astype(np.float32)
    graph = Graph(model)
    y = graph(torch.from_numpy(x)).detach()
    layer = AdderNorm(torch.Size(shape), graph.step_of("Conv_0").run.keywords)
    match = layer.start(graph.weight("w").detach(), torch.from_numpy(x), y)
    assert float(match.mean()) > 0.4  # with the weights of the convolution 0.1 or less
    graph.swap("Conv_0", layer)
    with torch.no_grad():
        expected = graph.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(expected.mean(), y.mean(), atol=1e-3)
    found = Session(graph.to_onnx()).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), groups=st.sampled_from((1, 2)), signed=st.booleans())
def test_slopes_are_those_of_the_convolution(seed: int, groups: int, signed: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, 4, 16, 16)) if signed else rng.gamma(1.0, 1.0, (4, 4, 16, 16))
    v = torch.from_numpy(rng.uniform(-1, 1, (2 * groups, 4 // groups, 1, 1)).astype(np.float32))
    inputs = torch.from_numpy(x.astype(np.float32))
    rms = v.flatten(1).square().mean(1).sqrt()
    alpha = 1.25 / float(rms.min())
    w = slopes_to_weights(v, *slope_table(inputs), alpha)
    for m in range(len(v)):
        for c in range(v.shape[1]):
            values = inputs[:, m // 2 * v.shape[1] + c].flatten().double()
            centred = values - values.mean()
            slope = float((centred * -(values - w[m, c, 0, 0]).abs()).mean() / centred.square().mean())
            assert slope == pytest.approx(float(v[m, c, 0, 0] / (alpha * rms[m])), abs=0.05)


def test_pictures_are_moved_and_mirrored() -> None:
    batch = np.arange(2 * 3 * 16 * 16, dtype=np.float32).reshape(2, 3, 16, 16)
    rng = np.random.default_rng(0)
    many = np.stack([moved_and_flipped(batch, rng) for _ in range(64)])
    assert many.shape == (64, *batch.shape)
    inner = many[:, 0, 0, 4:12, 4:12]
    places = {tuple(np.argwhere(batch[0, 0] == picture[0, 0])[0] - 4) for picture in inner}
    assert {row for row, _ in places} == {-2, -1, 0, 1, 2}
    steps = np.unique(np.diff(inner, axis=2))
    assert set(steps) == {-1, 1}  # mirrored, and not
    last = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
    one, other = (moved_and_flipped(b, np.random.default_rng(3)) for b in (batch, last))
    np.testing.assert_array_equal(one, other.transpose(0, 3, 1, 2))
    vectors = np.ones((2, 7), np.float32)
    assert moved_and_flipped(vectors, rng) is vectors


def test_untouched_models_stay_as_they_are() -> None:
    x = pictures(1)
    np.testing.assert_allclose(run(Graph(teacher()).to_onnx(), {"x": x})[0], run(teacher(), {"x": x})[0], rtol=1e-5)


def statistics(model: onnx.ModelProto, images: np.ndarray, name: str) -> list[np.ndarray]:
    """Mean and deviation that a layer's BN holds, and those that its adder has on these images."""
    adder = next(n for n in model.graph.node if n.op_type == "AdderConv" and n.name == name)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.helper.make_tensor_value_info(adder.output[0], onnx.TensorProto.FLOAT, None))
    y = Session(shown, threads=1).run({"x": images})[adder.output[0]]
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    mean, variance = (held[f"{name}.bn.{what}"] for what in ("running_mean", "running_var"))
    return [mean, variance**0.5, y.mean((0, 2, 3)), y.std((0, 2, 3))]


@pytest.mark.parametrize("count", [32, 33, 47])
def test_statistics_are_those_of_all_images_alike(count: int) -> None:
    images = pictures(count) * np.random.default_rng(3).lognormal(0, 0.7, (count, 1, 1, 1)).astype(np.float32)
    result = finetune(teacher(), ("Conv_2",), images, FinetuneOptions(epochs=0, batch=32, quantised=0))
    mean, deviation, true_mean, true_deviation = statistics(result.model, images, "Conv_2")
    np.testing.assert_allclose(mean, true_mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(deviation, true_deviation, rtol=0.01)


def test_one_image_that_is_left_over_is_no_batch() -> None:
    model = net("(float[n,3,3,3] x) => (float[n,5,a,b] y)", "c = Conv(x, w0) d = Relu(c) y = Conv(d, w1)",
                w0=(8, 3, 3, 3), w1=(5, 8, 1, 1))  # fmt: skip
    images = np.random.default_rng(0).normal(size=(17, 3, 3, 3)).astype(np.float32)
    result = finetune(model, ("Conv_2",), images, FinetuneOptions(epochs=1, batch=16, quantised=0), augment=None)
    assert result.steps == 1


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_the_last_quarter_of_the_steps_has_bytes(epochs: int) -> None:
    seen: list[bool] = []
    finetune(
        teacher(), ADDERS, pictures(), replace(OPTIONS, epochs=epochs), progress=lambda p: seen.append(p.quantised)
    )
    assert seen == [False] * (3 * epochs) + [True] * epochs


@pytest.mark.parametrize(
    "body",
    [
        "k = Concat<axis=1>(a, c) d = Conv(k, w2) e = Relu(d) g = GlobalAveragePool(e) f = Flatten(g)",
        "m = MaxPool<kernel_shape=[2,2]>(a) l = MaxPool<kernel_shape=[2,2]>(c) k = Concat<axis=1>(l, m) "
        "d = Conv(k, w2) e = Relu(d) g = GlobalAveragePool(e) f = Flatten(g)",
    ],
)
def test_layers_on_values_that_are_concatenated_share_their_step(body: str) -> None:
    """What the integer model computes stays close to what was trained."""
    stem = "a0 = Conv<pads=[1,1,1,1]>(x, w0) a = Relu(a0) c0 = Conv<pads=[1,1,1,1]>(a, w1, b1) c = Relu(c0) "
    weights = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "b1": (8,), "w2": (8, 16, 1, 1), "v": (8, 5)}
    model = net("(float[n,3,8,8] x) => (float[n,5] y)", f"{stem}{body} y = Gemm(f, v)", 21, **weights)
    convs = [n for n, node in zip(node_names(model.graph), model.graph.node, strict=True) if node.op_type == "Conv"]
    result = finetune(model, convs[1:], pictures(64), replace(OPTIONS, epochs=0))
    assert len(set(result.shared.values())) == 1
    integer = integers(original(result.model, {}, "net", "net"), pictures(64)[:, None])
    x = pictures(128)[64:]
    wanted, found = (Session(m, threads=1).run({"x": x})["y"] for m in (result.model, integer))
    assert 10 * np.log10((wanted**2).sum() / ((found - wanted) ** 2).sum()) > 35


def test_layers_that_were_trained_before_keep_their_bytes() -> None:
    first = finetune(teacher(), ADDERS[1:], pictures(), replace(OPTIONS, epochs=1))
    second = finetune(first.model, ADDERS[:1], pictures(), replace(OPTIONS, epochs=2))
    held = {t.name: onnx.numpy_helper.to_array(t) for t in second.model.graph.initializer}
    adders = [n for n in second.model.graph.node if n.op_type == "AdderConv"]
    assert len(adders) == 2
    for node in adders:
        step = next(float(p.value) for p in node.metadata_props if p.key == STEP)
        steps = held[node.input[1]] / np.float32(step)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_a_second_round_takes_the_step_of_the_first_where_both_read_the_same() -> None:
    body = "a0 = Conv(x, w0) a = Relu(a0) b = Conv<pads=[1,1,1,1]>(a, w1) c = Conv<pads=[1,1,1,1]>(a, w2) y = Add(b, c)"
    model = net("(float[n,3,8,8] x) => (float[n,8,8,8] y)", body, 21, w0=(8, 3, 1, 1), w1=(8, 8, 3, 3), w2=(8, 8, 3, 3))
    first = finetune(model, ("Conv_2",), pictures(), replace(OPTIONS, epochs=1))
    second = finetune(first.model, ("Conv_4",), pictures(), replace(OPTIONS, epochs=1))
    steps = {p.value for n in second.model.graph.node for p in n.metadata_props if p.key == STEP}
    assert len({float(step) for step in steps}) == 1
    original(second.model, {}, "net", "net")
