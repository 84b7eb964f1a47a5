"""Serves the model.onnx beside it with the onnxruntime wheel, for servers without an ONNX Runtime backend."""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"]["string_value"])
        providers = parameters["providers"]["string_value"].split(",")
        self.session = onnxruntime.InferenceSession(
            Path(__file__).with_name("model.onnx"), options, providers=providers
        )
        self.input_names = [tensor.name for tensor in self.session.get_inputs()]

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        try:
            return self.infer(request)
        except Exception as error:  # its words name nodes and hold values, a traceback has paths
            do_not_fit = isinstance(error, (Fail, InvalidArgument))
            code = pb_utils.TritonError.INVALID_ARG if do_not_fit else pb_utils.TritonError.INTERNAL
            sentence = f"these tensors gave no result: {type(error).__name__}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))

    def infer(self, request):
        """Runs the whole graph and answers with the requested outputs."""
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.input_names}
        names = request.requested_output_names()
        arrays = self.session.run(names, feeds)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(names, arrays, strict=True)])
