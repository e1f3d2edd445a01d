"""What an operator of the domain `ai.nashc` is: one frozen value that holds every form of its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from nashc.ops.geometry import ConvGeometry, Size, conv_geometry
from nashc.ops.native import Kernel, Op, Output, Window
from numpy.typing import NDArray
from onnx import TensorProto, TypeProto, helper, parser
from onnx.defs import OpSchema

from nashc.core.network import Unit
from nashc.errors import NashcError

DOMAIN = "ai.nashc"
OPSET = 1
MIN_ONNX_OPSET = 13
"""Function bodies use operators of the default domain as they stand since this opset."""

Array = NDArray[Any]
Inputs = Sequence[Array | None]
Attributes = Mapping[str, Any]
Shape = Sequence[Size]


@dataclass(frozen=True, slots=True)
class Scalar:
    """The definition of one output element in Python numbers: finish(sum of tap(x, w) over all taps, channel).

    `load` turns a stored input element into its number; a padded element is the number 0. `tap` gets the number and
    the stored weight of one tap (a tuple of codes for operators with terms).
    """

    load: Callable[[Any], Any]
    tap: Callable[[Any, tuple[Any, ...]], Any]
    finish: Callable[[Any, int], Any]


@dataclass(frozen=True, slots=True)
class IntegerForm:
    """How the float operator of a quantised layer becomes its integer operator `name`.

    `dequantise(inputs, attributes, x_scale)` gives the inputs of the float operator, with unit channel scale and no
    bias, that the integer inputs stand for; its output is output_scale(attributes, x_scale) * integer output.
    """

    name: str
    dequantise: Callable[[Inputs, Attributes, float], Inputs]
    output_scale: Callable[[Attributes, float], float]


@dataclass(frozen=True, slots=True)
class NativeForm:
    """The call of a native kernel (nashc.ops.native) that computes an operator.

    `weights` [M, C/group, *kernel] in the type of the kernel; with a `scale` [M] (and `bias` [M]) the output is float.
    """

    op: Op
    weights: Array
    scale: Array | None = None
    bias: Array | None = None
    x_zero_point: int = 0


@dataclass(frozen=True, repr=False)
class Operator:
    """One definition per operator; everything that implements it is tested against `reference`.

    `compute(geometry, inputs, attributes)` is the plain NumPy definition on checked inputs, where `attributes` holds
    the ones that are not ONNX Conv's; `body` is the function in ONNX text syntax without its header; `sample(rng,
    geometry)` draws valid inputs and own attributes for tests and benchmarks; `native(inputs, attributes)` is the
    kernel call that computes it. `weight_lead` counts the axes of W before [M, C/group, *kernel]; `per_channel` maps
    an input name to whether [1] is allowed besides [M]; `scalars` names inputs with one element. `check(inputs,
    attributes, where)` raises NashcError for values that types and shapes do not rule out; an input of unknown value
    is None there. `tolerance` is how many float32 roundings an output needs besides one per tap; None for exact
    integers.
    """

    name: str
    unit: Unit
    schema: OpSchema
    compute: Callable[[ConvGeometry, Inputs, Attributes], Array]
    body: str
    scalar: Callable[[Inputs, Attributes], Scalar]
    sample: Callable[[np.random.Generator, ConvGeometry], tuple[Inputs, Attributes]]
    native: Callable[[Inputs, Attributes], NativeForm]
    tolerance: int | None = None
    integer: IntegerForm | None = None
    weight_lead: int = 0
    per_channel: Mapping[str, bool] | None = None
    scalars: tuple[str, ...] = ()
    check: Callable[[Inputs, Attributes, str], None] | None = None

    def __repr__(self) -> str:
        return f"Operator({self.name!r})"

    def reference(self, *inputs: Array | None, where: str = "", **attributes: Any) -> Array:
        """NumPy reference; inputs and attributes as in the ONNX signature, None for an absent optional input."""
        arrays, own, geometry = self._call(inputs, attributes, where or self.name)
        return self.compute(geometry, arrays, own)

    def _call(
        self, inputs: Inputs, attributes: Attributes, where: str
    ) -> tuple[list[Array | None], dict[str, Any], ConvGeometry]:
        """Checked inputs, own attributes and geometry of one call."""
        arrays = self._checked(inputs, where)
        if arrays[0] is not None and not arrays[0].size:
            raise NashcError(
                f"X has shape {list(arrays[0].shape)}, which holds nothing", where=where,
                hint="give every axis at least one element",
            )  # fmt: skip
        own = {**self.own_defaults, **{n: v for n, v in attributes.items() if n in self.own_defaults}}
        conv = {n: v for n, v in attributes.items() if n not in self.own_defaults}
        if unknown := conv.keys() - self.schema.attributes.keys():
            raise NashcError(
                f"unknown attribute {sorted(unknown)}", where=where, hint=f"known: {', '.join(self.schema.attributes)}"
            )
        geometry = self.geometry([None if a is None else a.shape for a in arrays], conv, where)
        if self.check is not None:
            self.check(arrays, own, where)
        return arrays, own, geometry

    def run_native(
        self, *inputs: Array | None, instruction_set: str | None = None, threads: int = 1, **attributes: Any
    ) -> Array:
        """Output by the native kernel; inputs and attributes as for `reference`, which it checks them like."""
        arrays, own, geometry = self._call(inputs, attributes, self.name)
        form = self.native(arrays, own)
        output = Output.SUM if form.scale is None else Output.F32
        weights = form.weights
        x = arrays[0]
        assert x is not None
        if len(geometry.kernel) == 1:
            weights, x = weights[:, :, None], x[:, :, None]
        kernel = Kernel(
            form.op,
            weights,
            Window.of(geometry),
            output=output,
            scale=form.scale,
            bias=form.bias,
            instruction_set=instruction_set,
        )
        y = kernel.run(x, x_zero_point=form.x_zero_point, threads=threads)
        return y if len(geometry.kernel) == 2 else y[:, :, 0]

    def geometry(self, shapes: Sequence[Shape | None], attributes: Attributes, where: str = "") -> ConvGeometry:
        """Geometry from the input shapes (X, W and then any that are known) and Conv attributes; raises NashcError."""
        where = where or self.name
        x_shape, w_shape = shapes[0], shapes[1]
        if x_shape is None or w_shape is None:
            raise NashcError("the shape of X or W is unknown", where=where, hint="run shape inference first")
        if any(size is not None and size < 1 for size in w_shape[: self.weight_lead]):
            raise NashcError(f"W has shape {list(w_shape)}", where=where, hint="give at least one term")
        conv = {n: v for n, v in attributes.items() if n in CONV_ATTRIBUTES}
        found = conv_geometry(x_shape, w_shape[self.weight_lead :], where=where, **conv)
        for formal, shape in zip(self.schema.inputs[2:], shapes[2:], strict=False):
            if shape is not None:
                self._check_vector(formal.name, shape, found, where)
        return found

    def function(self, onnx_opset: int) -> onnx.FunctionProto:
        """The body in standard operators of `onnx_opset` as a model-local function; every attribute must be given.

        One function serves every shape and attribute value: sizes are read with Shape, and stock onnxruntime folds
        what is static. So no two functions of a name exist: onnx's ReferenceEvaluator ignores FunctionProto.overload.
        """
        if onnx_opset < MIN_ONNX_OPSET:
            raise NashcError(
                f"the model uses ONNX opset {onnx_opset}, functions of {DOMAIN} need {MIN_ONNX_OPSET}",
                hint="convert it with onnx.version_converter.convert_version",
            )
        inputs = ", ".join(formal.name for formal in self.schema.inputs)
        text = (
            f'<domain: "{DOMAIN}", opset_import: ["" : {onnx_opset}]>\n'
            f"{self.name} <{', '.join(self.function_attributes)}> ({inputs}) => (Y) {{\n{self.body}\n}}"
        )
        found = parser.parse_function(text)
        found.doc_string = (self.schema.doc or "").strip()
        return found

    @property
    def function_attributes(self) -> tuple[str, ...]:
        """What a node must carry to call the function: kernel_shape follows from W, auto_pad becomes pads."""
        return tuple(sorted(set(self.schema.attributes) - {"auto_pad", "kernel_shape"}))

    @property
    def own_defaults(self) -> dict[str, Any]:
        """Attributes that ONNX Conv does not have, with their default values."""
        return {
            name: helper.get_attribute_value(attribute.default_value)
            for name, attribute in self.schema.attributes.items()
            if name not in CONV_ATTRIBUTES
        }

    def _checked(self, inputs: Inputs, where: str) -> list[Array | None]:
        formals = self.schema.inputs
        if len(inputs) > len(formals):
            raise NashcError(f"{len(inputs)} inputs", where=where, hint=f"give at most {len(formals)}")
        padded: list[Array | None] = [*inputs, *[None] * (len(formals) - len(inputs))]
        for formal, array in zip(formals, padded, strict=True):
            if array is None:
                if formal.option != OpSchema.FormalParameterOption.Optional:
                    raise NashcError(f"input {formal.name} is missing", where=where, hint="it is not optional")
                continue
            dtype = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
            name = f"tensor({TensorProto.DataType.Name(dtype).lower()})"
            if name not in formal.types:
                wanted = ", ".join(sorted(formal.types))
                raise NashcError(f"input {formal.name} is {name}", where=where, hint=f"give {wanted}")
        return padded

    def _check_vector(self, name: str, shape: Shape, geometry: ConvGeometry, where: str) -> None:
        if name in self.scalars:
            if len(shape) > 1 or (len(shape) == 1 and shape[0] not in (1, None)):
                raise NashcError(f"{name} has shape {list(shape)}", where=where, hint="give one value")
        elif self.per_channel and name in self.per_channel:
            m, one = geometry.out_channels, self.per_channel[name]
            if len(shape) != 1 or not (shape[0] in (m, None) or (one and shape[0] == 1)):
                raise NashcError(
                    f"{name} has shape {list(shape)} but W has {m} output channels",
                    where=where,
                    hint=f"give [{m}]{' or [1]' if one else ''}",
                )


CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def conv_schema(
    name: str,
    doc: str,
    *,
    inputs: Sequence[tuple[str, str, str]],
    output: str,
    types: Mapping[str, Sequence[str]],
    own_attributes: Mapping[str, tuple[int, str]] | None = None,
) -> OpSchema:
    """Schema of a Conv-like operator: inputs as (name, type, description), '?' after a name marks it optional."""
    optional, single = OpSchema.FormalParameterOption.Optional, OpSchema.FormalParameterOption.Single
    ints, kinds = ("kernel_shape", "strides", "dilations", "pads"), OpSchema.AttrType
    return OpSchema(
        name,
        DOMAIN,
        OPSET,
        doc,
        inputs=[
            OpSchema.FormalParameter(
                n.removesuffix("?"), kind, text, param_option=optional if n.endswith("?") else single
            )
            for n, kind, text in inputs
        ],
        outputs=[OpSchema.FormalParameter("Y", output, "[N, M, *output]")],
        type_constraints=[(t, list(allowed), "") for t, allowed in types.items()],
        attributes=[
            OpSchema.Attribute("auto_pad", helper.make_attribute("auto_pad", "NOTSET"), "As ONNX Conv."),
            OpSchema.Attribute("group", helper.make_attribute("group", 1), "As ONNX Conv."),
            *(OpSchema.Attribute(n, kinds.INTS, "As ONNX Conv.", required=False) for n in ints),
            *(
                OpSchema.Attribute(n, helper.make_attribute(n, value), text)
                for n, (value, text) in (own_attributes or {}).items()
            ),
        ],
    )


def shape_inference(operator: Operator) -> Callable[[Any], None]:
    """The callback that gives onnx the type and shape of Y; shape errors reach the caller as NashcError."""

    def infer(context: Any) -> None:
        known = range(context.get_num_inputs())
        types = [context.get_input_type(i) if context.has_input(i) else None for i in known]
        shapes = [shape_of(t) for t in types]
        output = TypeProto()
        kind = operator.schema.outputs[0].type_str
        output.tensor_type.elem_type = TensorProto.INT32 if kind == "tensor(int32)" else TensorProto.FLOAT
        x_shape, w_shape = (*shapes, None, None)[:2]
        if x_shape is not None and w_shape is not None and None not in w_shape:
            attributes = {n: a for n in CONV_ATTRIBUTES if (a := _attribute(context, n)) is not None}
            found = operator.geometry(shapes, attributes, context.get_display_name())
            x_dims = types[0].tensor_type.shape.dim  # type: ignore[union-attr]
            output.tensor_type.shape.dim.add().CopyFrom(x_dims[0])
            output.tensor_type.shape.dim.add().dim_value = found.out_channels
            for size in found.output:
                dim = output.tensor_type.shape.dim.add()
                if size is not None:
                    dim.dim_value = size
        context.set_output_type(0, output)

    return infer


def shape_of(kind: TypeProto | None) -> tuple[Size, ...] | None:
    """Sizes of a tensor type, None for each that is symbolic; None when the rank is unknown."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim)


def _attribute(context: Any, name: str) -> Any:
    proto = context.get_attribute(name)
    return None if proto is None else attribute_value(proto)


def attribute_value(proto: onnx.AttributeProto) -> Any:
    """The Python value of an attribute; text as str."""
    value = helper.get_attribute_value(proto)
    return value.decode() if isinstance(value, bytes) else value
