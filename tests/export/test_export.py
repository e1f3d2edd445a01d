"""Exported files: the numbers of torch in onnx's evaluator and in stock onnxruntime, their form, and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import DOMAIN, decode_shift, reference_ops, register_schemas
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from resnet20 import MIXES, resnet20, settle
from torch import Tensor, nn

from nashc.cli import run
from nashc.core.network import COMPUTE_UNITS
from nashc.errors import NashcError
from nashc.export import export
from nashc.importer import import_model
from nashc.nn import AdderConv2d, ShiftConv2d, save

Array = NDArray[Any]
EPS = np.finfo(np.float32).eps


def evaluated(model: onnx.ModelProto, *inputs: Tensor) -> Array:
    """By the NumPy references of onnx and of our operators."""
    feeds = {value.name: x.numpy() for value, x in zip(model.graph.input, inputs, strict=True)}
    found = ReferenceEvaluator(model, new_ops=reference_ops()).run(None, feeds)
    return np.asarray(found[0])


def stock(path: Path, *inputs: Tensor) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
    return np.asarray(session.run(None, feeds)[0])


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """One shift or adder layer of any geometry and form, and an input for it."""
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 3))
    channels, filters = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation = (draw(st.tuples(*[st.integers(1, 3)] * 2)) for _ in range(2))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 2))
    padding = draw(st.sampled_from(["same", "valid"]) if stride == (1, 1) else st.tuples(*[st.integers(0, 2)] * 2))
    args = (channels, filters, kernel, stride, padding, dilation, groups, draw(st.booleans()))
    size = [(k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True)]
    x = torch.randn(draw(st.integers(1, 3)), channels, *size)
    if draw(st.booleans()):
        return AdderConv2d(*args), x
    form, terms, scale = draw(st.sampled_from(["q", "ps"])), draw(st.integers(1, 3)), draw(st.booleans())
    return ShiftConv2d(*args, form=form, terms=terms, channel_scale=scale), x


@settings(deadline=None, max_examples=12)
@given(case=layers(), portable=st.booleans())
def test_any_layer_exports_exactly(case: tuple[nn.Module, Tensor], portable: bool, tmp_path_factory) -> None:
    layer, x = case
    path = tmp_path_factory.mktemp("layer") / "layer.onnx"
    model = export(layer, x, path, portable=portable)
    with torch.no_grad():
        expected = layer(x).numpy()
        terms = x[0].numel() + 8
        size = layer.weight.abs().max().item() if isinstance(layer, AdderConv2d) else 9.0
    bound = terms * EPS * terms * (size + x.abs().max().item())
    assert np.abs(evaluated(model, x) - expected).max() <= bound
    if portable:
        assert np.abs(stock(path, x) - expected).max() <= bound


@pytest.fixture(scope="module", params=MIXES)
def written(request, tmp_path_factory) -> tuple[str, nn.Module, Path]:
    """A settled ResNet-20 of each mix and its portable file."""
    torch.manual_seed(0)
    network = settle(resnet20(MIXES[request.param]), torch.randn(8, 3, 32, 32))
    path = tmp_path_factory.mktemp("resnet20") / f"{request.param}.onnx"
    export(network, torch.zeros(1, 3, 32, 32), path, portable=True, input_names=["x"], output_names=["logits"])
    return request.param, network, path


def test_resnet20_gives_the_numbers_of_torch(written: tuple[str, nn.Module, Path]) -> None:
    _, network, path = written
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(expected[0] - expected[1]).mean() > 0.05 * expected.std()  # no block is dead
    for found in (evaluated(onnx.load(path), x), stock(path, x)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_resnet20_is_read_by_the_importer(written: tuple[str, nn.Module, Path]) -> None:
    mix, _, path = written
    network = import_model(path, {"x": (1, 3, 32, 32)}).network
    units = [layer.unit.value for layer in network.layers if layer.unit in COMPUTE_UNITS]
    shortcuts, blocks = 2, 9
    assert len(units) == 1 + 2 * blocks + shortcuts + 1
    assert set(units) == {"conv", *MIXES[mix]}
    assert network.macs == pytest.approx(40.8e6, rel=0.01)


def test_form_of_the_file(written: tuple[str, nn.Module, Path]) -> None:
    mix, network, path = written
    model = onnx.load(path)
    register_schemas()
    onnx.checker.check_model(model, full_check=True)
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3, 32, 32]
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", 10]
    assert b"site-packages" not in path.read_bytes()
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    layers = dict(network.named_modules())
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    ours = [node for node in model.graph.node if node.domain == DOMAIN]
    assert {node.op_type for node in ours} == {"ShiftConv", "AdderConv"} & {f"{o.title()}Conv" for o in MIXES[mix]}
    for node in ours:
        layer = layers[node.name]
        weights = constants[node.input[1]]
        if isinstance(layer, AdderConv2d):
            np.testing.assert_array_equal(weights, layer.weight.detach().numpy())
        else:
            assert isinstance(layer, ShiftConv2d)
            assert weights.dtype == np.int8
            values = decode_shift(weights, constants[node.input[2]])
            np.testing.assert_array_equal(values, layer.rounded_weight().detach().numpy())
        follower = next(n for n in model.graph.node if node.output[0] in n.input)
        assert follower.op_type == "BatchNormalization"


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("dynamic_batch", [True, False])
def test_options(tmp_path: Path, opset: int, dynamic_batch: bool) -> None:
    module = nn.Sequential(ShiftConv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), AdderConv2d(4, 4, 3)).train()
    x = torch.randn(1, 2, 6, 6)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = export(module, [x], tmp_path / "m", opset=opset, dynamic_batch=dynamic_batch)
    assert module.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert {o.domain: o.version for o in model.opset_import} == {"": opset, DOMAIN: 1}
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_param, first.dim_value) == (("batch", 0) if dynamic_batch else ("", 1))
    with torch.no_grad():
        np.testing.assert_allclose(evaluated(model, x), module.eval()(x).numpy(), rtol=1e-5, atol=1e-4)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = AdderConv2d(2, 2, 3)

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return self.layer(image) + self.layer(other)


def test_two_inputs_and_a_layer_that_is_used_twice(tmp_path: Path) -> None:
    module, inputs = TwoInputs(), (torch.randn(2, 2, 5, 5), torch.randn(2, 2, 5, 5))
    model = export(module, inputs, tmp_path / "m", portable=True)
    assert [value.name for value in model.graph.input] == ["image", "other"]
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    with torch.no_grad():
        np.testing.assert_allclose(stock(tmp_path / "m", *inputs), module(*inputs).numpy(), rtol=1e-5, atol=1e-4)


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("module", "kwargs", "text"),
    [
        (AdderConv2d(3, 2, 3), {}, "on an input of shape [1, 2, 6, 6]: NashcError: adder_conv2d: x has 2 channels"),
        (ShiftConv2d(2, 2, 3).double(), {}, "export: 'weight' is torch.float64; convert the module with .float()"),
        (DataDependent(), {}, "export: torch cannot export the module: "),
        (AdderConv2d(2, 2, 3), {"opset": 17}, "export: opset=17; give 18 to 23"),
    ],
)  # fmt: skip
def test_refusals_leave_the_earlier_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], module: nn.Module, kwargs: dict[str, Any], text: str
) -> None:
    (tmp_path / "m").write_text("earlier")
    x = torch.ones(1, 2, 6, 6)
    with pytest.raises(NashcError) as refusal:
        export(module, x, tmp_path / "m", **kwargs)
    assert text in str(refusal.value)
    assert (tmp_path / "m").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["m"]
    assert capfd.readouterr() == ("", "")


# nashc export

SCRIPT = str(Path(__file__).parents[2] / "examples/resnet20.py")
FACTORY = f"{SCRIPT}:resnet20"
OPTIONS = ("--shape", "x=1,3,32,32")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    network = settle(resnet20(), torch.randn(4, 3, 32, 32))
    save(network, tmp_path / "w.safetensors")
    out = tmp_path / "m.onnx"
    command = ["export", FACTORY, *OPTIONS, "--weights", str(tmp_path / "w.safetensors"), "-o", str(out), "--portable"]
    assert run(command) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"wrote {out}: 6 AdderConv, 9 Conv, 6 ShiftConv; ")
    assert not captured.err
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(stock(out, x), network(x).numpy(), rtol=1e-3, atol=1e-4)


def test_command_finds_modules_in_the_working_directory(tmp_path: Path, monkeypatch, capsys) -> None:
    source = "from nashc.nn import AdderConv2d\ndef make(): return AdderConv2d(2, 2, 3)\n"
    (tmp_path / "my_layers.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert run(["export", "my_layers:make", "--shape", "x=1,2,8,8", "-o", "m.onnx", "--fixed-batch"]) == 0
    assert "1 AdderConv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((f"{SCRIPT}:resnet21", *OPTIONS), "has no 'resnet21'; did you mean 'resnet20'?"),
        (("no.such:thing", *OPTIONS), "importing 'no.such' failed: ModuleNotFoundError: No module named 'no'"),
        (("resnet20", *OPTIONS), "'resnet20' names no factory; write package.module:factory"),
        ((f"{SCRIPT}:Block", *OPTIONS), "Block() failed: TypeError: "),
        ((f"{SCRIPT}:Path", *OPTIONS), "Path() returned PosixPath; return a torch.nn.Module"),
        ((FACTORY, "--shape", "x=1,4,32,32"), "the module fails on an input of shape [1, 4, 32, 32]"),
        ((FACTORY, *OPTIONS, "--weights", SCRIPT), "no safetensors file"),
        ((FACTORY, *OPTIONS, "--weights", "none.safetensors"), "none.safetensors: there is no such file"),
        ((FACTORY,), "Missing option '--shape'"),
    ],
)  # fmt: skip
def test_bad_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple, text: str) -> None:
    assert run(["export", *args, "-o", str(tmp_path / "m.onnx")]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert not os.listdir(tmp_path)


def test_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; from nashc.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "export", FACTORY, *OPTIONS, "-o", "m.onnx"]
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr == "error: torch is not installed; run pip install 'nashc[search]'\n"
