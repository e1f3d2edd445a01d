"""Accuracy, agreement and SQNR against NumPy written another way, for every form of model and batch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper as make
from small_models import data, model, plus, right, same

from nashc.data import Preprocess, open_data
from nashc.errors import NashcError
from nashc.runtime.accuracy import BATCH, Subject, measure, ranks
from nashc.runtime.session import Session

FEW_VALUES = st.integers(-3, 3).map(float)
"""So that scores are often equal."""


def subject(path: str, images: str, preprocess: Preprocess = Preprocess(), **kwargs) -> Subject:  # noqa: B008
    session = Session(path, threads=1)
    return Subject(session, open_data(images, preprocess, session.inputs[0].shape, **kwargs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("accuracy")


@settings(deadline=None)
@given(st.data())
def test_rank_is_the_place_in_a_stable_descending_sort(drawn):
    n, classes = drawn.draw(st.integers(1, 6)), drawn.draw(st.integers(2, 9))
    scores = drawn.draw(arrays(np.float32, (n, classes), elements=FEW_VALUES))
    labels = drawn.draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    order = [sorted(range(classes), key=lambda c, row=row: (-row[c], c)) for row in scores]
    assert ranks(scores, labels).tolist() == [o.index(label) for o, label in zip(order, labels, strict=True)]
    assert ((ranks(scores, labels) == 0) == (scores.argmax(1) == labels)).all()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_metrics_are_those_of_numpy(folder, drawn):
    n, classes = drawn.draw(st.integers(1, 2 * BATCH + 3)), drawn.draw(st.sampled_from([2, 5, 6, 10]))
    scores = drawn.draw(arrays(np.float32, (n, classes), elements=FEW_VALUES))
    labels = drawn.draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    offsets = drawn.draw(arrays(np.float32, classes, elements=FEW_VALUES))
    batch, other = (drawn.draw(st.sampled_from(["n", 1, 3])) for _ in "ab")
    images = data(folder / "d.npz", scores, labels)
    found = measure(
        subject(plus(folder / "m.onnx", offsets, batch), images),
        subject(same(folder / "a.onnx", classes, other), images),
    )
    got = scores + offsets
    top = [np.argsort(-s.astype(np.float64), axis=1, kind="stable") for s in (got, scores)]
    assert (found.images, found.classes, found.nan_images) == (n, classes, 0)
    for order, its in zip(top, (found.model, found.against), strict=True):
        assert its.top1 == (order[:, 0] == labels).sum()
        assert its.top5 == (None if classes <= 5 else (order[:, :5] == labels[:, None]).any(1).sum())
    assert found.outputs[0].agreeing == (top[0][:, 0] == top[1][:, 0]).sum()
    noise, signal = n * np.square(offsets, dtype=np.float64).sum(), np.square(scores, dtype=np.float64).sum()
    expected = math.inf if noise == 0 else -math.inf if signal == 0 else 10 * np.log10(signal / noise)
    assert found.outputs[0].sqnr_db == pytest.approx(expected, rel=1e-12)


def test_subset_is_the_same_for_both_models_and_progress_counts(folder):
    scores, labels = right(100, 70)
    images = data(folder / "d.npz", scores, labels)
    seen = []
    one, other = subject(same(folder / "m.onnx", batch=1), images), subject(same(folder / "a.onnx"), images)
    found = measure(one, other, count=40, seed=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 40) for i in range(1, 41)]
    assert found.model.top1 == found.against.top1 == (one.data.chosen(40, 3) < 70).sum()
    assert found.outputs[0].agreeing == 40


def test_a_fixed_batch_is_filled_up_and_a_false_open_one_is_found(folder):
    scores, labels = right(21, 13)
    images = data(folder / "d.npz", scores, labels)
    shape = {"s": np.array([1, 10], np.int64)}
    nodes = [make.make_node("Reshape", ["x", "s"], ["y"])]
    only_one = model(folder / "one.onnx", nodes, {"y": ["n", 10]}, constants=shape)
    for path in (same(folder / "m.onnx", batch=8), same(folder / "m4.onnx", batch=64), only_one):
        assert measure(subject(path, images)).model.top1 == 13


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 1, 1), (1, 7), (1, 7, 1)])
def test_class_scores_may_have_axes_of_one(folder, shape):
    scores, labels = right(9, 4, 7)
    nodes = [make.make_node("Reshape", ["x", "s"], ["y"])]
    constants = {"s": np.array([-1, *shape], np.int64)}
    path = model(folder / "m.onnx", nodes, {"y": ["n", *shape]}, classes=7, constants=constants)
    assert measure(subject(path, data(folder / "d.npz", scores, labels))).model.top1 == 4


def test_first_output_with_classes_is_the_score_and_maps_have_an_sqnr(folder):
    scores, labels = right(20, 12)
    images = data(folder / "d.npz", scores, labels)
    constants = {"s": np.array([0, 2, 5, 1], np.int64), "gain": np.array([1.1], np.float32)}

    def two(name: str, operand: str) -> str:
        nodes = [
            make.make_node("Mul", ["x", operand], ["z"]) if operand else make.make_node("Identity", ["x"], ["z"]),
            make.make_node("Reshape", ["z", "s"], ["map"]),
            make.make_node("ReduceMax", ["x"], ["one"], axes=[1], keepdims=0),
            make.make_node("Flatten", ["x"], ["y"]),
        ]
        outputs = {"map": ["n", 2, 5, 1], "one": ["n", 1, 1], "y": ["n", 10]}
        return model(folder / name, nodes, outputs, constants=constants)

    found = measure(subject(two("m.onnx", "gain"), images), subject(two("a.onnx", ""), images))
    assert [(o.name, o.agreeing) for o in found.outputs] == [("map", None), ("one", None), ("y", 20)]
    assert found.outputs[0].sqnr_db == pytest.approx(20, abs=1e-4)
    assert found.outputs[2].sqnr_db == math.inf
    assert found.model.top1 == 12


def test_nan_and_infinite_scores(folder):
    scores = np.array([[-1, 2, 0.5], [1, 2, 3], [-2, -3, -4]], np.float32)
    images = data(folder / "d.npz", scores, np.array([1, 2, 0]))
    nodes = [make.make_node("Flatten", ["x"], ["a"]), make.make_node("Log", ["a"], ["y"])]
    log = model(folder / "log.onnx", nodes, {"y": ["n", 3]}, classes=3)
    found = measure(subject(log, images), subject(same(folder / "a.onnx", 3), images))
    assert (found.nan_images, found.model.top1, found.outputs[0].agreeing) == (2, 1, 1)
    assert found.outputs[0].sqnr_db == -math.inf
    with pytest.raises(NashcError, match=r"the model of --against: its output 'y' has NaN within 3 images"):
        measure(subject(same(folder / "a.onnx", 3), images), subject(log, images))
    zeros = data(folder / "z.npz", np.array([[0, 1, 2]], np.float32), np.array([2]))
    found = measure(subject(log, zeros), subject(log, zeros))  # log 0 = -inf in both
    assert (found.nan_images, found.outputs[0].sqnr_db, found.model.top1) == (0, math.inf, 1)


def test_each_model_gets_the_images_as_it_takes_them(folder):
    pixels = np.arange(40, dtype=np.uint8).reshape(10, 2, 2)
    np.save(folder / "p.npy", pixels)
    nodes = [make.make_node("Flatten", ["x"], ["y"])]
    path = model(folder / "m.onnx", nodes, {"y": ["n", 4]}, image=(1, 2, 2))
    one, ten = (Preprocess(channels="gray", scale=scale) for scale in (1, 10))
    found = measure(subject(path, str(folder / "p.npy"), ten), subject(path, str(folder / "p.npy"), one))
    assert found.outputs[0].sqnr_db == pytest.approx(20 * math.log10(1 / 9))
    assert found.outputs[0].agreeing == 10
    assert found.model is None


def test_outputs_of_the_same_name_are_compared_whatever_the_others_are_called(folder):
    def two(file: str, names: tuple[str, str]) -> str:
        nodes = [make.make_node("Flatten", ["x"], [names[0]]), make.make_node("Mul", ["x", "two"], ["z"]),
                 make.make_node("Flatten", ["z"], [names[1]])]  # fmt: skip
        outputs = {name: ["n", 10] for name in names}
        return model(folder / file, nodes, outputs, constants={"two": np.array([2.0], np.float32)})

    images = data(folder / "d.npz", *right(20, 12))
    found = measure(subject(two("m.onnx", ("a", "b")), images), subject(two("a.onnx", ("c", "b")), images))
    assert [(o.name, o.sqnr_db) for o in found.outputs] == [("a", math.inf), ("b", math.inf)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"y": ["n", 10], "z": ["n", 10]}, None),
        ({"z": ["n", 10]}, None),  # by position
        ({"y": ["n", 5, 2]}, r"output 'y' is \[16, 10\], and \[16, 5, 2\] in the model of --against"),
        ({"z": ["n", 10], "w": ["n", 10]}, r"the outputs are y, and z, w in the model of --against"),
    ],
)
def test_outputs_of_two_models(folder, other, message):
    images = data(folder / "d.npz", *right(20, 12))
    constants = {"s": np.array([0, *next(iter(other.values()))[1:]], np.int64)}
    nodes = [make.make_node("Reshape", ["x", "s"], [name]) for name in other]
    pair = (
        subject(same(folder / "m.onnx"), images),
        subject(model(folder / "a.onnx", nodes, other, constants=constants), images),
    )
    if message is None:
        assert [(o.name, o.agreeing) for o in measure(*pair).outputs] == [("y", 20)]
        return
    with pytest.raises(NashcError, match=message):
        measure(*pair)


def test_label_without_a_score(folder):
    images = data(folder / "d.npz", right(20, 12)[0], np.full(20, 10))
    with pytest.raises(NashcError, match=r"label 10 for a model with 10 classes; labels are 0\.\.9; say with --labels"):
        measure(subject(same(folder / "m.onnx"), images))


@pytest.mark.parametrize("native", [True, False])
def test_session_knows_the_metadata(folder, native):
    props = Preprocess(scale=0.5).metadata()
    assert Session(same(folder / "m.onnx", metadata=props), native=native).metadata == props
