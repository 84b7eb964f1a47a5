"""A network by OpenVINO, for the arithmetic that the onnxruntime wheel lacks on a CPU: bf16."""

from pathlib import Path
from typing import Any

import openvino
from numpy.typing import NDArray

from medimageparse_serving.triton.network import Network


class TritonPythonModel(Network):
    misfits = (RuntimeError,)

    def load(self, graph: Path, parameters: dict[str, str]) -> list[str]:
        settings = {
            "INFERENCE_PRECISION_HINT": parameters["precision"],
            "INFERENCE_NUM_THREADS": int(parameters["threads"]),
            "NUM_STREAMS": 1,
        }
        network = openvino.Core().compile_model(graph, "CPU", settings)
        self.request = network.create_infer_request()
        return [tensor.any_name for tensor in network.inputs]

    def run(self, feeds: dict[str, NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
        results = self.request.infer(feeds, share_inputs=True, share_outputs=True)
        return [results[name] for name in names]
