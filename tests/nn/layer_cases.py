"""Random layers for torch: the operators' test cases in two dimensions, and loops over every tap of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from operator_cases import Case, cases
from torch import Tensor

Window = tuple[list[int], list[int], list[int], int]
EPS = np.finfo(np.float32).eps


def flat_cases(name: str) -> st.SearchStrategy[Case]:
    return cases(name).filter(lambda case: len(case.geometry.kernel) == 2)


def window(case: Case) -> Window:
    """(stride, pads, dilation, groups) as the torch operators take them."""
    g = case.geometry
    assert g.pads is not None
    return list(g.strides), list(g.pads), list(g.dilations), g.group


def tensors(case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
    """The inputs of the case; floats in the given type."""
    found = [None if a is None else torch.from_numpy(np.array(a)) for a in case.inputs]
    return [t if t is None or not t.is_floating_point() else t.to(dtype) for t in found]


def taps(x: Any, w: Any, y: Any, window: Window) -> Iterator[tuple[tuple[int, ...], ...]]:
    """(index of y, index of w, index of x) of every tap; the index of x is () where it is padding."""
    (sy, sx), (top, left, _, _), (dy, dx), groups = window
    per_group = w.shape[0] // groups
    for n, m, oy, ox in itertools.product(*map(range, y.shape)):
        for c, fy, fx in itertools.product(*map(range, w.shape[1:])):
            iy, ix = oy * sy + fy * dy - top, ox * sx + fx * dx - left
            inside = 0 <= iy < x.shape[2] and 0 <= ix < x.shape[3]
            yield (n, m, oy, ox), (m, c, fy, fx), (n, m // per_group * w.shape[1] + c, iy, ix) if inside else ()
