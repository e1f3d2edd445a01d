"""Dataflows as data: the order of the tile loops outside the PE array.

Loops over groups are outermost in every dataflow: groups share no operand, so no other place saves traffic.
`p` stands for the pixel loops (n, oy, ox), outermost first. The operand whose loops are all outside the innermost
one stays put while that one runs, hence the names (Chen et al., Eyeriss, ISCA 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nashc.registry import Registry

INPUT_DIMS = frozenset({"g", "c", "n", "oy", "ox"})
WEIGHT_DIMS = frozenset({"g", "k", "c"})
OUTPUT_DIMS = frozenset({"g", "k", "n", "oy", "ox"})


@dataclass(frozen=True, slots=True)
class Dataflow:
    """`order` lists the tile loops inside the group loop, outermost first."""

    name: str
    order: str

    @property
    def loops(self) -> tuple[str, ...]:
        """All six tile loops, outermost first."""
        inner = [d for letter in self.order for d in (("n", "oy", "ox") if letter == "p" else (letter,))]
        return ("g", *inner)


DATAFLOWS: Registry[Dataflow] = Registry("dataflow")
for _flow in (
    Dataflow("output-stationary", "kpc"),
    Dataflow("output-stationary, pixels outer", "pkc"),
    Dataflow("weight-stationary", "kcp"),
    Dataflow("weight-stationary, inputs outer", "ckp"),
    Dataflow("input-stationary", "pck"),
    Dataflow("input-stationary, channels outer", "cpk"),
):
    DATAFLOWS.add(_flow.name, _flow)


@lru_cache(maxsize=8)
def distinct_orders(flows: tuple[Dataflow, ...]) -> tuple[tuple[int, ...], ...]:
    """For each dataflow the sets of moving loops on which no earlier one runs the very same loops in the same order.

    A set is a sum of 1 (k), 2 (c) and 4 (pixels), for loops of more than one tile.
    """
    seen: set[tuple[int, str]] = set()
    found = []
    for flow in flows:
        orders = [(code, "".join(x for x in flow.order if code >> "kcp".index(x) & 1)) for code in range(8)]
        found.append(tuple(code for code, order in orders if (code, order) not in seen))
        seen.update(orders)
    return tuple(found)
