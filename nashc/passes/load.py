"""Read an ONNX file that nobody vouches for.

Requires: a path. Ensures: the model parses, is at most 2 GB with its external data, reads nothing outside its own
folder, has only operators that its opset defines (other domains are left to the importer), no cycles and no
dangling names; or a NashcError says what is wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import TopologicalSortPass

from nashc.errors import NashcError, did_you_mean
from nashc.passes import provenance

CHECKED_DOMAINS = ("", "ai.onnx", "ai.nashc")
MAX_BYTES = 2**31 - 1
LONGEST_SHOWN = 300
"""Characters of a file name or a foreign message that an error repeats."""
EXPORT_AGAIN = "export the model again, or check it with onnx.checker"


def load(path: str | Path) -> ir.Model:
    """The checked model behind `path`."""
    path = Path(path)
    data = _read(path)
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise NashcError(f"not an ONNX model: {error}", where=str(path), hint=EXPORT_AGAIN) from None
    return checked(proto, path)


def checked(proto: onnx.ModelProto, path: Path = Path("model")) -> ir.Model:
    """A model in memory as `load` gives one; `path` is how errors call it, and its folder that of external data."""
    if not proto.HasField("graph"):
        raise NashcError("not an ONNX model: it has no graph", where=str(path), hint=EXPORT_AGAIN)
    _check_opsets(proto, str(path))
    graphs = [proto.graph, *map(_as_graph, proto.functions)]
    for graph in graphs:
        _check_text(graph, str(path))
    _check_tensors(graphs, path)
    for graph in graphs:
        place = str(path) if graph is proto.graph else f"{path}: function '{graph.name}'"
        _check_names(graph, place, set())
    _check_once([f"{f.domain}.{f.name}:{f.overload}".strip(".:") for f in proto.functions], "defined", str(path))
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # untrusted input: onnx_ir raises many kinds here
        raise NashcError(f"the graph cannot be read: {_first(error)}", where=str(path), hint=EXPORT_AGAIN) from None
    _check_stored(model, path)
    provenance.forget(model)
    provenance.name_nodes(model.graph)
    ir.external_data.set_base_dir(model.graph, str(path.parent.resolve()))
    try:
        TopologicalSortPass()(model)
    except Exception as error:
        raise NashcError(f"the graph has a cycle: {_first(error)}", where=str(path), hint=EXPORT_AGAIN) from None
    return model


def _read(path: Path) -> bytes:
    if not path.exists():
        raise NashcError("no such file", where=str(path), hint="check the path")
    if not path.is_file():
        raise NashcError("not a file", where=str(path), hint="give the path of an .onnx file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise NashcError(
                f"{size:,} bytes are more than the 2 GB that protobuf allows",
                where=str(path),
                hint="store the weights as external data",
            )
        return path.read_bytes()
    except OSError as error:
        raise NashcError(f"cannot be read: {error.strerror}", where=str(path), hint="check its permissions") from None


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."


def _first(error: BaseException) -> str:
    """The root cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:LONGEST_SHOWN]


def _check_opsets(proto: onnx.ModelProto, file: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise NashcError(
                f"opset {opset.version} is not known here (1 to {newest} are)",
                where=file,
                hint="export with an older opset or update the onnx package",
            )
    declared = any(o.domain in ("", "ai.onnx") for o in proto.opset_import)
    if not declared and any(n.domain in ("", "ai.onnx") for n in proto.graph.node):
        raise NashcError("no opset_import for the standard operators", where=file, hint=EXPORT_AGAIN)


def _as_graph(function: onnx.FunctionProto) -> onnx.GraphProto:
    """What of a function is checked as in a graph."""
    inputs, outputs = ([onnx.ValueInfoProto(name=n) for n in names] for names in (function.input, function.output))
    return onnx.GraphProto(node=function.node, name=function.name, input=inputs, output=outputs)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") or attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _check_tensors(graphs: list[onnx.GraphProto], path: Path) -> None:
    """Every stored tensor has the bytes that its shape asks for; external ones lie below the model's folder."""
    total = 0
    folder = path.parent.resolve()
    for tensor in (t for graph in graphs for t in _tensors(graph)):
        file = f"{path}: tensor '{tensor.name}'"
        if any(d < 0 for d in tensor.dims):
            raise NashcError(f"negative dimension in {list(tensor.dims)}", where=file, hint=EXPORT_AGAIN)
        if tensor.data_type == onnx.TensorProto.UNDEFINED:
            raise NashcError("has no data type", where=file, hint=EXPORT_AGAIN)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            total += _check_external(tensor, folder, file)
        else:
            try:
                onnx.checker.check_tensor(tensor)
            except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
                raise NashcError(_first(error), where=file, hint=EXPORT_AGAIN) from None
    if total > MAX_BYTES:
        raise NashcError(
            f"{total:,} bytes of external data are more than 2 GB", where=str(path), hint="use a smaller model"
        )


def _check_external(tensor: onnx.TensorProto, folder: Path, file: str) -> int:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    name = _short(location)
    hint = "external data must be a plain file in the model's folder or below it"
    if not location or "\0" in location or os.path.isabs(location) or ".." in Path(location.replace("\\", "/")).parts:
        raise NashcError(f"external data at '{name}' is outside the model's folder", where=file, hint=hint)
    target = folder / location
    try:
        if not Path(os.path.realpath(target)).is_relative_to(folder):
            raise NashcError(f"external data at '{name}' leads out of the model's folder", where=file, hint=hint)
        if not target.is_file():
            raise NashcError(f"external data file '{name}' is missing", where=file, hint="copy it next to the model")
        size = target.stat().st_size
    except OSError as error:
        raise NashcError(
            f"external data file '{name}' cannot be read: {error.strerror}", where=file, hint=hint
        ) from None
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise NashcError(
            "external data with an offset or length that is no number", where=file, hint=EXPORT_AGAIN
        ) from None
    length = size - offset if length < 0 else length
    if offset < 0 or offset + length > size:
        raise NashcError(f"external data file '{name}' is too short", where=file, hint="copy it again")
    bits = ir.DataType(tensor.data_type).bitwidth if tensor.data_type in set(ir.DataType) else 0
    wanted = bits
    for dim in tensor.dims:
        wanted *= dim
    if (wanted + 7) // 8 > length:
        raise NashcError(
            f"external data file '{name}' is too short for shape {list(tensor.dims)}",
            where=file,
            hint="copy it again",
        )
    return length


def _check_text(graph: onnx.GraphProto, file: str) -> None:
    """protobuf hands out bytes where a name is not UTF-8."""
    for node in graph.node:
        names = [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
        values = [v.name for v in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
        strings = [a.s for a in node.attribute if a.type == onnx.AttributeProto.STRING and a.name != "value_string"]
        texts = all(isinstance(name, str) for name in (*names, *values, graph.name))
        if not texts or (node.domain in CHECKED_DOMAINS and not all(_is_text(s) for s in strings)):
            raise NashcError("a name is not UTF-8 text", where=file, hint=EXPORT_AGAIN)
        for inner in _inner_graphs(node):
            _check_text(inner, file)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def _check_stored(model: ir.Model, path: Path) -> None:
    """Every tensor in the file can be read as its type says; external ones were checked by size."""
    stored = [v.const_value for v in model.graph.initializers.values()]
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        stored += [
            a.as_tensor() for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR and not a.is_ref()
        ]
    for tensor in stored:
        if tensor is None or isinstance(tensor, ir.ExternalTensor):
            continue
        try:
            tensor.numpy()
        except Exception as error:
            file = f"{path}: tensor '{tensor.name}'"
            raise NashcError(f"cannot be read: {_first(error)}", where=file, hint=EXPORT_AGAIN) from None


def _check_names(graph: onnx.GraphProto, file: str, outer: set[str]) -> None:
    """Every name that a node reads is defined somewhere, and defined once; an input may have a stored value."""
    inputs = [i.name for i in graph.input]
    stored = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    made = [n for node in graph.node for n in node.output if n]
    _check_once(stored, "stored", file)
    for names in ([*inputs, *made], [*dict.fromkeys(stored), *made]):
        _check_once(names, "defined", file)
    defined = {*inputs, *stored, *made, *outer}
    for i, node in enumerate(graph.node):
        place = f"{file}: node '{node.name or i}' ({node.op_type})"
        for name in node.input:
            if name and name not in defined:
                raise NashcError(
                    f"reads '{_short(name)}', which nothing produces",
                    where=place,
                    hint=did_you_mean(name, defined) if len(defined) < 1000 else EXPORT_AGAIN,
                )
        for inner in _inner_graphs(node):
            _check_names(inner, file, defined)
    for output in graph.output:
        if output.name not in defined:
            raise NashcError(f"output '{_short(output.name)}' is produced by nothing", where=file, hint=EXPORT_AGAIN)


def _check_once(names: list[str], how: str, file: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise NashcError(f"'{_short(twice)}' is {how} twice", where=file, hint=EXPORT_AGAIN)
