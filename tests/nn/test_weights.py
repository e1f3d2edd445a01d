"""Checkpoints: what save() wrote, load() reads back; anything else is refused with its reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nashc.errors import NashcError
from nashc.nn import AdderConv2d, ShiftConv2d, fix_shift_weights, load, save


def network() -> nn.Module:
    return nn.Sequential(
        ShiftConv2d(3, 4, 3, form="ps", channel_scale=True), nn.BatchNorm2d(4), AdderConv2d(4, 4, 1), nn.BatchNorm2d(4)
    )


def same(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip(tmp_path: Path) -> None:
    for made, other in ((network(), network()), (fix_shift_weights(network()), fix_shift_weights(network()))):
        save(made, tmp_path / "w.safetensors")
        assert not same(made, other)
        assert load(other, tmp_path / "w.safetensors") is other
        assert same(made, other)
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = net[0].weight
        return net

    made, other = tied(), tied()
    save(made, tmp_path / "w")
    assert "1.weight" not in load_file(tmp_path / "w")
    load(other, tmp_path / "w")
    assert same(made, other)
    assert other[0].weight is other[1].weight


def test_what_does_not_fit_is_named_and_nothing_changes(tmp_path: Path) -> None:
    state = dict(network().state_dict())
    state["0.sing"] = state.pop("0.sign")
    state["2.weight"] = state["2.weight"][:2].contiguous()
    state["1.bias"] = state["1.bias"].double()
    save_file(state, tmp_path / "w")
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(NashcError) as refusal:
        load(net, tmp_path / "w")
    text = str(refusal.value)
    assert text.startswith(f"{tmp_path / 'w'}: the weights do not fit the module: '0.sign' is missing; ")
    assert "'0.sing' is not in the module (did you mean '0.sign'?)" in text
    assert "'2.weight' is float32[2, 4, 1, 1], the module has float32[4, 4, 1, 1]" in text
    assert "'1.bias' is float64[4], the module has float32[4]" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(NashcError, match=r"no safetensors file: .*; write it with nashc\.nn\.save"):
        load(network(), tmp_path / "w")


def test_a_failed_save_leaves_the_earlier_file(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "text"

    save(nn.Linear(2, 2), tmp_path / "w")
    before = (tmp_path / "w").read_bytes()
    with pytest.raises(NashcError, match="'_extra_state' is str, not a tensor"):
        save(Odd(2, 2), tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == before
    with pytest.raises(NashcError, match="there is no such folder"):
        save(nn.Linear(2, 2), tmp_path / "none" / "w")


def test_tensors_on_one_memory(tmp_path: Path) -> None:
    def network() -> nn.Module:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = nn.Parameter(net[0].weight.data)
        net.register_buffer("whole", torch.arange(6.0))
        net.register_buffer("part", net.whole[2:4])
        return net

    made, other = network(), network()
    save(made, tmp_path / "w")
    load(other, tmp_path / "w")
    assert same(made, other)
