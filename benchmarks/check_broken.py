"""`nashc check` as the last step of a pipeline: passes on a good hybrid, fails on three broken ones at the right gate.

    python benchmarks/check_broken.py OUT

The model of examples/ becomes a hybrid, calibrated on 256 of 5,000 digits and gated on the rest: on its accuracy, on
its drop against the original and on its speed. Broken are: the weights of one layer (negated), the board (a smaller
one), and the preprocessing (pixels that are not scaled). Exits with 1 where a verdict is not the expected one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from machine import heading
from onnx import numpy_helper

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples" / "models" / "mnist-conv.onnx"
BOARD, SLOW = "fpga-zc706", "fpga-pynq-z2"
SCALED = ("--channels", "gray", "--scale", repr(1 / 255))
CASES = (
    ("good", "hybrid.onnx", BOARD, (), 0, set()),
    ("wrong weights", "broken.onnx", BOARD, (), 1, {"min-accuracy", "max-drop"}),
    ("slow board", "hybrid.onnx", SLOW, (), 1, {"min-fps"}),
    ("wrong preprocessing", "hybrid.onnx", BOARD, ("--scale", "1"), 1, {"min-accuracy", "max-drop"}),
)


def nashc(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nashc", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def damage(source: Path, target: Path) -> None:
    """The signs of the largest stored 8-bit tensor turned round."""
    model = onnx.load(source)
    tensor = max(
        (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8), key=lambda t: len(t.raw_data)
    )
    values = np.maximum(numpy_helper.to_array(tensor), -127)
    tensor.CopyFrom(numpy_helper.from_array(-values, tensor.name))
    onnx.save(model, target)


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, ROOT / "examples" / "fetch_digits.py", out], check=True, stdout=subprocess.DEVNULL)
    digits = np.load(out / "digits.npz")
    x, y = (digits[name] for name in ("x", "y"))
    order = np.random.default_rng(0).permutation(len(x))
    np.save(out / "calib.npy", x[order[:256]])
    np.savez(out / "val.npz", x=x[order[256:]], y=y[order[256:]])
    done = nashc("hybridize", MODEL, "--target", BOARD, "--calib", out / "calib.npy", "--data", out / "val.npz",
                 *SCALED, "--budget", "10s", "-o", out / "hybrid.onnx")  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    damage(out / "hybrid.onnx", out / "broken.onnx")
    print(f"{heading()}\n\n| case | exit code | gates that failed | as expected |\n|---|---|---|---|")
    right = True
    for name, model, board, flags, code, gates in CASES:
        ran = nashc("check", out / model, "--against", MODEL, "--data", out / "val.npz", "--channels", "gray",
                    *(flags or SCALED[2:]), "--target", board, "--budget", "10s", "--min-accuracy", "99%",
                    "--max-drop", "0.5%", "--min-fps", "300000", "--json")  # fmt: skip
        found = json.loads(ran.stdout) if ran.stdout else {"gates": []}
        failed = {gate["name"] for gate in found["gates"] if not gate["passed"]}
        good = ran.returncode == code and failed == gates
        right &= good
        print(f"| {name} | {ran.returncode} | {', '.join(sorted(failed))} | {'yes' if good else 'NO'} |", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
