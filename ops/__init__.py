"""The operators of the ONNX domain `ai.nashc`, one file each."""
