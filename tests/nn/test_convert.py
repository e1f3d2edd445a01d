"""convert() swaps what the plan says and nothing else, or says why not."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from nashc.errors import NashcError
from nashc.nas.architecture import sample
from nashc.nas.build import build
from nashc.nas.space import load_space
from nashc.nn import Adder, AdderConv2d, Conv, Shift, ShiftConv2d, convert, fix_shift_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.ModuleDict(
            {
                "expand": nn.Conv2d(8, 16, 1, bias=False),
                "depthwise": nn.Conv2d(16, 16, 3, 2, 1, groups=16),
                "bn": nn.BatchNorm2d(16),
            }
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block["bn"](self.block["depthwise"](self.block["expand"](self.stem(x))))
        return self.head(y.mean((2, 3)))


def kinds(module: nn.Module) -> list[str]:
    layers = [module.stem, module.block["expand"], module.block["depthwise"]]
    return [type(layer).__name__ for layer in layers]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({}, ["Conv2d", "Conv2d", "Conv2d"]),
        ({"*": "shift"}, ["ShiftConv2d", "ShiftConv2d", "ShiftConv2d"]),
        ({"*": "shift", "stem": "conv"}, ["Conv2d", "ShiftConv2d", "ShiftConv2d"]),
        ({"stem": "conv", "*": "shift"}, ["ShiftConv2d", "ShiftConv2d", "ShiftConv2d"]),
        ({"block.*": Adder(eta=None), "block.d*": Shift(form="ps", terms=2)}, ["Conv2d", "AdderConv2d", "ShiftConv2d"]),
        ({"block.[!d]*": "adder"}, ["Conv2d", "AdderConv2d", "Conv2d"]),
    ],
)
def test_plans(plan: dict[str, Any], expected: list[str]) -> None:
    net = Net()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = convert(net, plan)
    assert kinds(made) == expected
    assert kinds(net) == ["Conv2d"] * 3
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert made(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert not {p.data_ptr() for p in made.parameters()} & {p.data_ptr() for p in net.parameters()}


def test_options_geometry_and_weights_carry_over() -> None:
    net = Net().double().eval()
    net.stem.requires_grad_(False)
    made = convert(net, {"stem": Shift(terms=3, channel_scale=True), "block.depthwise": Adder(eta=0.1)})
    stem, depthwise = made.stem, made.block["depthwise"]
    assert isinstance(stem, ShiftConv2d)
    assert isinstance(depthwise, AdderConv2d)
    assert (depthwise.groups, depthwise.stride, depthwise.padding, depthwise.eta) == (16, (2, 2), (1, 1), 0.1)
    assert depthwise.weight.dtype == torch.float64
    assert not depthwise.bias.any()
    assert not any(layer.training for layer in made.modules())
    assert not any(p.requires_grad for p in stem.parameters())
    assert torch.equal(stem.bias, net.stem.bias)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = net.stem(x)
    assert (stem(x) - expected).norm() < 0.01 * expected.norm()


def test_the_module_itself_may_be_the_layer() -> None:
    assert isinstance(convert(nn.Conv2d(2, 2, 1), {"": "adder"}), AdderConv2d)
    assert isinstance(convert(nn.Conv2d(2, 2, 1), {"*": "shift"}), ShiftConv2d)


def test_a_layer_of_two_names_is_swapped_once() -> None:
    conv = nn.Conv2d(2, 2, 1)
    made = convert(nn.Sequential(conv, nn.ReLU(), conv), {"*": "shift"})
    assert isinstance(made[0], ShiftConv2d)
    assert made[0] is made[2]
    with pytest.raises(NashcError, match="0: the layer is also '2'; give both names the same operator"):
        convert(nn.Sequential(conv, nn.ReLU(), conv), {"0": "shift"})


def test_fixed_weights() -> None:
    made = convert(Net(), {"*": "shift"}).eval()
    fixed = fix_shift_weights(made)
    assert kinds(fixed) == ["FixedShiftConv2d"] * 3
    assert kinds(made) == ["ShiftConv2d"] * 3
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fixed(x), made(x))


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    net[1].weight = net[0].weight
    return net


def hooked() -> nn.Module:
    net = Net()
    net.stem.register_forward_hook(lambda layer, inputs, output: None)
    return net


def scaled() -> nn.Module:
    net = Net()
    with torch.no_grad():
        net.stem.weight.fill_(5)
    return net


@pytest.mark.parametrize(
    ("net", "plan", "text"),
    [
        (Net(), {"stern": "shift"}, "convert: no nn.Conv2d is named 'stern'; did you mean 'stem'?"),
        (Net(), {"blocks.*": "shift"}, "no nn.Conv2d is named 'blocks.*'; "),
        (Net(), {"stem": "shit"}, "convert, 'stem': unknown operator 'shit'; did you mean 'shift'?"),
        (Net(), {"head": "shift"}, "convert: 'head' is Linear: no nn.Conv2d; only nn.Conv2d can be swapped"),
        (Net(), {"block": "shift"}, "'block' is ModuleDict: no nn.Conv2d; its layers are 'block.*'"),
        (convert(Net(), {"stem": "adder"}), {"stem": "shift"}, "'stem' is AdderConv2d: swapped already"),
        (nn.Sequential(nn.LazyConv2d(2, 1)), {"0": "shift"}, "'0' is LazyConv2d: a kind of its own"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding_mode="reflect")), {"0": "adder"}, "0 (AdderConv2d): padding_mode="),
        (tied(), {"0": "shift"}, "0: the weights are shared with '1'; leave both as they are"),
        (hooked(), {"stem": "shift"}, "stem: the layer has hooks, which a swap would lose"),
        (scaled(), {"stem": "shift"}, "stem: a weight of magnitude 5 is beyond 1 power(s) of two up to 1; use channel"),
    ],
)  # fmt: skip
def test_refusals(net: nn.Module, plan: dict[str, Any], text: str) -> None:
    with pytest.raises(NashcError) as refusal:
        convert(net, plan)
    assert text in str(refusal.value)


def test_conv_leaves_the_layer() -> None:
    assert kinds(convert(Net(), {"*": Conv()})) == ["Conv2d"] * 3


def test_what_trains_goes_on_to_train_and_nothing_else() -> None:
    for frozen in ("weight", "bias"):
        conv = nn.Conv2d(3, 4, 1)
        getattr(conv, frozen).requires_grad_(False)
        made = convert(nn.Sequential(conv), {"0": "shift"})[0]
        assert {n: p.requires_grad for n, p in made.named_parameters()} == {
            n: (n == "bias") != (frozen == "bias") for n, _ in made.named_parameters()
        }


def test_weights_that_any_other_layer_shares_are_refused() -> None:
    class Other(nn.Conv2d):
        pass

    one, other = nn.Conv2d(3, 3, 1), Other(3, 3, 1)
    other.bias = one.bias
    with pytest.raises(NashcError, match="the weights are shared with '1'"):
        convert(nn.Sequential(one, other), {"0": "shift"})


def test_networks_of_a_space_convert_too() -> None:
    space = load_space("resnet-cifar")
    built = build(sample(space, Random(0)), space)
    assert isinstance(convert(built, {"stem.conv": "shift"}).stem.conv, ShiftConv2d)
