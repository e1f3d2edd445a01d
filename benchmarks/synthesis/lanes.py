"""The lanes that are synthesised, each with the arithmetic that its netlist must reproduce."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add

Words = list[tuple[int, int]]
FLUSH = 32


@dataclass(frozen=True, slots=True)
class Lane:
    """One netlist of `lanes.sv`: `count` lanes, x and w of `x_bits` and `w_bits` in all, y of `y_bits`.

    `y` maps one pair of operand words to what the lane adds to its accumulator, or puts out if it has none.
    """

    name: str
    top: str
    count: int
    x_bits: int
    w_bits: int
    y_bits: int
    y: Callable[[int, int], int | tuple[int, ...]]
    parameters: Mapping[str, int] = field(default_factory=dict)
    dsp: bool = False
    accumulates: bool = True
    legal_w: Callable[[int], int] = lambda w: w
    options: str = ""

    def stimulus(self, words: int, seed: int = 1) -> Words:
        """Corners, random operands, random operands with a small x, then zeros that flush the pipeline."""
        rng = random.Random(seed)
        lowest = (_repeat(0x80, self.x_bits), _repeat(0x80, self.w_bits))
        corners = [lowest, ((1 << self.x_bits) - 1, (1 << self.w_bits) - 1), (lowest[0], _repeat(0x7F, self.w_bits))]
        noise = [(rng.getrandbits(self.x_bits), rng.getrandbits(self.w_bits)) for _ in range(2 * words)]
        small = [(_signed(x, self.x_bits) >> rng.randrange(self.x_bits), w) for x, w in noise[words:]]
        mask = (1 << self.x_bits) - 1
        return [(x & mask, self.legal_w(w)) for x, w in corners + noise[:words] + small] + [(0, 0)] * FLUSH

    def agrees(self, stimulus: Words, outputs: list[int]) -> bool:
        """Whether the outputs, one a clock, are what the arithmetic says, at one latency for the whole stream."""
        values = [self.y(x, w) for x, w in stimulus]
        rows = [value if isinstance(value, tuple) else (value,) for value in values]
        if self.accumulates:
            rows = list(accumulate(rows, lambda total, row: tuple(map(add, total, row))))
        expected = [self._word(row) for row in rows]
        return any(outputs[latency:] == expected[: len(outputs) - latency] for latency in range(FLUSH))

    def _word(self, fields: Sequence[int]) -> int:
        """Fields of equal width, the first one highest, each modulo its width."""
        width = self.y_bits // len(fields)
        word = 0
        for value in fields:
            word = word << width | value & ((1 << width) - 1)
        return word


def _repeat(byte: int, bits: int) -> int:
    return int.from_bytes(bytes([byte]) * (bits // 8 + 1), "big") & ((1 << bits) - 1)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _dot(count: int, x_bits: int, w_bits: int, term: Callable[[int, int], int]) -> Callable[[int, int], int]:
    def total(x: int, w: int) -> int:
        return sum(term(_signed(x >> i * x_bits, x_bits), w >> i * w_bits) for i in range(count))

    return total


def _clamp(value: int, relu: int) -> int:
    return min(127, max(0 if relu else -128, value))


def _product(w_bits: int) -> Callable[[int, int], int]:
    return lambda x, w: x * _signed(w, w_bits)


def _shift(exponent_bits: int) -> Callable[[int, int], int]:
    """w = {sign, magnitude}; magnitude 0 is weight 0, else the term is +-(x << (largest - magnitude))."""
    largest = (1 << exponent_bits) - 1

    def term(x: int, w: int) -> int:
        magnitude = w & largest
        shifted = x << (largest - magnitude) if magnitude else 0
        return -shifted if w >> exponent_bits & 1 else shifted

    return term


def _difference(bits: int) -> Callable[[int, int], int]:
    return lambda x, w: abs(x - _signed(w, bits))


def _packed(x: int, w: int) -> tuple[int, int]:
    return _signed(w >> 8, 8) * _signed(x, 8), _signed(w, 8) * _signed(x, 8)


def _symmetric(w: int) -> int:
    """Weights of the packed lane lie in [-127, 127]."""
    return sum((0x81 if (w >> s & 0xFF) == 0x80 else w >> s & 0xFF) << s for s in (0, 8))


def _vector(x: int, w: int) -> int:
    a, b, m0, m1 = _signed(x >> 8, 8), _signed(x, 8), _signed(w, 16), _signed(w >> 16, 16)
    relu, op = w >> 32 & 1, w >> 33
    if op == 2:
        return _clamp((_signed(a * b, 16) * m1 + (1 << 20)) >> 21, relu)
    scaled = max(a, b) * m0 if op == 1 else a * m0 + b * m1
    return _clamp((scaled + (1 << 13)) >> 14, relu)


def _three_ops(w: int) -> int:
    return w % (3 << 33)


def _requantise(x: int, w: int) -> int:
    amount = 12 + 6 * (w >> 18 & 3)
    return _clamp((_signed(x, 24) * _signed(w, 18) + (1 << amount - 1)) >> amount, w >> 20)


def _requantise_shift(x: int, w: int) -> int:
    amount = w & 31
    return _clamp((_signed(x, 24) + (1 << amount >> 1)) >> amount, w >> 5)


def _up_to_23(w: int) -> int:
    return w & 32 | w % 24


def _pick(x: int, w: int) -> int:
    return x >> 64 * w & ((1 << 64) - 1)


def _memory(address_bits: int) -> Callable[[int, int], int]:
    """Reads at the lower half of w what was written before, then writes x at the upper half."""
    words: dict[int, int] = {}

    def access(x: int, w: int) -> int:
        read = words.get(w & ((1 << address_bits) - 1), 0)
        words[w >> address_bits] = x
        return read

    return access


def _both(
    name: str,
    top: str,
    term: Callable[[int, int], int],
    *,
    x_bits: int = 8,
    w_bits: int = 8,
    acc: int = 24,
    dsp: bool = False,
    **parameters: int,
) -> list[Lane]:
    """The scalar lane and the 16-wide tree of one kind."""
    return [
        Lane(
            name=f"{name} {'tree' if n > 1 else 'scalar'}",
            top=top,
            count=n,
            x_bits=n * x_bits,
            w_bits=n * w_bits,
            y_bits=acc,
            y=_dot(n, x_bits, w_bits, term),
            parameters={"N": n, "ACC": acc, **parameters},
            dsp=dsp,
        )
        for n in (1, 16)
    ]


LANES = [
    *_both("dsp", "mac", _product(8), dsp=True),
    Lane("dsp_packed scalar", "mac_packed", 2, 8, 16, 48, _packed, {"ACC": 24}, dsp=True, legal_w=_symmetric),
    *_both("lut8x8", "mac", _product(8)),
    *_both("lut8x8 rows", "mac_rows", _product(8)),
    *_both("lut8x4", "mac", _product(4), w_bits=4, W=4),
    *_both("shift", "shift", _shift(3), w_bits=4, E=3),
    *_both("shift_dsp", "shift_dsp", _shift(3), w_bits=4, dsp=True),
    *_both("shift5", "shift", _shift(4), w_bits=5, acc=32, E=4),
    *_both("adder", "adder", _difference(8)),
    *_both("adder6", "adder", _difference(6), x_bits=6, w_bits=6, X=6),
    Lane("vector", "vector", 1, 16, 35, 8, _vector, dsp=True, accumulates=False, legal_w=_three_ops),
    Lane("requantise", "requantise", 1, 24, 21, 8, _requantise, dsp=True, accumulates=False),
    Lane(
        "requantise by shift", "requantise_shift", 1, 24, 6, 8, _requantise_shift, accumulates=False, legal_w=_up_to_23
    ),
    Lane("bank_mux 16", "bank_mux", 16, 1024, 4, 64, _pick, {"BANKS": 16}, accumulates=False, options="-widemux 5"),
    *(
        Lane(f"buffer_ram {1 << a}", "buffer_ram", 66, 66, 2 * a, 66, _memory(a), {"DEPTH": 1 << a}, accumulates=False)
        for a in (5, 6, 7, 8)
    ),
]
