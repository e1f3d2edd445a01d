"""The wheel, the sdist and the editable install, each used from another working directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.package
ROOT = Path(__file__).parents[2]
PARTS = {"nashc": "nashc", "ops": "nashc/ops", "targets": "nashc/targets"}
"""Folder of the checkout -> its place in the wheel."""
BUILD_SDIST = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
LIBRARIES = {"nashc/search/native/nashc_search.so", "nashc/ops/kernels/nashc_ops.so"}
QUICKLY = {"SKBUILD_CMAKE_BUILD_TYPE": "Debug"}
"""A third of the compiler's time, for builds of which only the parts are looked at."""
MODEL = ROOT / "examples" / "models" / "mnist-conv.onnx"
UNCOMPILED = "no compiled search"
PROBE = """
import json, sys
import nashc, nashc.ops
from nashc.board import board_names, family_names, load_board
from nashc.ops.native import available
from nashc.search.compiled import library
json.dump({
    "compiled": [library() is not None, available()],
    "home": nashc.__path__[-1],
    "operators": [op.name for op in nashc.ops.OPERATORS.values()],
    "boards": {name: load_board(name).name for name in board_names()},
    "families": family_names(),
}, sys.stdout)
"""


def finished(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that went well; nothing in the environment leads it back to this checkout."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | environment
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints."""
    return finished(*command, cwd=cwd, **environment).stdout


def build_wheel(source: Path, folder: Path, **environment: str) -> Path:
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", folder, source, **environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as on a machine without a C++ compiler."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("pure"), CXX="/nonexistent/c++")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-c", BUILD_SDIST, folder)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def from_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the sdist before it installs it."""
    return build_wheel(sdist, tmp_path_factory.mktemp("from_sdist"), **QUICKLY)


def fresh_environment(folder: Path) -> Path:
    """The Python of a new virtual environment without nashc; what nashc depends on is borrowed from this one."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)), encoding="utf-8")
    return python


def package_files() -> set[str]:
    """What a wheel without compiled parts holds: the sources of those parts are in the sdist alone."""
    return {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in PARTS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".cpp", ".h")
    }


@pytest.mark.parametrize(("form", "native", "tag"), [("wheel", LIBRARIES, r"linux_\w+"), ("pure_wheel", set(), "any")])
def test_wheel_holds_the_package_and_nothing_else(form, native, tag, request):
    wheel, files = request.getfixturevalue(form), package_files()
    made = contents(wheel)
    assert {name for name in made if ".dist-info/" not in name} == files | native
    assert {"nashc/py.typed", "nashc/targets/families/7-series.toml"} <= files
    assert any(name.endswith("licenses/LICENSE") for name in made)
    assert re.search(f"-py3-none-{tag}.whl$", wheel.name), wheel.name


def test_sdist_builds_the_same_wheel(sdist, from_sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "tests" / "package" / "test_install.py").is_file()
    assert (source / "examples" / "models" / "mnist-conv.onnx").is_file()
    assert not {".git", ".ci", ".venv", "out"} & {path.name for path in source.iterdir()}
    assert contents(from_sdist) == contents(wheel)


@pytest.mark.parametrize("form", ["wheel", "from_sdist", "editable", "pure_wheel"])
def test_works_from_another_directory(form, request, tmp_path):
    python = fresh_environment(tmp_path / "env")
    what = ["-e", ROOT] if form == "editable" else [request.getfixturevalue(form)]
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, *what, **QUICKLY)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    seen = json.loads(run(python, "-c", PROBE, cwd=elsewhere))
    boards = sorted(path.stem for path in (ROOT / "targets").glob("*.toml"))
    assert Path(seen["home"]).is_relative_to(ROOT if form == "editable" else tmp_path)
    assert sorted(seen["boards"]) == sorted(seen["boards"].values()) == boards
    assert sorted(seen["families"]) == sorted(path.stem for path in (ROOT / "targets" / "families").glob("*.toml"))
    defined = [re.search(r"^OPERATOR\b", path.read_text("utf-8"), re.M) for path in (ROOT / "ops").glob("*.py")]
    assert len(seen["operators"]) == sum(match is not None for match in defined)

    assert seen["compiled"] == [form != "pure_wheel"] * 2
    out = elsewhere / "out"
    command = ("compile", MODEL, "--target", "fpga-pynq-z2", "--batch", 1, "-o", out)
    done = finished(python.with_name("nashc"), *command, cwd=elsewhere)
    assert (out / "design.json").is_file()
    assert (UNCOMPILED in done.stderr) == (form == "pure_wheel"), done.stderr

    listed = run(python.with_name("nashc"), "targets", cwd=elsewhere)
    assert all(board in listed for board in boards), listed
