"""The runner of the documentation's commands, on pages of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "docs" / "run_commands.py"


@pytest.fixture
def run(tmp_path):
    def run_(text, *options):
        page = tmp_path / "page.md"
        page.write_text(text)
        done = subprocess.run(
            [sys.executable, RUNNER, page, *options], capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    return run_


def test_blocks_run_in_the_order_of_the_page_in_a_copy_of_the_checkout(run):
    code, text = run("# Page\n\n```sh\nls README.md docs\necho one > new\n```\n\ntext\n\n```sh\ngrep one new\n```\n")
    assert code == 0
    assert re.search(r"page\.md +2 blocks +[0-9.]+ s  ok", text)
    assert not (ROOT / "new").exists()


def test_a_command_that_fails_is_named_with_its_line(run):
    code, text = run("# Page\n\n```sh\ntrue\necho seen; ls nowhere\necho never\n```\n")
    assert code == 1
    assert "FAILED" in text
    assert "line 5: ls nowhere" in text
    assert "    seen" in text
    assert "never" not in text


@pytest.mark.parametrize("command", ["false | true", "echo $NO_SUCH_VARIABLE", "(cd /; false)", "if true; then"])
def test_what_bash_would_forgive_is_a_failure(run, command):
    assert run(f"```sh\n{command}\necho\n```\n")[0] == 1


def test_a_page_without_commands_is_no_failure(run):
    assert run("# Page\n\n    $ false\n\n```text\nfalse\n```\n\n```\nfalse\n```\n") == (0, "")


def test_marks(run):
    code, text = run(
        "<!-- setup: echo hidden > a\necho too >> a -->\n\n```sh\ngrep too a\n```\n\n"
        "<!-- not run: needs\na GPU -->\n```sh\nfalse\n```\n\n<!-- ci: tests -->\n```sh\nfalse\n```\n"
    )
    assert code == 0
    assert "1 blocks" in text
    assert re.search(r"page\.md:10: needs a GPU\n.*page\.md:15: stage of \.ci/run \(tests\)\n$", text)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("<!-- not run: why -->\ntext\n", "line 1: no block of sh follows"),
        ("<!-- not run: why -->\n", "line 1: no block of sh follows"),
        ("\n<!-- not run: why -->\n```text\n```\n", "line 2: no block of sh follows"),
        ("```sh\ntrue\n", "line 1: the block has no end"),
    ],
)
def test_a_page_that_cannot_be_read_is_an_error(run, page, problem):
    code, text = run(page)
    assert (code, problem in text) == (2, True)


def test_what_hangs_or_stays_behind_is_ended(run, tmp_path):
    left = tmp_path / "left"
    code, text = run(f"```sh\n(sleep 5; touch {left}) &\nsleep 60\n```\n", "--limit", "1")
    assert code == 1
    assert "longer than 1 s" in text


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "examples/README.md", *(ROOT / "docs").glob("*.md")])
def test_commands_of_a_page_are_in_blocks_that_run(page):
    """Not behind a dollar sign, nor in a block that the runner does not know."""
    text = re.sub(r"^```sh\n.*?^```$|<!--.*?-->", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    elsewhere = re.compile(r"^(?: *\$ |(?:    )?(?:nashc|python|pip|torchrun) |`{3,}(?:bash|shell|console)$).*", re.M)
    assert elsewhere.findall(text) == []
