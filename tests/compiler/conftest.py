"""The hand-written design is shared with the tests of design.json."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "artifact"))
