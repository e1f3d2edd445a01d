"""Where every node of the source file went: in which node it lives on, or why it is gone.

Nodes carry the names of the source nodes they stand for as metadata_props (JSON), which survive saving and the passes
of other libraries; the model carries the list of removed ones. Every pass that deletes a node says so here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

_NODES = "ai.nashc.nodes"
_REMOVED = "ai.nashc.removed"


@dataclass(frozen=True, slots=True)
class Skip:
    """A source node that became no layer, and the reason."""

    node: str
    reason: str


def name_nodes(graph: ir.Graph) -> None:
    """Give every node of the graph a unique, deterministic name and tag it with it; tagged nodes stay as they are.

    Ensures: a name of the file is kept unless an earlier node has it; a nameless node is called TYPE_INDEX.
    """
    taken = {node.name for node in graph if _NODES in node.metadata_props}
    for i, node in enumerate(graph):
        if _NODES in node.metadata_props:
            continue
        base = node.name or f"{node.op_type}_{i}"
        name, n = base, 1
        while name in taken:
            n += 1
            name = f"{base}_{n}"
        taken.add(name)
        node.name = name
        node.metadata_props[_NODES] = json.dumps([name])


def forget(model: ir.Model) -> None:
    """Drop the tags that a file written by an earlier run carries."""
    for node in model.graph:
        node.metadata_props.pop(_NODES, None)


def sources(node: ir.Node) -> tuple[str, ...]:
    """Names of the source nodes that this node stands for."""
    tagged = node.metadata_props.get(_NODES)
    return tuple(json.loads(tagged)) if tagged else (node.name or node.op_type,)


def absorb(keeper: ir.Node, gone: ir.Node) -> None:
    """`keeper` now also does the work of `gone`."""
    keeper.metadata_props[_NODES] = json.dumps([*sources(keeper), *sources(gone)])


def stand_for(new: ir.Node, old: ir.Node) -> None:
    """`new` does a part of the work of `old`, which goes."""
    new.metadata_props[_NODES] = json.dumps(sources(old))


def skip(model: ir.Model, node: ir.Node, reason: str) -> None:
    """Record that `node` is deleted for `reason`."""
    _list(model).extend(Skip(name, reason) for name in sources(node))


def _list(model: ir.Model) -> list[Skip]:
    found: list[Skip] = model.meta.setdefault(_REMOVED, [])
    return found


def removed(model: ir.Model) -> tuple[Skip, ...]:
    """Everything that the passes deleted so far, in order."""
    return tuple(_list(model))


def live(graph: ir.Graph) -> Iterator[str]:
    """Source names still present in the graph."""
    for node in graph:
        yield from sources(node)


def skip_vanished(model: ir.Model, before: Iterable[str], reason: str) -> None:
    """Record every source name that was there `before` and is now in no node, for passes of other libraries."""
    known = {s.node for s in removed(model)} | set(live(model.graph))
    _list(model).extend(Skip(name, reason) for name in before if name not in known)
