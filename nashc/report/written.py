"""`nashc report` from the user's side: which page belongs to a file, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType

from nashc.artifact import Compiled, load
from nashc.errors import NashcError
from nashc.files import check_file, replacing
from nashc.report.helps import Helps, helps_data, helps_table, what_helps
from nashc.report.html.design import design_data
from nashc.report.html.diff import diff_data
from nashc.report.html.names import shown
from nashc.report.html.page import page
from nashc.report.html.pareto import curve_data, pareto_data
from nashc.report.layers import layers_csv
from nashc.report.markdown import design_markdown, diff_markdown
from nashc.report.progress import progress_bar
from nashc.report.text import wrote

DESIGN, PARETO = "design.json", "pareto.json"
REPORT, PARETO_PAGE, DIFF_PAGE = "report.html", "pareto.html", "diff.html"
Tile = tuple[str, str]
"""A figure of the summary and what it is."""
HINT = "give a design.json, a pareto.json, the .json of a conversion, or the folder of a compile or a search"


@dataclass(frozen=True)
class Ask:
    """What `nashc report` is asked for: `path` and `diff` are files or folders; out: the page, if not beside them;
    checked: the JSON of `nashc check`; helps: search with more of each resource, `seconds` each."""

    path: str
    out: str | None = None
    diff: str | None = None
    checked: str | None = None
    helps: bool = False
    seconds: float | None = None


class _Scores(msgspec.Struct):
    top1: float
    top5: float | None


class _Output(msgspec.Struct):
    name: str
    agreement: float | None
    sqnr_db: float | None


class _Accuracy(msgspec.Struct):
    images: int
    model: _Scores | None
    outputs: list[_Output]


class _Checked(msgspec.Struct):
    accuracy: _Accuracy | None


class _Kind(msgspec.Struct):
    schema: str = ""
    points: Any = None


def report_page(ask: Ask) -> RenderableType:
    """Write the page, and say where it is."""
    source = found(ask.path)
    kind = kind_of(source)
    if kind != "design" and (ask.diff or ask.checked or ask.helps):
        raise NashcError("is no design", where=str(source), hint="--diff, --check and --what-helps need a design.json")
    if ask.diff is not None and (ask.checked or ask.helps):
        raise NashcError("--diff shows two designs alone", where="--check, --what-helps", hint="leave them out")
    default = {"design": REPORT, "pareto": PARETO_PAGE}.get(kind, f"{source.stem}.html")
    out = Path(ask.out) if ask.out else source.parent / (DIFF_PAGE if ask.diff else default)
    check_file(out)
    for given in (source, *map(Path, filter(None, (ask.diff, ask.checked)))):
        if out.exists() and given.is_file() and out.samefile(given):
            raise NashcError("would take the place of what it is made from", where=str(out), hint="give another -o")
    parts: list[RenderableType] = []
    if ask.diff is not None:
        text = diff_page(*both(ask))
    elif kind == "design":
        compiled, helps = load(source), None
        if ask.helps:
            with progress_bar() as progress:
                helps = what_helps(compiled, ask.seconds, progress)
            parts.append(helps_table(helps))
        tiles = [] if ask.checked is None else accuracy_tiles(Path(ask.checked))
        text = design_page(compiled, tiles, helps)
    else:
        text = pareto_page(source, out, kind)
    write_page(text, out)
    return Group(*parts, wrote(str(out)))


def report_markdown(ask: Ask) -> str:
    """A design, or two, as Markdown. Raises NashcError where the request asks for more than that."""
    _alone(ask, "--markdown")
    if ask.diff is not None:
        a, b, names = both(ask)
        return diff_markdown(a, b, names)
    return design_markdown(load(found(ask.path)))


def report_csv(ask: Ask) -> str:
    """The layers of a design as CSV. Raises NashcError where the request asks for more than that."""
    _alone(ask, "--csv")
    if ask.diff is not None:
        raise NashcError("shows the layers of one design", where="--csv", hint="leave out --diff")
    return layers_csv(load(found(ask.path)))


def _alone(ask: Ask, flag: str) -> None:
    """What is printed has no accuracy and no searches, and goes to stdout."""
    given = {"-o": ask.out, "--check": ask.checked, "--what-helps": ask.helps, "--budget": ask.seconds}
    for name, value in given.items():
        if value:
            raise NashcError(f"{flag} and {name} do not go together", hint=f"leave out {name}")


def design_page(compiled: Compiled, accuracy: Sequence[Tile] = (), helps: Helps | None = None) -> str:
    """report.html; accuracy: figures for the summary that a design does not have."""
    data = design_data(compiled)
    if accuracy:
        data["accuracy"] = {"tiles": accuracy}
    if helps is not None:
        data["helps"] = helps_data(helps)
    return page(f"{shown(compiled.design.network.name)} on {shown(compiled.board.name)}: nashc", "design", data)


def pareto_page(source: Path, out: Path, kind: str = "pareto") -> str:
    """pareto.html of a search, or of the "curve" of a conversion; links are those of a page at `out`."""
    data = (pareto_data if kind == "pareto" else curve_data)(source, out)
    return page(f"{data['name']}: nashc", "pareto", data)


def diff_page(a: Compiled, b: Compiled, names: tuple[str, str]) -> str:
    """diff.html."""
    return page(f"{shown(names[0])} beside {shown(names[1])}: nashc", "diff", diff_data(a, b, names))


def both(ask: Ask) -> tuple[Compiled, Compiled, tuple[str, str]]:
    """Two designs, and the shortest names that tell them apart."""
    first, second = found(ask.path), found(ask.diff or "")
    names = [_name(path) for path in (first, second)]
    if names[0] == names[1]:
        names = [str(path.parent if path.name == DESIGN else path) for path in (first, second)]
    return load(first), load(second), (names[0], names[1])


def _name(path: Path) -> str:
    return path.resolve().parent.name if path.name == DESIGN else path.stem


def write_page(text: str, out: Path) -> None:
    with replacing(out) as written:
        written.write_text(text, encoding="utf-8")


def found(path: str) -> Path:
    """The file that is meant: itself, or what a compile or a search wrote into that folder."""
    given = Path(path)
    if given.is_dir():
        inside = [given / name for name in (DESIGN, PARETO) if (given / name).is_file()]
        if not inside:
            raise NashcError("a folder with neither design.json nor pareto.json", where=path, hint=HINT)
        return inside[0]
    if not given.is_file():
        raise NashcError("no such file", where=path, hint=HINT)
    return given


def kind_of(path: Path) -> str:
    """ "design", "pareto" or "curve"."""
    try:
        header = msgspec.json.decode(path.read_bytes(), type=_Kind)
    except (msgspec.DecodeError, RecursionError):
        raise NashcError("no JSON that nashc wrote", where=str(path), hint=HINT) from None
    if header.schema == "nashc-pareto":
        return "pareto"
    return "curve" if not header.schema and isinstance(header.points, list) else "design"


def accuracy_tiles(path: Path) -> list[Tile]:
    """What `nashc check --json` measured, as figures with labels."""
    try:
        made = msgspec.json.decode(path.read_bytes(), type=_Checked)
    except (msgspec.DecodeError, RecursionError):
        raise NashcError("not what `nashc check --json` prints", where=str(path), hint="write it again") from None
    a = made.accuracy
    if a is None:
        return []
    tiles: list[Tile] = []
    if a.model is not None:
        tiles.append((f"{a.model.top1:.2%}", f"top-1 on {a.images:,} images"))
        if a.model.top5 is not None:
            tiles.append((f"{a.model.top5:.2%}", "top-5"))
    for output in a.outputs[:3]:
        if output.agreement is not None:
            tiles.append((f"{output.agreement:.2%}", f"same class as the other model, {shown(output.name)}"))
        elif output.sqnr_db is not None:
            tiles.append((f"{output.sqnr_db:.1f} dB", f"SQNR to the other model, {shown(output.name)}"))
    return tiles
