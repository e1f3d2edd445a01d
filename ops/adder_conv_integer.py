"""AdderConvInteger: the exact integer form of AdderConv.

Y[n, m, o] = -sum over c, taps of |X - W| in int32 (modulo 2^32). X and W share one scale s and have zero point 0, so

    AdderConv(s * X, s * W) = s * Y.

W is int8. X is int8, or uint8 after a ReLU: the difference then needs 10 signed bits instead of 9, its magnitude 9
instead of 8. A padded tap is the number 0 and adds -|W|. The sum cannot wrap below 5.6 million taps.
"""

from __future__ import annotations

import numpy as np
from nashc.ops.adder_conv import l1_body, minus_l1
from nashc.ops.geometry import ConvGeometry
from nashc.ops.native import Op
from nashc.ops.operator import Array, Attributes, Inputs, NativeForm, Operator, Scalar, conv_schema
from nashc.ops.shift_conv_integer import sample_bytes

from nashc.core.network import Unit

SCHEMA = conv_schema(
    "AdderConvInteger",
    "Minus the sum over taps of |X - W| in int32; X and W share one scale and have zero point 0.",
    inputs=[("X", "T", "[N, C, *input]"), ("W", "tensor(int8)", "[M, C/group, *kernel]")],
    output="tensor(int32)",
    types={"T": ["tensor(int8)", "tensor(uint8)"]},
)


def compute(geometry: ConvGeometry, inputs: Inputs, attributes: Attributes) -> Array:
    """Exact sums in int64, then modulo 2^32."""
    x, w = inputs
    assert x is not None
    assert w is not None
    return minus_l1(geometry, x.astype(np.int64), w.astype(np.int64)).astype(np.int32)


def scalar(inputs: Inputs, attributes: Attributes) -> Scalar:
    return Scalar(load=int, tap=lambda x, w: -abs(x - int(w[0])), finish=lambda total, channel: total)


def sample(rng: np.random.Generator, geometry: ConvGeometry) -> tuple[Inputs, Attributes]:
    shape = (geometry.out_channels, geometry.c, *geometry.kernel)
    return (sample_bytes(rng, geometry), rng.integers(-128, 128, shape).astype(np.int8)), {}


def native(inputs: Inputs, attributes: Attributes) -> NativeForm:
    x, w = inputs
    assert x is not None
    assert w is not None
    return NativeForm(Op.ADDER_S8 if x.dtype == np.int8 else Op.ADDER_U8, w)


OPERATOR = Operator(
    name="AdderConvInteger",
    unit=Unit.ADDER,
    schema=SCHEMA,
    compute=compute,
    body=l1_body("int32"),
    scalar=scalar,
    sample=sample,
    native=native,
)
