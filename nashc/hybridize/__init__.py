"""Trained ONNX CNNs as integer hybrids: reconstruction of rounded weights, sensitivities, choice of layer types."""
