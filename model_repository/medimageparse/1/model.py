"""Image and prompts -> probabilities, categories, report: one step after the other, all through BLS.

No ensemble, because Triton does not tell a running step of an ensemble that its request was cancelled. A refusal is an
output of a step, because BLS loses the codes of errors (tritonserver 2.51).
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .pixels import to_pixels

DECODED = ("square", "geometry", "refusal")
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "prompt_groups", "tokenize_report", "refusal")
TEXT = ("token_features", "prompt_features")
MASKS = ("mask_logits", "similarities", "matched_queries", "category_logits")


class StepError(Exception):
    """Ends a request: a sentence for the caller, and Triton's code."""


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.models = {name: value["string_value"] for name, value in parameters.items()}
        self.networks = json.loads(Path(__file__).with_name("networks.json").read_text())
        self.networks["runtime"] = os.environ.get("MEDIMAGEPARSE_RUNTIME")  # serve.py sets it

    async def execute(self, requests):
        return [await self.respond(request) for request in requests]

    async def respond(self, request):
        try:
            return pb_utils.InferenceResponse(await self.answer(request, watch(request)))
        except StepError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(*error.args))
        except Exception as error:
            pb_utils.Logger.log_error(without_words(error))
            sentence = "the request failed; the server's log says why"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, pb_utils.TritonError.INTERNAL))

    async def answer(self, request, gave_up):
        known = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if "image" not in known:  # Triton counts the inputs, and an option may stand in for it
            raise StepError("image is missing; every request needs it", pb_utils.TritonError.INVALID_ARG)
        known |= await self.call(gave_up, "decode_model", DECODED, known, "image", "output")
        known |= await self.call(gave_up, "tokenize_model", TOKENIZED, known, "text", "image_type", "joint")
        known |= await self.call(gave_up, "text_model", TEXT, known, "input_ids", "attention_mask")
        report = {"networks": self.networks, "start_ns": time.time_ns()}
        known["pixels"] = to_pixels(known["square"], self.networks["image_size"])
        known |= await self.call(
            gave_up, "pixels_model", MASKS, known, "pixels", *TEXT, "attention_mask", "prompt_groups"
        )
        report = json.dumps(report | {"end_ns": time.time_ns()}).encode()
        known["segment_report"] = np.array([report], np.object_)
        told = ("geometry", "prompts", "truncated", "tokenize_report", "segment_report", "p_value_threshold")
        answers = await self.call(
            gave_up, "encode_model", [*request.requested_output_names(), "refusal"], known, *MASKS, "pixels", *told
        )
        return [pb_utils.Tensor(*answer) for answer in answers.items()]

    async def call(self, gave_up, model, outputs, known, *inputs):
        """The outputs of the model that the parameter names, unless the caller gave up; inputs may be left out."""
        if gave_up():
            raise StepError("the request was cancelled, or its time-out is over", pb_utils.TritonError.CANCELLED)
        response = await pb_utils.InferenceRequest(
            model_name=self.models[model],
            requested_output_names=list(outputs),
            inputs=[pb_utils.Tensor(name, known[name]) for name in inputs if name in known],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).async_exec()
        if response.has_error():
            pb_utils.Logger.log_error(f"{self.models[model]}: {response.error().message().splitlines()[0]}")
            raise StepError(f"{self.models[model]} failed; the server's log says why", pb_utils.TritonError.INTERNAL)
        # copies, because the response's own memory goes with it
        outputs = {tensor.name(): tensor.as_numpy().copy() for tensor in response.output_tensors()}
        if "refusal" in outputs:
            raise StepError(outputs["refusal"].item().decode(), pb_utils.TritonError.INVALID_ARG)
        return outputs


def watch(request):
    """Whether the caller gave up: by cancelling, which only gRPC can, or by a time-out sent with the request."""
    end_ns = time.monotonic_ns() + (request.timeout() * 1000 or sys.maxsize)
    return lambda: request.is_cancelled() or time.monotonic_ns() > end_ns


def without_words(error):
    """Where it happened and no more: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    file, line = [place for place in places if place[0].parent == Path(__file__).parent][-1]
    return f"{type(error).__name__} in line {line} of {file.name}"
