"""What the page of two designs side by side shows."""

from __future__ import annotations

from typing import Any

from nashc.artifact import Compiled
from nashc.report.html.design import chunks_data, limits, resources_data, summary_data
from nashc.report.html.names import shown
from nashc.report.layers import PairedLayer, paired_layers
from nashc.report.tables import certificate


def diff_data(a: Compiled, b: Compiled, names: tuple[str, str]) -> dict[str, Any]:
    """Both designs, and their layers by name."""
    return {
        "names": [shown(name) for name in names],
        "designs": [_design(compiled) for compiled in (a, b)],
        "layers": [_layer(pair) for pair in paired_layers(a.design, b.design)],
    }


def _design(compiled: Compiled) -> dict[str, Any]:
    return {
        "network": shown(compiled.design.network.name),
        "board": shown(compiled.board.name),
        "summary": summary_data(compiled),
        "limits": limits(compiled.design, compiled.board),
        "certificate": certificate(compiled.design),
        "chunks": chunks_data(compiled.design),
        "resources": resources_data(compiled),
    }


def _layer(pair: PairedLayer) -> dict[str, Any]:
    return {
        "name": shown(pair.name),
        "sides": [
            None if ran is None else {
                "op": shown(ran.op), "chunk": ran.chunk, "us": ran.us_per_image, "bound": ran.bound,
                "dram": ran.dram_bits, "util": ran.utilisation,
            }
            for ran in (pair.a, pair.b)
        ],
    }  # fmt: skip
