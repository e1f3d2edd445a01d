"""Swaps the convolutions of any module for shift and adder layers, by a plan of layer names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from nashc.errors import NashcError, did_you_mean
from nashc.nn.adder import ETA, AdderConv2d
from nashc.nn.shift import BITS, ShiftConv2d
from nashc.nn.window import SoundConv2d, Window2d


@dataclass(frozen=True, slots=True)
class Conv:
    """The layer stays as it is."""

    def layer(self, conv: nn.Conv2d) -> nn.Module:
        return conv


@dataclass(frozen=True, slots=True)
class Shift:
    """A ShiftConv2d that starts from the weights of the convolution."""

    form: str = "q"
    terms: int = 1
    bits: int = BITS
    channel_scale: bool = False

    def layer(self, conv: nn.Conv2d) -> nn.Module:
        made = ShiftConv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, conv.bias is not None, conv.padding_mode, conv.weight.device, conv.weight.dtype,
            form=self.form, terms=self.terms, bits=self.bits, channel_scale=self.channel_scale,
        )  # fmt: skip
        made.carry_over(conv.weight.detach())
        if made.bias is not None and conv.bias is not None:
            made.bias.data.copy_(conv.bias.data)
        return made


@dataclass(frozen=True, slots=True)
class Adder:
    """An AdderConv2d with new weights: those of a convolution mean nothing to it. A bias stays, and starts from 0."""

    eta: float | None = ETA

    def layer(self, conv: nn.Conv2d) -> nn.Module:
        return AdderConv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, conv.bias is not None, conv.padding_mode, conv.weight.device, conv.weight.dtype, eta=self.eta,
        )  # fmt: skip


Choice = Conv | Shift | Adder
CHOICES: dict[str, Choice] = {"conv": Conv(), "shift": Shift(), "adder": Adder()}


def convert(module: nn.Module, plan: Mapping[str, str | Choice]) -> nn.Module:
    """A copy of module whose convolutions are swapped as the plan says; the given module stays as it is.

    The plan maps layer names, as in named_modules(), or glob patterns over them to "conv", "shift", "adder" or a value
    with options: {"*": "shift", "stem": "conv", "layer3.*": Adder(eta=0.1)}. The last entry that matches a layer
    counts; layers that none matches stay. Raises NashcError for names and patterns that match no nn.Conv2d, and where
    a layer cannot be swapped.
    """
    chosen: dict[str, Choice] = {}
    layers = dict(module.named_modules(remove_duplicate=False))
    convs = {name: layer for name, layer in layers.items() if type(layer) in (nn.Conv2d, SoundConv2d)}
    for pattern, what in plan.items():
        for name in _matches(pattern, layers, convs):
            chosen[name] = _choice(what, pattern)
    swapped = {name: choice for name, choice in chosen.items() if not isinstance(choice, Conv)}
    for name in swapped:
        _check_swap(name, convs, chosen)
        _check_alone(name, module, convs[name])
    made = copy.deepcopy(module)
    return replace(made, lambda name, layer: _made(name, layer, swapped[name]) if name in swapped else layer)


def fix_shift_weights(module: nn.Module) -> nn.Module:
    """A copy of module with every ShiftConv2d on finished codes (FixedShiftConv2d), for inference and export."""
    return replace(
        copy.deepcopy(module), lambda name, layer: layer.fixed() if isinstance(layer, ShiftConv2d) else layer
    )


def replace(module: nn.Module, change: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """Put change(name, layer) in the place of every layer, in place; a layer of several names is changed once."""
    done: dict[nn.Module, nn.Module] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if layer not in done:
            done[layer] = change(name, layer)
        if done[layer] is not layer:
            if not name:
                return done[layer]
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, done[layer])
    return module


def _matches(pattern: str, layers: Mapping[str, nn.Module], convs: Mapping[str, nn.Module]) -> list[str]:
    if pattern in convs:
        return [pattern]
    if pattern in layers:
        kind = type(layers[pattern]).__name__
        why = "a kind of its own" if isinstance(layers[pattern], nn.Conv2d) else "no nn.Conv2d"
        if isinstance(layers[pattern], Window2d):
            why = "swapped already"
        hint = f"its layers are '{pattern}.*'" if any(n.startswith(f"{pattern}.") for n in convs) else ""
        raise NashcError(f"'{pattern}' is {kind}: {why}", where="convert", hint=hint or "only nn.Conv2d can be swapped")
    found = [name for name in convs if fnmatchcase(name, pattern)]
    if not found:
        raise NashcError(f"no nn.Conv2d is named '{pattern}'", where="convert", hint=did_you_mean(pattern, convs))
    return found


def _choice(what: str | Choice, pattern: str) -> Choice:
    if not isinstance(what, str):
        return what
    if what not in CHOICES:
        raise NashcError(f"unknown operator '{what}'", where=f"convert, '{pattern}'", hint=did_you_mean(what, CHOICES))
    return CHOICES[what]


def _check_swap(name: str, convs: Mapping[str, nn.Module], chosen: Mapping[str, Choice]) -> None:
    """A swap must not change more than the layer: no ties with others, nothing attached that would be lost."""
    conv = convs[name]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(conv, kind, None) for kind in hooks):
        raise NashcError("the layer has hooks, which a swap would lose", where=name, hint="attach them afterwards")
    for other, layer in convs.items():
        if layer is conv and chosen.get(other, CHOICES["conv"]) != chosen[name]:
            raise NashcError(f"the layer is also '{other}'", where=name, hint="give both names the same operator")


def _check_alone(name: str, module: nn.Module, conv: nn.Module) -> None:
    """No parameter of the layer is another layer's, too."""
    own = {id(p) for p in conv.parameters()}
    for other, layer in module.named_modules(remove_duplicate=False):
        if layer is not conv and any(id(p) in own for p in layer.parameters(recurse=False)):
            raise NashcError(f"the weights are shared with '{other}'", where=name, hint="leave both as they are")


def _made(name: str, conv: nn.Module, choice: Choice) -> nn.Module:
    assert isinstance(conv, nn.Conv2d)
    try:
        made = choice.layer(conv).train(conv.training)
    except NashcError as error:
        where = f"{name} ({error.where})" if error.where else name
        raise NashcError(error.what, where=where, hint=error.hint) from None
    for own, parameter in made.named_parameters(recurse=False):
        source = conv.bias if own == "bias" and conv.bias is not None else conv.weight
        parameter.requires_grad_(source.requires_grad)
    return made
