"""Graph passes on onnx_ir models, one a file, and `simplify`, the pipeline of all of them."""

from nashc.passes.load import checked, load
from nashc.passes.provenance import Skip, removed, sources
from nashc.passes.simplify import inline, simplify

__all__ = ["Skip", "checked", "inline", "load", "removed", "simplify", "sources"]
