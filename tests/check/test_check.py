"""nashc check as a user meets it: every gate on its edge, broken pipelines, the config file, reports, exit codes."""

from __future__ import annotations

import json
import math
import os
import time
from fractions import Fraction
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import helper as make
from rich.console import Console
from small_models import data, model, right, same

from nashc.check import GATES, Checked, Request, Share, check, read_request
from nashc.cli import run
from nashc.data import Preprocess
from nashc.report import progress
from nashc.report.check import check_junit
from nashc.runtime import Session

MNIST = str(Path(__file__).parents[2] / "examples/models/mnist-conv.onnx")
TARGET = "fpga-zc706"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """a.onnx has 905 of 1000 right; m.onnx takes magnitudes and has 900, as 5 images have a large negative score."""
    folder = tmp_path_factory.mktemp("small")
    scores, labels = right(1000, 905)
    scores[range(900, 905), (labels[900:905] + 1) % 10] = -2
    data(folder / "d.npz", scores, labels)
    data(folder / "unlabelled.npz", scores)
    same(folder / "a.onnx")
    nodes = [make.make_node("Abs", ["x"], ["z"]), make.make_node("Flatten", ["z"], ["y"])]
    model(folder / "m.onnx", nodes, {"y": ["n", 10]})
    model(folder / "nan.onnx", [make.make_node("Log", ["x"], ["z"]), make.make_node("Flatten", ["z"], ["y"])],
          {"y": ["n", 10]})  # fmt: skip
    model(folder / "two.onnx", [make.make_node("Add", ["x", "w"], ["y"])], {"y": ["n", 10, 1, 1]}, inputs=("x", "w"))
    model(folder / "map.onnx", [make.make_node("Concat", ["x", "x"], ["y"], axis=2)], {"y": ["n", 10, 2, 1]})
    same(folder / "four.onnx", 4)
    data(folder / "four.npz", *right(20, 20, 4))
    return folder


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    """Blots, labelled with what mnist-conv.onnx sees in them; a model with other weights; a design for the board."""
    folder = tmp_path_factory.mktemp("mnist")
    coarse = np.random.default_rng(0).random((64, 5, 5)) > 0.5
    images = np.zeros((64, 28, 28), np.uint8)
    images[:, 4:24, 4:24] = np.kron(coarse, np.ones((4, 4))) * 255
    session = Session(MNIST, threads=1)
    seen = [session.run({"Input3": image[None, None].astype(np.float32)}) for image in images]
    labels = np.array([int(next(iter(outputs.values())).argmax()) for outputs in seen])
    np.savez(folder / "blots.npz", x=images, y=labels)
    other = onnx.load(MNIST)
    weights = next(t for t in other.graph.initializer if t.name == "Parameter193")
    array = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array[::-1]), weights.name))
    onnx.save(other, folder / "wrong.onnx")
    assert run(["compile", MNIST, "--target", TARGET, "--batch", "1", "-o", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def everything(mnist) -> Request:
    """A check that every gate can be asked of."""
    return Request(
        model=MNIST, against=str(mnist / "wrong.onnx"), data=str(mnist / "blots.npz"), channels="gray",
        design=str(mnist / "out/design.json"), threads=1,
    )  # fmt: skip


def verdicts(checked: Checked) -> dict[str, bool]:
    return {gate.rule.name: gate.passed for gate in checked.gates}


def nashc(capsys, *args: str) -> tuple[int, str, str]:
    code = run(["check", "--threads", "1", *args])
    out, err = capsys.readouterr()
    return code, out, err


# gates


@pytest.mark.parametrize("rule", GATES, ids=lambda rule: rule.name)
def test_a_gate_passes_on_its_edge_and_fails_beyond(rule, everything):
    field = rule.name.replace("-", "_")
    loose = Share(0) if rule.unit == "%" else 1
    found = next(g.found for g in check(replace(everything, **{field: loose})).gates if g.rule == rule)
    sign = 1 if rule.at_least else -1
    if rule.unit == "%":
        edge, beyond = Share(found), Share(found + sign * Fraction(1, 10**9))
    elif isinstance(found, float):
        edge, beyond = found, math.nextafter(found, sign * math.inf)
    else:
        edge, beyond = found, found + sign
    assert verdicts(check(replace(everything, **{field: edge}))) == {rule.name: True, "no-nan": True}
    failed = check(replace(everything, **{field: beyond}))
    assert verdicts(failed) == {rule.name: False, "no-nan": True}
    assert not failed.passed


@pytest.mark.parametrize(
    ("flag", "edge", "beyond"),
    [
        ("--min-accuracy", "90%", "90.000001%"),
        ("--max-drop", "0.5%", "0.499999%"),
        ("--min-agreement", "99.5%", "99.500001%"),
        ("--min-sqnr-db", "11.0551", "11.0552"),  # 10 log10(1020 / 80)
    ],
)
def test_edges_that_are_known_beforehand(small, capsys, flag, edge, beyond):
    base = [str(small / "m.onnx"), "--against", str(small / "a.onnx"), "--data", str(small / "d.npz"), flag]
    code, out, err = nashc(capsys, *base, edge)
    assert (code, err) == (0, "")
    assert "passed: 2 of 2 gates" in out
    code, out, err = nashc(capsys, *base, beyond)
    assert (code, err) == (1, "")
    assert out.index(f"FAIL  {flag.removeprefix('--')}") < out.index("pass  no-nan")
    assert "FAILED: 1 of 2 gates" in out


def test_without_gates_it_is_a_report(small, capsys):
    code, out, _ = nashc(
        capsys, str(small / "m.onnx"), "--against", str(small / "a.onnx"), "--data", str(small / "d.npz")
    )
    assert code == 0
    assert "90.00%" in out
    assert "0.50 points" in out
    assert "no gate was asked for" in out


def test_nan_fails_even_where_no_gate_was_asked_for(small, capsys):
    code, out, _ = nashc(capsys, str(small / "nan.onnx"), "--data", str(small / "d.npz"))
    assert code == 1
    assert "FAIL  no-nan" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["m.onnx", "--data", "unlabelled.npz", "--min-accuracy", "1%"], "--min-accuracy: needs labels; give --labels"),
        (["m.onnx", "--data", "unlabelled.npz", "--against", "a.onnx", "--max-drop", "1%"], "--max-drop: needs labels"),
        (["m.onnx", "--data", "d.npz", "--max-drop", "1%"], "--max-drop: needs against; give the model to compare"),
        (["m.onnx", "--data", "d.npz", "--min-agreement", "1%"], "--min-agreement: needs against"),
        (["m.onnx", "--data", "d.npz", "--min-fps", "1"], "--min-fps: needs design; give --target or --design"),
        (["m.onnx", "--target", TARGET, "--min-accuracy", "1%"], "--min-accuracy: needs data; give --data"),
        (["m.onnx", "--target", TARGET, "--against", "a.onnx"], "--against needs images; give --data"),
        (["four.onnx", "--data", "four.npz", "--min-top5", "1%"], "no output of the model is [images, classes] with"),
        (["map.onnx", "--data", "d.npz", "--min-accuracy", "1%"], "cannot be measured: no output of the model is"),
        (["m.onnx"], "nothing to measure; give --data, or --target, or both"),
    ],
)
def test_a_gate_that_cannot_be_measured_is_an_error(small, capsys, monkeypatch, args, message):
    monkeypatch.chdir(small)
    code, out, err = nashc(capsys, *args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


# broken pipelines

GOOD = {"min-accuracy": True, "min-fps": True, "no-nan": True}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"target": TARGET}, None),
        ({"model": "wrong.onnx"}, "min-accuracy"),
        ({"target": "fpga-pynq-z2"}, "min-fps"),
        ({"scale": "-1", "mean": "-255"}, "min-accuracy"),  # white on black becomes black on white
    ],
    ids=["sound", "wrong weights", "slow board", "wrong preprocessing"],
)
def test_a_broken_pipeline_fails_at_its_gate(mnist, capsys, monkeypatch, change, broken):
    monkeypatch.chdir(mnist)
    speed = {"budget": "2s"} if "target" in change else {"design": "out/design.json"}
    given = {"data": "blots.npz", "channels": "gray"} | speed | change
    path = given.pop("model", MNIST)
    flags = [text for key, value in given.items() for text in (f"--{key}", value)]
    code, out, _ = nashc(capsys, path, *flags, "--min-accuracy", "95%", "--min-fps", "100000", "--json")
    document = json.loads(out)
    assert {g["name"]: g["passed"] for g in document["gates"]} == GOOD | ({broken: False} if broken else {})
    assert code == (1 if broken else 0)
    assert document["passed"] is (broken is None)


def test_preprocessing_of_the_metadata_is_each_models_own_and_flags_win(mnist, tmp_path, capsys):
    inverted = onnx.load(MNIST)
    make.set_model_props(inverted, Preprocess(channels="gray", scale=-1, mean=(-255,)).metadata())
    onnx.save(inverted, tmp_path / "inverted.onnx")
    sound = onnx.load(MNIST)
    make.set_model_props(sound, Preprocess(channels="gray").metadata())
    onnx.save(sound, tmp_path / "sound.onnx")
    args = [str(tmp_path / "inverted.onnx"), "--against", str(tmp_path / "sound.onnx")]
    args += ["--data", str(mnist / "blots.npz"), "--max-drop", "5%"]
    code, out, _ = nashc(capsys, *args)
    assert code == 1
    assert "the models take images in different forms, and each gets its own" in out
    code, out, _ = nashc(capsys, *args, "--scale", "1", "--mean", "0")
    assert code == 0
    assert "different forms" not in out


def test_a_model_that_stores_no_preprocessing_gets_that_of_the_other(mnist, tmp_path, capsys):
    """The original says nothing, the hybrid made of it does: both are to see the same images."""
    told = onnx.load(MNIST)
    make.set_model_props(told, Preprocess(channels="gray", scale=1 / 255).metadata())
    onnx.save(told, tmp_path / "told.onnx")
    for first, second in ((str(tmp_path / "told.onnx"), MNIST), (MNIST, str(tmp_path / "told.onnx"))):
        flags = ("--data", str(mnist / "blots.npz"), "--min-agreement", "100%", "--max-drop", "0%")
        code, out, _ = nashc(capsys, first, "--against", second, *flags)
        assert code == 0
        assert f"{MNIST} stores no preprocessing and gets that of the other model" in " ".join(out.split())


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--target", TARGET, "--labels", "none.csv", "--crop", "7,7"), "no effect without --data: labels, crop"),
        (("--target", TARGET, "--count", "5"), "no effect without --data: count"),
        (("--data", "d.npz", "--budget", "3s"), "no effect without --target: budget"),
    ],
)
def test_what_would_change_nothing_is_refused(small, capsys, monkeypatch, flags, text):
    monkeypatch.chdir(small)
    code, out, err = nashc(capsys, "m.onnx", *flags)
    assert (code, out) == (2, "")
    assert text in err


def test_default_preprocessing_and_other_numbers_of_classes_are_noted(mnist, small, tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        np_image = np.zeros((28, 28), np.uint8)
        from PIL import Image

        Image.fromarray(np_image).save(tmp_path / name / "1.png")
    code, out, _ = nashc(capsys, MNIST, "--data", str(tmp_path), "--channels", "gray")
    assert code == 0
    assert "the data has 2 classes and the model 10" in " ".join(out.split())
    code, out, _ = nashc(capsys, same(tmp_path / "m.onnx", 3, image=(3, 1, 1)), "--data", str(tmp_path))
    assert "stores no preprocessing and no flag says any: pixel, rgb in nchw" in " ".join(out.split())


# speed


def test_a_design_is_of_the_model_and_of_the_board(mnist, small, capsys, monkeypatch):
    monkeypatch.chdir(mnist)
    code, out, _ = nashc(capsys, MNIST, "--design", "out/design.json", "--target", TARGET, "--min-fps", "1")
    assert code == 0
    assert "passed: 1 of 1 gates" in out
    assert nashc(capsys, "wrong.onnx", "--design", "out/design.json")[0] == 0  # weights change no design
    code, _, err = nashc(capsys, str(small / "m.onnx"), "--design", "out/design.json")
    assert code == 2
    assert "out/design.json: a design for another network than" in err
    code, _, err = nashc(capsys, MNIST, "--design", "out/design.json", "--target", "fpga-zcu102")
    assert code == 2
    assert "a design for board 'fpga-zc706', not for 'fpga-zcu102'; compile for this board" in err


def test_limits_are_limits_of_the_search_and_fail_where_nothing_fits(capsys):
    code, out, _ = nashc(capsys, MNIST, "--target", TARGET, "--max-dsp", "300", "--budget", "1s", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["design"]["dsp"] <= 300
    code, out, _ = nashc(capsys, MNIST, "--target", TARGET, "--max-lut", "10", "--budget", "1s")
    assert code == 1
    assert "note: no design within the limits" in out
    assert "FAIL  max-lut" in out


# the config file


@pytest.fixture
def project(small, tmp_path, monkeypatch) -> Path:
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/models").symlink_to(small)
    monkeypatch.chdir(tmp_path / "ci")
    return tmp_path / "ci"


CONFIG = """
model = "models/m.onnx"
against = "models/a.onnx"
data = "models/d.npz"
split = "test"
threads = 1
min-accuracy = "90%"
max-drop = "0.5%"
min-sqnr-db = 11
junit = "gates.xml"
"""


def test_config_of_the_current_directory_and_flags_over_it(project, capsys):
    (project / "nashc-check.toml").write_text(CONFIG)
    code, out, err = nashc(capsys)
    assert (code, err) == (0, "")
    assert "passed: 4 of 4 gates" in out
    assert (project / "gates.xml").is_file()
    assert nashc(capsys, "--max-drop", "0.4%")[0] == 1
    code, out, _ = nashc(capsys, "models/a.onnx", "--data", "models/d.npz")
    assert "no gate was asked for" in out  # a model on the command line: the file is not read unless --config names it


def test_paths_of_a_config_are_relative_to_it(project, capsys, monkeypatch):
    (project / "nashc-check.toml").write_text(CONFIG + 'labels = "labels.csv"\ncount = 50')
    (project / "labels.csv").write_text("\n".join(str(i % 10) for i in range(1000)))
    monkeypatch.chdir(project.parent)
    code, out, err = nashc(capsys, "--config", "ci/nashc-check.toml", "--min-accuracy", "80%", "--max-drop", "3%")
    assert (code, err) == (0, "")
    assert "50 images" in out
    assert (project / "gates.xml").is_file()
    assert os.listdir(project.parent) == ["ci"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('min-acuracy = "90%"', "nashc-check.toml: unknown key 'min-acuracy'; did you mean 'min-accuracy'?"),
        ("min_fps = 3", "nashc-check.toml: unknown key 'min_fps'; did you mean 'min-fps'?"),
        (
            "min-accuracy = 90",
            "nashc-check.toml, min-accuracy: '90' is no share with a percent sign; write 90%",
        ),
        (
            "max-drop = 0.005",
            "max-drop: '0.005' is no share with a percent sign; write 0.005% or 0.5%",
        ),
        ('max-drop = "0.5"', "nashc-check.toml, max-drop: '0.5' is no share with a percent sign; write 0.5% or 50%"),
        ('min-top5 = "101%"', "nashc-check.toml, min-top5: '101%' is more than 100%"),
        ("min-top5 = true", "nashc-check.toml, min-top5: 'True' is no share with a percent sign; write 90%"),
        ('min-fps = "30"', "nashc-check.toml, min-fps: Expected `float | null`, got `str`"),
        ("min-fps = nan", "min-fps: nan is no positive number"),
        ("min-fps = -1", "min-fps: -1.0 is no positive number"),
        ("min-sqnr-db = inf", "min-sqnr-db: inf is no number of decibels"),
        ("max-lut = 1.5", "nashc-check.toml, max-lut: Expected `int | null`, got `float`"),
        ("max-dsp = -1", "max-dsp: -1 is out of range"),
        ("count = 0", "count: 0 is out of range; give 1 or more"),
        ("seed = -1", "seed: -1 is out of range"),
        ('mean = [0.5, "x"]', "nashc-check.toml, mean[1]: Expected `float`, got `str`"),
        ("std = [1, 2]", "preprocess, std: 2 values for rgb images"),
        ('budget = "soon"', "nashc-check.toml, budget: 'soon' is no duration; write 30s, 2m or 1h"),
        ('layout = "nwhc"', "unknown layout 'nwhc'; did you mean"),
        ('split = "tests"', "unknown split 'tests'; did you mean 'test'?"),
        ('target = "fpga-zc760"', "unknown target 'fpga-zc760'; did you mean 'fpga-zc706'?"),
        ('junit = "none/gates.xml"', "none: there is no such folder"),
        ('junit = "a\\u0000b"', "nashc-check.toml, junit: a NUL character"),
        ("a = [", "nashc-check.toml: broken TOML"),
        ("[gates]\nmin-fps = 3", "nashc-check.toml: unknown key 'gates'"),
    ],
)
def test_config_errors_name_file_and_key(project, capsys, lines, message):
    fixed = 'model = "models/m.onnx"\ndata = "models/d.npz"\n'
    (project / "nashc-check.toml").write_text(fixed + lines)
    code, out, err = nashc(capsys)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(project.glob(".nashc-*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "neither a model nor a nashc-check.toml here; give a model, or --config FILE"),
        (["--config", "none.toml"], "none.toml: there is no such file"),
        (["--config", "models"], "models: there is no such file"),
        (["--config", "binary.toml"], "binary.toml: not UTF-8 text"),
        (["--config", "deep.toml"], "deep.toml: "),
        (["--config", "empty.toml"], "no model to check"),
        (["none.onnx", "--data", "models/d.npz"], "none.onnx: no such file"),
        (["binary.toml", "--data", "models/d.npz"], "binary.toml: "),
        (["models/m.onnx", "--data", "none"], "none: there is no such file or folder"),
        (["models/m.onnx", "--data", "models/d.npz", "--against", "none.onnx"], "none.onnx: no such file"),
        (["models/two.onnx", "--data", "models/d.npz"], "models/two.onnx: the model has 2 inputs (x, w); accuracy is"),
        (["models/m.onnx", "--data", "models/four.npz"], "is not the model's input [n, 10, 1, 1]"),
        (["models/m.onnx", "--data", "models/d.npz", "--against", "models/map.onnx"], "output 'y' is [1, 10], and"),
        (["models/m.onnx", "--design", "empty.toml"], "empty.toml: broken JSON"),
        (["models/m.onnx", "--data", "models/d.npz", "--min-accuracy", "0.9"], "write 0.9% or 90%"),
        (["models/m.onnx", "--data", "models/d.npz", "--mean", "1,x"], "'1,x' are no numbers separated by commas"),
        (["models/m.onnx", "--data", "models/d.npz", "--resize", "1.5"], "are no whole numbers separated by commas"),
        (["models/m.onnx", "--data", "models/d.npz", "--scale", "nan"], "preprocess, scale"),
        (["models/m.onnx", "--data", "models/d.npz", "--junit", "models"], "models: is a folder"),
        (["models/m.onnx", "--bogus"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(project, capsys, args, message):
    (project / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (project / "empty.toml").write_text("")
    (project / "deep.toml").write_text("mean = " + "[" * 5000 + "]" * 5000)
    code, out, err = nashc(capsys, *args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


# reports


def test_bar_shows_images_a_second_on_a_terminal_only(monkeypatch):
    monkeypatch.setattr(progress, "SHOWN_AFTER_SECONDS", 0)
    for terminal in (True, False):
        text = StringIO()
        with progress.image_bar(Console(file=text, force_terminal=terminal, width=100)) as report:
            if report is not None:
                report(16, 1000)
                time.sleep(0.01)
                report(32, 1000)
                report(1000, 1000)
        assert ("of 1,000" in text.getvalue() and "images/s" in text.getvalue()) is terminal


def test_junit_has_a_case_for_each_gate_and_survives_odd_names(small, tmp_path, capsys):
    odd = tmp_path / 'm<&"\x1b\u202e.onnx'
    odd.write_bytes((small / "m.onnx").read_bytes())
    (tmp_path / "old.xml").write_text("old")
    args = [str(odd), "--data", str(small / "d.npz"), "--min-accuracy", "90.1%", "--min-top5", "1%"]
    assert nashc(capsys, *args, "--junit", str(tmp_path / "old.xml"))[0] == 1
    suite = ElementTree.parse(tmp_path / "old.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert "m<&" in suite.get("name", "")
    failures = {case.get("name"): case.find("failure") for case in suite.iter("testcase")}
    assert list(failures) == ["min-accuracy", "min-top5", "no-nan"]
    assert failures["min-accuracy"] is not None
    assert failures["min-accuracy"].get("message") == "top-1 accuracy: 90.00% < 90.10%"
    assert failures["min-top5"] is None
    assert sorted(os.listdir(tmp_path)) == sorted([odd.name, "old.xml"])


def test_an_error_leaves_an_earlier_junit_file(small, tmp_path, capsys):
    (tmp_path / "old.xml").write_text("old")
    args = [str(small / "m.onnx"), "--data", str(small / "d.npz"), "--labels", "none.csv"]
    assert nashc(capsys, *args, "--junit", str(tmp_path / "old.xml"))[0] == 2
    assert (tmp_path / "old.xml").read_text() == "old"


def test_json_says_the_same_and_nothing_else(small, capsys):
    args = [str(small / "m.onnx"), "--against", str(small / "a.onnx"), "--data", str(small / "d.npz"), "--json"]
    code, out, err = nashc(capsys, *args, "--min-accuracy", "90.1%")
    document = json.loads(out)
    assert (code, err) == (1, "")
    assert document["gates"][0] == {
        "name": "min-accuracy", "what": "top-1 accuracy", "unit": "%", "found": 0.9, "limit": 0.901, "passed": False,
    }  # fmt: skip
    accuracy = document["accuracy"]
    assert (accuracy["model"]["top1"], accuracy["against"]["top1"], accuracy["drop"]) == (0.9, 0.905, 0.005)
    assert accuracy["outputs"][0]["agreement"] == 0.995
    assert document["design"] is None


def test_outputs_that_are_equal_have_no_number_in_json(small, capsys):
    path = str(small / "a.onnx")
    args = [path, "--against", path, "--data", str(small / "d.npz"), "--min-sqnr-db", "100"]
    (output,) = json.loads(nashc(capsys, *args, "--json")[1])["accuracy"]["outputs"]
    assert output == {"name": "y", "shape": [10], "agreement": 1.0, "sqnr_db": None, "equal": True}
    code, out, _ = nashc(capsys, *args)
    assert code == 0
    assert "equal" in out


def test_junit_of_a_check_without_gates_parses(mnist):
    checked = check(Request(model=MNIST, design=str(mnist / "out/design.json")))
    assert ElementTree.fromstring(check_junit(checked)).get("tests") == "0"


def test_the_config_of_the_examples_is_one():
    request = read_request(str(Path(MNIST).parents[1] / "check/nashc-check.toml"))
    assert os.path.samefile(request.model, MNIST)
    assert request.min_accuracy == Share.parse("99%")
