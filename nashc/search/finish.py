"""From a finished plan to the frozen Design: traffic, energy, what bounds each layer, resources."""

from __future__ import annotations

from dataclasses import replace

from nashc.board import Board
from nashc.core.design import (
    Certificate,
    Design,
    LayerResult,
    Mapping,
    MemoryPlan,
    Placement,
    Resources,
    Tile,
    Traffic,
)
from nashc.core.network import Network
from nashc.hw.dataflows import DATAFLOWS
from nashc.hw.energy import layer_pj
from nashc.hw.latency import Site
from nashc.hw.machine import PAGE_BANKS, Machine
from nashc.hw.resources import memory_resources, multiplied_share
from nashc.hw.tiles import Extents, Tiles
from nashc.hw.traffic import issue_total, traffic
from nashc.search.plan import Planned, drawn


def layer_results(network: Network, board: Board, machine: Machine, planned: Planned) -> tuple[LayerResult, ...]:
    results = []
    for i, layer in enumerate(network.layers):
        task, start = planned.tasks[i], planned.schedule.starts[i]
        best, work = planned.best[i], planned.works[i]
        if best is None or work is None:
            nowhere = Placement((False,) * len(layer.inputs), False, False)
            tile = Tile(planned.accelerator.batch, 1, 1, 1, 1, 1)
            results.append(
                LayerResult(
                    layer.name, -1, Mapping(tile, "host"), nowhere, task.cycles, 0, "host", 0.0, Traffic(), start
                )
            )
            continue
        chunk = planned.accelerator.chunks[planned.chunk_of[i]]
        own = replace(machine, post_lanes=chunk.post_lanes)
        site = Site(chunk.unroll, chunk.dram_bits, own, planned.placements[i])
        tiles = Tiles.of([best.mapping.tile])
        moved = traffic(work, site, tiles, DATAFLOWS.get(best.mapping.dataflow))
        issue = int(issue_total(work, site, Extents.of(work, tiles))[0])
        port = -(-(moved.dram_read + moved.dram_write) // chunk.dram_bits)
        bound = "bandwidth" if max(port, moved.chip_read // own.port_bits) > issue else "compute"
        done = work.batch * work.nest.macs * work.terms
        results.append(
            LayerResult(
                layer=layer.name,
                chunk=planned.chunk_of[i],
                mapping=best.mapping,
                placement=planned.placements[i],
                cycles=best.cycles,
                compute_cycles=issue,
                bound=bound,
                utilisation=done / (chunk.unroll.lanes * best.cycles),
                traffic=moved,
                start=start,
            )
        )
    return tuple(results)


def energy_pj(board: Board, planned: Planned, results: tuple[LayerResult, ...], parts: tuple[Resources, ...]) -> float:
    """Energy of one period in pJ; nodes on the host are not in it. parts: what each chunk takes."""
    total, chunks = 0.0, planned.accelerator.chunks
    multiplied = [multiplied_share(board, chunk, used) for chunk, used in zip(chunks, parts, strict=True)]
    for work, result in zip(planned.works, results, strict=True):
        if work is not None and result.chunk >= 0:
            cycles, share = result.compute_cycles, multiplied[result.chunk]
            total += layer_pj(board.energy, work, chunks[result.chunk], cycles, result.traffic, share)
    return total


def objective_of(
    objective: str, network: Network, board: Board, machine: Machine, planned: Planned, parts: tuple[Resources, ...]
) -> float:
    """What the search minimises: cycles an image, cycles of a lone batch, pJ an image, or pJ x ms an image."""
    batch = planned.accelerator.batch
    if objective == "fps":
        return planned.interval / batch
    if objective == "latency":
        return float(planned.latency)
    energy = energy_pj(board, planned, layer_results(network, board, machine, planned), parts) / batch
    if objective == "energy":
        return energy
    return energy * planned.latency / board.clock_mhz / 1e3


def design_of(
    network: Network,
    board: Board,
    machine: Machine,
    planned: Planned,
    certificate: Certificate,
    chunk_resources: tuple[Resources, ...],
) -> Design:
    planned = drawn(planned)
    results = layer_results(network, board, machine, planned)
    groups = planned.peak_groups + planned.pinned_groups
    used = memory_resources(board, planned.memory_pages, len(planned.accelerator.chunks), groups)
    for part in chunk_resources:
        used = used + part
    return Design(
        board=board.name,
        clock_mhz=board.clock_mhz,
        network=network,
        accelerator=planned.accelerator,
        layers=results,
        plan=MemoryPlan(
            resident=tuple(zip(planned.resident, planned.copies, strict=True)),
            pinned=planned.pinned,
            banks=planned.memory_pages * PAGE_BANKS,
            peak_banks=planned.peak_pages * PAGE_BANKS,
            in_uram=tuple(
                (name, groups * PAGE_BANKS)
                for name, groups in zip(planned.resident, planned.groups, strict=True)
                if groups
            ),
            peak_urams=planned.peak_groups * PAGE_BANKS,
        ),
        interval_cycles=planned.interval,
        latency_cycles=planned.latency,
        resources=used,
        chunk_resources=chunk_resources,
        energy_pj=energy_pj(board, planned, results, chunk_resources),
        certificate=certificate,
    )
