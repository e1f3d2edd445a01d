"""The models are written in ONNX text by the helpers of tests/passes."""

import sys
from pathlib import Path

import pytest
from nashc.ops.native import available

sys.path.insert(0, str(Path(__file__).parents[1] / "passes"))


@pytest.fixture(autouse=True)
def _native() -> None:
    if not available():
        pytest.skip("the native kernels are not compiled here")
