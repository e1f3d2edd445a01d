"""The command line as a user meets it: exit codes, what is on stdout and stderr, files that survive anything."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from handmade import compiled

import nashc.compiler
from nashc.artifact import dump, load
from nashc.cli import run
from nashc.compiler import compile_model, write
from nashc.core.options import Options
from nashc.errors import NashcError

ROOT = Path(__file__).parents[2]
MNIST = str(ROOT / "examples/models/mnist-conv.onnx")
TARGET = "fpga-zc706"
QUICK = ("--batch", "1")


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compile") / "out"
    assert run(["compile", MNIST, "--target", TARGET, "-o", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="module")
def with_host(tmp_path_factory) -> str:
    """A model whose last node no unit of the accelerator runs."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8, 8])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, 8, 8])
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [4, 4, 1, 1], [0.5] * 16)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        onnx.helper.make_node("Det2\u202e", ["a"], ["y"], name="odd\x1b[2J", domain="com.example"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [weight])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.example", 1)]
    path = tmp_path_factory.mktemp("host") / "host.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return str(path)


def nashc_process(*args: str, **kwargs) -> subprocess.Popen:
    code = "import sys; from nashc.cli import main; main(sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", code, *args], cwd=ROOT, text=True, **kwargs)


# compile


def test_compile_writes_files_that_agree(result, capsys):
    assert sorted(os.listdir(result)) == ["design.json", "model.onnx", "report.html", "report.txt"]
    assert not list(result.parent.glob(".*"))
    value = load(result / "design.json")
    report = (result / "report.txt").read_text()
    assert f"{len(value.design.network.layers)} layers" in report
    assert "\x1b" not in report
    model = onnx.load(result / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    props = [{p.key: p.value for p in node.metadata_props} for node in model.graph.node]
    cycles = sum(int(p["nashc.cycles"]) for p in props)
    assert cycles == sum(r.cycles for r in value.design.layers)
    assert {p["nashc.chunk"] for p in props} == {"conv", "vector", "none"}
    fused = next(p for p in props if p.get("nashc.mapping", "").startswith("fused into"))
    assert fused["nashc.cycles"] == "0"


def test_compile_is_deterministic(result, tmp_path):
    assert run(["compile", MNIST, "--target", TARGET, "-o", str(tmp_path / "again"), *QUICK]) == 0
    for name in os.listdir(result):
        assert (tmp_path / "again" / name).read_bytes() == (result / name).read_bytes(), name


def test_compile_prints_the_report_file(result, capsys, tmp_path):
    out = tmp_path / "out"
    assert run(["compile", MNIST, "--target", TARGET, "-o", str(out), *QUICK]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith((out / "report.txt").read_text())
    assert "wrote" in shown.out
    assert shown.err == ""


def test_json_is_all_there_is_on_stdout(result):
    process = nashc_process("compile", MNIST, "--target", TARGET, "--json", *QUICK, stdout=-1, stderr=-1)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out == (result / "design.json").read_text()


def test_options_arrive(tmp_path):
    file = tmp_path / "out"
    args = ["--objective", "latency", "--max-latency-ms", "5", "--max-lut", "100000", "--max-dsp", "300"]
    args += ["--max-bram", "200", "--clock", "150", "--budget", "1m", "--batch", "2"]
    assert run(["compile", MNIST, "--target", TARGET, "-o", str(file), "--shape", "Input3=1,1,28,28", *args]) == 0
    value = load(file / "design.json")
    options, design = value.options, value.design
    assert (options.objective, options.max_latency_ms, options.batch) == ("latency", 5, 2)
    assert (options.max_lut, options.max_dsp, options.max_bram36) == (100000, 300, 200)
    assert (options.clock_mhz, options.budget_seconds) == (150, 60)
    assert design.clock_mhz == value.board.clock_mhz == 150
    assert design.accelerator.batch == 2
    assert [name for name, _ in value.alternatives] == ["batch 1"]
    assert design.resources.lut <= 100000
    assert design.resources.dsp <= 300
    assert design.resources.bram18 <= 400


def test_target_may_be_a_file(tmp_path, capsys):
    text = (ROOT / "targets" / "fpga-zc706.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    assert run(["compile", MNIST, "--target", str(mine), "--json", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["design"]["board"] == "mine"


def test_explain_space(capsys):
    assert run(["compile", MNIST, "--target", TARGET, "--explain-space"]) == 0
    shown = capsys.readouterr().out
    assert "accelerator space" in shown
    assert "conv on mac lanes" in shown
    assert "lanes on DSPs and in LUTs: mac dsp + dsp_packed + lut8x8" in shown


def test_host_nodes(with_host, capsys):
    assert run(["compile", with_host, "--target", TARGET, "--json", *QUICK]) == 0
    shown = capsys.readouterr()
    assert "warning: on the host CPU, not on the accelerator: 'odd\\x1b[2J'" in shown.err
    assert json.loads(shown.out)["design"]["layers"][-1]["chunk"] == -1
    assert run(["compile", with_host, "--target", TARGET, "--json", "--strict"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.match(r"error: --strict: 1 of 2 layers run on the host: 'odd\\x1b\[2J' \(Det2\\u202e: ", shown.err)


def test_search_errors_are_bad_input(capsys, tmp_path):
    assert run(["compile", MNIST, "--target", TARGET, "-o", str(tmp_path / "x"), "--max-lut", "10"]) == 2
    assert capsys.readouterr().err.startswith("error: no accelerator")
    assert not list(tmp_path.iterdir())


# usage


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["compile"], "error: Missing argument 'MODEL'"),
        (["compile", MNIST], "error: Missing option '--target'"),
        (["compile", MNIST, "--target", TARGET], "error: Missing option '-o'"),
        (
            ["compile", MNIST, "--target", "fpga-zc760", "--json"],
            "unknown target 'fpga-zc760'; did you mean 'fpga-zc706'",
        ),
        (["compile", MNIST, "--target", "no.toml", "--json"], "error: no.toml: no such board file"),
        (["compile", MNIST, "--target", TARGET, "--json", "--objective", "fsp"], "did you mean 'fps'"),
        (["compile", MNIST, "--target", TARGET, "--json", "--baseline", "nasaf"], "did you mean 'nasa-f'"),
        (["compile", MNIST, "--target", TARGET, "--json", "--objectiv", "fps"], "Did you mean '--objective'"),
        (["compile", MNIST, "--target", TARGET, "--json", "--shape", "Input3"], "write NAME=1,3,224,224"),
        (["compile", MNIST, "--target", TARGET, "--json", "--shape", "Input3=1,0,2"], "write NAME=1,3,224,224"),
        (["compile", MNIST, "--target", TARGET, "--json", "--shape", "Inputs=1,1,28,28"], "did you mean 'Input3'"),
        (["compile", MNIST, "--target", TARGET, "--json", *["--shape", "Input3=1,1,28,28"] * 2], "an input twice"),
        (["compile", MNIST, "--target", TARGET, "--json", "--batch", "0"], "number from 1 to 256"),
        (["compile", MNIST, "--target", TARGET, "--json", "--batch", "many"], "neither 'auto' nor"),
        (["compile", MNIST, "--target", TARGET, "--json", "--budget", "soon"], "write 30s, 2m or 1h"),
        (["compile", MNIST, "--target", TARGET, "--json", "--budget", "0s"], "write 30s, 2m or 1h"),
        (["compile", MNIST, "--target", TARGET, "--json", "--clock", "nan"], "not a positive number"),
        (["compile", MNIST, "--target", TARGET, "--json", "--clock", "-1"], "not a positive number"),
        (["compile", MNIST, "--target", TARGET, "--json", "--max-latency-ms", "inf"], "not a positive number"),
        (["compile", MNIST, "--target", TARGET, "--json", "--max-dsp", "-1"], "--max-dsp"),
        (["compile", "none.onnx", "--target", TARGET, "--json"], "error: none.onnx: no such file"),
        (["compile", "\udcff.onnx", "--target", TARGET, "--json"], "the path is not UTF-8"),
        (["compile", str(ROOT / "README.md"), "--target", TARGET, "--json"], "not an ONNX model"),
        (["compile", MNIST, "--target", TARGET, "-o", str(ROOT / "README.md"), *QUICK], "not a directory"),
        (["inspect"], "error: Missing argument 'MODEL'"),
        (["compil"], "Did you mean one of: 'compile'"),
        (["targets", "show", "fpga-zc760"], "did you mean 'fpga-zc706'"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, words, capsys):
    assert run(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1


def test_help_and_version(capsys):
    assert run(["--version"]) == 0
    assert re.match(r"nashc \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert run(["-h"]) == 0
    assert "Deploy multiplication-reduced" in capsys.readouterr().out
    assert run([]) == 2
    assert "Compile:" in capsys.readouterr().err


def test_inspect_targets_schema(capsys):
    assert run(["inspect", MNIST, "--target", TARGET, "-v"]) == 0
    assert "largest feature map" in capsys.readouterr().out
    for args in (["targets"], ["targets", "list"]):
        assert run(args) == 0
        assert "fpga-kv260" in capsys.readouterr().out
    assert run(["targets", "show", "fpga-kv260"]) == 0
    assert "lanes.shift.lut_tree" in capsys.readouterr().out
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$ref"].endswith("Document")


def failed_import(cause: BaseException) -> ImportError:
    """What a library makes of a signal while it is being loaded."""
    error = ImportError("initialization failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (NashcError("bad", where="node 'a\nb'", hint="fix it"), 2, "error: node 'a\\x0ab': bad; fix it\n"),
        (PermissionError(13, "Permission denied", "f"), 2, "error: f: Permission denied\n"),
        (MemoryError(), 2, "error: out of memory"),
        (RecursionError(), 2, "error: the input is nested too deeply"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (failed_import(KeyboardInterrupt()), 130, "interrupted\n"),
        (failed_import(ZeroDivisionError()), 3, "internal error, please report: ImportError: initialization failed"),
        (ZeroDivisionError("x"), 3, "internal error, please report: ZeroDivisionError: x"),
    ],
)
def test_failures(failure, code, words, capsys, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(nashc.compiler, "solve", fail)
    assert run(["compile", MNIST, "--target", TARGET, "-o", str(tmp_path / "out")]) == code
    shown = capsys.readouterr()
    assert shown.err.splitlines(keepends=True)[-1].startswith(words)
    assert "Traceback" not in shown.err
    assert not list(tmp_path.iterdir())
    if code == 3:
        assert run(["compile", MNIST, "--target", TARGET, "--json", "-v"]) == 3
        assert "Traceback" in capsys.readouterr().err


def test_a_termination_that_a_library_hides_is_one(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise failed_import(SystemExit(143))

    monkeypatch.setattr(nashc.compiler, "solve", fail)
    assert run(["compile", MNIST, "--target", TARGET, "--json"]) == 143
    assert "internal error" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    for args in (["schema"], ["compile", MNIST, "--target", TARGET, "--json", *QUICK], ["--version"]):
        process = nashc_process(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


# files


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_search_leaves_no_trace(number, tmp_path):
    out = tmp_path / "out"
    args = ("compile", MNIST, "--target", TARGET, "-o", str(out))
    process = nashc_process(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.2)
    process.send_signal(number)
    said = process.communicate(timeout=60)
    assert process.returncode in (130, 143, 0), said
    assert not list(tmp_path.glob(".*"))
    assert process.returncode == 0 or not out.exists()


WRITE_FOREVER = """
import sys
from dataclasses import replace
from pathlib import Path
from nashc.artifact import load
from nashc.compiler import write
from nashc.importer import import_model

values = [replace(load(Path(name)), model=import_model(sys.argv[1]).model) for name in sys.argv[3:]]
print("ready", flush=True)
while True:
    for i, value in enumerate(values):
        write(value, sys.argv[2], {"report.txt": f"report {i}" * 10_000})
"""


def test_killed_writes_never_harm_a_result(result, tmp_path):
    """Processes that write results over and over are killed at random moments: every file is whole at any time."""
    chance = random.Random(1)
    value = load(result / "design.json")
    kinds = [value, replace(value, options=replace(value.options, budget_seconds=1.0))]
    for i, kind in enumerate(kinds):
        (tmp_path / f"{i}.json").write_bytes(dump(kind))
    designs = [str(tmp_path / f"{i}.json") for i in range(2)]
    running = []
    for i in range(10):
        out = tmp_path / f"try{i}" / "out"
        write(kinds[0], out, {"report.txt": "report 0" * 10_000})
        (out / "model.onnx").write_bytes((result / "model.onnx").read_bytes())
        command = [sys.executable, "-c", WRITE_FOREVER, MNIST, str(out), *designs]
        running.append((out, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)))
    for out, process in running:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate()
        now = files(out)
        assert now.keys() == {"design.json", "model.onnx", "report.txt"}
        assert now["design.json"] in (dump(kinds[0]), dump(kinds[1]))
        assert now["model.onnx"] == (result / "model.onnx").read_bytes()
        assert now["report.txt"] in (b"report 0" * 10_000, b"report 1" * 10_000)


def test_what_killed_commands_left_goes_with_the_next_one(tmp_path):
    old, other = tmp_path / ".out.nashc-abc", tmp_path / ".out.nashc-new"
    old.mkdir()
    (old / "half").write_text("x")
    other.mkdir()
    os.utime(old, (0, 0))
    write(compiled(), tmp_path / "out", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.nashc-new", "out"]


def test_write_keeps_other_files_and_makes_parents(tmp_path):
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    write(compiled(), out, {"report.txt": "r"})
    assert sorted(p.name for p in out.iterdir()) == ["design.json", "notes.txt", "report.txt"]
    write(compiled(), tmp_path / "c" / "d", {})
    assert (tmp_path / "c" / "d" / "design.json").read_bytes() == dump(compiled())


def test_out_in_a_folder_of_somebody_else(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    write(compiled(), out, {})
    assert [p.name for p in out.iterdir()] == ["design.json"]
    with pytest.raises(NashcError, match="cannot write here; give another directory with -o"):
        write(compiled(), tmp_path / "new", {})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(NashcError, match="cannot write here"):
        write(compiled(), out, {})


def test_a_failed_write_changes_nothing(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(compiled(), out, {"report.txt": "first"})
    before = files(out)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nashc.compiler, "dump", full)
    with pytest.raises(OSError, match="No space"):
        write(compiled(), out, {"report.txt": "second"})
    assert files(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_large_weights_go_beside_the_model(tmp_path, monkeypatch):
    value = compile_model(MNIST, TARGET, options=Options(batch=1))
    write(value, tmp_path / "small", {})
    monkeypatch.setattr(nashc.compiler, "EMBED_BYTES", 100)
    out = tmp_path / "large"
    out.mkdir()
    (out / "model-0123.data").write_text("of an earlier result")
    write(value, out, {})
    data = [p.name for p in out.iterdir() if p.suffix == ".data"]
    assert len(data) == 1
    assert re.fullmatch(r"model-[0-9a-f]{16}\.data", data[0])
    small, large = (ir.load(tmp_path / name / "model.onnx") for name in ("small", "large"))
    for name, weight in small.graph.initializers.items():
        assert (large.graph.initializers[name].const_value.numpy() == weight.const_value.numpy()).all()


def test_external_data_is_taken_along(tmp_path, result):
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(onnx.load(MNIST), source / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    out = tmp_path / "out"
    assert run(["compile", str(source / "m.onnx"), "--target", TARGET, "-o", str(out), *QUICK]) == 0
    assert not list(out.glob("*.data"))
    onnx.checker.check_model(onnx.load(out / "model.onnx"))
