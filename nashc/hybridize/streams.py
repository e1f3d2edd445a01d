"""All calibration images through a model, one stage after the other.

Every value that a later stage reads is kept for all images, and dropped after its last reader: one pass computes what
layer after layer needs, where running the model anew for every layer would cost the square of its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from nashc.hybridize.stages import Stage, Staged
from nashc.ops.native import available
from nashc.runtime.session import run, start

Array = NDArray[Any]
Convert = Callable[[str, Array], Array]
NOTHING: Mapping[str, Array] = MappingProxyType({})
IN_MEMORY = 2**28
"""Bytes of a value of all images; larger ones lie in a file without a name, whose pages the system may take back."""


def _as_it_is(name: str, value: Array) -> Array:
    return value


def _room(shape: tuple[int, ...], dtype: Any) -> Array:
    if int(np.prod(shape)) * np.dtype(dtype).itemsize <= IN_MEMORY:
        return np.empty(shape, dtype)
    with TemporaryFile(prefix="nashc-") as file:  # the mapping outlives its file
        return np.memmap(file, dtype, "w+", shape=shape)


class Part:
    """Some nodes of a model in onnxruntime, for one image at a time on one thread; `tensors` are what is stored."""

    def __init__(
        self,
        model: onnx.ModelProto,
        nodes: Sequence[onnx.NodeProto],
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Sequence[str],
        tensors: Mapping[str, Array],
    ) -> None:
        read = {name for node in nodes for name in node.input} - set(inputs)
        graph = onnx.helper.make_graph(
            list(nodes),
            "part",
            [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in inputs.items()],
            [onnx.ValueInfoProto(name=n) for n in outputs],
            [numpy_helper.from_array(tensors[n], n) for n in sorted(read & set(tensors))],
        )
        made = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(model.ir_version, 4))
        self.outputs = list(outputs)
        self._session = start(made, 1, native=available())

    def images(
        self,
        given: Mapping[str, Array],
        workers: int,
        *,
        read: Convert = _as_it_is,
        keep: Convert = _as_it_is,
        shared: Mapping[str, Array] = NOTHING,
    ) -> list[Array]:
        """Outputs [N, ...] for inputs [N, ...], image by image on so many threads.

        `read` makes of stored values what the session takes, `keep` of its outputs what is stored, each for one image
        and by name. `shared` inputs are the same for all images.
        """
        count = len(next(iter(given.values())))

        def one(i: int) -> list[Array]:
            inputs = {name: read(name, values[i]) for name, values in given.items()}
            found = run(self._session, self.outputs, {**inputs, **shared})
            return [keep(name, value) for name, value in zip(self.outputs, found, strict=True)]

        first = one(0)
        results = [_room((count, *v.shape), v.dtype) for v in first]

        def store(i: int) -> None:
            for result, value in zip(results, first if i == 0 else one(i), strict=True):
                result[i] = value

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(store, range(count)))
        return results


def last_readers(staged: Staged) -> dict[str, int]:
    """Index of the last stage that reads a value; outputs of the model are read to the end."""
    found = {name: i for i, stage in enumerate(staged.stages) for name in stage.inputs}
    return found | dict.fromkeys(staged.outputs, len(staged.stages))


def nodes_of(staged: Staged, names: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes of these names, with those that prepare their constants."""
    nodes = {node.name: node for node in staged.model.graph.node}
    makers = {name: node for node in staged.model.graph.node for name in node.output}
    wanted: dict[str, onnx.NodeProto] = {}
    inside = set(names)
    computed = {out for stage in staged.stages for n in stage.nodes for out in nodes[n].output}

    def add(node: onnx.NodeProto) -> None:
        if node.name in wanted:
            return
        for name in node.input:
            if name in makers and name not in computed:
                add(makers[name])
        wanted[node.name] = node

    for node in staged.model.graph.node:
        if node.name in inside:
            add(node)
    return list(wanted.values())


def stage_part(staged: Staged, stage: Stage, tensors: Mapping[str, Array]) -> Part:
    """One stage in onnxruntime."""
    shapes = {name: staged.shapes[name] for name in stage.inputs}
    return Part(staged.model, nodes_of(staged, stage.nodes), shapes, stage.outputs, tensors)
