"""Graph passes on onnx_ir models, one a file, and `simplify`, the pipeline of all of them."""

from nashc.passes.load import checked, load
from nashc.passes.provenance import Skip, removed, sources
from nashc.passes.simplify import simplify

__all__ = ["Skip", "checked", "load", "removed", "simplify", "sources"]
