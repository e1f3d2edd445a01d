"""ShiftConvInteger: the exact integer form of ShiftConv, in the style of ONNX ConvInteger.

Y[n, m, o] = sum over c, taps, t of sign(W[t]) * ((X - x_zero_point) << (pmax - p)),  p = |W[t]| - 1, modulo 2^32.

The attribute `pmax` (default 14, the largest p that a code can say) fixes the binary point: the accumulator holds
2^pmax times the sum of X * w, so no bit is lost before it and

    ShiftConv(s * (X - x_zero_point), W, S, B) = s * S[m] * 2^-pmax * Y + B[m].

A layer whose codes stay below the limit takes a smaller pmax = max |code| - 1 and a narrower accumulator; a code with
p > pmax is an error. Padding is x_zero_point (a real zero) and adds 0. The 32-bit accumulator wraps like ConvInteger's;
`accumulator_bits` tells whether it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nashc.ops.geometry import ConvGeometry, columns
from nashc.ops.native import Op
from nashc.ops.operator import Array, Attributes, Inputs, NativeForm, Operator, Scalar, conv_schema
from nashc.ops.shift_codes import MAX_CODE, PMAX, check_codes, term_values
from nashc.ops.shift_conv import sample_codes

from nashc.core.network import Unit
from nashc.errors import NashcError

MOST_TERMS = 63
"""So that the digits of a weight, in the function in standard operators, fit a byte."""

SCHEMA = conv_schema(
    "ShiftConvInteger",
    "Sum over taps and terms of sign(W) * ((X - x_zero_point) << (pmax - |W| + 1)), modulo 2^32.",
    inputs=[
        ("X", "T", "[N, C, *input]"),
        ("W", "tensor(int8)", f"codes in -(pmax+1)..pmax+1, [terms, M, C/group, *kernel], at most {MOST_TERMS} terms"),
        ("x_zero_point?", "T", "one value, 0 if absent"),
    ],
    output="tensor(int32)",
    types={"T": ["tensor(int8)", "tensor(uint8)"]},
    own_attributes={"pmax": (PMAX, "Fraction bits of the accumulator, 0..14.")},
)


def check(inputs: Inputs, attributes: Attributes, where: str) -> None:
    pmax = attributes["pmax"]
    if not 0 <= pmax <= PMAX:
        raise NashcError(f"pmax={pmax}", where=where, hint=f"give 0..{PMAX}")
    if inputs[1] is not None:
        if len(inputs[1]) > MOST_TERMS:
            raise NashcError(f"W has {len(inputs[1])} terms", where=where, hint=f"give at most {MOST_TERMS}")
        check_codes(inputs[1], pmax, where)


def integer_weights(codes: Array, pmax: int) -> Array:
    """Codes [T, M, ...] -> int64 [M, ...], 2^pmax times the weight; raises NashcError where that is no integer."""
    check((None, codes), {"pmax": pmax}, "ShiftConvInteger")
    total: Array = (term_values(codes) * 2.0**pmax).astype(np.int64).sum(axis=0)
    return total


def largest_filter(codes: Array, pmax: int) -> int:
    """The largest sum of the magnitudes of a filter's integer weights."""
    weights = np.abs(integer_weights(codes, pmax))
    return int(weights.reshape(weights.shape[0], -1).sum(axis=1).max(initial=0))


def accumulator_bits(codes: Array, pmax: int = PMAX, x_magnitude: int = 255) -> int:
    """Signed accumulator width that no input with |X - x_zero_point| <= x_magnitude overflows."""
    return (largest_filter(codes, pmax) * x_magnitude).bit_length() + 1


def compute(geometry: ConvGeometry, inputs: Inputs, attributes: Attributes) -> Array:
    """Exact sums in int64, then modulo 2^32."""
    x, codes, zero_point = inputs
    assert x is not None
    assert codes is not None
    weight = integer_weights(codes, attributes["pmax"]).reshape(geometry.group, geometry.k, geometry.taps)
    centred = x.astype(np.int64) - (0 if zero_point is None else int(zero_point.reshape(())))
    total: Array = np.einsum("ngpt,gkt->ngkp", columns(centred, geometry), weight)
    sizes = [size for size in geometry.output if size is not None]
    return total.astype(np.int32).reshape(x.shape[0], geometry.out_channels, *sizes)


LSHIFTS = ", ".join(str(1 << i) for i in range(PMAX + 1))
INTEGERS = ", ".join(str(int(term_values(np.array(c)) * 2**PMAX)) for c in range(-MAX_CODE, MAX_CODE + 1))

# The integer weight is split into three balanced digits of base 128 in [-64, 63], each a ConvInteger of its own.
BODY = (
    f"""
  pmax = Constant <value_int: int = @pmax> ()
  one = Constant <value = int64 {{1}}> ()
  limit = Add (pmax, one)
  code = Cast <to = 7> (W)
  magnitude = Abs (code)
  beyond = Greater (magnitude, limit)
  largest = Constant <value = int64 {{{MAX_CODE}}}> ()
  past_end = Constant <value = int64 {{{2 * MAX_CODE + 1}}}> ()
  from_zero = Add (code, largest)
  index = Where (beyond, past_end, from_zero)
  power = Constant <value = int32[{2 * MAX_CODE + 1}] {{{INTEGERS}}}> ()
  at_largest_pmax = Gather <axis = 0> (power, index)
  largest_pmax = Constant <value = int64 {{{PMAX}}}> ()
  excess = Sub (largest_pmax, pmax)
  power_of_two = Constant <value = int32[{PMAX + 1}] {{{LSHIFTS}}}> ()
  divisor = Gather <axis = 0> (power_of_two, excess)
  term = Div (at_largest_pmax, divisor)
  terms_axis = Constant <value_ints = [0]> ()
  weight = ReduceSum <keepdims = 0> (term, terms_axis)
  base = Constant <value = int32 {{128}}> ()
  half = Constant <value = int32 {{64}}> ()
  weight_up = Add (weight, half)
  low_up = Mod (weight_up, base)
  low = Sub (low_up, half)
  weight_rest = Sub (weight, low)
  upper = Div (weight_rest, base)
  upper_up = Add (upper, half)
  middle_up = Mod (upper_up, base)
  middle = Sub (middle_up, half)
  upper_rest = Sub (upper, middle)
  high = Div (upper_rest, base)
  low8 = Cast <to = 3> (low)
  middle8 = Cast <to = 3> (middle)
  high8 = Cast <to = 3> (high)
"""
    + "".join(
        f"""
  {part}_sum = ConvInteger
    <dilations: ints = @dilations, group: int = @group, pads: ints = @pads, strides: ints = @strides>
    (X, {part}8, x_zero_point)
"""
        for part in ("low", "middle", "high")
    )
    + """
  high_scaled = Mul (high_sum, base)
  top = Add (high_scaled, middle_sum)
  top_scaled = Mul (top, base)
  Y = Add (top_scaled, low_sum)
"""
)


def scalar(inputs: Inputs, attributes: Attributes) -> Scalar:
    zero_point = 0 if inputs[2] is None else int(inputs[2].reshape(()))

    def tap(x: Any, codes: tuple[Any, ...]) -> Any:
        return sum((x << (attributes["pmax"] - abs(int(c)) + 1)) * (1 if c > 0 else -1) for c in codes if c != 0)

    def finish(total: Any, channel: int) -> Any:
        return (total + 2**31) % 2**32 - 2**31

    return Scalar(load=lambda x: int(x) - zero_point, tap=tap, finish=finish)


def sample_bytes(rng: np.random.Generator, geometry: ConvGeometry) -> Array:
    """Random X over the whole range of int8 or of uint8."""
    kind = np.int8 if rng.random() < 0.5 else np.uint8
    shape = [geometry.batch or 1, geometry.in_channels, *(s or 1 for s in geometry.spatial)]
    return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, shape).astype(kind)


def sample(rng: np.random.Generator, geometry: ConvGeometry) -> tuple[Inputs, Attributes]:
    pmax = int(rng.integers(0, PMAX + 1))
    x = sample_bytes(rng, geometry)
    zero_point = rng.choice(x.reshape(-1), size=() if rng.random() < 0.5 else 1) if rng.random() < 0.5 else None
    return (x, sample_codes(rng, geometry, pmax + 1), zero_point), {"pmax": pmax}


def native(inputs: Inputs, attributes: Attributes) -> NativeForm:
    x, codes, zero_point = inputs
    assert x is not None
    assert codes is not None
    op = Op.MULTIPLY_S8 if x.dtype == np.int8 else Op.MULTIPLY_U8
    zero = 0 if zero_point is None else int(zero_point.reshape(()))
    return NativeForm(op, integer_weights(codes, attributes["pmax"]).astype(np.int32), x_zero_point=zero)


OPERATOR = Operator(
    name="ShiftConvInteger",
    unit=Unit.SHIFT,
    schema=SCHEMA,
    compute=compute,
    body=BODY,
    scalar=scalar,
    sample=sample,
    native=native,
    weight_lead=1,
    scalars=("x_zero_point",),
    check=check,
)
