"""Energy of one layer: operations and traffic times the unit energies of the board file."""

from __future__ import annotations

from nashc.board import Energy
from nashc.core.design import Chunk, Traffic, Work
from nashc.core.network import Unit
from nashc.hw.machine import PARTIAL_SUM_BITS
from nashc.hw.resources import ACTIVATION_BITS


def operation_pj(energy: Energy, unit: Unit, weight_bits: int, multiplied: float = 0.0) -> float:
    """One lane operation of a unit, a share of them `multiplied` on DSPs: what a multiplier takes for a power of two
    is counted as for any weight."""
    if unit is Unit.CONV:
        return energy.conv4_pj if weight_bits <= 4 else energy.conv8_pj
    if unit is Unit.SHIFT:
        return (1 - multiplied) * energy.shift_pj + multiplied * energy.conv8_pj
    return energy.adder_pj if unit is Unit.ADDER else energy.vector_pj


def layer_pj(
    energy: Energy, work: Work, chunk: Chunk, issue_cycles: int, traffic: Traffic, multiplied: float = 0.0
) -> float:
    """Energy of one run of a layer, batch included.

    Operations at the price of their unit; DRAM and on-chip memory by the bits moved; the chunk's buffers by the words
    that they deliver in each issue cycle; an accumulator read and write in the array for each lane group.
    """
    unroll = chunk.unroll
    operation = operation_pj(energy, chunk.unit, work.weight_bits, multiplied)
    operations = work.batch * work.nest.macs * work.terms * operation
    dram = (traffic.dram_read + traffic.dram_write) * energy.dram_pj_per_bit
    chip = (traffic.chip_read + traffic.chip_write) * (energy.buffer_pj_per_bit + energy.noc_pj_per_bit)
    delivered = unroll.input_words * ACTIVATION_BITS + unroll.weight_words * work.weight_bits
    buffers = issue_cycles * delivered * energy.buffer_pj_per_bit
    registers = issue_cycles * unroll.outputs * 2 * PARTIAL_SUM_BITS * energy.rf_pj_per_bit
    return operations + dram + chip + buffers + registers
