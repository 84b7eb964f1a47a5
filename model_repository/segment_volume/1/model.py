"""Step 4: volume, text_features -> label_slices, scores: one window of slices after the other, through BLS."""

import json
import time
from collections import deque
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .sliding_window import from_square, iterate_windows


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.window_model = parameters["window_model"]["string_value"]
        self.window_size = int(parameters["window_size"]["string_value"])
        self.windows_in_flight = int(parameters["windows_in_flight"]["string_value"])
        self.networks = json.loads(Path(__file__).with_name("networks.json").read_text())

    async def execute(self, requests):
        return [await self.respond(request) for request in requests]

    async def respond(self, request):
        report = {"networks": self.networks, "window_size": self.window_size, "start_ns": time.time_ns()}
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        volume = inputs["volume_uint8"] if "volume_uint8" in inputs else inputs["volume_fp32"]
        label_slices = np.empty(volume.shape, np.uint8)
        scores = np.empty((len(inputs["text_features"]), len(volume)), np.float32)
        in_flight = deque()
        for slices, window in iterate_windows(volume, self.window_size, self.networks["image_size"]):
            if request.is_cancelled():
                return failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
            in_flight.append((slices, self.start(window=window, text_features=inputs["text_features"])))
            # the next windows are made while these are computed; after the last one all are awaited
            while len(in_flight) == self.windows_in_flight or (in_flight and slices.stop == len(volume)):
                done, pending = in_flight.popleft()
                response = await pending
                if response.has_error():
                    pb_utils.Logger.log_error(response.error().message().splitlines()[0])  # the rest is a traceback
                    return failure("the networks failed; the server's log says why", response.error().code())
                outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
                label_slices[done.start : done.stop] = from_square(outputs["label_slices"], *volume.shape[1:])
                scores[:, done.start : done.stop] = outputs["scores"].T
        report |= {"highest_scores": scores.max(1).tolist(), "end_ns": time.time_ns()}
        report = np.array([json.dumps(report).encode()], np.object_)
        answers = {"label_slices": label_slices, "scores": scores, "segment_report": report}
        return pb_utils.InferenceResponse([pb_utils.Tensor(*answer) for answer in answers.items()])

    def start(self, **tensors):
        return pb_utils.InferenceRequest(
            model_name=self.window_model,
            requested_output_names=["label_slices", "scores"],
            inputs=[pb_utils.Tensor(*tensor) for tensor in tensors.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).async_exec()


def failure(sentence, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(sentence, code))
