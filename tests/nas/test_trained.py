"""From a search to trained, quantised and compiled networks: files that agree with each other and with what is said."""

import json
import shutil
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image
from tiny import SPACE, images, job

from nashc import artifact
from nashc.cli import run
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.nas.architecture import parse
from nashc.nas.found import Training
from nashc.nas.job import HELD_OUT, decoded, train_and_test
from nashc.nas.pairs import load, save
from nashc.nas.recipe import Recipe
from nashc.nas.search import read_inputs
from nashc.nas.space import conv_only
from nashc.nas.strategies.run import divided
from nashc.nas.train import Images
from nashc.nas.trained import CHECKPOINT, FLOAT, INTEGER, WEIGHTS, Lesson, finished, train_network
from nashc.report.search import draw_all, search_report, search_shown, strategy_shown
from nashc.report.text import render
from nashc.report.train import Wanted, train_pairs
from nashc.runtime import Session

RECIPE = Recipe(epochs=6, batch=16, augment=False)
TRAIN = Images(*images(160))
TEST = Images(*images(80, seed=1), like=TRAIN)
LESSON = Lesson(TRAIN, TEST, RECIPE)
QUICK = Options(budget_seconds=0.5)


@pytest.mark.parametrize("text", ["8/8:c3/12:c3,c3", "8/8:s3/12:a3,c3", "8/8:a3/12:a3"])
def test_a_network_that_was_just_trained_becomes_files_that_keep_its_accuracy(text, tmp_path):
    space = msgspec.structs.replace(SPACE, stages=(SPACE.stages[0], SPACE.stages[0]))
    asked = job(tmp_path, space=space, limits=QUICK)
    done = finished(parse(text, space), asked, LESSON, tmp_path / "net")
    assert done is not None
    for name in (FLOAT, INTEGER):
        session = Session(onnx.load(tmp_path / "net" / name))
        (scores,) = session.run({"image": TEST.batch(np.arange(len(TEST))).contiguous().numpy()}).values()
        reached = float((scores.argmax(1) == TEST.labels.numpy()).mean())
        assert abs(reached - done.accuracy) <= 0.05
        if name == INTEGER:
            assert reached == done.integer_accuracy
    assert artifact.load(tmp_path / "net" / "design.json").design.fps == done.compiled.design.fps
    moved = {layer.op for layer in done.compiled.design.network.layers}
    assert moved <= {"Conv", "ShiftConv", "AdderConv", "ReduceMean", "Gemm"}  # nothing that the layout does not have


def test_the_same_training_is_not_done_twice_and_no_other_one_takes_its_weights(tmp_path):
    architecture = parse("8/8:s3", SPACE)
    first = train_network(architecture, SPACE, LESSON, tmp_path)
    written = (tmp_path / WEIGHTS).stat().st_mtime_ns
    again = train_network(architecture, SPACE, LESSON, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_mtime_ns == written
    assert all(a.equal(b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    other_images = Images(*images(160, seed=5))
    for network, lesson in (
        (parse("8/8:c3", SPACE), LESSON),
        (architecture, replace(LESSON, recipe=replace(RECIPE, seed=1))),
        (architecture, replace(LESSON, train=other_images)),
        (architecture, replace(LESSON, recipe=replace(RECIPE, distil=0.5), teacher=first)),
    ):
        with pytest.raises(NashcError, match=r"weights of another training.*delete the file"):
            train_network(network, SPACE, lesson, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    asked = job(folder, limits=QUICK, candidates=16)
    return asked, folder, search_shown(asked, folder / "out", None, 0.5)


def test_trained_pairs_stay_when_the_search_goes_on(searched):
    asked, folder, made = searched
    trained = train_pairs(folder / "out", Wanted(asked.data, replace(RECIPE, epochs=1)), ())
    assert [p.folder for p in trained.pairs] == [p.folder for p in made.pairs]
    assert all(p.integer_accuracy is not None for p in trained.pairs)
    assert {p.training for p in trained.pairs} == {Training(replace(RECIPE, epochs=1), 32)}
    models = {p.folder: (folder / "out" / p.folder / "model.onnx").read_bytes() for p in trained.pairs}
    assert search_shown(asked, folder / "out", None, 0.5) == trained == load(folder / "out")
    assert models == {p.folder: (folder / "out" / p.folder / "model.onnx").read_bytes() for p in trained.pairs}
    for pair in trained.pairs:
        design = artifact.load(folder / "out" / pair.folder / "design.json").design
        assert (design.fps, design.latency_ms, design.gops) == (pair.fps, pair.latency_ms, pair.gops)
        page = (folder / "out" / pair.folder / "report.html").read_text()
        assert f'"fps":{pair.fps}' in page
        assert f'["{pair.integer_accuracy:.2%}","top-1 of the integer model"]' in page
        assert f'"accuracy":{pair.integer_accuracy}' in (folder / "out" / "pareto.html").read_text()


def test_pairs_that_were_trained_apart_are_not_compared_in_silence(searched, tmp_path):
    _, folder, made = searched
    shutil.copytree(folder / "out", tmp_path / "run")
    first = Training(RECIPE, 160)
    for other, said in (
        (Training(replace(RECIPE, epochs=2), 24), "the networks were trained with different epochs, images"),
        (Training(RECIPE, 160, "8/8:c3"), "the networks were trained with different teacher"),
        (Training(replace(RECIPE, seed=3), 160), ""),
        (None, "accuracies may not compare: how some of the networks were trained is not known"),
        (first, ""),
    ):
        pairs = [
            msgspec.structs.replace(p, training=t, accuracy=0.5)
            for p, t in zip(made.pairs, (first, other), strict=True)
        ]
        changed = msgspec.structs.replace(made, pairs=tuple(pairs))
        save(changed, tmp_path / "run")
        draw_all(changed, tmp_path / "run")
        page = (tmp_path / "run" / "pareto.html").read_text()
        shown = " ".join(render(search_report(changed, tmp_path / "run"), 100, color=False).split())
        for text in (page, shown):
            assert ("compare:" in text) == bool(said)
            assert said in text


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("pairs", {"folder": "../elsewhere"}),
        ("pairs", {"folder": "/tmp/x"}),
        ("pairs", {"candidate": 10**6}),
        ("pairs", {"rival": 10**6}),
        ("candidates", {"family": "shift"}),
    ],
)
def test_a_result_that_points_elsewhere_is_refused(part, change, searched, tmp_path):
    _, folder, _ = searched
    text = json.loads((folder / "out" / "pareto.json").read_text())
    text[part][0] |= change
    (tmp_path / "pareto.json").write_text(json.dumps(text))
    with pytest.raises(NashcError, match="no result of a search"):
        load(tmp_path)


def test_a_result_of_another_version_is_refused(searched, tmp_path):
    _, folder, _ = searched
    text = json.loads((folder / "out" / "pareto.json").read_text())
    (tmp_path / "pareto.json").write_text(json.dumps(text | {"version": 1}))
    with pytest.raises(NashcError, match="a result of version 1, this nashc reads 2; search again"):
        load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b'{"job": "\xff"}', b'{"job":' + b'{"data":' * 200_000])
def test_a_broken_result_or_search_is_refused(data, tmp_path):
    (tmp_path / "pareto.json").write_bytes(data)
    with pytest.raises(NashcError, match="no result of a search"):
        load(tmp_path)
    with pytest.raises(NashcError, match="here: no search"):
        decoded(data, "here")


def test_images_without_a_test_split_are_held_out(tmp_path):
    asked = job(tmp_path)
    train, test, held_out = train_and_test(SPACE, asked.data)
    assert held_out
    assert len(test) == (len(train) + len(test)) // HELD_OUT
    seen = {image.tobytes() for image in train.pixels}
    assert not any(image.tobytes() in seen for image in test.pixels)


def test_what_proxies_look_at_is_not_tested_on(tmp_path):
    x, y = images(400)
    np.savez(tmp_path / "x.npz", x=x.transpose(0, 2, 3, 1), y=y)
    asked = msgspec.structs.replace(job(tmp_path), data=str(tmp_path / "x.npz"))
    _, test, held_out = train_and_test(SPACE, asked.data)
    assert held_out
    looked_at = {image.tobytes() for image in read_inputs(asked).pixels}
    assert not any(image.tobytes() in looked_at for image in test.pixels)


def test_splits_of_other_classes_and_too_few_images_are_refused(tmp_path):
    for split, names in (("train", "abc"), ("test", "ac")):
        for name in names:
            (tmp_path / "d" / split / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), ord(name), np.uint8)).save(tmp_path / "d" / split / name / "1.png")
    with pytest.raises(NashcError, match="its splits differ in the class 'b'"):
        train_and_test(SPACE, str(tmp_path / "d"))
    np.savez(tmp_path / "few.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=np.arange(4) % 2)
    with pytest.raises(NashcError, match="4 images and none to test on"):
        train_and_test(SPACE, str(tmp_path / "few.npz"))


def test_a_strategy_says_what_it_held_out_and_leaves_other_searches_alone(searched, tmp_path, capsys):
    asked, folder, _ = searched
    space = msgspec.structs.replace(SPACE, recipe=RECIPE)
    asked = msgspec.structs.replace(asked, space=space, data=str(tmp_path / "x.npz"), proxy="flops")
    x, y = images(400)
    np.savez(asked.data, x=x.transpose(0, 2, 3, 1), y=y)
    strategy_shown("zero-shot", asked, 8, None, tmp_path / "out")
    assert "has no images of its own to test on: 80 are held out" in capsys.readouterr().err
    for taken in (tmp_path / "out", folder / "out"):
        with pytest.raises(NashcError, match="the folder holds another search"):
            strategy_shown("zero-shot", asked, 8, None, taken)


def test_validation_leaves_every_class_some_images_to_train_on():
    train, validation = divided(TRAIN, len(TRAIN))
    assert sorted(np.bincount(validation.labels)) == [8] * 4
    assert len(train) + len(validation) == len(TRAIN)
    pixels, _ = images(60)
    with pytest.raises(NashcError, match="1 images of class 10 to train on, and 1 are for validation"):
        divided(Images(pixels, np.arange(60) % 50), 60)


def test_train_refuses_what_would_change_nothing(searched, tmp_path, capsys):
    asked, folder, _ = searched
    given = ["train", "--data", asked.data]
    assert run([*given, str(folder / "out"), "--max-lut", "9", "--budget", "3s"]) == 2
    assert "no effect with RUN: --max-lut, --budget" in capsys.readouterr().err
    alone = ["--space", "resnet-cifar", "--architecture", "x", "--target", "fpga-zc706", "-o", str(tmp_path / "o")]
    assert run([*given, *alone, "--pair", "hybrid-1"]) == 2
    assert "no effect without RUN: --pair" in capsys.readouterr().err


def test_a_space_of_convolutions_alone_has_nothing_to_compare(tmp_path):
    with pytest.raises(NashcError, match="convolutions are its only operator"):
        job(tmp_path, space=conv_only(SPACE)).check()
