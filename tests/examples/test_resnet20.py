"""The ResNet-20 script of examples/ as the README runs it; tests/export looks into its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

SCRIPT = Path(__file__).parents[2] / "examples/resnet20.py"


def test_script_writes_a_portable_model_and_its_weights(tmp_path: Path) -> None:
    out, weights = tmp_path / "new" / "hybrid.onnx", tmp_path / "new" / "hybrid.safetensors"
    command = [sys.executable, SCRIPT, out, "--portable", "--weights", weights, "--seed", "3"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    assert printed.stdout.startswith(f"wrote {out}: ResNet-20 (hybrid), 0.8 MB")
    assert not printed.stderr
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name, weights.name]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(out, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    y = session.run(None, {"x": x})[0]
    assert y.shape == (5, 10)
    assert np.ptp(y, axis=0).min() > 0.01  # images differ in every logit
