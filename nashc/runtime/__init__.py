"""Runs models with operators of ai.nashc: onnxruntime with the native kernels, and the NumPy reference."""

from nashc.runtime.compare import Difference, compare
from nashc.runtime.reference import run_reference
from nashc.runtime.session import Session

__all__ = ["Difference", "Session", "compare", "run_reference"]
