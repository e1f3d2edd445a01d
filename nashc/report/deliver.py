"""A compile from the user's side: search with a progress bar, result files, what is shown at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType

from nashc.artifact import Compiled
from nashc.compiler import check_out, compile_model, write
from nashc.core.options import Options
from nashc.report.explain import explained
from nashc.report.progress import progress_bar
from nashc.report.tables import design_report, host_layers
from nashc.report.text import render, safe, wrote
from nashc.report.written import REPORT, design_page
from nashc.search.compiled import library


def compile_to(
    out: str | None,
    model: str,
    target: str,
    shapes: Mapping[str, tuple[int, ...]],
    options: Options,
    baselines: Sequence[str] = (),
    *,
    strict: bool = False,
) -> Compiled:
    """Compile and, if `out` is given, write design.json, model.onnx, report.html and report.txt into it."""
    if out is not None:
        check_out(Path(out))
    with progress_bar() as progress:
        compiled = compile_model(model, target, shapes, options, baselines, strict=strict, progress=progress)
    if out is not None:
        write(compiled, out, {"report.txt": render(design_report(compiled)), REPORT: design_page(compiled)})
    return compiled


def human_form(compiled: Compiled, out: str | None, *, verbose: bool = False) -> Group:
    """The report and where the files are."""
    parts: list[RenderableType] = [design_report(compiled, verbose=verbose)]
    parts += [explained(compiled)] if verbose else []
    if out is not None:
        names = ", ".join(str(Path(out) / name) for name in ("design.json", "model.onnx", REPORT, "report.txt"))
        parts.append(wrote(names))
    return Group(*parts)


def uncompiled_warning() -> str:
    """One line where this install has none of the compiled parts; else empty."""
    if library() is not None:
        return ""
    return (
        "warning: this install of nashc has no compiled search (it was built without a C++ compiler): compiling takes "
        "longer and finds poorer designs; reinstall nashc where a C++ compiler is\n"
    )


def host_warning(compiled: Compiled) -> str:
    """One line that names the layers on the host; empty if there are none."""
    names = ", ".join(f"'{layer.name}'" for layer, _ in host_layers(compiled.design))
    return safe(f"warning: on the host CPU, not on the accelerator: {names}") + "\n" if names else ""
