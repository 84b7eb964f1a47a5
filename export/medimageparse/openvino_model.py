"""Serves the model.onnx beside it with OpenVINO, for the arithmetic that the onnxruntime wheel lacks on a CPU: bf16."""

import json
from pathlib import Path

import openvino
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        settings = {
            "INFERENCE_PRECISION_HINT": parameters["precision"]["string_value"],
            "INFERENCE_NUM_THREADS": int(parameters["threads"]["string_value"]),
            "NUM_STREAMS": 1,
        }
        network = openvino.Core().compile_model(Path(__file__).with_name("model.onnx"), "CPU", settings)
        self.input_names = [tensor.any_name for tensor in network.inputs]
        self.run = network.create_infer_request()

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        try:
            return self.infer(request)
        except Exception as error:  # its words name files and hold values, a traceback has paths
            do_not_fit = isinstance(error, RuntimeError)
            code = pb_utils.TritonError.INVALID_ARG if do_not_fit else pb_utils.TritonError.INTERNAL
            sentence = f"these tensors gave no result: {type(error).__name__}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))

    def infer(self, request):
        """Runs the whole graph; its arrays are copied into the response before the next run overwrites them."""
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.input_names}
        results = self.run.infer(feeds, share_inputs=True, share_outputs=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, results[n]) for n in request.requested_output_names()])
