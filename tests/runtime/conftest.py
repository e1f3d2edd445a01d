"""The case generators of the operators are shared with tests/ops."""

import sys
from pathlib import Path

import pytest
from nashc.ops.native import available

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))


@pytest.fixture(autouse=True)
def _native(request: pytest.FixtureRequest) -> None:
    if not available() and "without_kernels" not in request.node.name:
        pytest.skip("the native kernels are not compiled here")
