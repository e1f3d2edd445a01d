"""A run from the user's side: its outputs, what stays in float, and where it parts from the reference."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from nashc.report.text import Record, cell, figure, records, safe, table, wrote
from nashc.runtime.compare import Difference
from nashc.runtime.files import Ran
from nashc.runtime.session import NOTICE, Array


def run_report(ran: Ran, out: str | None = None, *, verbose: bool = False) -> Group:
    """Tables of the outputs and, where they were compared, of the differences; verbose: of all nodes, and skips."""
    rows = table("Outputs", "name", "!type", "!shape", ">smallest", ">mean", ">largest")
    for name, value in ran.outputs.items():
        shown = ["-" if v is None else figure(v) for v in _summary(value)]
        rows.add_row(cell(name), str(value.dtype), " x ".join(map(str, value.shape)), *shown)
    parts: list[RenderableType] = [rows]
    if ran.differences is not None:
        parts += _comparison(ran.differences, verbose)
    if verbose:
        parts += [Text(safe(f"node '{skip.node}' {skip.reason}")) for skip in ran.skips]
    if out is not None:
        parts.append(wrote(out))
    return Group(*parts)


def run_json(ran: Ran) -> str:
    """The same for programs; a number that JSON does not have is null."""
    document: dict[str, Any] = {
        "native": ran.native,
        "outputs": {
            name: {"type": str(value.dtype), "shape": list(value.shape)}
            | dict(zip(("smallest", "mean", "largest"), _summary(value), strict=True))
            for name, value in ran.outputs.items()
        },
        "in_float": [{"node": skip.node, "reason": skip.reason} for skip in ran.skips],
    }
    if ran.differences is not None:
        document["differences"] = [
            {
                "node": d.node,
                "operator": d.op_type,
                "tensor": d.tensor,
                "error": _number(d.error),
                "magnitude": d.magnitude,
                "limit": d.limit,
                "parts": d.parts,
            }
            for d in ran.differences
        ]
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def kernel_warning(ran: Ran) -> str:
    """One line where the native kernels are missing; else empty."""
    return "" if ran.native else f"warning: {NOTICE}\n"


def _comparison(differences: tuple[Difference, ...], verbose: bool) -> list[RenderableType]:
    first = next((d for d in differences if d.parts), None)
    shown = [d for d in differences if verbose or d.parts]
    rows = [
        Record(
            d.node,
            d.op_type,
            (f"{d.error:.3g}", f"{d.limit:.3g}", f"{d.magnitude:.3g}", d.tensor),
            loud=d.parts,
        )
        for d in shown
    ]
    count = f"{len(differences)} results compared with the NumPy reference, each node on equal inputs: "
    if first is None:
        worst = max((d.error / d.magnitude for d in differences if d.magnitude > 0), default=0.0)
        verdict = count + f"all agree; the largest error is {worst:.2g} of its tensor's magnitude"
    else:
        verdict = count + f"{sum(d.parts for d in differences)} part, first at node '{safe(first.node)}'"
    heading = ("largest error", "allowed", "magnitude", "tensor")
    listed = [records("Differences", heading, rows)] if rows else []
    return [*listed, Text(verdict, style="" if first is None else "bold red")]


def _summary(value: Array) -> tuple[float | None, float | None, float | None]:
    if value.dtype.kind not in "biuf" or not value.size:
        return None, None, None
    wide = value.astype(np.float64)
    return _number(wide.min()), _number(wide.mean()), _number(wide.max())


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
