"""ShiftConv: convolution whose weights are sums of T signed powers of two (DeepShift, arXiv 1905.13298).

Y[n, m, o] = S[m] * sum over c, taps of X[n, c, i(o, tap)] * w[m, c, tap] + B[m],
w = sum over t of sign(W[t]) * 2^(1 - |W[t]|), code 0 giving 0. A padded tap adds 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nashc.ops.geometry import ConvGeometry, columns
from nashc.ops.native import Op
from nashc.ops.operator import Array, Attributes, Inputs, IntegerForm, NativeForm, Operator, Scalar, conv_schema
from nashc.ops.shift_codes import MAX_CODE, PMAX, check_codes, term_values

from nashc.core.network import Unit

SCHEMA = conv_schema(
    "ShiftConv",
    "Convolution with weights S[m] * sum over t of sign(W[t]) * 2^(1 - |W[t]|); code 0 is weight 0.",
    inputs=[
        ("X", "T", "[N, C, *input]"),
        ("W", "tensor(int8)", "codes in -15..15, [terms, M, C/group, *kernel]"),
        ("S", "T", "output channel scale, [M] or [1]"),
        ("B?", "T", "bias, [M]"),
    ],
    output="T",
    types={"T": ["tensor(float)"]},
)


def compute(geometry: ConvGeometry, inputs: Inputs, attributes: Attributes) -> Array:
    """float32 result of sums in float64; the decoded weights are exact."""
    x, codes, scale, bias = inputs
    assert x is not None
    assert codes is not None
    assert scale is not None
    weight = term_values(codes).sum(axis=0).reshape(geometry.group, geometry.k, geometry.taps)
    total: Array = np.einsum("ngpt,gkt->ngkp", columns(x.astype(np.float64), geometry), weight, optimize=True)
    y = total.reshape(x.shape[0], geometry.out_channels, -1) * scale.astype(np.float64)[:, None]
    if bias is not None:
        y += bias.astype(np.float64)[:, None]
    sizes = [size for size in geometry.output if size is not None]
    return y.reshape(x.shape[0], geometry.out_channels, *sizes).astype(np.float32)


def check(inputs: Inputs, attributes: Attributes, where: str) -> None:
    if inputs[1] is not None:
        check_codes(inputs[1], PMAX, where)


POWERS = ", ".join(repr(float(term_values(np.array(code)))) for code in range(-MAX_CODE, MAX_CODE + 1))

# Gather would take a negative index from the end, so a code below -15 goes to an index that it refuses.
DECODE = f"""
  code = Cast <to = 7> (W)
  largest = Constant <value = int64 {{{MAX_CODE}}}> ()
  smallest = Neg (largest)
  past_end = Constant <value = int64 {{{2 * MAX_CODE + 1}}}> ()
  from_zero = Add (code, largest)
  too_small = Less (code, smallest)
  index = Where (too_small, past_end, from_zero)
  power = Constant <value = float[{2 * MAX_CODE + 1}] {{{POWERS}}}> ()
  term = Gather <axis = 0> (power, index)
  terms_axis = Constant <value_ints = [0]> ()
  unscaled = ReduceSum <keepdims = 0> (term, terms_axis)
"""

# Between DequantizeLinear and QuantizeLinear onnxruntime rounds the constant weights of a Conv to int8 (its pass
# WeightBiasQuantization), which shift weights do not survive; a Sum of one input keeps it away and costs a copy.
BODY = (
    DECODE
    + """
  shape = Shape (unscaled)
  rows = Flatten <axis = 1> (unscaled)
  last_axis = Constant <value_ints = [1]> ()
  column = Unsqueeze (S, last_axis)
  scaled = Mul (rows, column)
  weight = Reshape (scaled, shape)
  apart = Sum (X)
  Y = Conv <dilations: ints = @dilations, group: int = @group, pads: ints = @pads, strides: ints = @strides>
    (apart, weight, B)
"""
)


def scalar(inputs: Inputs, attributes: Attributes) -> Scalar:
    _, _, scale, bias = inputs
    assert scale is not None

    def tap(x: Any, codes: tuple[Any, ...]) -> Any:
        return sum(x * (0 if c == 0 else (1 if c > 0 else -1) * 2.0 ** (1 - abs(int(c)))) for c in codes)

    def finish(total: Any, channel: int) -> Any:
        scaled = total * float(scale[channel if scale.size > 1 else 0])
        return scaled if bias is None else scaled + float(bias[channel])

    return Scalar(load=float, tap=tap, finish=finish)


def sample_codes(rng: np.random.Generator, geometry: ConvGeometry, largest: int = MAX_CODE) -> Array:
    """Random codes of one to three terms, zeros included, of at most the given magnitude."""
    shape = (int(rng.integers(1, 4)), geometry.out_channels, geometry.c, *geometry.kernel)
    return rng.integers(-largest, largest + 1, shape).astype(np.int8)


def sample_input(rng: np.random.Generator, geometry: ConvGeometry) -> Array:
    shape = [geometry.batch or 1, geometry.in_channels, *(s or 1 for s in geometry.spatial)]
    return rng.standard_normal(shape).astype(np.float32)


def sample(rng: np.random.Generator, geometry: ConvGeometry) -> tuple[Inputs, Attributes]:
    m = geometry.out_channels
    scale = rng.uniform(0.1, 2.0, m if rng.random() < 0.5 else 1).astype(np.float32)
    bias = rng.standard_normal(m).astype(np.float32) if rng.random() < 0.5 else None
    return (sample_input(rng, geometry), sample_codes(rng, geometry), scale, bias), {}


def dequantise(inputs: Inputs, attributes: Attributes, x_scale: float) -> Inputs:
    x, codes, zero_point = inputs
    assert x is not None
    centred = x.astype(np.int32) - (0 if zero_point is None else int(zero_point.reshape(())))
    return (centred * np.float32(x_scale)).astype(np.float32), codes, np.ones(1, np.float32), None


def output_scale(attributes: Attributes, x_scale: float) -> float:
    return float(x_scale * 2.0 ** -attributes["pmax"])


def native(inputs: Inputs, attributes: Attributes) -> NativeForm:
    _, codes, scale, bias = inputs
    assert codes is not None
    assert scale is not None
    m = codes.shape[1]
    return NativeForm(
        Op.MULTIPLY_F32, term_values(codes).sum(axis=0).astype(np.float32), np.broadcast_to(scale, m), bias
    )


OPERATOR = Operator(
    name="ShiftConv",
    unit=Unit.SHIFT,
    schema=SCHEMA,
    compute=compute,
    body=BODY,
    scalar=scalar,
    sample=sample,
    native=native,
    tolerance=4,
    integer=IntegerForm(
        "ShiftConvInteger", dequantise, lambda attributes, x_scale: x_scale * 2.0 ** -attributes["pmax"]
    ),
    weight_lead=1,
    per_channel={"S": True, "B": False},
    check=check,
)
