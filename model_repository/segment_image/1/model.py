"""Step 4: square and prompts -> mask and category logits of each prompt: the networks, through BLS."""

import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .pixels import to_pixels

PROMPT_TENSORS = ("token_features", "attention_mask", "prompt_features", "prompt_groups")
OUTPUTS = ("mask_logits", "similarities", "matched_queries", "category_logits")


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.pixels_model = parameters["pixels_model"]["string_value"]
        self.networks = json.loads(Path(__file__).with_name("networks.json").read_text())

    async def execute(self, requests):
        return [await self.respond(request) for request in requests]

    async def respond(self, request):
        report = {"networks": self.networks, "start_ns": time.time_ns()}
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        pixels = to_pixels(inputs["square"], self.networks["image_size"])
        if request.is_cancelled():
            return failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
        response = await self.start(pixels=pixels, **{name: inputs[name] for name in PROMPT_TENSORS})
        if response.has_error():
            pb_utils.Logger.log_error(response.error().message().splitlines()[0])  # the rest is a traceback
            return failure("the networks failed; the server's log says why", response.error().code())
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        report |= {"end_ns": time.time_ns()}
        report = np.array([json.dumps(report).encode()], np.object_)
        answers = {"pixels": pixels, "segment_report": report, **{name: outputs[name] for name in OUTPUTS}}
        return pb_utils.InferenceResponse([pb_utils.Tensor(*answer) for answer in answers.items()])

    def start(self, **tensors):
        return pb_utils.InferenceRequest(
            model_name=self.pixels_model,
            requested_output_names=list(OUTPUTS),
            inputs=[pb_utils.Tensor(*tensor) for tensor in tensors.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).async_exec()


def failure(sentence, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))
