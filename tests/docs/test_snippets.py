"""The Python of README and docs runs as it stands there, on a network, a model and images that it is given."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nashc.export import export

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_PYTHON = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if FENCE.search(p.read_text())]
OF_ANOTHER_TEST = "own-operator.md"
SIGNATURE = re.compile(r"^export\(module, example, path, ", re.MULTILINE)
"""A call with its defaults, not to be run."""


class Network(nn.Module):
    """Layers named as those of torchvision's ResNets."""

    def __init__(self):
        super().__init__()
        for i, (inputs, outputs) in enumerate(((3, 8), (8, 8), (8, 8)), 1):
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.add_module(f"layer{i}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.classifier = nn.Linear(8, 10)

    def forward(self, x):
        return self.classifier(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


@pytest.fixture
def things(tmp_path, monkeypatch):
    """The names and files that the snippets speak of; the working directory is where the files are."""
    monkeypatch.chdir(tmp_path)
    for name, side in (("model.onnx", 224), ("hybrid.onnx", 16)):
        export(Network().eval(), torch.zeros(1, 3, side, side), Path(name), input_names=["input"])
    random = np.random.default_rng(0)
    for digit in range(10):
        Path("val", str(digit)).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(Path("val", str(digit), "a.png"))
    torch.manual_seed(0)
    example = torch.zeros(1, 3, 16, 16)
    images = random.random((4, 3, 16, 16), np.float32)
    return {"module": Network().eval(), "resnet": Network().eval(), "example": example, "images": images}


@pytest.mark.parametrize("page", [p.name for p in WITH_PYTHON if p.name != OF_ANOTHER_TEST])
def test_python_of_a_page_runs(page, things):
    text = (ROOT / page if page == "README.md" else ROOT / "docs" / page).read_text()
    ran = [code for code in FENCE.findall(text) if not SIGNATURE.match(code)]
    assert ran
    for code in ran:
        exec(compile(code, page, "exec"), things)


def test_pages_with_python_are_known():
    names = {p.name for p in WITH_PYTHON}
    assert {"README.md", OF_ANOTHER_TEST} <= names
