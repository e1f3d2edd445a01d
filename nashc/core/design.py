"""The frozen values of a design: chunks, accelerators, mappings, memory plans and their costs."""

from __future__ import annotations

from dataclasses import dataclass

from nashc.core.loops import LoopNest, Unroll
from nashc.core.network import Layer, Network, Unit


@dataclass(frozen=True, slots=True)
class Buffers:
    """Usable bits of one half of each double-buffered on-chip buffer of a chunk; `distributed`: which of the three are
    LUTs rather than BRAM."""

    input_bits: int
    weight_bits: int
    output_bits: int
    distributed: tuple[bool, bool, bool] = (False, False, False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of the accelerator that serves one unit.

    `role` is the kind of layer it takes: "dense", "depthwise" (grouped with one input channel a group) or "all".
    `lanes` names the lane kind of the board file, or lanes that may mix DSPs and LUTs: "mac" (8x8), "mac4" (8x4) and
    "shift_mac" (shift lanes of up to 4 bits).
    `weight_bits` is 0 if no layer has weights. `post_lanes` requantise that many outputs a cycle; `dram_bits` is its
    static share of the DRAM bandwidth in bits a cycle. `extra_bits` are the second operands that an output reads at
    most, together. `symmetric`: all weights lie in [-127, 127], so two of them may share a DSP.
    """

    unit: Unit
    role: str
    lanes: str
    unroll: Unroll
    weight_bits: int
    post_lanes: int
    buffers: Buffers
    dram_bits: int
    extra_bits: int = 0
    symmetric: bool = True

    @property
    def name(self) -> str:
        return str(self.unit) if self.role == "all" else f"{self.unit}-{self.role}"


@dataclass(frozen=True, slots=True)
class Extra:
    """A second operand of a layer, read once per output (a residual, a gate). `full` has the output's shape,
    else it is one value per channel."""

    bits: int
    full: bool


@dataclass(frozen=True, slots=True)
class Work:
    """All that the cost of one layer on a chunk depends on, apart from chunk, mapping and placement: the memo key.

    Bits are those of one element; `weight_bits` is 0 for a layer without weights.
    """

    nest: LoopNest
    batch: int
    input_bits: int
    output_bits: int
    weight_bits: int
    terms: int
    extras: tuple[Extra, ...] = ()
    scattered: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Which operands of a layer are on chip for good; the others are in DRAM."""

    inputs: tuple[bool, ...]
    output: bool
    weights: bool


@dataclass(frozen=True, slots=True)
class Tile:
    """Tile sizes of one layer: images, groups, channels per group, output rows and columns."""

    n: int
    g: int
    k: int
    c: int
    oy: int
    ox: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one layer runs on its chunk: a tile and a dataflow (the order of the tile loops)."""

    tile: Tile
    dataflow: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bits that one run of a layer moves, batch included."""

    dram_read: int = 0
    dram_write: int = 0
    chip_read: int = 0
    chip_write: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.dram_read + other.dram_read,
            self.dram_write + other.dram_write,
            self.chip_read + other.chip_read,
            self.chip_write + other.chip_write,
        )


@dataclass(frozen=True, slots=True)
class Resources:
    """FPGA resources; `bram18` counts half BRAM36 blocks, `lutram` those LUTs of `lut` that are distributed RAM."""

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram18: int = 0
    uram: int = 0
    lutram: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.lut + other.lut,
            self.ff + other.ff,
            self.dsp + other.dsp,
            self.bram18 + other.bram18,
            self.uram + other.uram,
            self.lutram + other.lutram,
        )

    def fits(self, limit: Resources) -> bool:
        return (
            self.lut <= limit.lut
            and self.ff <= limit.ff
            and self.dsp <= limit.dsp
            and self.bram18 <= limit.bram18
            and self.uram <= limit.uram
            and self.lutram <= limit.lutram
        )


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One mapped layer: where its operands are, how long its batch takes and what it moves."""

    layer: str
    chunk: int
    mapping: Mapping
    placement: Placement
    cycles: int
    compute_cycles: int
    bound: str
    utilisation: float
    traffic: Traffic
    start: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What stays on chip: resident tensors with the copies that the schedule needs, and pinned weights.

    `in_uram` has the URAMs of a copy of those tensors that are in URAM, whole or in part; `peak_urams` those that
    feature maps need at the most. `banks` are of BRAM, `peak_banks` those in use at the most, for both.
    """

    resident: tuple[tuple[str, int], ...]
    pinned: tuple[str, ...]
    banks: int
    peak_banks: int
    in_uram: tuple[tuple[str, int], ...] = ()
    peak_urams: int = 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the search proved: no accelerator of the declared space has an objective below `bound`."""

    objective: str
    value: float
    bound: float
    optimal: bool
    space: int
    refined: int
    stopped: str

    @property
    def gap(self) -> float | None:
        """Relative distance between the answer and the proven bound; None where no bound above zero is known."""
        return self.value / self.bound - 1 if self.bound > 0 else None


@dataclass(frozen=True)
class Accelerator:
    """All chunks of a design and the batch that they work on."""

    chunks: tuple[Chunk, ...]
    batch: int


@dataclass(frozen=True)
class Design:
    """The answer of a compile: board, accelerator, memory plan, mapped layers, schedule and cost."""

    board: str
    clock_mhz: float
    network: Network
    accelerator: Accelerator
    layers: tuple[LayerResult, ...]
    plan: MemoryPlan
    interval_cycles: int
    latency_cycles: int
    resources: Resources
    chunk_resources: tuple[Resources, ...]
    energy_pj: float
    certificate: Certificate

    @property
    def fps(self) -> float:
        return self.accelerator.batch * self.clock_mhz * 1e6 / self.interval_cycles

    @property
    def latency_ms(self) -> float:
        """Latency of one batch alone in the pipeline."""
        return self.latency_cycles / self.clock_mhz / 1e3

    @property
    def gops(self) -> float:
        return 2 * self.network.macs * self.fps / 1e9


def accepts(chunk: Chunk, layer: Layer) -> bool:
    """A chunk takes a layer of its unit, of its role, whose weights are no wider than its lanes."""
    if chunk.unit is not layer.unit:
        return False
    if chunk.role != "all" and (chunk.role == "depthwise") != layer.nest.depthwise:
        return False
    return layer.weights is None or layer.weights.bits <= chunk.weight_bits
