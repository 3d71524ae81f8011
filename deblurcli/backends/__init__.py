"""What runs a network: PyTorch (`pytorch`), or ONNX Runtime without any PyTorch (`onnx`)."""
