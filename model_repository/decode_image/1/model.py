"""Step 1: a PNG or JPEG file -> the square that the networks see, and the geometry that leads back."""

import json
import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .image_file import Limits, decode_image


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.limits = Limits(**{name: int(value["string_value"]) for name, value in parameters.items()})

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        try:
            return self.answer(request)
        except Exception as error:
            return pb_utils.InferenceResponse(error=without_words(error))

    def answer(self, request):
        start_ns = time.time_ns()
        try:
            options = {"output": output} if (output := read_option(request, "output")) else {}
            square, geometry = decode_image(read_bytes(request, "image"), self.limits, **options)
        except ValueError as error:
            return pb_utils.InferenceResponse([pb_utils.Tensor("refusal", np.array([str(error).encode()], np.object_))])
        geometry |= {"start_ns": start_ns, "end_ns": time.time_ns()}
        tensors = [pb_utils.Tensor("square", square)]
        tensors.append(pb_utils.Tensor("geometry", np.array([json.dumps(geometry).encode()], np.object_)))
        return pb_utils.InferenceResponse(tensors)


def read_bytes(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().item()


def read_option(request, name):
    """An optional input as text; None when the caller left it out."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    try:
        return tensor.as_numpy().item()[:100].decode()  # no choice is as long
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text") from None


def without_words(error):
    """Where it happened and no more, for caller and log: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    file, line = [place for place in places if place[0].parent == Path(__file__).parent][-1]
    sentence = f"these tensors gave no result: {type(error).__name__} in line {line} of {file.name}"
    is_ours = isinstance(error, (MemoryError, OSError))  # all else comes from tensors that do not fit
    code = pb_utils.TritonError.INTERNAL if is_ours else pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError(sentence, code)
