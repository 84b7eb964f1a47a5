"""RUNTIME=cpu-bf16: model.onnx beside this file."""

from medimageparse_serving.triton.openvino_model import TritonPythonModel  # noqa: F401
