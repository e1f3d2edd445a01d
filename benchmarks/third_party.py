"""Models of torchvision and timm through the importer, each beside what torch and onnxruntime say of it.

python benchmarks/third_party.py FOLDER [--models NAME,...]

FOLDER keeps the exported models, of random weights and statistics: what is there is not exported again. Columns: layers
by unit, the operators of host nodes, GMACs of the layers with weights as imported and as torch counts them while its
model runs, the largest difference between the results of the file in onnxruntime and those of the simplified model and
of the session with native kernels, as a share of the largest result, and CPU seconds of the import. The last line names
the models that are refused, or whose counts or results differ. Needs torchvision and timm, as no other file here does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import timm
import torch
import torchvision
from machine import heading
from torch.utils.flop_counter import FlopCounterMode

from nashc.core.network import COMPUTE_UNITS, Unit
from nashc.errors import NashcError
from nashc.importer import import_model
from nashc.runtime.session import Session

TORCHVISION = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 mnasnet1_0
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
shufflenet_v2_x1_0 squeezenet1_1 vgg11_bn wide_resnet50_2""".split()
SEGMENTATION = "deeplabv3_mobilenet_v3_large fcn_resnet50 lraspp_mobilenet_v3_large".split()
TIMM = """
bat_resnext26ts botnet26t_256 convmixer_768_32 convnext_atto convnextv2_atto cspdarknet53 cspresnet50 darknet53 dla34
dla46x_c dpn48b eca_nfnet_l0 ecaresnet26t edgenext_xx_small efficientformer_l1 efficientnet_es efficientvit_b0
ese_vovnet19b_dw fasternet_t0 fastvit_t8 fbnetc_100 fbnetv3_b focalnet_tiny_srf gcresnext26ts gernet_s ghostnet_100
ghostnetv2_100 ghostnetv3_100 hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small inception_next_atto
inception_resnet_v2 inception_v4 lambda_resnet26t lcnet_050 legacy_senet154 legacy_seresnet18 mambaout_femto mixnet_s
mobilenet_edgetpu_100 mobilenet_edgetpu_v2_xs mobilenetv4_conv_medium mobilenetv4_conv_small mobilenetv4_hybrid_medium
mobileone_s0 mobilevit_xxs nasnetalarge nf_regnet_b0 nfnet_l0 pnasnet5large poolformer_s12 poolformerv2_s12 rdnet_tiny
regnetz_b16 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resnet18d resnet26t resnetaa50 resnetv2_50
resnest14d rexnet_100 selecsls42b semnasnet_075 seresnet18 shvit_s1 skresnet18 spnasnet_100 starnet_s1 swiftformer_xs
tf_efficientnet_lite0 tf_mixnet_s tf_mobilenetv3_small_minimal_100 tinynet_e tresnet_m vovnet39a xception41 xception71
""".split()
SAME = 1e-4
"""Of results, as a share of the largest: far above float32 rounding, far below an error."""
WEIGHTED = ("aten.convolution", "aten._convolution", "aten.addmm", "aten.mm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="")
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    print(heading(), "\n")
    print("| model | conv | vector | host | host nodes | GMACs | torch | largest difference | import s |")
    print("|---|---|---|---|---|---|---|---|---|")
    faults = []
    for name in args.models.split(",") if args.models else (*TORCHVISION, *SEGMENTATION, *TIMM):
        path = args.folder / f"{name}.onnx"
        try:
            if not path.with_suffix(".json").exists():
                export(name, path)
            line, same = row(name, path)
        except NashcError as error:
            line, same = f"| {name} | {error} |", False
        print(line, flush=True)
        if not same:
            faults.append(name)
    print(f"\nNot the same: {', '.join(faults)}." if faults else "\nAll the same.")


def export(name: str, path: Path) -> None:
    """A model of that name with torch's count of its multiplications beside it."""
    torch.manual_seed(0)
    if name in TIMM:
        model = timm.create_model(name, pretrained=False, exportable=True).eval()
        side = model.default_cfg["input_size"][-1]
    elif name in SEGMENTATION:
        whole = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None).eval()
        model, side = torch.nn.Sequential(whole), 224
        model.forward = lambda x: whole(x)["out"]
    else:
        more = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model, side = getattr(torchvision.models, name)(weights=None, **more).eval(), 224
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that folding has to get right
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.weight is not None:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    x = torch.randn(1, 3, side, side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    counts = counter.get_flop_counts()["Global"]
    torch.onnx.export(model, x, path, dynamo=False, opset_version=17, input_names=["x"])
    macs = sum(count // 2 for op, count in counts.items() if str(op) in WEIGHTED)
    path.with_suffix(".json").write_text(json.dumps({"macs": macs}))


def row(name: str, path: Path) -> tuple[str, bool]:
    """The model's line of the table, and whether counts and results are the same. Raises NashcError."""
    begin = time.process_time()
    imported = import_model(path)
    network = imported.network
    seconds = time.process_time() - begin
    units = Counter(layer.unit for layer in network.layers)
    weighted = sum(units[unit] for unit in COMPUTE_UNITS)
    hosts = ", ".join(sorted({layer.op for layer in network.layers if layer.unit is Unit.HOST})) or "-"
    macs = sum(layer.macs for layer in network.layers if layer.unit in COMPUTE_UNITS)
    torch_macs = json.loads(path.with_suffix(".json").read_text())["macs"]
    differs = difference(path, ir.to_proto(imported.model).SerializeToString())
    line = (
        f"| {name} | {weighted} | {units[Unit.VECTOR]} | {units[Unit.HOST]} | {hosts} | {macs / 1e9:.4f} | "
        f"{torch_macs / 1e9:.4f} | {differs:.1e} | {seconds:.1f} |"
    )
    return line, macs == torch_macs and differs <= SAME


def difference(path: Path, simplified: bytes) -> float:
    """How far the simplified model and the native session are from the file in onnxruntime, on one random image."""
    shape = [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    feed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    expected = plain(path, feed)
    found = [plain(simplified, feed), list(Session(path, native=True).run(feed).values())]
    return max(
        float(np.abs(want - made.reshape(want.shape)).max() / np.abs(want).max())
        for results in found
        for want, made in zip(expected, results, strict=True)
    )


def plain(model: Path | bytes, feed: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
    """The results of stock onnxruntime."""
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, feed)


if __name__ == "__main__":
    main()
