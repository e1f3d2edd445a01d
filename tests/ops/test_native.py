"""The native kernels on layers of every size, on every instruction set of this machine, with one and two threads."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import OPERATORS, native
from nashc.ops.native import Kernel, Op, Output, Window
from operator_cases import Array, Case, assert_same, cases, wide_layers

from nashc.errors import NashcError

INTEGERS = (Op.ADDER_S8, Op.ADDER_U8, Op.MULTIPLY_S8, Op.MULTIPLY_U8)


def magnitude(case: Case, reference: Array) -> Array:
    """A bound of every partial sum: the operator on absolute values, or for differences its own output."""
    absolute = [None if a is None else np.abs(a) for a in case.inputs]
    return np.maximum(np.abs(reference), np.abs(case.operator.reference(*absolute, **case.attributes)))


@pytest.mark.parametrize("name", list(OPERATORS))
@settings(deadline=None, max_examples=100)
@given(data=st.data(), threads=st.integers(1, 2))
def test_kernels_are_the_reference_on_wide_layers(name: str, data: st.DataObject, threads: int) -> None:
    case = data.draw(cases(name, wide_layers()))
    expected = case.operator.reference(*case.inputs, **case.attributes)
    limits = expected if case.operator.tolerance is None else magnitude(case, expected)
    for instructions in native.instruction_sets():
        try:
            found = case.operator.run_native(
                *case.inputs, instruction_set=instructions, threads=threads, **case.attributes
            )
        except NashcError as error:
            assert "accumulator" in str(error)  # noqa: PT017  codes of three terms over many channels
            assert case.operator.unit.value == "shift"
            continue
        assert_same(case, found, expected, limits, instructions)


@st.composite
def integer_layers(draw: st.DrawFn) -> tuple[Op, Array, Array, Window, int]:
    """Weights of every width that a kernel has its own way for: bytes, bytes whose pairs saturate, 16 and 32 bits."""
    x_shape, w_shape, attributes = draw(wide_layers())
    op = draw(st.sampled_from(INTEGERS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = native.X_TYPE[op]
    x = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, x_shape).astype(kind)
    limit = 127
    if op in (Op.MULTIPLY_S8, Op.MULTIPLY_U8):
        taps = int(np.prod(w_shape[1:]))
        limit = min(draw(st.sampled_from((20, 64, 127, 2**14, 2**15, 3 * 2**14))), (2**31 - 1) // 255 // taps)
    w = rng.integers(-limit, limit + 1, w_shape).astype(native.WEIGHT_TYPE[op])
    top, left, bottom, right = attributes["pads"]
    window = Window(attributes["strides"], (top, left, bottom, right), attributes["dilations"], attributes["group"])
    zero_point = int(rng.choice(x.reshape(-1))) if op >= Op.MULTIPLY_S8 else 0
    return op, x, w, window, zero_point


def direct_sums(op: Op, x: Array, w: Array, window: Window, zero_point: int) -> Array:
    """The definition in int64, tap by tap."""
    top, left, bottom, right = window.pads
    padded = np.pad(x.astype(np.int64) - zero_point, ((0, 0), (0, 0), (top, bottom), (left, right)))
    m, c, fy, fx = w.shape
    (sy, sx), (dy, dx) = window.strides, window.dilations
    height, width = (padded.shape[2] - (fy - 1) * dy - 1) // sy + 1, (padded.shape[3] - (fx - 1) * dx - 1) // sx + 1
    y = np.zeros((x.shape[0], m, height, width), np.int64)
    for r in range(fy):
        for q in range(fx):
            rows, columns = (
                slice(r * dy, r * dy + (height - 1) * sy + 1, sy),
                slice(q * dx, q * dx + (width - 1) * sx + 1, sx),
            )
            view = padded[:, :, rows, columns].reshape(x.shape[0], window.groups, 1, c, height, width)
            taps = w[:, :, r, q].astype(np.int64).reshape(1, window.groups, m // window.groups, c, 1, 1)
            terms = -np.abs(view - taps) if op <= Op.ADDER_U8 else view * taps
            y += terms.sum(axis=3).reshape(y.shape)
    return y


@settings(deadline=None, max_examples=300)
@given(layer=integer_layers(), threads=st.integers(1, 2))
def test_integer_sums_are_exact(layer: tuple[Op, Array, Array, Window, int], threads: int) -> None:
    op, x, w, window, zero_point = layer
    expected = direct_sums(*layer)
    for instructions in native.instruction_sets():
        kernel = Kernel(op, w, window, instruction_set=instructions)
        assert kernel.instruction_set == instructions
        found = kernel.run(x, x_zero_point=zero_point, threads=threads)
        np.testing.assert_array_equal(found, expected, instructions)


@settings(deadline=None, max_examples=200)
@given(layer=integer_layers(), output=st.sampled_from((Output.F32, Output.S8, Output.U8)), seed=st.integers(0, 2**32))
def test_requantised_outputs_are_the_same_everywhere(
    layer: tuple[Op, Array, Array, Window, int], output: Output, seed: int
) -> None:
    """Product, sum and rounding half to even in float32, one after the other: NumPy and every instruction set agree."""
    op, x, w, window, x_zero_point = layer
    sums = direct_sums(*layer)
    rng = np.random.default_rng(seed)
    m = w.shape[0]
    scale = (rng.uniform(0.2, 3, m) * 100 / max(1, np.abs(sums).max())).astype(np.float32)
    bias = rng.uniform(-30, 30, m).astype(np.float32)
    lowest, highest = sorted(np.float32(v) for v in rng.choice([-np.inf, -50.5, 0, 37.25, np.inf], 2))
    low, high = (-128, 127) if output is Output.S8 else (0, 255)
    y_zero_point = int(rng.integers(low, high + 1)) if output is not Output.F32 else 0
    channel = (slice(None), None, None)
    value = sums.astype(np.int32).astype(np.float32) * scale[channel] + bias[channel]
    value = np.minimum(np.maximum(value, lowest), highest)
    expected = value if output is Output.F32 else np.clip(np.rint(value) + y_zero_point, low, high)
    for instructions in native.instruction_sets():
        kernel = Kernel(
            op, w, window, output=output, scale=scale, bias=bias, lowest=lowest, highest=highest,
            output_zero_point=y_zero_point, instruction_set=instructions,
        )  # fmt: skip
        np.testing.assert_array_equal(kernel.run(x, x_zero_point=x_zero_point), expected, instructions)


@settings(deadline=None, max_examples=100)
@given(shapes=wide_layers(), seed=st.integers(0, 2**32), threads=st.integers(1, 2))
def test_input_gradient_is_its_formula(
    shapes: tuple[tuple[int, ...], tuple[int, ...], dict[str, tuple[int, ...]]], seed: int, threads: int
) -> None:
    x_shape, w_shape, attributes = shapes
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal(x_shape).astype(np.float32), rng.standard_normal(w_shape).astype(np.float32)
    group = int(attributes["group"])  # type: ignore[call-overload]
    top, left, bottom, right = attributes["pads"]
    (sy, sx), (dy, dx) = attributes["strides"], attributes["dilations"]
    window = Window((sy, sx), (top, left, bottom, right), (dy, dx), group)
    shape = Kernel(Op.ADDER_F32, w, window).output_shape(x.shape)
    slope = rng.standard_normal(shape).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    gradient, size = np.zeros_like(padded), np.zeros_like(padded)
    (m, c, fy, fx), k = w.shape, w.shape[0] // group
    for r in range(fy):
        for q in range(fx):
            rows = slice(r * dy, r * dy + (shape[2] - 1) * sy + 1, sy)
            columns = slice(q * dx, q * dx + (shape[3] - 1) * sx + 1, sx)
            for o in range(m):
                channels = slice(o // k * c, (o // k + 1) * c)
                here = padded[:, channels, rows, columns]
                term = slope[:, o, None] * np.clip(w[o, :, r, q, None, None] - here, -1, 1)
                gradient[:, channels, rows, columns] += term
                size[:, channels, rows, columns] += np.abs(term)
    inside = (slice(None), slice(None), slice(top, top + x.shape[2]), slice(left, left + x.shape[3]))
    bound = (k * fy * fx + 4) * np.finfo(np.float32).eps * (size[inside] + np.abs(slope).max()) + 1e-30
    for instructions in native.instruction_sets():
        found = native.adder_input_gradient(x, w, slope, window, instruction_set=instructions, threads=threads)
        assert (np.abs(found - gradient[inside]) <= bound).all(), instructions


def test_one_kernel_runs_on_many_threads_at_once() -> None:
    rng = np.random.default_rng(3)
    w = rng.integers(-128, 128, (24, 20, 3, 3)).astype(np.int8)
    kernel = Kernel(Op.ADDER_S8, w, Window(pads=(1, 1, 1, 1)))
    inputs = [rng.integers(-128, 128, (n + 1, 20, 9 + n, 14)).astype(np.int8) for n in range(6)]
    found: list[list[Array]] = [[] for _ in inputs]

    def work(i: int) -> None:
        for _ in range(20):
            found[i].append(kernel.run(inputs[i], threads=1 + i % 2))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for x, outputs in zip(inputs, found, strict=True):
        expected = direct_sums(Op.ADDER_S8, x, w, Window(pads=(1, 1, 1, 1)), 0)
        for output in outputs:
            np.testing.assert_array_equal(output, expected)


@pytest.mark.filterwarnings("ignore:This process")  # forking with threads is what is tested
def test_a_forked_process_has_a_pool_of_its_own() -> None:
    kernel = Kernel(Op.ADDER_F32, np.ones((8, 8, 3, 3), np.float32), Window())
    x = np.zeros((1, 8, 30, 30), np.float32)
    expected = kernel.run(x, threads=2)
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if np.array_equal(kernel.run(x, threads=2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("op", "weights", "window", "options", "text"),
    [
        (Op.ADDER_S8, np.zeros((4, 3, 1, 1)), Window(groups=3), {}, "9 -> 4 do not divide into 3 groups"),
        (Op.ADDER_S8, np.zeros((4, 3, 1, 1)), Window(strides=(0, 1)), {}, "strides and dilations must be positive"),
        (Op.ADDER_S8, np.zeros((4, 3, 1, 1)), Window(pads=(0, -1, 0, 0)), {}, "pads not negative"),
        (Op.ADDER_S8, np.zeros((4, 3)), Window(), {}, "weights has shape"),
        (Op.ADDER_S8, np.zeros((4, 0, 1, 1)), Window(), {}, "weights has shape"),
        (Op.MULTIPLY_S8, np.full((1, 600, 1, 1), 2**14), Window(), {}, "9830400 * 255 > 2^31 - 1"),
        (Op.ADDER_S8, np.zeros((4, 3, 1, 1)), Window(), {"instruction_set": "mmx"}, "no instruction set 'mmx'"),
        (
            Op.ADDER_S8,
            np.zeros((4, 3, 1, 1)),
            Window(),
            {"output": Output.S8, "output_zero_point": 128},
            "is not in -128..127",
        ),
        (Op.ADDER_S8, np.zeros((4, 3, 1, 1)), Window(), {"output": Output.S8, "scale": np.ones(3)}, "for 4 channels"),
        (Op.ADDER_S8, np.zeros((4, 3, 1, 1)), Window(), {"output": Output.F32, "lowest": np.nan}, "lowest"),
    ],
)
def test_a_layer_that_cannot_run_is_refused(op, weights, window, options, text) -> None:
    with pytest.raises(NashcError) as caught:
        Kernel(op, weights, window, **options)
    assert text in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 4, 5, 5), (1, 3, 2, 5), (0, 3, 5, 5), (1, 3, 5)])
def test_an_input_that_does_not_fit_is_refused(shape) -> None:
    kernel = Kernel(Op.ADDER_S8, np.zeros((4, 3, 3, 3)), Window())
    with pytest.raises(NashcError):
        kernel.run(np.zeros(shape, np.int8))
