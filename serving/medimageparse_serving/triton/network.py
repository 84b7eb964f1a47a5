"""A network on the CPU: model.onnx in a python step, for servers without a backend that runs it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from medimageparse_serving.step_environment import CACHE_BYTES
from medimageparse_serving.triton import inner_key
from medimageparse_serving.triton.feature_cache import FeatureCache, key_of
from medimageparse_serving.triton.step import read_parameters
from medimageparse_serving.triton.tensors import Inputs


class Network:
    """What both runtimes share: `load` gives the names of the inputs, `run` the wanted outputs in their order."""

    input_names: Sequence[str]
    misfits: tuple[type[Exception], ...] = ()  # what the runtime raises for tensors that do not fit

    def load(self, graph: Path, parameters: dict[str, str]) -> Sequence[str]:
        raise NotImplementedError

    def run(self, feeds: dict[str, NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
        raise NotImplementedError

    def initialize(self, args: dict[str, str]) -> None:
        graph, parameters = Path(args["model_repository"]) / args["model_version"] / "model.onnx", read_parameters(args)
        self.input_names = self.load(graph, parameters)
        max_bytes = os.environ.get(CACHE_BYTES) or parameters.get("feature_cache_bytes", "0")
        self.cache = FeatureCache(int(max_bytes), float(parameters.get("feature_cache_seconds", "0")))
        self.has_cache = "feature_cache_bytes" in parameters and self.cache.max_bytes > 0

    def outputs_of(self, request: Any, feeds: dict[str, NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
        """What was found for the same inputs before, unless that is too long ago, or found now."""
        if not self.has_cache or inner_key.is_fresh(request):
            return self.run(feeds, names)
        key = key_of(feeds, names)
        known = self.cache.find(key)
        if known is None:
            known = self.run(feeds, names)
            self.cache.keep(key, known)
        return known

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        if not inner_key.is_ours(request):
            error = pb_utils.TritonError(inner_key.CLOSED, pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        try:
            inputs = Inputs(request)
            feeds = {name: inputs.array(name) for name in self.input_names}
            names = request.requested_output_names()
            pairs = zip(names, self.outputs_of(request, feeds, names), strict=True)
            # copied into the response before the next run overwrites them
            return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in pairs])
        except Exception as error:  # its words name nodes and files and hold values, a traceback has paths
            code = (
                pb_utils.TritonError.INVALID_ARG if isinstance(error, self.misfits) else pb_utils.TritonError.INTERNAL
            )
            sentence = f"these tensors gave no result: {type(error).__name__}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))
