"""Whether a model is as good and as fast as it has to be: gates on accuracy and on the design for a board."""

from nashc.check.gates import GATES, Gate
from nashc.check.request import Request, Share, read_request, requested
from nashc.check.verdict import Checked, check

__all__ = ["GATES", "Checked", "Gate", "Request", "Share", "check", "read_request", "requested"]
