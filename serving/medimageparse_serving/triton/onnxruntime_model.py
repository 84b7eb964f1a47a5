"""A network by the onnxruntime wheel."""

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from medimageparse_serving.triton.network import Network


class TritonPythonModel(Network):
    misfits = (Fail, InvalidArgument)

    def load(self, graph: Path, parameters: dict[str, str]) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"])
        self.session = onnxruntime.InferenceSession(graph, options, providers=parameters["providers"].split(","))
        return [tensor.name for tensor in self.session.get_inputs()]

    def run(self, feeds: dict[str, NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self.session.run(names, feeds)
        return outputs
