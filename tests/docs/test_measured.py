"""docs/measured.md names every table of benchmarks/README.md and commands that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "measured.md").read_text()


def test_every_section_of_the_benchmarks_is_named():
    sections = re.findall(r"^## (.+)$", (ROOT / "benchmarks" / "README.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in sections}
    assert anchors == set(re.findall(r"benchmarks/README\.md#([\w-]+)", PAGE))


def test_every_script_exists():
    scripts = re.findall(r"python (\S+\.py)", PAGE)
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
