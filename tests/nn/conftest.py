"""Random layers are those of the operators' own tests, small models those of the passes' tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("ops", "passes")]
