"""--kernels FILE: the tests of this folder on kernels that are built otherwise, with sanitizers for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from nashc.ops import native


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernels", type=Path, help="a nashc_ops.so to test instead of the installed one")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--kernels", default=None)
    if file is not None:
        file = file.resolve(strict=True)
        native._found = lambda: file
