"""Export the student of a finished run to timm, safetensors and ONNX, and verify each file against the trained student."""
