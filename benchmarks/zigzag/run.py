"""Our mapping search next to ZigZag's on the peers' accelerator, quality in ZigZag's own model.

    python -m venv zz && zz/bin/pip install zigzag-dse==3.9.1 six
    python benchmarks/zigzag/run.py --zigzag zz/bin/python [--case NAME ...] [--peers DIR] [--no-search]

For each case: our search in nine fresh processes, five before and four after ZigZag's own search (the median counts),
then ZigZag prices our mappings. ZigZag's search takes minutes; `--no-search` takes its cycles from zigzag_results.json.
Prints the tables and writes them to results.md. CPU seconds of both are those of the searches without imports; pricing
our result is no search.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from latency import Prices
from orders import all_orders, spatials, split
from search import LOOP_LIMIT, mapping_of, nest_of
from template import TEMPLATES, Nests, States

HERE = Path(__file__).resolve().parent
BEFORE, AFTER = 5, 4
SAMPLES = 8
"""Random mappings a layer with which the closed form is checked."""


@dataclass(frozen=True, slots=True)
class Case:
    """A network on a template; `flags` are those of run_zigzag.py, `key` that of zigzag_results.json."""

    network: str
    template: str
    axes: tuple[str, str] | None
    flags: tuple[str, ...]
    key: str


TIGHT = ("--gb-kib", "32", "--gb-bw", "256", "--rf-i", "1", "--rf-w", "1", "--rf-o", "1")
CASES = {
    "resnet18-roomy": Case("resnet18_cifar", "roomy", None, (), "resnet18_cifar roomy any-spatial"),
    "resnet18-roomy-kc": Case("resnet18_cifar", "roomy", ("k", "c"), ("--dataflow", "K,C"), "resnet18_cifar roomy K,C"),
    "mobilenetv2-roomy": Case("mobilenetv2_cifar", "roomy", None, (), "mobilenetv2_cifar roomy any-spatial"),
    "resnet18-tight": Case("resnet18_cifar", "tight", None, TIGHT, "resnet18_cifar tight any-spatial"),
    "mobilenetv2-tight": Case("mobilenetv2_cifar", "tight", None, TIGHT, "mobilenetv2_cifar tight any-spatial"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: cycles of ZigZag's best, of ours in our closed form and in ZigZag; CPU seconds and mappings."""

    name: str
    count: int
    zigzag: float
    ours: float
    priced: float
    zigzag_seconds: float | None
    zigzag_mappings: int
    considered: int
    exact: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case: its layers, those where ZigZag's best computes a part of the layer only, and CPU with imports.

    agree: random mappings whose closed form is ZigZag's price (or both refuse them), of how many; seconds: CPU of our
    fastest, median and slowest search; truncated_seconds: CPU of searching the partial ones again.
    """

    rows: list[Row]
    partial: list[tuple[Row, Row]]
    agree: tuple[int, int]
    seconds: tuple[float, float, float]
    truncated_seconds: float
    process_seconds: float
    zigzag_process_seconds: float | None


def ours(case: Case, layers: Path, *extra: str) -> dict[str, Any]:
    """Our search in a fresh process."""
    command = [sys.executable, str(HERE / "search.py"), str(layers), "--template", case.template]
    command += ["--axes", ",".join(case.axes)] if case.axes else []
    found: dict[str, Any] = json.loads(_run([*command, *extra]))
    return found


def zigzag(case: Case, python: str, peers: Path, layers: Path, *extra: str) -> dict[str, Any]:
    """One run of the peers' script; what it writes, by layer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        _run([python, str(peers / "run_zigzag.py"), str(layers), "-o", str(out), *case.flags, *extra])
        found = json.loads(out.read_text())
    return {"layers": {layer["name"]: layer for layer in found["layers"]}, "total": found["total"]}


def agreement(case: Case, python: str, peers: Path, layers: list[dict[str, Any]]) -> tuple[int, int]:
    """Prices random mappings of every layer in both; how many prices are equal, of how many."""
    random = np.random.default_rng(0)
    copies, fixed, expected = [], {}, {}
    for layer in layers:
        nest, template = nest_of(layer), TEMPLATES[case.template]
        choices = spatials(nest, template.rows, template.columns, case.axes)
        for i in range(SAMPLES):
            spatial = choices[random.integers(len(choices))]
            orders = all_orders(tuple(count for _, _, count in split(spatial.left, LOOP_LIMIT)))
            column = int(random.integers(orders.kinds.shape[1]))
            name = f"{layer['name']}#{i}"
            copies.append({**layer, "name": name})
            fixed[name] = mapping_of(spatial, column)
            nests = Nests.of([States.of(nest, spatial, LOOP_LIMIT)])
            expected[name] = float(Prices(template, nests.take(np.array([column]))).cycles()[0])
    with tempfile.TemporaryDirectory() as folder:
        file, mappings = Path(folder) / "layers.json", Path(folder) / "fixed.json"
        file.write_text(json.dumps(copies))
        mappings.write_text(json.dumps(fixed))
        priced = zigzag(case, python, peers, file, "--fixed", str(mappings))["layers"]
    same = sum(priced[name].get("cycles", np.inf) == cycles for name, cycles in expected.items())
    return same, len(expected)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])}: {(done.stdout + done.stderr)[-800:]}")
    return done.stdout


def price(case: Case, python: str, peers: Path, layers: Path, found: dict[str, Any]) -> dict[str, float]:
    """Cycles of our mappings in ZigZag's model."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = Path(folder) / "fixed.json"
        fixed.write_text(json.dumps({name: layer["mapping"] for name, layer in found.items()}))
        names = ",".join(found)
        # with --dataflow the spatial mapping comes from --fixed all the same
        priced = zigzag(case, python, peers, layers, "--fixed", str(fixed), "--only", names)["layers"]
    wrong = {name: layer.get("error", "searched") for name, layer in priced.items() if layer["mappings"] != 1}
    if wrong:
        raise RuntimeError(f"ZigZag did not price our mappings: {wrong}")
    return {name: layer["cycles"] for name, layer in priced.items()}


def compare(case: Case, python: str, peers: Path, *, search: bool) -> Outcome:
    """Searches, prices, and joins the two by layer."""
    layers = peers / f"{case.network}.json"
    listed = json.loads(layers.read_text())
    counts = {layer["name"]: layer["count"] for layer in listed}
    runs = [ours(case, layers) for _ in range(BEFORE)]
    theirs: dict[str, Any] | None = zigzag(case, python, peers, layers) if search else None
    runs += [ours(case, layers) for _ in range(AFTER)]
    runs.sort(key=lambda r: float(r["cpu_seconds"]))
    middle = runs[len(runs) // 2]
    found = middle["layers"]
    stored = json.loads((peers / "zigzag_results.json").read_text())[case.key]["layers"]
    priced = price(case, python, peers, layers, found)

    def row(name: str, layer: dict[str, Any], cycles: float) -> Row:
        other = theirs["layers"][name] if theirs else {"cycles": stored[name], "cpu": None, "mappings": 0}
        return Row(name, counts[name], other["cycles"], layer["cycles"], cycles, other["cpu"],
                   other["mappings"], layer["considered"], layer["exact"])  # fmt: skip

    rows = [row(name, layer, priced[name]) for name, layer in found.items()]
    worse = {r.name: r for r in rows if r.priced > min(r.zigzag, stored[r.name])}
    partial = []
    more = 0.0
    if worse:
        truncated = ours(case, layers, "--truncated", "--only", ",".join(worse))
        again, more = truncated["layers"], truncated["cpu_seconds"]
        cut = price(case, python, peers, layers, again)
        partial = [(worse[name], row(name, layer, cut[name])) for name, layer in again.items()]
    return Outcome(
        rows,
        partial,
        agreement(case, python, peers, listed),
        (runs[0]["cpu_seconds"], middle["cpu_seconds"], runs[-1]["cpu_seconds"]),
        more,
        middle["process_cpu_seconds"],
        theirs["total"]["cpu_seconds"] if theirs else None,
    )


def table(name: str, outcome: Outcome) -> list[str]:
    """The layers of a case in Markdown, with what needs a word below."""
    lines = [
        f"## {name}",
        "",
        "| layer | x | ZigZag's best | ours, priced in ZigZag | ratio | ours, closed form "
        "| ZigZag mappings | ours considered | ours priced | ZigZag CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in outcome.rows:
        lines.append(
            f"| {r.name} | {r.count} | {r.zigzag:.0f} | {r.priced:.0f} | {r.priced / r.zigzag:.4f} | {r.ours:.0f} "
            f"| {r.zigzag_mappings or ''} | {r.considered} | {r.exact} "
            f"| {_number(r.zigzag_seconds, '.2f')} |"
        )
    lines += ["", "Closed form and ZigZag agree to the cycle on {} of {} random mappings.".format(*outcome.agree), ""]
    for r, cut in outcome.partial:
        lines += [
            f"`{r.name}`: ZigZag's {r.zigzag:.0f} cycles are those of a mapping that does not compute the whole layer "
            "(it prices a whole number of lanes and drops the remainder). Ours computes all of it and costs "
            f"{r.priced:.0f} ({r.priced / r.zigzag:.4f}); allowed the same truncation (`--truncated`) it costs "
            f"{cut.priced:.0f} ({cut.priced / r.zigzag:.4f}).",
            "",
        ]
    return lines


def summary(outcomes: dict[str, Outcome]) -> list[str]:
    """One line a case."""
    lines = [
        "| case | ZigZag cycles | ours, priced in ZigZag | layers better / equal / worse | ZigZag CPU s | our CPU s "
        "| ratio | mappings: ZigZag | ours considered | ours priced | CPU s with imports: ZigZag | ours |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, outcome in outcomes.items():
        rows = outcome.rows
        total, priced = sum(r.count * r.zigzag for r in rows), sum(r.count * r.priced for r in rows)
        cut = {r.name for r, other in outcome.partial if other.priced <= r.zigzag}
        better = sum(r.priced < r.zigzag for r in rows)
        equal = sum(r.priced == r.zigzag for r in rows)
        worse = sum(r.priced > r.zigzag for r in rows)
        note = f" ({len(cut)} against a partial mapping)" if cut else ""
        low, mine, high = (seconds + outcome.truncated_seconds for seconds in outcome.seconds)
        known = [r.zigzag_seconds for r in rows if r.zigzag_seconds is not None]
        theirs = sum(known) if len(known) == len(rows) else None
        lines.append(
            f"| {name} | {total:.0f} | {priced:.0f} | {better} / {equal} / {worse}{note} "
            f"| {_number(theirs, '.1f')} | {mine:.4f} ({low:.4f} to {high:.4f}) "
            f"| {_number(theirs and theirs / mine, '.0f')} | {sum(r.zigzag_mappings for r in rows)} "
            f"| {sum(r.considered for r in rows)} | {sum(r.exact for r in rows)} "
            f"| {_number(outcome.zigzag_process_seconds, '.1f')} | {outcome.process_seconds:.2f} |"
        )
    return [*lines, ""]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def machine() -> str:
    """Cores, processor and versions."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    return f"{os.cpu_count()} cores, {model}, shared with other work; Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zigzag", required=True, help="the Python of an environment with zigzag-dse")
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--peers", type=Path, default=HERE.parents[2] / "shared" / "peers")
    parser.add_argument("--no-search", action="store_true", help="take ZigZag's cycles from zigzag_results.json")
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    asked = parser.parse_args()
    shown = f"python benchmarks/zigzag/run.py --zigzag zz/bin/python --case {' '.join(asked.case)}"
    head = [
        "# Mapping search next to ZigZag 3.9.1",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC).date()}; {machine()}.",
        f"`{shown}{' --no-search' if asked.no_search else ''}`",
        "",
        (HERE / "method.md").read_text(),
    ]
    outcomes: dict[str, Outcome] = {}
    for name in asked.case:
        outcomes[name] = compare(CASES[name], asked.zigzag, asked.peers, search=not asked.no_search)
        tables = [line for done, outcome in outcomes.items() for line in table(done, outcome)]
        new = asked.out.with_suffix(".new")
        new.write_text("\n".join([*head, *summary(outcomes), *tables]))
        new.replace(asked.out)
        print("\n".join([*table(name, outcomes[name]), *summary({name: outcomes[name]})]), flush=True)


if __name__ == "__main__":
    main()
