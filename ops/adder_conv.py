"""AdderConv: minus the L1 distance between each window and the filter (AdderNet, arXiv 1912.13200).

Y[n, m, o] = -sum over c, taps of |X[n, c, i(o, tap)] - W[m, c, tap]|. A padded tap is a real zero: it adds -|W|.
"""

from __future__ import annotations

import numpy as np
from nashc.ops.geometry import ConvGeometry, columns
from nashc.ops.native import Op
from nashc.ops.operator import Array, Attributes, Inputs, IntegerForm, NativeForm, Operator, Scalar, conv_schema
from nashc.ops.shift_conv import sample_input

from nashc.core.network import Unit
from nashc.errors import NashcError

STEP = "ai.nashc.step"
SAME_STEP = 1e-4
"""How far steps of layers that have to be one may differ: as far as they may be written with other digits."""


def step_said(text: str, where: str) -> float:
    """The step that a node's metadata says. Raises NashcError where that is none."""
    try:
        step = float(text)
    except ValueError:
        step = 0.0
    if not 0 < step < float("inf"):
        raise NashcError(f"metadata {STEP} is '{text[:40]}'", where=where, hint="remove it")
    return step


"""Key in the metadata of an AdderConv node: the step of its input, of which its weights are whole multiples."""

SCHEMA = conv_schema(
    "AdderConv",
    "Minus the sum over taps of |X - W|; a padded tap is a real zero.",
    inputs=[("X", "T", "[N, C, *input]"), ("W", "T", "[M, C/group, *kernel]")],
    output="T",
    types={"T": ["tensor(float)"]},
)


def minus_l1(geometry: ConvGeometry, x: Array, w: Array) -> Array:
    """The definition in the type of x and w, [N, M, *output]; one output channel of every group at a time."""
    under_taps = columns(x, geometry)
    filters = w.reshape(geometry.group, geometry.k, 1, geometry.taps)
    channels = [-np.abs(under_taps - filters[:, k]).sum(axis=-1) for k in range(geometry.k)]
    sizes = [size for size in geometry.output if size is not None]
    return np.stack(channels, axis=2).reshape(x.shape[0], geometry.out_channels, *sizes)


def compute(geometry: ConvGeometry, inputs: Inputs, attributes: Attributes) -> Array:
    """float32 result of differences and sums in float64."""
    x, w = inputs
    assert x is not None
    assert w is not None
    return minus_l1(geometry, x.astype(np.float64), w.astype(np.float64)).astype(np.float32)


def l1_body(accumulator: str) -> str:
    """ONNX text of the operator with sums in `accumulator` ("float" or "int32").

    A 1-D input becomes one row. Two Gathers lay the input out as [taps, N, group, 1, pixels]; a Scan over the taps
    then keeps a running sum of the size of the output, so memory stays at im2col plus three outputs. Sizes in the
    Scan have no names: onnxruntime takes one name for one size in the whole model, all inlined bodies included.
    It also moves quantisation nodes over a Reshape, and its pass from int8 to uint8 then leaves a node that fails to
    load; so the body begins and ends with an operator that stops it.
    """
    load = {"float": "Sum (X)", "int32": "Cast <to = 6> (X)"}[accumulator]
    number = {"float": 1, "int32": 6}[accumulator]
    return f"""
  i0 = Constant <value_ints = [0]> ()
  i1 = Constant <value_ints = [1]> ()
  i2 = Constant <value_ints = [2]> ()
  rest = Constant <value_ints = [-1]> ()
  all = Constant <value_ints = [9223372036854775807]> ()
  s0 = Constant <value_int = 0> ()
  s1 = Constant <value_int = 1> ()
  strides = Constant <value_ints: ints = @strides> ()
  dilations = Constant <value_ints: ints = @dilations> ()
  pads = Constant <value_ints: ints = @pads> ()
  group_scalar = Constant <value_int: int = @group> ()
  group = Unsqueeze (group_scalar, i0)

  x_number = {load}
  x_shape = Shape (x_number)
  w_shape = Shape (W)
  n = Slice (x_shape, i0, i1)
  channels = Slice (x_shape, i1, i2)
  spatial = Slice (x_shape, i2, all)
  m = Slice (w_shape, i0, i1)
  c = Slice (w_shape, i1, i2)
  kernel = Slice (w_shape, i2, all)
  k = Div (m, group)
  rank = Shape (spatial)
  missing = Sub (i2, rank)
  ones = Expand (i1, missing)
  zeros = Expand (i0, missing)
  begin_given = Slice (pads, i0, rank)
  end_given = Slice (pads, rank, all)
  input2 = Concat <axis = 0> (ones, spatial)
  kernel2 = Concat <axis = 0> (ones, kernel)
  stride2 = Concat <axis = 0> (ones, strides)
  dilation2 = Concat <axis = 0> (ones, dilations)
  begin2 = Concat <axis = 0> (zeros, begin_given)
  end2 = Concat <axis = 0> (zeros, end_given)

  kernel_steps = Sub (kernel2, i1)
  span_steps = Mul (kernel_steps, dilation2)
  begin_input = Add (begin2, input2)
  padded_size = Add (begin_input, end2)
  last = Sub (padded_size, i1)
  room = Sub (last, span_steps)
  output_steps = Div (room, stride2)
  output2 = Add (output_steps, i1)
  output = Slice (output2, missing, all)

  x4_shape = Concat <axis = 0> (n, channels, input2)
  x4 = Reshape (x_number, x4_shape)
  pads4 = Concat <axis = 0> (i0, i0, begin2, i0, i0, end2)
  padded = Pad (x4, pads4)

  fy = Gather <axis = 0> (kernel2, s0)
  fx = Gather <axis = 0> (kernel2, s1)
  oy = Gather <axis = 0> (output2, s0)
  ox = Gather <axis = 0> (output2, s1)
  stride_y = Gather <axis = 0> (stride2, s0)
  stride_x = Gather <axis = 0> (stride2, s1)
  dilation_y = Gather <axis = 0> (dilation2, s0)
  dilation_x = Gather <axis = 0> (dilation2, s1)
  fys = Range (s0, fy, s1)
  fxs = Range (s0, fx, s1)
  oys = Range (s0, oy, s1)
  oxs = Range (s0, ox, s1)
  tap_rows = Mul (fys, dilation_y)
  tap_columns = Mul (fxs, dilation_x)
  output_rows = Mul (oys, stride_y)
  output_columns = Mul (oxs, stride_x)
  tap_row = Unsqueeze (tap_rows, i1)
  tap_column = Unsqueeze (tap_columns, i1)
  row = Add (tap_row, output_rows)
  column = Add (tap_column, output_columns)
  by_row = Gather <axis = 2> (padded, row)
  by_row_and_column = Gather <axis = 4> (by_row, column)

  fy1 = Slice (kernel2, i0, i1)
  fx1 = Slice (kernel2, i1, i2)
  oy1 = Slice (output2, i0, i1)
  ox1 = Slice (output2, i1, i2)
  split_shape = Concat <axis = 0> (n, group, c, fy1, oy1, fx1, ox1)
  split = Reshape (by_row_and_column, split_shape)
  taps_first = Transpose <perm = [2, 3, 5, 0, 1, 4, 6]> (split)
  taps_of_filter = Mul (fy1, fx1)
  taps = Mul (taps_of_filter, c)
  pixels = Mul (oy1, ox1)
  under_shape = Concat <axis = 0> (taps, n, group, i1, pixels)
  under = Reshape (taps_first, under_shape)

  w_number = Cast <to = {number}> (W)
  w_groups_shape = Concat <axis = 0> (group, k, taps)
  w_groups = Reshape (w_number, w_groups_shape)
  w_taps_first = Transpose <perm = [2, 0, 1]> (w_groups)
  filter = Unsqueeze (w_taps_first, rest)

  sum_shape = Concat <axis = 0> (n, group, k, pixels)
  nothing = ConstantOfShape <value = {accumulator}[1] {{0}}> (sum_shape)
  sum = Scan <num_scan_inputs = 2, body = tap
    ({accumulator}[?, ?, ?, ?] before, {accumulator}[?, ?, ?, ?] x, {accumulator}[?, ?, ?] w)
    => ({accumulator}[?, ?, ?, ?] after) {{
      difference = Sub (x, w)
      distance = Abs (difference)
      after = Add (before, distance)
    }}> (nothing, under, filter)
  y_shape = Concat <axis = 0> (n, m, output)
  l1 = Reshape (sum, y_shape)
  Y = Neg (l1)
"""


def scalar(inputs: Inputs, attributes: Attributes) -> Scalar:
    return Scalar(load=float, tap=lambda x, w: -abs(x - float(w[0])), finish=lambda total, channel: total)


def sample(rng: np.random.Generator, geometry: ConvGeometry) -> tuple[Inputs, Attributes]:
    shape = (geometry.out_channels, geometry.c, *geometry.kernel)
    return (sample_input(rng, geometry), rng.standard_normal(shape).astype(np.float32)), {}


def dequantise(inputs: Inputs, attributes: Attributes, x_scale: float) -> Inputs:
    return [None if a is None else (a * np.float32(x_scale)).astype(np.float32) for a in inputs]


def native(inputs: Inputs, attributes: Attributes) -> NativeForm:
    assert inputs[1] is not None
    return NativeForm(Op.ADDER_F32, inputs[1])


OPERATOR = Operator(
    name="AdderConv",
    unit=Unit.ADDER,
    schema=SCHEMA,
    compute=compute,
    body=l1_body("float"),
    scalar=scalar,
    sample=sample,
    native=native,
    tolerance=2,
    integer=IntegerForm("AdderConvInteger", dequantise, lambda attributes, x_scale: x_scale),
)
