"""PyTorch module -> ONNX file, with shift and adder layers as the operators of `ai.nashc`.

Shift weights leave as int8 codes, adder weights as they are; no BN is folded into either. torch.onnx does the rest;
TRANSLATIONS is what it needs to know about our operators.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import torch
from onnxscript.values import Opset
from torch import Tensor, nn

from nashc.errors import NashcError, did_you_mean
from nashc.files import replacing
from nashc.nn import fix_shift_weights, load
from nashc.ops import DOMAIN, OPSET, embed_functions, register_schemas

MIN_OPSET, MAX_OPSET = 18, 23
"""ONNX opsets that torch's exporter writes itself."""


def _adder_conv(
    x: Any, weight: Any, stride: Any, pads: Any, dilation: Any, groups: int, eta: float | None = None
) -> Any:
    return _domain().AdderConv(x, weight, strides=stride, pads=pads, dilations=dilation, group=groups)


def _shift_conv(x: Any, codes: Any, scale: Any, bias: Any, stride: Any, pads: Any, dilation: Any, groups: int) -> Any:
    return _domain().ShiftConv(x, codes, scale, bias, strides=stride, pads=pads, dilations=dilation, group=groups)


def _domain() -> Opset:
    register_schemas()
    return Opset(DOMAIN, OPSET)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.nashc.adder_conv2d.default: _adder_conv,
    torch.ops.nashc.shift_conv2d.default: _shift_conv,
}
"""For torch.onnx.export(custom_translation_table=...) of a module whose shift weights are fixed."""


def export(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
    path: str | Path,
    *,
    portable: bool = False,
    opset: int | None = None,
    dynamic_batch: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Write module, in eval mode, as a checked ONNX model to path, and return it; module itself stays as it is.

    `example` holds the inputs of forward, in their order; only their shapes and types count. With dynamic_batch axis 0
    of every input and of what depends on it is "batch". portable writes the operators' functions into the file: stock
    onnxruntime runs it, and native kernels still win where they are registered. Nodes are named after their layers.
    Raises NashcError where the module fails on the example, torch cannot export it, or weights are not float32.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if opset is not None and not MIN_OPSET <= opset <= MAX_OPSET:
        raise NashcError(f"opset={opset}", where="export", hint=f"give {MIN_OPSET} to {MAX_OPSET}")
    _check_types(module)
    fixed = fix_shift_weights(module).eval().cpu()
    inputs = tuple(x.cpu() for x in inputs)
    with torch.no_grad():
        _try(fixed, inputs)
        inputs = tuple(map(_at_least_two, inputs)) if dynamic_batch else inputs
        model = _translate(fixed, inputs, opset, dynamic_batch, input_names, output_names)
    _tidy(model, fixed)
    if portable:
        model = embed_functions(model)
    _check(model)
    with replacing(path) as written:
        onnx.save(model, written)
    return model


def export_factory(
    factory: str,
    shapes: Mapping[str, Sequence[int]],
    path: str | Path,
    *,
    weights: str | Path | None = None,
    portable: bool = False,
    opset: int | None = None,
    dynamic_batch: bool = True,
) -> str:
    """Export what a factory makes: "package.module:name" or "file.py:name", a callable that returns an nn.Module.

    Imports and calls that code. `shapes` are the inputs of forward by name, in their order; `weights` a safetensors
    file for nashc.nn.load. Returns a line about what was written.
    """
    module = _made_by(factory)
    if weights is not None:
        load(module, weights)
    examples = tuple(torch.zeros(*shape) for shape in shapes.values())
    model = export(
        module, examples, path,
        portable=portable, opset=opset, dynamic_batch=dynamic_batch, input_names=list(shapes),
    )  # fmt: skip
    counts = Counter(node.op_type for node in model.graph.node if node.op_type.endswith("Conv"))
    layers = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "no convolution"
    return f"wrote {path}: {layers}; {Path(path).stat().st_size / 1e6:.1f} MB"


def _at_least_two(x: Tensor) -> Tensor:
    """A batch of one becomes two: torch.export would take the 1 for a constant."""
    return torch.cat((x, x)) if x.dim() and x.shape[0] == 1 else x


def _check_types(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise NashcError(f"'{name}' is {tensor.dtype}", where="export", hint="convert the module with .float()")


def _try(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    try:
        module(*inputs)
    except Exception as error:
        shapes = ", ".join(str(list(x.shape)) for x in inputs)
        raise NashcError(
            f"the module fails on an input of shape {shapes}: {_reason(error)}",
            where="export",
            hint="give the inputs of its forward, in their order",
        ) from error


def _translate(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    opset: int | None,
    dynamic_batch: bool,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=tuple({0: "batch"} for _ in inputs) if dynamic_batch else None,
                custom_translation_table=TRANSLATIONS,
            )
    except Exception as error:
        hint = "a module that fixes its batch needs dynamic_batch=False (--fixed-batch)" if dynamic_batch else ""
        raise NashcError(f"torch cannot export the module: {_reason(error)}", where="export", hint=hint) from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks about packages that are not installed, its own deprecations, and graphs that failed."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # inputs share their batch
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at first."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _tidy(model: onnx.ModelProto, module: nn.Module) -> None:
    """Name the nodes after their layers and drop what torch notes about its sources, file paths among it."""
    leaves = {name for name, layer in module.named_modules() if name and not any(layer.children())}
    used: set[str] = set()
    for node in model.graph.node:
        name = _name(node, leaves)
        if name in used:
            name = f"{name}_{node.op_type.lower()}"
        while name in used:
            name += "_"
        used.add(name)
        node.name = name
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _name(node: onnx.NodeProto, leaves: set[str]) -> str:
    """The layer whose weights the node has or, of others, the layer that called it, with the call inside a block."""
    owner = node.input[1].rpartition(".")[0] if len(node.input) > 1 else ""
    if owner in leaves and node.op_type.endswith("Conv"):  # a Conv that took in a BN has the notes of the BN
        return owner
    notes = {entry.key: entry.value for entry in node.metadata_props}
    *path, call = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", repr([node.name])))
    layer = path[-1] if path else ""
    return layer if layer in leaves else ".".join(filter(None, (layer, call)))


def _check(model: onnx.ModelProto) -> None:
    register_schemas()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise NashcError(f"the exported model is not valid: {_reason(error)}", where="export") from error


def _made_by(factory: str) -> nn.Module:
    source, _, name = factory.rpartition(":")
    if not source or not name:
        raise NashcError(f"'{factory}' names no factory", where="export", hint="write package.module:factory")
    code = _imported(source)
    make = getattr(code, name, None)
    if make is None:
        known = [n for n, value in vars(code).items() if callable(value) and not n.startswith("_")]
        raise NashcError(f"'{source}' has no '{name}'", where="export", hint=did_you_mean(name, known))
    try:
        module = make()
    except Exception as error:
        raise NashcError(f"{factory}() failed: {_reason(error)}", where="export") from error
    if not isinstance(module, nn.Module):
        raise NashcError(
            f"{factory}() returned {type(module).__name__}", where="export", hint="return a torch.nn.Module"
        )
    return module


def _imported(source: str) -> ModuleType:
    """The code of "package.module" (the working directory is searched first) or of "file.py"."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        if not source.endswith(".py"):
            return import_module(source)
        spec = spec_from_file_location(f"exported_{Path(source).stem}", source)
        assert spec is not None
        assert spec.loader is not None
        code = sys.modules[spec.name] = module_from_spec(spec)
        spec.loader.exec_module(code)
    except Exception as error:
        raise NashcError(f"importing '{source}' failed: {_reason(error)}", where="export") from error
    else:
        return code
    finally:
        sys.path.remove(here)
