"""Models of a node or two whose outputs can be worked out by hand, and data for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper as make

FLOAT = onnx.TensorProto.FLOAT


def model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: dict[str, Sequence[int | str | None]],
    *,
    classes: int = 10,
    batch: int | str = "n",
    inputs: Sequence[str] = ("x",),
    constants: dict[str, np.ndarray] | None = None,
    metadata: dict[str, str] | None = None,
    image: Sequence[int] | None = None,
) -> str:
    """Written to `path`: a model of images [batch, classes, 1, 1], or [batch, *image]."""
    shape = [batch, *(image or (classes, 1, 1))]
    graph = make.make_graph(
        nodes,
        "small",
        [make.make_tensor_value_info(name, FLOAT, shape) for name in inputs],
        [make.make_tensor_value_info(name, FLOAT, sizes) for name, sizes in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    made = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    make.set_model_props(made, metadata or {})
    onnx.save(made, path)
    return str(path)


def same(path: Path, classes: int = 10, batch: int | str = "n", **kwargs) -> str:
    """The scores are the image."""
    return model(
        path, [make.make_node("Flatten", ["x"], ["y"])], {"y": [batch, classes]}, classes=classes, batch=batch, **kwargs
    )


def plus(path: Path, offsets: np.ndarray, batch: int | str = "n") -> str:
    """The scores are the image plus an offset for each class."""
    nodes = [make.make_node("Flatten", ["x"], ["a"]), make.make_node("Add", ["a", "b"], ["y"])]
    constants = {"b": offsets.astype(np.float32)}
    return model(path, nodes, {"y": [batch, len(offsets)]}, classes=len(offsets), batch=batch, constants=constants)


def data(path: Path, scores: np.ndarray, labels: np.ndarray | None = None) -> str:
    """Images that are taken as they are."""
    arrays = {"x": scores.astype(np.float32).reshape(*scores.shape, 1, 1)}
    np.savez(path, **arrays, **({} if labels is None else {"y": labels}))
    return str(path)


def right(images: int, correct: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of which so many are right."""
    labels = np.arange(images) % classes
    scores = np.zeros((images, classes), np.float32)
    scores[np.arange(images), np.where(np.arange(images) < correct, labels, (labels + 1) % classes)] = 1
    return scores, labels
