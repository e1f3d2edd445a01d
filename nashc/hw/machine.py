"""The constants of the accelerator template and of the board's memory that the timing model uses.

The micro-architecture behind them is written down in docs/microarchitecture.md; nothing else adds or hides cycles.
"""

from __future__ import annotations

from dataclasses import dataclass

from nashc.core.loops import LoopNest

CHANNEL_BLOCK = 16
"""Feature maps are stored as [channel block][row][column][16 channels]; the last block may be narrower."""

PARTIAL_SUM_BITS = 32
"""Width of an accumulator, in the output buffer and when it spills."""

CHANNEL_PARAMETER_BITS = 64
"""Bias and scale of one output channel; they travel with the weights."""

BANK_BITS = 64
BANK_DEPTH = 512
"""One BRAM36 as a memory of 512 words of 64 data bits (the parity bits stay unused)."""

PAGE_BANKS = 8
PAGE_BITS = PAGE_BANKS * BANK_BITS * BANK_DEPTH
"""The shared on-chip memory is handed out in pages as wide as a port; a copy of a tensor takes whole pages."""


URAM_DEPTH = 4096
URAM_PAGES = URAM_DEPTH // BANK_DEPTH
"""Pages that PAGE_BANKS URAMs side by side, a group, are worth. With one write and one read port, a group holds a part
of one copy of a feature map at a time, or pinned weights of one chunk."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Timing constants of the template in cycles and bits.

    burst_bits, burst_latency: the longest DRAM burst, and the cycles from a request to its first beat.
    burst_overhead: handshake cycles of each burst. bursts_in_flight: requests that a DMA has under way, so that a
    burst takes max(beats + overhead, (latency + beats) / in flight) and only the first one shows its whole latency.
    port_bits: width of the on-chip ports (activation read, activation write, pinned weights), one each a chunk.
    step_overhead: cycles to start one step of the descriptor list; layer_overhead: to load a layer's registers.
    pipeline_depth: operand, product, accumulate and write registers; the adder tree's levels come on top.
    post_lanes: requantising lanes of the chunk; an array with fewer accumulators uses just that many.
    """

    burst_bits: int
    burst_latency: int
    burst_overhead: int = 4
    bursts_in_flight: int = 4
    port_bits: int = PAGE_BANKS * BANK_BITS
    step_overhead: int = 4
    layer_overhead: int = 32
    pipeline_depth: int = 6
    post_lanes: int = 64


def pages(bits: int) -> int:
    """Pages of on-chip memory that hold `bits`."""
    return max(1, -(-bits // PAGE_BITS))


def stored_weights(nest: LoopNest, bits: int, terms: int) -> int:
    """Bits of the weights of a layer, of `bits` a term, with the parameters of its output channels."""
    return nest.weights * bits * terms + CHANNEL_PARAMETER_BITS * nest.g * nest.k
