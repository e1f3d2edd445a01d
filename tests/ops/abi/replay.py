"""Runs the models of make_models.py with the native library; needs NumPy and an onnxruntime of any version.

usage: replay.py LIBRARY FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(library: str, folder: Path) -> None:
    paths = sorted(folder.glob("*.onnx"))
    assert paths, folder
    for path in paths:
        with np.load(path.with_suffix(".npz")) as case:
            inputs = {name[3:]: case[name] for name in case.files if name.startswith("in_")}
            expected = case["out"]
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.register_custom_ops_library(library)
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            found = session.run(None, inputs)[0]
            assert found.dtype == expected.dtype, path.name
            close = 1e-4 if found.dtype == np.float32 else 1 if found.dtype.itemsize == 1 else 0  # one step of 8 bits
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=close, err_msg=path.name)
    print(f"onnxruntime {onnxruntime.__version__}: {len(paths)} models run as the NumPy reference")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
