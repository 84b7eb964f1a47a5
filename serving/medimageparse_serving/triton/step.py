"""A python step of the model repository: it takes tensors and answers with tensors, or with a refusal."""

import json
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from medimageparse_serving.refused import Refused
from medimageparse_serving.triton import inner_key
from medimageparse_serving.triton.tensors import Inputs, as_tensors, place_of


def read_parameters(args: dict[str, str]) -> dict[str, str]:
    """The parameters of a model's configuration."""
    parameters = json.loads(args["model_config"])["parameters"]
    return {name: value["string_value"] for name, value in parameters.items()}


class Step:
    """What the steps share; each says in `answer` what it does."""

    def initialize(self, args: dict[str, str]) -> None:
        self.configure(read_parameters(args))

    def configure(self, parameters: dict[str, str]) -> None:
        """Reads what the configuration says, once."""

    def answer(self, inputs: Inputs) -> Mapping[str, object]:
        """The outputs by name; Refused if the caller is to send something else."""
        raise NotImplementedError

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        if not inner_key.is_ours(request):
            error = pb_utils.TritonError(inner_key.CLOSED, pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        try:
            return pb_utils.InferenceResponse(as_tensors(self.answer(Inputs(request))))
        except Refused as refusal:
            # an output, because BLS loses the codes of errors (tritonserver 2.51)
            return pb_utils.InferenceResponse(as_tensors({"refusal": str(refusal)}))
        except Exception as error:
            is_ours = isinstance(error, (MemoryError, OSError))  # all else comes from tensors that do not fit
            code = pb_utils.TritonError.INTERNAL if is_ours else pb_utils.TritonError.INVALID_ARG
            sentence = f"these tensors gave no result: {place_of(error)}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))
