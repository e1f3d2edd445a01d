"""The page of a design: its size, how long it takes to write, and when a browser has it ready.

    nashc compile light_densenet121.onnx --target fpga-zc706 --budget 20s -o out/densenet
    python benchmarks/report_page.py out/densenet/design.json [--runs 7]

Medians, and the slowest in brackets. Written: from the design in memory to the file on disk. Ready: in headless
Chromium (Debian package, Playwright), from the start of the navigation to a page whose table answers and whose charts
in sight are drawn; every run has a browser context of its own. Searched: from a key in the search field to the frame
that shows the rows. A blank page is loaded in turn, as what the browser itself takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from nashc.artifact import load
from nashc.report.written import design_page, write_page

BLANK = "<!DOCTYPE html><title>blank</title><script>performance.mark('ready')</script>"
SEARCHED = """() => new Promise(done => {
  const field = document.querySelector('#layers input'), begin = performance.now();
  field.value = 'conv';
  field.dispatchEvent(new Event('input'));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin)));
})"""


def shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({max(seconds):.2f} s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("design", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    compiled = load(options.design)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file, blank = Path(folder) / "report.html", Path(folder) / "blank.html"
        blank.write_text(BLANK)
        written = []
        for _ in range(options.runs):
            begin = time.perf_counter()
            write_page(design_page(compiled), file)
            written.append(time.perf_counter() - begin)
        chromium = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        ready: dict[Path, list[float]] = {file: [], blank: []}
        searched = []
        for _ in range(options.runs):
            for path, found in ready.items():
                context = chromium.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                page.goto(path.as_uri())
                page.wait_for_function("() => performance.getEntriesByName('ready').length > 0")
                found.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000)
                if path is file:
                    searched.append(page.evaluate(SEARCHED) / 1000)
                context.close()
        chromium.close()
        size = file.stat().st_size / 2**20
    print("| network | layers | size | written | ready | blank page | searched |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {compiled.design.network.name} | {len(compiled.design.layers)} | {size:.2f} MiB | {shown(written)} | "
        f"{shown(ready[file])} | {shown(ready[blank])} | {shown(searched)} |"
    )


if __name__ == "__main__":
    main()
