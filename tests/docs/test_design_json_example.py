"""The example in docs/design-json.md is what `nashc compile` writes, as far as it is shown."""

import json
import re
from pathlib import Path

import pytest

from nashc.artifact import dump
from nashc.compiler import compile_model

ROOT = Path(__file__).parents[2]
CUT = "..."


def shown():
    """The example as JSON; CUT stands for what was left out."""
    page = (ROOT / "docs" / "design-json.md").read_text()
    text = re.search(r"```\n(\{\n.*?)```", page, re.DOTALL)[1]
    text = re.sub(r"\s+", " ", text)  # lines are broken inside texts, too
    text = text.replace(", ...}", f', "{CUT}": 0}}').replace(", ...]", f', "{CUT}"]')
    return json.loads(re.sub(r": \.\.\.", f': "{CUT}"', text))


def differences(example, real, place=""):
    if example == CUT:
        return
    if isinstance(example, dict) and isinstance(real, dict):
        if CUT not in example and example.keys() != real.keys():
            yield f"{place}: keys {sorted(example.keys() ^ real.keys())}"
        for key in example.keys() & real.keys() - {CUT}:
            yield from differences(example[key], real[key], f"{place}.{key}")
    elif isinstance(example, list) and isinstance(real, list):
        if CUT not in example and len(example) != len(real):
            yield f"{place}: {len(real)} entries"
        for n, (one, other) in enumerate(zip(example, real, strict=False)):
            yield from differences(one, other, f"{place}.{n}")
    elif example != (pytest.approx(real, rel=1e-9) if isinstance(real, float) else real):
        yield f"{place}: {real}, the page says {example}"


def test_the_example_is_what_compile_writes():
    compiled = compile_model(ROOT / "examples" / "models" / "mnist-conv.onnx", "fpga-zc706")
    assert list(differences(shown(), json.loads(dump(compiled)))) == []
