"""Strided 1x1 layers of few channels, where torch 2.13's own gradient in channels_last writes beyond its memory."""

import subprocess
import sys

SCRIPT = """
import torch
from torch import nn
from nashc.nn import AdderConv2d, ShiftConv2d
from nashc.nn.onnx_layers import conv
from nashc.nn.window import SoundConv2d

class OnnxConv(SoundConv2d):
    def forward(self, x):
        return conv(x, self.weight, strides=[2, 2])

class Sliced(SoundConv2d):  # as a supernet runs it: the weight is a part of a larger one
    def __init__(self, channels, outputs, *rest, **named):
        super().__init__(channels, outputs, *rest, **named)
        self.whole = nn.Parameter(torch.randn(32, 32, 1, 1))
    def forward(self, x):
        return self._conv_forward(x, self.whole[: self.out_channels, : self.in_channels], None)

torch.set_num_threads(1)
for kind in (SoundConv2d, ShiftConv2d, AdderConv2d, OnnxConv, Sliced):
    print(kind.__name__, flush=True)
    for channels in (1, 2, 3, 7, 8):
        for outputs in (4, 12):
            for side in (1, 8, 9):
                torch.manual_seed(0)
                layer = kind(channels, outputs, 1, 2, bias=False)
                x = torch.randn(8, channels, side, side)
                found = []
                for layout in (torch.contiguous_format, torch.channels_last):
                    layer.to(memory_format=layout).zero_grad()
                    own = x.clone().to(memory_format=layout).requires_grad_()
                    y = layer(own)
                    (y * torch.arange(y.numel()).view(y.shape).sin()).sum().backward()
                    found.append([own.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
                assert len(found[0]) == 2
                for a, b in zip(*found):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
print("right")
"""


def test_gradients_are_the_same_in_both_formats() -> None:
    """In a process of its own, which a heap that is written over would kill."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.split()[-1] == "right"
