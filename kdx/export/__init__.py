"""A finished run's student as files for others: timm, safetensors, ONNX, each compared with what was trained."""
