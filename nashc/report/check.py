"""A check from the user's side: its figures and gates as tables, as JSON, and as JUnit XML for build servers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree as Xml

from rich.console import Group, RenderableType
from rich.text import Text

from nashc.check import Checked, Gate, Request, check
from nashc.check.gates import drop
from nashc.core.design import Design
from nashc.files import replacing
from nashc.report.progress import image_bar, progress_bar
from nashc.report.text import cell, exact_percent, figure, safe, table
from nashc.runtime.accuracy import Measured, Scores


def check_shown(request: Request) -> Checked:
    """The check, with progress bars on a terminal, and its JUnit file where the request asks for one."""
    with _junit_file(request.junit) as write, image_bar() as images, progress_bar() as search:
        checked = check(request, images=images, search=search)
        write(checked)
    return checked


def check_report(checked: Checked) -> Group:
    """The figures, then the gates with those that failed first."""
    parts: list[RenderableType] = []
    measured = checked.measured
    if measured is not None:
        parts += _accuracy(checked.request, measured)
    if checked.compiled is not None:
        parts.append(_design(checked.compiled.design))
    parts += [Text(f"note: {safe(note)}") for note in checked.notes]
    if checked.gates:
        parts += [Text(), _gates(checked.gates)]
    failed = sum(not gate.passed for gate in checked.gates)
    if failed:
        parts.append(Text(f"FAILED: {failed} of {len(checked.gates)} gates", style="bold red"))
    elif checked.gates:
        parts.append(Text(f"passed: {len(checked.gates)} of {len(checked.gates)} gates", style="bold green"))
    return Group(*parts)


def check_json(checked: Checked) -> str:
    """The same for programs: shares are fractions of 1; a number that JSON does not have (an SQNR of equal outputs) is
    null."""
    document: dict[str, Any] = {
        "passed": checked.passed,
        "model": checked.request.model,
        "against": checked.request.against,
        "gates": [
            {
                "name": gate.rule.name,
                "what": gate.rule.what,
                "unit": gate.rule.unit,
                "found": _finite(gate.found),
                "limit": _finite(gate.limit),
                "passed": gate.passed,
            }
            for gate in checked.gates
        ],
        "accuracy": None if checked.measured is None else _accuracy_json(checked.measured),
        "design": None if checked.compiled is None else _design_json(checked.compiled.design),
        "notes": list(checked.notes),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def check_junit(checked: Checked) -> bytes:
    """A testcase for each gate."""
    failed = sum(not gate.passed for gate in checked.gates)
    counts = {"tests": str(len(checked.gates)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = Xml.Element("testsuites", counts | {"name": "nashc check"})
    suite = Xml.SubElement(root, "testsuite", counts | {"name": f"nashc check {safe(checked.request.model)}"})
    for gate in checked.gates:
        case = Xml.SubElement(suite, "testcase", classname="nashc.check", name=gate.rule.name)
        if not gate.passed:
            message = safe(f"{gate.rule.what}: {_sentence(gate)}")
            Xml.SubElement(case, "failure", type="gate", message=message).text = message
        else:
            Xml.SubElement(case, "system-out").text = _sentence(gate)
    Xml.SubElement(suite, "system-out").text = "\n".join(map(safe, checked.notes))
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


@contextmanager
def _junit_file(path: str | None) -> Iterator[Any]:
    """What writes the JUnit file. Whether that is possible shows at once, not after the measurement."""
    if path is None:
        yield lambda checked: None
        return
    with replacing(path) as written:
        yield lambda checked: written.write_bytes(check_junit(checked))


def _accuracy(request: Request, measured: Measured) -> list[RenderableType]:
    rate = measured.images / measured.seconds if measured.seconds > 0 else math.inf
    classes = "" if measured.classes is None else f", {measured.classes} classes"
    parts: list[RenderableType] = [
        Text(f"{measured.images:,} images{classes}, {figure(measured.seconds)} s ({figure(rate)} images a second)")
    ]
    if measured.model is not None:
        rows = table("Accuracy", "model", ">top-1", ">top-5", ">images right", ">within 5")
        rows.add_row(cell(request.model), *_scores(measured.model, measured.images))
        if measured.against is not None:
            rows.add_row(cell(request.against), *_scores(measured.against, measured.images))
            rows.add_row("drop", _points(drop(measured) or Fraction(0)), "", "", "")
        parts.append(rows)
    if measured.outputs:
        rows = table("Beside the other model", "output", "!shape", ">same best class", ">SQNR")
        for output in measured.outputs:
            same = "-" if output.agreeing is None else exact_percent(Fraction(output.agreeing, measured.images))
            shape = " x ".join(map(str, output.shape))
            rows.add_row(cell(output.name), shape, same, _decibels(output.sqnr_db))
        parts.append(rows)
    return parts


def _scores(scores: Scores, images: int) -> tuple[str, str, str, str]:
    one, five = scores.top1, scores.top5
    shares = [exact_percent(Fraction(one, images)), "-" if five is None else exact_percent(Fraction(five, images))]
    return shares[0], shares[1], f"{one:,}", "-" if five is None else f"{five:,}"


def _design(design: Design) -> RenderableType:
    rows = table("Design", "board", ">FPS", ">latency ms", ">batch", ">LUT", ">DSP", ">BRAM36")
    used = design.resources
    rows.add_row(
        cell(design.board),
        figure(design.fps),
        figure(design.latency_ms),
        str(design.accelerator.batch),
        f"{used.lut:,}",
        f"{used.dsp:,}",
        f"{used.bram18 / 2:,g}",
    )
    return rows


def _gates(gates: tuple[Gate, ...]) -> RenderableType:
    rows = table("Gates", "!", "gate", ">found", "!", ">limit", "what")
    for gate in sorted(gates, key=lambda gate: gate.passed):
        style = "" if gate.passed else "bold red"
        verdict, sign = ("pass" if gate.passed else "FAIL"), _sign(gate)
        found, limit = _number(gate, gate.found), _number(gate, gate.limit)
        rows.add_row(*(cell(text, style) for text in (verdict, gate.rule.name, found, sign, limit, gate.rule.what)))
    return rows


def _sentence(gate: Gate) -> str:
    return f"{_number(gate, gate.found)} {_sign(gate)} {_number(gate, gate.limit)}"


def _sign(gate: Gate) -> str:
    """How `found` stands to the limit."""
    if gate.found == gate.limit:
        return "="
    return ">" if gate.found > gate.limit else "<"


def _number(gate: Gate, value: Fraction | float) -> str:
    if gate.rule.unit == "%":
        return exact_percent(Fraction(value))
    if gate.rule.unit == "dB":
        return _decibels(float(value))
    return f"{value:,.6g} {gate.rule.unit}".strip() if isinstance(value, float) else f"{value:,}"


def _points(share: Fraction) -> str:
    return exact_percent(share).removesuffix("%") + " points"


def _decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.6g} dB"


def _accuracy_json(measured: Measured) -> dict[str, Any]:
    def scores(found: Scores | None) -> dict[str, float | None] | None:
        if found is None:
            return None
        return {"top1": found.top1 / measured.images, "top5": found.top5 and found.top5 / measured.images}

    change = drop(measured)
    return {
        "images": measured.images,
        "seconds": measured.seconds,
        "classes": measured.classes,
        "model": scores(measured.model),
        "against": scores(measured.against),
        "drop": None if change is None else float(change),
        "nan_images": measured.nan_images,
        "outputs": [
            {
                "name": output.name,
                "shape": list(output.shape),
                "agreement": None if output.agreeing is None else output.agreeing / measured.images,
                "sqnr_db": _finite(output.sqnr_db),
                "equal": output.sqnr_db == math.inf,
            }
            for output in measured.outputs
        ],
    }


def _design_json(design: Design) -> dict[str, Any]:
    used = design.resources
    return {
        "board": design.board,
        "fps": design.fps,
        "latency_ms": design.latency_ms,
        "batch": design.accelerator.batch,
        "lut": used.lut,
        "dsp": used.dsp,
        "bram36": used.bram18 / 2,
    }


def _finite(value: Fraction | float) -> float | int | None:
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
