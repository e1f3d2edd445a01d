"""Coarse-to-fine search: the best accelerator, memory plan and mappings of a network on a board, with a certificate.

A node of the search is a partition, a batch and a range of memory sizes. Its bound is the least objective that any
choice of unrollings reaches (nashc.search.coarse), then with DRAM shares and memory in it (nashc.search.bound). In the
order of their bounds, nodes get their best accelerator (nashc.search.tune); the most promising accelerators get a plan
(nashc.search.plan). At last the loosest nodes are bounded with exact mappings, and small ones written out. The
certificate's bound is the least over all nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

from nashc.board import Board
from nashc.core.design import Accelerator, Certificate, Design, Resources
from nashc.core.network import Network, Unit
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hw.machine import PAGE_BANKS
from nashc.hw.resources import MIXED_LANES, chunk_resources
from nashc.hw.schedule import latency
from nashc.search.coarse import bounded_slot
from nashc.search.finish import design_of, objective_of
from nashc.search.memory import Relaxed
from nashc.search.nodes import Node, Nodes, Progress
from nashc.search.objectives import planned as planned_for
from nashc.search.objectives import relaxed_value
from nashc.search.plan import HURRIED, PARTS, QUICK, WORTHWHILE, Planned, plan_further, plan_near
from nashc.search.space import (
    BUFFER_LEVELS,
    CHANNEL_FACTORS,
    PIXEL_FACTORS,
    partitions,
)
from nashc.search.tune import Candidate, Tuned, Tuner

RELIEF = 1.25
"""How much longer than their bounds the chunks beside the main one are taken to need, in accelerators relieved."""
WRITTEN_OUT = 2_000
"""A node of at most so many accelerators is written out where that may close its gap."""
TUNED, RELIEVED, ADAPTED = 10, 4, 3
"""Nodes that are tuned; accelerators with quick plans that are relieved; and how often one is changed for its plan
before that is improved."""
FEW, PROMISING, WHOLE, WINNING = 30, 1.03, 0.999, 0.985
"""On networks of more layers, planning ends where none promises to come within so many times the best plan, or as near
to it as that is to its own program; and it leaves out plans whose program takes more than this share of their cycles,
and those whose program takes more than this share of the best plan's. On others that takes no time, and a changed
accelerator may be better."""
SETTLED = 1.0001
"""A value so near to its bound is about the best there is: smaller batches may have the same."""
MOST_COUNTED = 2**63 - 1
"""A larger space is reported as this many: design.json keeps to 64-bit integers."""


def solve(network: Network, board: Board, options: Options, progress: Progress | None = None) -> Design:
    """The best design found, with its certificate; raises NashcError when nothing fits."""
    return Search(network, board, options, progress).run()


@dataclass(frozen=True, eq=False)
class Trial:
    """A tuned accelerator with a quick plan and its value."""

    tuner: Tuner
    tuned: Tuned
    planned: Planned
    value: float

    @property
    def least(self) -> float:
        """Cycles an image of its program: no plan of the accelerator takes less."""
        return self.tuned.interval / self.tuner.batch


@dataclass
class Search(Nodes):
    """State of one search; `run` is its outline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.least_ms = float("inf")
        self.tuners: list[Tuner] = []

    def run(self) -> Design:
        if not any(layer.unit is not Unit.HOST for layer in self.network.layers):
            raise NashcError("no node of the model runs on the accelerator", hint="see 'nashc inspect MODEL'")
        nodes = self.nodes()
        best, value = self.descend(nodes)
        if best is None and self.options.objective == "fps":
            best, value = self.any_written_out(nodes)
        if best is None and self.least_ms < float("inf"):
            raise NashcError(
                f"no design found keeps --max-latency-ms {self.options.max_latency_ms:g}",
                hint=f"the least latency found is {self.least_ms:.4g} ms",
            )
        if best is None and self.soonest_ms < float("inf") and all(node.bound == float("inf") for node in nodes):
            raise NashcError(
                f"no design keeps --max-latency-ms {self.options.max_latency_ms:g}",
                hint=f"none has a latency below {self.soonest_ms:.4g} ms",
            )
        if best is None:
            raise NashcError(
                f"no accelerator for '{self.network.name}' fits on {self.board.name}",
                hint="try a larger board, smaller --batch, or relax --max-* limits",
            )
        best, value, bound, stopped = self.prove(nodes, best, value)
        if self.options.objective == "fps" and value <= bound * SETTLED:
            best = self.sooner(nodes, best, value)
        certificate = Certificate(
            objective=self.options.objective,
            value=value,
            bound=bound,
            optimal=value <= bound,
            space=min(self.accelerators, MOST_COUNTED),
            refined=sum(len(tuner.seen) for tuner in self.tuners),
            stopped=stopped,
        )
        return design_of(self.network, self.board, self.machine, best, certificate, self.resources(best.accelerator))

    def descend(self, nodes: list[Node]) -> tuple[Planned | None, float]:
        """The best plan. Nodes are bounded and tuned, and their accelerators get quick plans, until no bound is better
        than the best plan or enough are tuned. How near tuning comes to the bounds differs with batch and memory: the
        next node is the one that promises most if it comes as near as those whose partition, batch and memory are most
        like its own. In any case, of each partition the node of the largest batch and the least memory is tuned, as it
        needs a plan least. Then the best are planned further. Accelerators on which no plan keeps the latency limit get
        plans only if there are no others."""
        trials: list[Trial] = []
        late: list[tuple[int, tuple[int, int, int], Tuner, Tuned]] = []
        least = float("inf")
        near: dict[tuple[int, int, int], float] = {}  # what tuning made of bounds
        plain = {n.key[0]: n for n in sorted((n for n in nodes if n.slots), key=lambda n: (n.key[1], -n.key[2]))}
        while open_nodes := [n for n in nodes if n.slots and not n.tuned and n.bound < least]:
            if len(near) >= TUNED:
                open_nodes = [n for n in open_nodes if n in plain.values()]
            if not open_nodes or ((trials or late) and self.out_of_time(0.5)):
                break
            # the plain ones come second, so that a short budget has them
            node = min(
                open_nodes,
                key=lambda n: (not trials or n not in plain.values(), n.bound * nearest(near, n.key), n.key),
            )
            self.report("accelerators", min(1.0, node.bound / least))
            if not node.final:
                self.strengthen(node, least)
                continue
            node.tuned = True
            if node.picks is None:
                continue
            tuner, made = self.tuned(node, node.picks)
            if made is None:
                continue
            soonest = latency(made.tables.fastest)
            if not self.keeps_limit(soonest):
                late.append((soonest, node.key, tuner, made))
                continue
            reached = relaxed_value(self.options.objective, made.tables, made.relaxed)
            near[node.key] = reached / max(node.bound, 1e-9)
            if reached < least:
                trials.append(self.trial(tuner, made))
                least = min(least, trials[-1].value)
        if not trials:
            trials = [self.trial(tuner, made) for *_, tuner, made in sorted(late, key=lambda t: t[:2])[:RELIEVED]]
        return self.plans(trials)

    def trial(self, tuner: Tuner, made: Tuned) -> Trial:
        """A tuned accelerator with a quick plan."""
        tries = HURRIED if self.out_of_time() else QUICK
        planned = planned_for(self.options.objective, made.tables, made.relaxed, tries)
        return Trial(tuner, made, planned, self.value(planned))

    def tuned(self, node: Node, picks: list[tuple[int, float]]) -> tuple[Tuner, Tuned | None]:
        """A node's best accelerator that is found from its options and parts of the DRAM, and what found it."""
        tuner = self.tuner(node)
        return tuner, tuner.best([i for i, _ in picks], [part for _, part in picks], self.out_of_time)

    def tuner(self, node: Node) -> Tuner:
        self.tuners.append(
            Tuner(
                self.network, self.board, self.machine, self.limit, node.slots, node.batch,
                (node.least_pages, node.most_pages), self.options.objective, self.space, self.uram_groups,
            )
        )  # fmt: skip
        return self.tuners[-1]

    def plans(self, trials: list[Trial]) -> tuple[Planned | None, float]:
        """The best plan of these accelerators and of relieved ones near them."""
        for count, trial in enumerate(leading(trials)[:RELIEVED] if self.options.objective == "fps" else ()):
            if self.out_of_time():
                break
            self.report("first plans", count / RELIEVED)
            made = trial.tuner.relieved(trial.tuned, RELIEF)
            if made is not None:
                trials.append(self.trial(trial.tuner, made))
        return self.further(trials)

    def further(self, trials: list[Trial]) -> tuple[Planned | None, float]:
        """The best plan, after that of the accelerator which promises most was improved, again and again: a plan not
        yet tried to come about half way to its program, one that was improved to win as much again, unless its
        accelerator stays as it is and the plan hardly changed. On networks of many layers until none promises enough,
        and without those that are at their program already or whose program could hardly win."""
        if not trials:
            return None, float("inf")
        many = len(self.network.layers) > FEW
        promising, whole, winning = (PROMISING, WHOLE, WINNING) if many else (float("inf"), 1.0, float("inf"))
        best = min(trials, key=lambda t: t.value)
        promised = {t: (t.value + t.least) / 2 for t in trials if t is best or t.least <= t.value * whole}
        for count in range(PARTS if self.options.objective == "fps" else 0):
            if not promised or self.out_of_time():
                break
            self.report("thorough plans", count / PARTS)
            trial = min(promised, key=promised.__getitem__)
            if promised.pop(trial) > best.value * max(promising, best.value / best.least):
                break
            if trial is not best and trial.least > best.value * winning:
                continue
            adapted, settled = self.adapted(trial)
            planned = plan_further(adapted.tuned.tables, adapted.tuned.relaxed, adapted.planned)
            made = replace(adapted, planned=planned, value=self.value(planned))
            start = adapted if settled else trial  # from about the same plan, the accelerator would stay as it is
            if made.value < start.value * WORTHWHILE and made.least <= made.value * whole:
                promised[made] = 2 * made.value - trial.value
            best = min(best, made, key=lambda t: t.value)
        return best.planned if best.value < float("inf") else None, best.value

    def adapted(self, trial: Trial) -> tuple[Trial, bool]:
        """A trial whose accelerator is changed for its plan, and then the plan for that accelerator, as often as that
        gives a better one, and whether it does no more. Buffers and shares are chosen again first, options where that
        does not help."""
        for _ in range(ADAPTED):
            tuner = trial.tuner
            now = replace(trial.tuned, relaxed=Relaxed(trial.tuned.interval, trial.planned.on))
            for choose in (tuner.rebalanced, tuner.rechosen):
                better = None if self.out_of_time() else self.near(trial, choose(now))
                if better is not None:
                    trial = better
                    break
            else:
                return trial, True
        return trial, False

    def near(self, trial: Trial, candidate: Candidate | None) -> Trial | None:
        """A trial of another accelerator of the node whose plan, found from that of the first, is better."""
        other = trial.tuner.tuned(candidate) if candidate not in (None, trial.tuned.candidate) else None
        planned = plan_near(other.tables, other.relaxed, trial.planned, QUICK) if other else None
        if planned is None or other is None or (value := self.value(planned)) >= trial.value:
            return None
        return Trial(trial.tuner, other, planned, value)

    def prove(self, nodes: list[Node], best: Planned, value: float) -> tuple[Planned, float, float, str]:
        """(best plan, its value, a bound over the whole space, why it is no better): the loosest nodes are bounded
        better, and written out where they are small."""
        while True:
            node = min(nodes, key=lambda n: (n.bound, n.key))
            if node.bound >= value:
                return best, value, value, "proven"
            if node.closed:
                return best, value, node.bound, "plans"
            if not node.slots or self.out_of_time():
                return best, value, node.bound, "budget"
            self.report("proof", min(1.0, node.bound / value))
            if not node.final:
                self.strengthen(node, value)
            elif not node.sharp and self.options.objective == "fps":
                self.sharpen(node, value)
            elif self.size(node) > WRITTEN_OUT or self.options.objective != "fps":
                node.closed = True
            else:
                found, value = self.write_out(node, best, value)
                best = found or best

    def sooner(self, nodes: list[Node], best: Planned, value: float) -> Planned:
        """The plan of least batch that is as good as the best one, so that images come out sooner: where the DRAM or
        the host sets the pace, many batches reach it."""
        fitting = [n for n in nodes if n.slots and n.batch < best.accelerator.batch and n.bound <= value]
        for node in sorted(fitting, key=lambda n: (n.batch, n.bound, n.key)):
            if self.out_of_time():
                break
            self.report("smaller batches", node.batch / best.accelerator.batch)
            if not node.final:
                self.strengthen(node, value * SETTLED)
            if node.picks is None or node.bound > value:
                continue
            tuner, made = self.tuned(node, node.picks)
            if made is None or made.interval > value * node.batch:
                continue
            planned = self.trial(tuner, made).planned
            if self.value(planned) <= value and planned.latency < best.latency:
                return planned
        return best

    def any_written_out(self, nodes: list[Node]) -> tuple[Planned | None, float]:
        """A plan of the first small node that has one. Tuning starts from a few accelerators of a node, and may miss
        the only ones that fit."""
        for node in sorted(nodes, key=lambda n: (n.bound, n.key)):
            if node.slots and node.bound < float("inf") and self.size(node) <= WRITTEN_OUT:
                best, value = self.write_out(node, None, float("inf"))
                if best is not None:
                    return best, value
        return None, float("inf")

    def size(self, node: Node) -> int:
        least_share = self.space.least_share(self.dram_bits)
        return self.space.accelerators([len(slot.options) for slot in node.slots], least_share)

    def write_out(self, node: Node, best: Planned | None, value: float) -> tuple[Planned | None, float]:
        """Bound and, where that may pay, plan every accelerator of a node, in the order of their busy bounds."""
        node.closed = True
        tuner = self.tuner(node)
        least = value
        candidates = sorted(
            (tuner.busiest(choice), choice) for choice in product(*(range(len(slot.options)) for slot in node.slots))
        )
        for busy, choice in candidates:
            if busy / node.batch >= min(least, value):
                break
            for levels in product(self.space.levels, repeat=len(choice)):
                for shares in compositions(self.space.shares, len(choice)):
                    if self.out_of_time():
                        return best, value
                    made = tuner.tuned(Candidate(choice, levels, shares, node.least_pages))
                    if made is None or made.interval / node.batch >= value:
                        continue
                    whole = tuner.exact(made)
                    bound = whole.interval / node.batch
                    if bound < value:
                        found = planned_for(self.options.objective, whole.tables, whole.relaxed, QUICK, value)
                        if self.value(found) < value:
                            best, value = found, self.value(found)
                    least = min(least, bound)
        node.bound = max(node.bound, min(least, value))
        return best, value

    def value(self, planned: Planned) -> float:
        if not self.keeps_limit(planned.latency):
            self.least_ms = min(self.least_ms, self.milliseconds(planned.latency))
            return float("inf")
        parts = self.resources(planned.accelerator)
        return objective_of(self.options.objective, self.network, self.board, self.machine, planned, parts)

    def report(self, stage: str, share: float) -> None:
        if self.progress is not None:
            self.progress(stage, share)

    def resources(self, accelerator: Accelerator) -> tuple[Resources, ...]:
        return chunk_resources(self.board, accelerator.chunks, self.limit.dsp)


def nearest(known: dict[tuple[int, int, int], float], key: tuple[int, int, int]) -> float:
    """The mean value of the nodes that are the fewest steps (partitions, batches, memories) away; 1 of none."""
    if not known:
        return 1.0
    steps = {other: sum(abs(a - b) for a, b in zip(other, key, strict=True)) for other in known}
    fewest = min(steps.values())
    return fmean(known[other] for other in known if steps[other] == fewest)


def leading(trials: list[Trial]) -> list[Trial]:
    """All of them, in turn that of the best plan and that of the best bound."""
    planned = sorted(trials, key=lambda t: t.value)
    deepest = sorted(trials, key=lambda t: t.tuned.interval / t.tuner.batch)
    return list(dict.fromkeys(t for pair in zip(planned, deepest, strict=True) for t in pair))


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a total as that many positive parts in order."""
    if parts == 1:
        yield (total,)
        return
    for first in range(1, total - parts + 2):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def explain(network: Network, board: Board, options: Options) -> str:
    """The declared space for a network on a board, in words and numbers."""
    search = Search(network, board, options)
    lines, space = ["accelerator space"], search.space
    kinds = set()
    batches = space.batches if options.batch is None else (options.batch,)
    for partition in partitions(network):
        sizes = {}
        for slot in partition:
            table = search.options_of(slot)
            bounded = bounded_slot(table, network, batches[0], search.machine, search.dram_bits, space)
            sizes[f"{slot.name} on {table.lane_kind} lanes"] = (len(bounded.options), len(table))
            kinds.add(table.lane_kind)
        each = space.accelerators([lean for lean, _ in sizes.values()], space.least_share(search.dram_bits))
        total = each * len(space.memory_eighths) * len(batches)
        parts = ", ".join(f"{name} {lean:,} (of {whole:,})" for name, (lean, whole) in sizes.items())
        lines.append(
            f"  unrollings that none beats in busy time and every resource, at batch {batches[0]}: {parts}; "
            f"about {total:.3g} accelerators"
        )
    mixed = {kind: (m.plain, m.packed, m.fabric) for kind, m in MIXED_LANES.items() if kind in kinds}
    ways = (f"{kind} {' + '.join(filter(None, own))}" for kind, own in mixed.items())
    lines += [f"  lanes on DSPs and in LUTs: {', '.join(ways)}"] if mixed else []
    lines.append(f"  channel factors {CHANNEL_FACTORS}, pixel factors {PIXEL_FACTORS}, filter factors 1 or all taps")
    levels = ", ".join("/".join(map(str, BUFFER_LEVELS[level])) for level in space.levels)
    lines.append(f"  buffers (input/weight/output KiB a half) of each chunk {levels}")
    lines.append(
        f"  memory from {', '.join(map(str, space.memory_eighths))} eighths of the BRAM up"
        f"{f' and {search.uram_groups * PAGE_BANKS} URAM' if search.uram_groups else ''}; "
        f"DRAM in {space.shares} shares; batch {', '.join(map(str, batches))}"
    )
    return "\n".join(lines)
