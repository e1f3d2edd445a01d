"""Proxies from the user's side: what there is, and how well each ranks trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group as Parts
from rich.console import RenderableType
from rich.text import Text

from nashc.errors import NashcError
from nashc.nas.bench import Group, Ranked, ceiling, measure, ranked, read_groups
from nashc.nas.proxies import PROXIES
from nashc.report.progress import progress_bar
from nashc.report.text import cell, table


def proxies_report() -> RenderableType:
    """Every proxy with its source."""
    shown = table("Zero-shot proxies", "name", "source", "looks at")
    for proxy in PROXIES.values():
        shown.add_row(proxy.name, cell(proxy.source), "labelled images" if proxy.data else "noise or shapes")
    return shown


def bench_shown(
    path: str, data: Mapping[str, str], spaces: Sequence[str], names: Sequence[str]
) -> tuple[list[Group], list[Ranked]]:
    """The groups of a ground truth and the correlations of the named proxies, or all, with them.

    data: the folder of each data set; spaces: only groups of these. Raises NashcError for a data set without a folder.
    """
    everything = read_groups(path)
    for name in spaces:
        if name not in {g.space.name for g in everything}:
            raise NashcError(f"no networks of the space '{name}'", where=path, hint="see the file for those it has")
    for name in data:
        if name not in {g.data for g in everything}:
            raise NashcError(f"no networks that were trained on '{name}'", where=path, hint="see the file for its data")
    groups = [g for g in everything if not spaces or g.space.name in spaces]
    for group in groups:
        if group.data not in data:
            raise NashcError(f"where is '{group.data}'?", where=path, hint=f"give --data {group.data}=FOLDER")
    proxies = [PROXIES.get(name) for name in names] if names else list(PROXIES.values())
    with progress_bar() as progress:
        measured = [measure(group, proxies, data[group.data], progress) for group in groups]
    rows: list[Ranked] = []
    for proxy in proxies:
        terms = [found[proxy.name][0] for found in measured]
        for space in dict.fromkeys(g.space.name for g in groups):
            own = [i for i, g in enumerate(groups) if g.space.name == space]
            seconds = sum(measured[i][proxy.name][1] for i in own) / len(own)
            rows += ranked(proxy.name, [groups[i] for i in own], [terms[i] for i in own], seconds)
    return groups, rows


def bench_report(groups: Sequence[Group], rows: Sequence[Ranked]) -> Parts:
    """A table for each group, the best proxy first; the mean over the groups last."""
    parts: list[RenderableType] = []
    for name in dict.fromkeys(row.group for row in rows):
        shown = table(name, "proxy", ">Spearman", ">95 %", ">Kendall", ">95 %", ">FLOPs bands", ">95 %", ">ms")
        for row in sorted((r for r in rows if r.group == name), key=lambda r: -r.spearman):
            shown.add_row(
                row.proxy, f"{row.spearman:.2f}", _interval(row.spearman_interval), f"{row.kendall:.2f}",
                _interval(row.kendall_interval), f"{row.banded:.2f}", _interval(row.banded_interval),
                f"{1e3 * row.seconds:.0f}",
            )  # fmt: skip
        parts += [shown, *(Text(_about(g)) for g in groups if g.name == name)]
    return Parts(*parts)


def _about(group: Group) -> str:
    best, noise = ceiling(group), group.noise
    accuracy = group.accuracy
    text = f"{len(accuracy)} networks, {accuracy.min():.1%} to {accuracy.max():.1%}"
    if noise is None or best is None:
        return text
    return f"{text}; between seeds {100 * noise:.2f} points, so that {best:.2f} is what the truth itself would reach"


def _interval(found: tuple[float, float]) -> str:
    return f"{found[0]:.2f}..{found[1]:.2f}"
