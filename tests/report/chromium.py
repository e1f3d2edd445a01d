"""A headless Chromium for the tests of pages, driven by Playwright: the Debian package, or whatever is on PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")


@contextmanager
def browser() -> Iterator:
    """A Chromium of its own; root, as in containers, has no sandbox."""
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*root, "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium, path: Path, **context) -> Iterator:
    """A page from disk, offline, that has drawn what is in sight. Fails if a script complained, if anything was
    loaded beside the file, or if a dialog came up."""
    own = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page = own.new_page()
    complaints, loaded = [], []
    page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: loaded.append(request.url))
    own.set_offline(True)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    yield page
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    own.close()
    assert complaints == []
    assert loaded == [path.as_uri()]


def scroll_through(page) -> None:
    """Bring every chart into sight, so that it is drawn."""
    for box in page.locator(".chart").all():
        box.scroll_into_view_if_needed()
        page.wait_for_function("box => box.querySelector('canvas') !== null", arg=box.element_handle())
