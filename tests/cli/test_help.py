"""Help, examples, completion and version: what a user asks the command line about itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from nashc.board import board_names
from nashc.cli import cli, run
from nashc.cli.command import Command
from nashc.cli.completion import SHELLS
from nashc.cli.proxies import NAMES
from nashc.cli.search import STRATEGIES


def commands(command: click.Command = cli, path: str = "nashc") -> Iterator[tuple[str, click.Command]]:
    """Every command below one, with itself, by what is typed to reach it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands())
EXAMPLES = [line for command in COMMANDS.values() for line in getattr(command, "examples", ())]


def parsed(line: str) -> click.Context:
    """The context of a command line once its options are parsed; nothing is executed."""
    found = re.search(r"nashc ([^)|>]+)", line)
    assert found, line
    args, command, context = shlex.split(found[1]), cli, cli.make_context("nashc", [], resilient_parsing=True)
    while isinstance(command, click.Group) and args:
        name, command, args = command.resolve_command(context, args)
        context = command.make_context(name, args, parent=context)
        args = [*context._protected_args, *context.args]
    return context


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_examples_of_itself(path):
    command = COMMANDS[path]
    assert isinstance(command, Command)
    assert 1 <= len(command.examples) <= 3
    assert all(f"{path} " in f"{line} " for line in command.examples)


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_parse(line):
    assert parsed(line).command.name in line


def test_a_wrong_example_does_not_parse():
    with pytest.raises(click.UsageError, match="No such option '--budgets'"):
        parsed("nashc compile model.onnx --target fpga-zc706 --budgets 2m -o out")


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_examples_as_they_are(path, capsys):
    assert run([*path.split()[1:], "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for line, what in COMMANDS[path].examples.items():
        assert f"  {line}" in shown
        assert f"  # {what}" in shown


def test_help_names_all_commands_in_whole_sentences(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^(\w[\w ]*):$", shown, re.MULTILINE) == [
        "Options", "Compile", "Models", "Search and training", "Boards and files", "Examples",
    ]  # fmt: skip
    for name, command in cli.commands.items():
        assert re.search(rf"^  {name} .*[^.]\.$", shown, re.MULTILINE), f"the summary of {name} is cut: {command.help}"
    assert "Exit codes: 0 done" in shown


def test_help_is_quick():
    """What takes long to import is imported by the commands that need it."""
    code = "import sys; from nashc.cli import run; run(['--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.partition(".")[0] for name in out.splitlines()[-1].split()}
    assert not loaded & {"numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "scipy", "torch"}


# version


def test_version(capsys):
    assert run(["--version"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"nashc \d+\.\d+\.\d+", first)
    shown = dict(row.split(maxsplit=1) for row in rows)
    assert list(shown) == ["kernels", "search", "onnxruntime", "Python"]
    assert shown["search"] in ("compiled", "not compiled: slower, and it finds poorer designs")
    assert re.match(r"native, (avx512|avx2|neon|portable)|none ", shown["kernels"])
    assert shown["Python"].startswith(".".join(map(str, sys.version_info[:3])))


def test_version_of_an_install_without_compiled_parts(capsys, monkeypatch):
    monkeypatch.setattr("nashc.ops.native.available", lambda: False)
    monkeypatch.setattr("nashc.search.compiled.library", lambda: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(["--version"]) == 0
    shown = capsys.readouterr().out
    assert "kernels     none (nashc was built without a C++ compiler)" in shown
    assert "search      not compiled" in shown
    assert "onnxruntime not installed" in shown


# completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts(shell, capsys):
    assert run(["completion", shell]) == 0
    shown = capsys.readouterr()
    assert "_NASHC_COMPLETE" in shown.out
    assert f"{shell}_complete" in shown.out
    assert shown.err == ""


def test_unknown_shell(capsys):
    assert run(["completion", "bahs"]) == 2
    assert "unknown shell 'bahs'; did you mean 'bash'" in capsys.readouterr().err


def test_the_names_to_complete_are_those_of_the_library():
    from nashc.nas.proxies import PROXIES
    from nashc.nas.strategies import STRATEGIES as REGISTERED

    assert tuple(PROXIES) == NAMES
    assert tuple(REGISTERED) == STRATEGIES


COMPLETE = """
PATH="$1:$PATH"
eval "$(nashc completion bash)"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { echo "compopt" "$@"; }
_nashc_completion nashc
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A folder with a `nashc` command, this interpreter's, for PATH."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "nashc"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nashc.cli "$@"\n')
    script.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("comp", ["compile", "completion"]),
        ("compile --obj", ["--objective"]),
        ("compile --objective e", ["energy", "edp"]),
        ("compile --baseline conv", ["conv-only", "conv-only-dsp"]),
        ("compile m.onnx --target fpga-zc", ["compopt -o default", "fpga-zc706", "fpga-zcu102"]),
        ("compile m.onnx --target ''", ["compopt -o default", *board_names()]),
        ("compile mod", ["compopt -o default", ""]),
        ("search --space res", ["compopt -o default", "resnet-cifar"]),
        ("search --proxy z", ["zen", "zico"]),
        ("search --strategy nasa", ["nasa-f", "nasa"]),
        ("proxies bench r.jsonl --space nasa", ["nasa-f-cifar", "nasa-fbnet"]),
        ("check --channels ''", ["rgb", "bgr", "gray"]),
        ("targets s", ["show"]),
        ("completion ''", list(SHELLS)),
        ("no-such-command x", [""]),
    ],
)
def test_bash_completes(words, expected, path):
    args = ["bash", "--norc", "-c", COMPLETE, "bash", path, "nashc", *shlex.split(words)]
    done = subprocess.run(args, capture_output=True, text=True, check=True, env=os.environ)
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
