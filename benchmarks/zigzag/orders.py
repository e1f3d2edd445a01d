"""The declared mappings of one layer on the peers' array: spatial unrollings, and all orders of the temporal loops.

A temporal loop is split into at most `limit` factors in all, the two smallest of the loop with most factors merged
first (the rule of ZigZag's LOMA engine, so that its orders are among ours). All orders of the factors of one
unrolling are the columns of one array; a prefix of an order is a *state*: how many factors of each kind are inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement, permutations, product
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from nashc.core.loops import LoopNest, Unroll

DIMS = ("k", "c", "g", "oy", "ox", "fy", "fx")
"""Loop dims in the order in which ties of the splitting rule are broken."""

Factor = tuple[str, int]
"""A loop dim and a factor of it: one temporal loop, or the unrolling along one array axis."""


@dataclass(frozen=True, slots=True)
class Spatial:
    """What the two axes of the array unroll, and the temporal loops that are left.

    computed: the share of the layer's outputs that the loops reach; 1 but for unrollings that ZigZag truncates.
    """

    axes: tuple[Factor, Factor]
    left: tuple[Factor, ...]
    unroll: Unroll
    computed: Fraction = Fraction(1)

    @staticmethod
    def of(sizes: dict[str, int], axes: tuple[Factor, Factor]) -> Spatial:
        """An unrolling by divisors."""
        factors = dict.fromkeys(DIMS, 1)
        for dim, factor in axes:
            factors[dim] *= factor
        return Spatial(axes, _left(sizes, {d: sizes[d] // factors[d] for d in DIMS}), Unroll(**factors))

    @property
    def cycles(self) -> int:
        """Cycles of the array without any stall."""
        return prod(size for _, size in self.left)


def _left(sizes: dict[str, int], times: dict[str, int]) -> tuple[Factor, ...]:
    return tuple((dim, times[dim]) for dim in sizes if times[dim] > 1)


@lru_cache(maxsize=4096)
def divisors(n: int, most: int) -> tuple[int, ...]:
    """Divisors of n up to `most`, the largest first."""
    return tuple(d for d in range(min(n, most), 0, -1) if n % d == 0)


def spatials(
    nest: LoopNest, rows: int, columns: int, axes: tuple[str, str] | None = None, *, truncated: bool = False
) -> list[Spatial]:
    """Unrollings of one loop dim along each axis that leave whole temporal loops; fewest cycles first.

    Each axis is unrolled as far as the other allows; `axes` fixes the dim of each. Both axes serve all operands
    alike, so of several splits of the same lanes over the axes one is kept. `truncated` adds those that
    compute a part of the layer only, see `truncations`.
    """
    sizes = {dim: getattr(nest, dim) for dim in DIMS}
    long = [dim for dim in DIMS if sizes[dim] > 1] or [DIMS[0]]
    if axes is not None:
        pairs = [axes]
    elif rows == columns:
        pairs = list(combinations_with_replacement(long, 2))
    else:
        pairs = list(product(long, long))
    found = []
    for first, second in pairs:
        most = 0
        for factor in divisors(sizes[first], rows):
            left = sizes[second] // factor if first == second else sizes[second]
            other = divisors(left, columns)[0]
            if other > most:
                found.append(Spatial.of(sizes, ((first, factor), (second, other))))
                most = other
        if truncated and first == second:
            found += truncations(sizes, first, rows, columns)
    distinct = {spatial.unroll: spatial for spatial in found}
    return sorted(distinct.values(), key=lambda s: s.cycles)


def truncations(sizes: dict[str, int], dim: str, rows: int, columns: int) -> list[Spatial]:
    """Unrollings of a channel dim over both axes that ZigZag prices with fewer channels than the layer has.

    It leaves the axis with fewer lanes as it is, shortens the loop to ceil(size / lanes) and prices
    int(size / loop / fewer lanes) lanes on the other axis: for 576 channels on 8 x 16 lanes five times 8 x 14.
    """
    found = []
    size = sizes[dim]
    for fewer in divisors(min(size, rows), rows) if dim in "gkc" else ():
        for more in divisors(min(size, columns), columns):
            loop = -(-size // (fewer * more))
            lanes = fewer * int(size / loop / fewer)
            if fewer < more and lanes * loop < size:
                unroll = Unroll(**{dim: lanes})
                left = _left(sizes, {**sizes, dim: loop})
                found.append(Spatial(((dim, fewer), (dim, more)), left, unroll, Fraction(lanes * loop, size)))
    return found


@lru_cache(maxsize=4096)
def prime_factors(n: int) -> tuple[int, ...]:
    """Prime factors in ascending order, with repeats."""
    found, p = [], 2
    while n > 1:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return tuple(found)


@lru_cache(maxsize=4096)
def split(left: tuple[Factor, ...], limit: int) -> tuple[tuple[str, int, int], ...]:
    """The temporal loops as (dim, factor, how often): at most `limit` in all, but never less than one a dim."""
    factors = {dim: list(prime_factors(size)) for dim, size in left}
    while sum(map(len, factors.values())) > max(limit, len(factors)):
        most = max(factors.values(), key=len)
        most[:2] = [most[0] * most[1]]
        most.sort()
    return tuple((d, f, fs.count(f)) for d, fs in factors.items() for f in sorted(set(fs)))


@dataclass(frozen=True, slots=True)
class Orders:
    """All orders of a multiset of loops, one a column, the innermost loop in row 0.

    kinds [loops, orders]: which kind each loop is; states [loops + 1, orders]: the state of each prefix, in mixed
    radix of `counts`; inside [kinds, states]: how many loops of each kind a state has inside.
    """

    kinds: NDArray[np.int64]
    states: NDArray[np.int64]
    inside: NDArray[np.int64]


@lru_cache(maxsize=256)
def all_orders(counts: tuple[int, ...]) -> Orders:
    """All distinct orders of `counts[i]` loops of each kind i."""
    loops = sum(counts)
    table = _permutations(loops)
    kinds, start = np.empty_like(table), 0
    keep = np.ones(table.shape[1], dtype=bool)
    where = np.argsort(table, axis=0)
    for count in counts:
        for i in range(start, start + count - 1):
            keep &= where[i] < where[i + 1]
        start += count
    kinds = np.repeat(np.arange(len(counts)), counts)[table[:, keep]]
    shape = [count + 1 for count in counts]
    strides = np.array([prod(shape[i + 1 :]) for i in range(len(shape))], dtype=np.int64)
    states = np.zeros((loops + 1, kinds.shape[1]), dtype=np.int64)
    np.cumsum(strides[kinds], axis=0, out=states[1:])
    return Orders(kinds, states, np.indices(shape).reshape(len(shape), prod(shape)))


def count_orders(counts: tuple[int, ...]) -> int:
    """How many columns `all_orders` has."""
    return factorial(sum(counts)) // prod(map(factorial, counts))


@lru_cache(maxsize=16)
def _permutations(loops: int) -> NDArray[np.int64]:
    return np.array(list(permutations(range(loops))), dtype=np.int64).reshape(factorial(loops), loops).T.copy()
