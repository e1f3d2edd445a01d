"""The model that becomes a hybrid: read, brought to an opset that can hold every layer type, and cut into stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from nashc.core.network import Network
from nashc.errors import NashcError
from nashc.hybridize.stages import Staged, staged
from nashc.importer import import_ir
from nashc.ops import DOMAIN
from nashc.ops.geometry import COORDINATES_SINCE, nearest_before
from nashc.passes import checked, load, simplify
from nashc.runtime import Session

OPSET = 21
"""DequantizeLinear of 4-bit weights came with it."""
SAME = 1e-3
"""Of an output's size: how far a model at another opset may be from what it was."""


@dataclass(frozen=True)
class Original:
    """A float model. `proto` is the file's, at OPSET; `input` its only input, of `shape` for one image; `batch` the
    name of its batch axis, "" where the file fixes it."""

    name: str
    proto: onnx.ModelProto
    staged: Staged
    network: Network
    input: str
    batch: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.staged.shapes[self.input]

    @property
    def props(self) -> dict[str, str]:
        return {p.key: p.value for p in self.proto.metadata_props}


def open_original(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> Original:
    """A float model from a file; shapes as --shape gives them. Raises NashcError."""
    model = load(path)
    ir.external_data.load_to_model(model)
    return original(ir.to_proto(model), shapes, Path(path).stem, str(path))


def metadata_of(path: str | Path) -> dict[str, str]:
    """metadata_props of a model file. Raises NashcError."""
    return dict(load(path).metadata_props)


def original(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], name: str, where: str) -> Original:
    """The same for a model in memory."""
    given, proto = proto, _at_opset(proto, where)
    _refuse_quantised(proto, where)
    simplified = simplify(checked(proto), shapes)
    network = import_ir(simplified, name).network
    cut = staged(simplified)
    if len(cut.inputs) != 1:
        raise NashcError(f"the model has {len(cut.inputs)} inputs", where=where, hint="one input of images is read")
    stored = {tensor.name for tensor in proto.graph.initializer}
    value = next(v for v in proto.graph.input if v.name == cut.inputs[0] and v.name not in stored)
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise NashcError(f"input '{value.name}' is not float32", where=where, hint="give the float model")
    if proto is not given:
        _refuse_another(given, proto, value, cut.shapes[value.name], where)
    sizes = value.type.tensor_type.shape.dim
    batch = (sizes[0].dim_param or "batch") if len(sizes) and not sizes[0].dim_value > 0 else ""
    return Original(name, proto, cut, network, cut.inputs[0], batch)


def _at_opset(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version >= OPSET:
        return proto
    if any(o.domain == DOMAIN for o in proto.opset_import):
        raise NashcError(
            f"opset {version}, and hybrids need {OPSET}", where=where, hint=f"export the model with --opset {OPSET}"
        )
    try:
        made = onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter raises what its C++ code happens to
        text = " ".join(str(error).split())[:200]
        raise NashcError(
            f"opset {version} cannot be converted to {OPSET}: {text}",
            where=where,
            hint=f"export the model with opset {OPSET}",
        ) from None
    if version < COORDINATES_SINCE:
        _resize_as_before(made, where)
    del made.metadata_props[:]
    made.metadata_props.extend(proto.metadata_props)
    return made


def _resize_as_before(made: onnx.ModelProto, where: str) -> None:
    """Say what older sets meant by Upsample and Resize, and the converter forgets: pixel i comes from i / scale, and
    the nearest one is the one before it, or after it where the map shrinks (as onnxruntime has it).

    Raises NashcError where one node does both.
    """
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    constants = [n for n in made.graph.node if n.op_type == "Constant" and n.attribute[0].HasField("t")]
    stored |= {n.output[0]: n.attribute[0].t for n in constants}
    for node in made.graph.node:
        if node.op_type != "Resize" or node.domain not in ("", "ai.onnx"):
            continue
        found = stored.get(node.input[2]) if len(node.input) > 2 else None
        scales = None if found is None else onnx.numpy_helper.to_array(found)
        mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
        nearest = None if scales is None else nearest_before(scales)
        if mode == b"nearest" and nearest is None:
            raise NashcError(
                f"node '{node.name or node.output[0]}' (Resize) cannot be brought to opset {OPSET}", where=where,
                hint=f"export the model with opset {OPSET}",
            )  # fmt: skip
        said = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": nearest or "floor"}
        kept = [a for a in node.attribute if a.name not in said]
        del node.attribute[:]
        node.attribute.extend([*kept, *(onnx.helper.make_attribute(name, text) for name, text in said.items())])


def _refuse_another(given: onnx.ModelProto, made: onnx.ModelProto, value: onnx.ValueInfoProto, shape: tuple[int, ...],
                    where: str) -> None:  # fmt: skip
    """Raises NashcError where a conversion gave another function: all that follows would be compared with that one.
    What onnxruntime cannot run as it was is taken as the converter made it."""
    dims = value.type.tensor_type.shape.dim  # some exporters write -1 where a size is open
    sizes = [d.dim_value if d.dim_value > 0 else size for d, size in zip(dims, shape, strict=True)]
    x = {value.name: np.random.default_rng(0).normal(size=sizes).astype(np.float32)}
    try:
        wanted, found = (Session(model, threads=1).run(x) for model in (given, made))
    except NashcError:
        return
    for output, values in wanted.items():
        size = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) if values.dtype.kind == "f" else 0.0
        same = found[output].shape == values.shape and (
            values.dtype.kind != "f" or np.allclose(found[output], values, rtol=SAME, atol=SAME * size, equal_nan=True)
        )
        if not same:
            raise NashcError(
                f"brought to opset {OPSET} it computes another '{output}'", where=where,
                hint=f"export the model with opset {OPSET}",
            )  # fmt: skip


def _refuse_quantised(proto: onnx.ModelProto, where: str) -> None:
    found = next((n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")), None)
    if found is not None:
        raise NashcError(
            f"the model is quantised already (node '{found.name}', {found.op_type})",
            where=where,
            hint="give the float model that it was made from",
        )


def with_batch(model: onnx.ModelProto, original: Original) -> onnx.ModelProto:
    """The integer model with the batch axis open where the file had it so and the nodes allow it: a batch of two has to
    give what its images give alone."""
    if not original.batch:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in (*made.graph.input, *made.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if not len(sizes):
            return model
        sizes[0].dim_param = original.batch
    images = np.random.default_rng(0).normal(size=(2, *original.shape[1:])).astype(np.float32)
    try:
        together = Session(made, threads=1).run({original.input: images})
        single = Session(model, threads=1)
        alone = [single.run({original.input: image[None]}) for image in images]
    except NashcError:
        return model
    same = all(
        np.array_equal(together[n], np.concatenate([one[n] for one in alone])) for n in together if together[n].ndim
    )
    return made if same else model
