"""MedImageParse networks written for export, their checkpoints, ONNX graphs and TensorRT engines."""
