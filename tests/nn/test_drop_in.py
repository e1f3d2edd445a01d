"""Both layers in the place of nn.Conv2d: arguments, shapes, refusals, torch.compile, torch.export."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from nashc.errors import NashcError
from nashc.nn import AdderConv2d, ShiftConv2d, fix_shift_weights

LAYERS = (ShiftConv2d, AdderConv2d)
ARGUMENTS: list[tuple[tuple, dict[str, Any]]] = [
    ((4, 8, 3), {}),
    ((4, 8, (3, 2), (2, 1), (1, 0), (1, 2), 2), {}),
    ((4, 4, 3, 2, 1), {"groups": 4}),
    ((4, 8, (4, 3)), {"padding": "same", "dilation": 2}),
    ((4, 8, 1), {"padding": "valid", "bias": True}),
    ((4, 8, 3), {"bias": False, "padding_mode": "zeros", "dtype": torch.float64, "device": "cpu"}),
]


@pytest.mark.parametrize("kind", LAYERS)
def test_signature_begins_like_that_of_conv2d(kind: type[nn.Module]) -> None:
    conv = inspect.signature(nn.Conv2d).parameters
    ours = list(inspect.signature(kind).parameters.values())
    assert [p.name for p in ours[: len(conv)]] == list(conv)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(conv) :])
    same = [p.name for p in ours[: len(conv)] if p.default == conv[p.name].default]
    assert same == [n for n in conv if n != "bias" or kind is ShiftConv2d]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_shapes_and_types_are_those_of_conv2d(kind: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    layer, conv = kind(*args, **kwargs), nn.Conv2d(*args, **kwargs)
    assert layer.weight.shape == conv.weight.shape
    assert layer.weight.dtype == conv.weight.dtype
    x = torch.randn(2, 4, 9, 8, dtype=kwargs.get("dtype"))
    assert layer(x).shape == conv(x).shape
    assert layer(x).dtype == conv(x).dtype
    assert layer(x[0]).shape == conv(x[0]).shape
    names = "in_channels out_channels kernel_size stride padding dilation groups padding_mode".split()
    assert all(getattr(layer, name) == getattr(conv, name) for name in names)
    assert str(layer).startswith(
        str(conv).replace("Conv2d", kind.__name__).removesuffix(")").removesuffix(", bias=False")
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"padding_mode": "reflect"}, "padding_mode='reflect'; only 'zeros' exists; pad the input"),
        ({"groups": 3}, "in_channels=4, out_channels=8, groups=3; both channel counts must be positive multiples"),
        ({"stride": 0}, "stride=0; give one or two integers >= 1"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size=(3, 3, 3); give one or two integers >= 1"),
        ({"padding": "sane"}, "padding='sane'; give 'same', 'valid' or one or two integers"),
        ({"padding": "same", "stride": 2}, "padding='same' with stride=(2, 2); give the padding as integers"),
    ],
)
def test_bad_arguments(kind: Any, kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(NashcError) as refusal:
        kind(**{"in_channels": 4, "out_channels": 8, "kernel_size": 3} | kwargs)
    assert str(refusal.value).startswith(kind.__name__)
    assert text in str(refusal.value)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        ShiftConv2d(3, 8, 3, padding="same", terms=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        ShiftConv2d(8, 8, 3, groups=8, form="ps", channel_scale=True),
        AdderConv2d(8, 6, (3, 2), stride=2, padding=1, groups=2),
        nn.BatchNorm2d(6),
    )


def test_layers_move_between_types_and_layouts() -> None:
    for module in (network(), fix_shift_weights(network())):
        moved = copy.deepcopy(module).double().to(memory_format=torch.channels_last).requires_grad_().eval()
        moved.to("meta")
        assert {t.device.type for t in moved.state_dict().values()} == {"meta"}
        moved = copy.deepcopy(module).to(memory_format=torch.channels_last).double().eval()
        x = torch.randn(2, 3, 9, 10)
        torch.testing.assert_close(moved(x.double()).float(), module.eval()(x), rtol=1e-4, atol=1e-4)
        shapes = [tuple(t.shape) for t in module.state_dict().values()]
        assert [tuple(t.shape) for t in moved.state_dict().values()] == shapes
        assert all(p.is_leaf and p.requires_grad for p in moved.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_network_trains_alike(layout: torch.memory_format) -> None:
    plain = network().to(memory_format=layout)
    compiled = torch.compile(copy.deepcopy(plain), fullgraph=True, dynamic=True, backend="aot_eager")
    x = torch.randn(4, 3, 9, 10)
    for _ in range(2):
        found, expected = compiled(x), plain(x)
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        for (name, p), q in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            assert p.grad is not None, name
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-3)
        x = torch.randn(3, 3, 11, 9)


@pytest.mark.parametrize("fixed", [False, True])
def test_torch_export_with_a_dynamic_batch(fixed: bool) -> None:
    module = network().eval()
    module = fix_shift_weights(module) if fixed else module
    x = torch.randn(2, 3, 9, 10)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    calls = {str(node.target) for node in program.graph.nodes}
    assert "nashc.adder_conv2d.default" in calls
    assert ("nashc.shift_conv2d.default" in calls) is fixed
    x = torch.randn(5, 3, 9, 10)
    torch.testing.assert_close(program.module()(x), module(x))
