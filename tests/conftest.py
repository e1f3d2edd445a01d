"""The order of the whole suite: folders of long tests first, so that no process is left alone with them at the end."""

from __future__ import annotations

import pytest

LONG = ("search", "package", "nas", "hybridize", "export")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.parent.name) if item.path.parent.name in LONG else len(LONG))
