"""Named files, boards, flags and output folders that are wrong."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bad_models import conv, net
from judge import ROOT, Case
from onnx import TensorProto

MNIST = ROOT / "examples/models/mnist-conv.onnx"
BOARD = (ROOT / "targets/fpga-zc706.toml").read_text()
COMPILE = ["compile", str(MNIST), "--target", "fpga-zc706", "--budget", "1s", "--batch", "1"]
WHOLE = MNIST.read_bytes()


def data(name: str, content: bytes, words: str = "not an ONNX model", kind: str = "bytes") -> Case:
    def prepare(folder: Path) -> Sequence[str]:
        (folder / "x.onnx").write_bytes(content)
        return ["inspect", str(folder / "x.onnx")]

    return Case(kind, name, prepare, words)


def nested(depth: int) -> bytes:
    """Subgraphs within subgraphs: graph.node.attribute.g, again and again."""
    graph = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            graph = tag + varint(len(graph)) + graph
    return b"\x3a" + varint(len(graph)) + graph + b"\x42\x02\x10\x11"


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + struct.pack("B", n & 127 | 128), n >> 7
    return out + struct.pack("B", n)


BYTES = (
    data("empty", b""),
    data("text", b"this is no model\n" * 20),
    data("JSON", b'{"graph": {"node": []}}'),
    data("ZIP, as PyTorch writes", b"PK\x03\x04" + bytes(500)),
    data("zeros", bytes(10_000)),
    data("ones", b"\xff" * 10_000),
    data("random", random.Random(1).randbytes(30_000)),
    data("one byte short", WHOLE[:-1], "x.onnx"),
    data("cut in the middle", WHOLE[: len(WHOLE) // 2], "x.onnx"),
    data("the first 100 bytes", WHOLE[:100], "x.onnx"),
    data("without its first byte", WHOLE[1:], "x.onnx"),
    data("with random bytes behind", WHOLE + random.Random(2).randbytes(100), "x.onnx"),
    data("a length of 2^63", b"\x3a" + b"\xff" * 8 + b"\x7f" + WHOLE, "x.onnx"),
    data("20 nested graphs", nested(20), "x.onnx"),
    data("5,000 nested graphs", nested(5000), "x.onnx"),
    data("a name that is no UTF-8", WHOLE.replace(b"Convolution28", b"Convol\xff\xfeion28"), "x.onnx"),
)


def path_case(name: str, make: Callable[[Path], Path | str], words: str) -> Case:
    return Case("paths", name, lambda folder: ["inspect", str(make(folder))], words)


def sparse(folder: Path) -> Path:
    with (folder / "x.onnx").open("wb") as file:
        file.truncate(2**31)
    return folder / "x.onnx"


def link(folder: Path, target: str) -> Path:
    (folder / "x.onnx").symlink_to(target)
    return folder / "x.onnx"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.onnx")
    return folder / "x.onnx"


PATHS = (
    path_case("missing file", lambda f: f / "absent.onnx", "no such file"),
    path_case("a folder", lambda f: f, "not a file"),
    path_case("below a file", lambda f: f"{MNIST}/x.onnx", "mnist-conv.onnx"),
    path_case("link to nothing", lambda f: link(f, "absent"), "no such file"),
    path_case("link to itself", lambda f: link(f, "x.onnx"), "x.onnx"),
    path_case("named pipe", pipe, "not a file"),
    path_case("device without end", lambda f: "/dev/zero", "not a file"),
    path_case("2 GB", sparse, "2 GB"),
    path_case("5,000 characters", lambda f: f / ("x" * 5000), "File name too long"),
    path_case("empty path", lambda f: "", "an empty path"),
    path_case("NUL in the path", lambda f: "a\0b", "path"),
    path_case("not UTF-8", lambda f: "\udcff.onnx", "not UTF-8"),
    path_case("escapes in the path", lambda f: f / "\x1b[2J\n.onnx", "no such file"),
)


def external(name: str, words: str, setup: Callable[[Path], object] = lambda f: None, **entries: str) -> Case:
    """The weight is in another file; the model lies in folder/inner."""

    def prepare(folder: Path) -> Sequence[str]:
        inner = folder / "inner"
        inner.mkdir()
        (folder / "secret.bin").write_bytes(bytes(576))
        setup(inner)
        model = net("y = Conv<pads=[1,1,1,1]>(x, w)")
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4, 3, 3])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)
        (inner / "x.onnx").write_bytes(model.SerializeToString())
        return ["inspect", str(inner / "x.onnx")]

    return Case("external data", name, prepare, words)


def fill(size: int) -> Callable[[Path], object]:
    return lambda inner: (inner / "w.bin").write_bytes(bytes(size))


EXTERNAL = (
    external("absolute", "outside the model's folder", location="/etc/hostname"),
    external("parent", "outside the model's folder", location="../secret.bin"),
    external("parent in disguise", "outside the model's folder", location="a/../../secret.bin"),
    external("parent with backslashes", "outside the model's folder", location="..\\secret.bin"),
    external("no location", "outside the model's folder"),
    external("NUL in the location", "outside the model's folder", location="w\0.bin"),
    external("escapes in the location", "missing", location="\x1b[2J\u202e"),
    external("10,000 characters", "x.onnx", location="w" * 10_000),
    external("missing", "missing", location="w.bin"),
    external("link outside", "leads out", lambda f: (f / "w.bin").symlink_to("../secret.bin"), location="w.bin"),
    external("linked folder", "leads out", lambda f: (f / "d").symlink_to(".."), location="d/secret.bin"),
    external("link to itself", "x.onnx", lambda f: (f / "w.bin").symlink_to("w.bin"), location="w.bin"),
    external("a folder", "missing", lambda f: (f / "w.bin").mkdir(), location="w.bin"),
    external("a named pipe", "missing", lambda f: os.mkfifo(f / "w.bin"), location="w.bin"),
    external("too short", "too short", fill(100), location="w.bin"),
    external("offset beyond the end", "too short", fill(600), location="w.bin", offset="600"),
    external("negative offset", "x.onnx", fill(600), location="w.bin", offset="-8"),
    external("offset that is no number", "no number", fill(600), location="w.bin", offset="eight"),
    external("length of 10^30", "too short", fill(600), location="w.bin", length="1" + "0" * 30),
)


def board(name: str, text: str | bytes, words: str) -> Case:
    def prepare(folder: Path) -> Sequence[str]:
        path = folder / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogateescape"))
        return ["inspect", str(MNIST), "--target", str(path)]

    return Case("boards", name, prepare, words)


def line(key: str, new: str) -> str:
    """The board of the zc706 with one line replaced."""
    lines = BOARD.splitlines()
    (at,) = (i for i, old in enumerate(lines) if old.startswith(f"{key} ="))
    return "\n".join([*lines[:at], new, *lines[at + 1 :]]) + "\n"


def figure(value: str, unit: str = "lut") -> str:
    return line("lut", f'lut = {{ value = {value}, unit = "{unit}", source = "s" }}')


BOARDS = (
    board("empty", "", "mine.toml"),
    board("not TOML", "this is no TOML", "not TOML"),
    board("not UTF-8", b"\xff\xfe" + BOARD.encode(), "not UTF-8"),
    board("NUL", BOARD + "\0", "mine.toml"),
    board("cut", BOARD[: len(BOARD) // 2], "mine.toml"),
    board("larger than a board", "# x\n" * 100_000, "256 KiB"),
    board("nested 5,000 deep", "a = " + "[" * 5000 + "]" * 5000, "mine.toml"),
    board("key given twice", BOARD.replace("\nff =", "\nlut =", 1), "mine.toml"),
    board("unknown key", "lutt = 1\n" + BOARD, "did you mean 'lut'"),
    board("unknown table", BOARD + "\n[dramm]\n", "did you mean 'dram'"),
    board("key with markup", '"[red]\\u001b[2J\\u202e" = 1\n' + BOARD, "unknown key"),
    board("key of 10,000 characters", "k" * 10_000 + " = 1\n" + BOARD, "unknown key"),
    board("missing key", line("dsp", ""), "missing key 'dsp'"),
    board("plain number", line("lut", "lut = 218600"), "expected a figure"),
    board("text for a number", figure('"many"'), "is not a whole number"),
    board("fraction of a LUT", figure("1.5"), "is not a whole number"),
    board("truth for a number", figure("true"), "is not a whole number"),
    board("negative number", figure("-5"), "out of range"),
    board("zero LUTs", figure("0"), "'lut'"),
    board("not a number", line("clock_mhz", 'clock_mhz = { value = nan, unit = "MHz", source = "s" }'), "out of range"),
    board("infinite", line("clock_mhz", 'clock_mhz = { value = inf, unit = "MHz", source = "s" }'), "out of range"),
    board("number of 400 digits", figure("9" * 400), "out of range"),
    board("number of 10,000 digits", figure("9" * 10_000), "mine.toml"),
    board("wrong unit", figure("218600", "kLUT"), "expected 'lut'"),
    board("unit that is a number", line("lut", 'lut = { value = 1, unit = 3, source = "s" }'), "unit is 3"),
    board("no source", line("lut", 'lut = { value = 218600, unit = "lut" }'), "missing 'source'"),
    board("empty source", line("lut", 'lut = { value = 218600, unit = "lut", source = " " }'), "expected a text"),
    board("unknown family", line("family", 'family = "8-series"'), "did you mean '7-series'"),
    board("family that is a number", line("family", "family = 7"), "expected a text"),
    board("family of itself", line("family", 'family = "mine.toml"'), "mine.toml"),
    board("family that is a folder", line("family", 'family = "..toml"'), "toml"),
    board("table that is a number", "dram = 3\n" + BOARD.split("[dram]")[0], "expected a table"),
)


def flags(name: str, words: str, *args: str) -> Case:
    return Case("flags", name, lambda folder: [*COMPILE, "-o", str(folder / "out"), *args], words)


def strict(folder: Path) -> Sequence[str]:
    path = folder / "x.onnx"
    path.write_bytes(net("y = com.example.Secret(x)").SerializeToString())
    return ["compile", str(path), "--target", "fpga-zc706", "--strict", "--budget", "1s", "-o", str(folder / "out")]


FLAGS = (
    flags("unknown flag", "No such option", "--fast"),
    flags("unknown objective", "did you mean 'fps'", "--objective", "fsp"),
    flags("unknown baseline", "did you mean 'nasa-f'", "--baseline", "nasaf"),
    flags("unknown board", "did you mean 'fpga-zc706'", "--target", "fpga-zc760"),
    flags("missing board file", "no such board file", "--target", "./absent.toml"),
    flags("board file that is a folder", "not a file", "--target", str(ROOT) + "/"),
    flags("no value", "requires an argument", "--objective"),
    flags("batch of 0", "from 1 to 256", "--batch", "0"),
    flags("batch of 10^30", "from 1 to 256", "--batch", "1" + "0" * 30),
    flags("batch in other digits", "from 1 to 256", "--batch", "\u0664"),
    flags("budget of 0", "no duration", "--budget", "0s"),
    flags("budget of -1", "no duration", "--budget=-1s"),
    flags("budget in words", "no duration", "--budget", "soon"),
    flags("clock nan", "not a positive number", "--clock", "nan"),
    flags("clock of 10^300", "not a positive number", "--clock", "1e300"),
    flags("clock with escapes", "not a positive number", "--clock", "\x1b[2J"),
    flags("latency of -1", "not a positive number", "--max-latency-ms=-1"),
    flags("latency that nothing reaches", "", "--max-latency-ms", "1e-9"),
    flags("no LUTs", "no accelerator", "--max-lut", "0"),
    flags("negative DSPs", "--max-dsp", "--max-dsp=-1"),
    flags("blocks that are no number", "--max-bram", "--max-bram", "few"),
    flags("shape without name", "NAME=1,3,224,224", "--shape", "1,1,28,28"),
    flags("shape with a zero", "NAME=1,3,224,224", "--shape", "Input3=1,0,28,28"),
    flags("shape of an unknown input", "did you mean 'Input3'", "--shape", "Input=1,1,28,28"),
    flags("shape of 10,000 axes", "--shape", "--shape", "Input3=" + ",".join("1" * 10_000)),
    flags("shape given twice", "an input twice", *["--shape", "Input3=1,1,28,28"] * 2),
    flags("two models", "unexpected extra argument", str(MNIST)),
    Case("flags", "unknown command", lambda f: ["compil", str(MNIST)], "'compile'"),
    Case("flags", "no model", lambda f: ["inspect"], "Missing argument 'MODEL'"),
    Case("flags", "neither -o nor --json", lambda f: COMPILE, "Missing option '-o'"),
    Case("flags", "show of an unknown board", lambda f: ["targets", "show", "[red]\x1b"], "unknown target"),
    Case("flags", "--strict with host nodes", strict, "--strict: 1 of 1 layers"),
)


def output(name: str, words: str, make: Callable[[Path], Any]) -> Case:
    return Case("out", name, lambda folder: [*COMPILE, "-o", str(make(folder))], words)


def file(folder: Path, name: str = "out") -> Path:
    (folder / name).write_text("mine")
    return folder / name


def linked(folder: Path, target: Path | str) -> Path:
    (folder / "out").symlink_to(target)
    return folder / "out"


def model_as_out(folder: Path) -> Sequence[str]:
    path = folder / "x.onnx"
    path.write_bytes(conv().SerializeToString())
    return ["compile", str(path), "--target", "fpga-zc706", "--budget", "1s", "-o", str(path)]


OUT = (
    output("existing file", "not a directory", file),
    output("below a file", "cannot write here", lambda f: file(f) / "deeper"),
    output("link to a file", "not a directory", lambda f: linked(f, file(f, "target"))),
    output("link to itself", "out", lambda f: linked(f, f / "out")),
    output("device", "not a directory", lambda f: "/dev/null"),
    output("file system that takes no files", "/proc", lambda f: "/proc/nashc-out"),
    output("name of 5,000 characters", "File name too long", lambda f: f / ("o" * 5000)),
    output("name of 255 characters", "File name too long", lambda f: f / ("o" * 255)),
    output("empty", "an empty path", lambda f: ""),
    output("NUL", "path", lambda f: "a\0b"),
    output("not UTF-8", "not UTF-8", lambda f: f / "\udcff"),
    Case("out", "the model itself", model_as_out, "not a directory"),
)

FILES = (*BYTES, *PATHS, *EXTERNAL, *BOARDS, *FLAGS, *OUT)
