"""`nashc hybridize` from files to files."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_pipeline import CLASSES

from nashc.artifact import load
from nashc.cli import run
from nashc.data import Preprocess
from nashc.importer import import_model
from nashc.runtime import Session

LIMITS = ("--batch", "1", "--max-lut", "15000", "--max-dsp", "20", "--max-bram", "40", "--budget", "2s")
SCALE = ("--scale", "0.01", "--mean", "1.2", "--std", "0.7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and labelled images whose labels are the model's own classes."""
    made = tmp_path_factory.mktemp("hybridize")
    onnx.save(CLASSES, made / "float.onnx")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 16, 16, 3), np.uint8)
    pixels = ((x.transpose(0, 3, 1, 2) * 0.01 - 1.2) / 0.7).astype(np.float32)
    y = Session(made / "float.onnx", threads=1).run({"x": pixels})["y"].argmax(axis=1)
    np.save(made / "calib.npy", x[:20])
    np.savez(made / "val.npz", x=x[20:], y=y[20:])
    return made


def hybridize(folder, *flags, out="hybrid.onnx"):
    wanted = ["--target", "fpga-zc706", "--calib", str(folder / "calib.npy"), "-o", str(folder / out)]
    return run(["hybridize", str(folder / "float.onnx"), *wanted, *LIMITS, *SCALE, *flags])


@pytest.fixture(scope="module")
def made(folder):
    assert (
        hybridize(folder, "--data", str(folder / "val.npz"), "--max-drop", "20%", "--plot", str(folder / "c.svg")) == 0
    )
    return folder / "hybrid.onnx"


def test_what_is_written(folder, made, capsys):
    curve = json.loads(made.with_suffix(".json").read_text())
    chosen = [point for point in curve["points"] if point["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["drop"] <= 0.2
    assert chosen[0]["accuracy"] == pytest.approx(chosen[0]["float_accuracy"] - chosen[0]["drop"])
    assert curve["labelled"]
    assert set(curve["baselines_fps"]) == {"conv-only", "conv-only-dsp"}
    assert "<svg" in (folder / "c.svg").read_text()
    assert run(["report", str(made.with_suffix(".json"))]) == 0
    assert chosen[0]["types"] in made.with_suffix(".html").read_text()
    onnx.checker.check_model(onnx.load(made))


def test_the_preprocessing_is_stored(made):
    stored = Preprocess.from_metadata(Session(made, threads=1).metadata)
    assert stored == Preprocess(mean=(1.2,), std=(0.7,), scale=0.01)


def test_check_agrees_with_the_accuracy_that_was_reported(folder, made, capsys):
    """All images are fewer than those that types are chosen on, so both measured the same ones."""
    chosen = next(p for p in json.loads(made.with_suffix(".json").read_text())["points"] if p["chosen"])
    flags = ["--against", str(folder / "float.onnx"), "--data", str(folder / "val.npz"), *SCALE, "--json"]
    assert run(["check", str(made), *flags]) == 0
    found = json.loads(capsys.readouterr().out)["accuracy"]
    assert found["model"]["top1"] == pytest.approx(chosen["accuracy"])


def test_json_is_the_file(folder, capsys):
    assert hybridize(folder, "--types", "shift1", "--max-drop", "100%", "--json", out="all.onnx") == 0
    assert capsys.readouterr().out == (folder / "all.json").read_text()
    layers = [layer for layer in import_model(folder / "all.onnx").network.layers if layer.weights is not None]
    assert [str(layer.unit) for layer in layers] == ["conv", *["shift"] * 4, "conv"]


def test_the_report_says_what_stands_in_the_file(folder, made, capsys):
    page, designs = folder / "four page.html", folder / "designs"
    flags = ("--types", "conv4", "--max-drop", "100%", "--plot", str(page), "--designs", str(designs))
    assert hybridize(folder, *flags, out="four.onnx") == 0
    assert "original, conv-only" in page.read_text()
    points = json.loads((folder / "four.json").read_text())["points"]
    assert len(points) == len({point["design"] for point in points}) == len(list(designs.iterdir()))
    for point in points:
        assert load(folder / point["design"]).design.fps == point["fps"]
        assert f'"link":"{point["design"].replace("design.json", "report.html")}"' in page.read_text()
    text = capsys.readouterr().out
    fps = next(p["fps"] for p in json.loads((folder / "four.json").read_text())["points"] if p["chosen"])
    assert f"{fps:,.0f} FPS" in text
    assert "nothing is gained over multiplication alone" in text  # conv4 multiplies
    assert "No adder layers" in text


def test_adder_layers_by_fine_tuning(folder, capsys):
    pytest.importorskip("torch")
    flags = ("--finetune", str(folder / "calib.npy"), "--adders", "Conv_6", "--epochs", "1", "--max-drop", "100%")
    assert hybridize(folder, *flags, "--types", "conv8", out="adder.onnx") == 0
    network = import_model(folder / "adder.onnx").network
    assert sum(str(layer.unit) == "adder" for layer in network.layers) == 1
    curve = json.loads((folder / "adder.json").read_text())
    assert curve["adder_layers"] == ["Conv_6"]
    assert curve["multiplication_only_fps"] == max(curve["baselines_fps"].values())  # no point multiplies only
    assert "adder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--types", "shift9"), "shift9"),
        (("--types", ""), "layer type"),
        (("--calibration", "maximum"), "calibration"),
        (("--keep", "Cnv*"), "no convolution is named 'Cnv*'"),
        (("--force", "Conv_2=adder"), "adder"),
        (("--force", "Conv_2"), "PATTERN=TYPE"),
        (("--max-drop", "0.5"), "0.5%"),
        (("--plot", "curve.bmp"), "curve.bmp"),
        (("--adders", "Conv_2"), "no effect without --finetune: --adders"),
        (("--epochs", "3", "--checkpoint", "ck"), "no effect without --finetune: --epochs, --checkpoint"),
        (("--labels", "none.csv"), "no effect without --data: --labels"),
        (("--plot", "no/such/c.html"), "there is no such folder"),
        (("--data", "nowhere"), "nowhere"),
        (("--calib", "nowhere.npy"), "nowhere.npy"),
        (("--target", "fpga-none"), "fpga-none"),
        (("--max-drop", "0%", "--types", "shift1"), "no choice of layer types keeps a drop of 0.00%"),
    ],
)
def test_bad_input_is_an_error_that_writes_nothing(folder, capsys, flags, text):
    assert hybridize(folder, *flags, out="bad.onnx") == 2
    assert text in capsys.readouterr().err
    assert not list(Path(folder).glob("bad*"))


def test_labels_beyond_the_classes_are_found_before_the_work(folder, capsys):
    (folder / "l.txt").write_text("\n".join(["99"] * 40))
    flags = ("--data", str(folder / "val.npz"), "--labels", str(folder / "l.txt"))
    assert hybridize(folder, *flags, out="bad.onnx") == 2
    assert "label 99 for a model with 10 classes" in capsys.readouterr().err


def test_images_that_are_ready_say_nothing_of_preprocessing(folder, capsys):
    """The flags have done nothing to them, so a check of the hybrid must not do it to others."""
    x = np.load(folder / "calib.npy").transpose(0, 3, 1, 2).astype(np.float32)
    np.save(folder / "ready.npy", (x * 0.01 - 1.2) / 0.7)
    flags = ("--types", "conv4", "--max-drop", "100%", "--data", str(folder / "ready.npy"))
    assert hybridize(folder, "--calib", str(folder / "ready.npy"), *flags, out="ready.onnx") == 0
    assert Preprocess.from_metadata(Session(folder / "ready.onnx", threads=1).metadata) is None
    text = " ".join(capsys.readouterr().out.split())
    assert "ready.npy: numbers that are not pixels: taken as already preprocessed" in text
    assert "the hybrid was calibrated on some of these images" in text


def test_what_is_read_is_not_overwritten(folder, capsys):
    (folder / "labels.json").write_text(json.dumps([0] * 40))
    flags = ("--data", str(folder / "val.npz"), "--labels", str(folder / "labels.json"))
    assert hybridize(folder, *flags, out="labels.onnx") == 2
    assert "labels.json: would take the place of --labels" in capsys.readouterr().err


def test_the_original_is_not_overwritten(folder, capsys):
    before = (folder / "float.onnx").read_bytes()
    assert hybridize(folder, out="float.onnx") == 2
    assert "would take the place of the original" in capsys.readouterr().err
    assert (folder / "float.onnx").read_bytes() == before


def test_a_hybrid_is_no_original(folder, made, capsys):
    code = run(["hybridize", str(made), "--target", "fpga-zc706", "--calib", str(folder / "calib.npy"), "-o", "x.onnx"])
    assert code == 2
    assert "quantised already" in capsys.readouterr().err
