"""RUNTIME=cpu: model.onnx beside this file."""

from medimageparse_serving.triton.onnxruntime_model import TritonPythonModel  # noqa: F401
