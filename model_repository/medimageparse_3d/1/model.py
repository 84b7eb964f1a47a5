"""Image and prompts -> masks, scores, report: one step after the other, the networks window by window, all through BLS.

No ensemble, because Triton does not tell a running step of an ensemble that its request was cancelled. A refusal is an
output of a step, because BLS loses the codes of errors (tritonserver 2.51).
"""

import json
import os
import sys
import time
import traceback
from collections import deque
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .sliding_window import from_square, iterate_windows

DECODED = ("volume_uint8", "volume_fp32", "geometry", "refusal")  # one of the volumes is left out
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "tokenize_report", "refusal")
LABELLED = ("label_slices", "scores")


class StepError(Exception):
    """Ends a request: a sentence for the caller, and Triton's code."""


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.parameters = {name: value["string_value"] for name, value in parameters.items()}
        self.window_size = int(self.parameters["window_size"])
        runtime = os.environ.get("MEDIMAGEPARSE_RUNTIME")  # serve.py sets it
        on_cpu = runtime is not None and runtime.startswith("cpu")
        self.windows_in_flight = int(self.parameters["windows_in_flight"]) or (1 if on_cpu else 2)
        self.networks = json.loads(Path(__file__).with_name("networks.json").read_text())
        self.networks["runtime"] = runtime

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
        sent = {tensor.name(): tensor for tensor in request.inputs()}  # passed on as they lie in shared memory
        for name in ("image", "text"):  # Triton counts the inputs, and an option may stand in for one
            if name not in sent:
                raise StepError(f"{name} is missing; every request needs it", pb_utils.TritonError.INVALID_ARG)
        text = sent.pop("text")
        decoded = await self.call(gave_up, "decode_model", DECODED, sent.values())
        known = {"geometry": decoded.pop("geometry")}
        known |= await self.call(gave_up, "tokenize_model", TOKENIZED, [text])
        tokens = {name: known.pop(name) for name in ("input_ids", "attention_mask")}
        encoded = await self.call(gave_up, "text_model", ["text_features"], as_tensors(tokens))
        known |= await self.segment(gave_up, decoded, encoded["text_features"])
        wanted = request.requested_output_names()
        answers = {"scores": known.pop("scores")}
        names = [name for name in wanted if name != "scores"]
        if names:  # who asks for scores alone does not wait for a file
            answers |= await self.call(gave_up, "encode_model", names, as_tensors(known))
        return as_tensors({name: array for name, array in answers.items() if name in wanted})

    async def segment(self, gave_up, decoded, text_features):
        """A volume [D,H,W], taken out of `decoded` so that it goes with this call, and text_features [P,T,C] ->
        label_slices [D,H,W], scores [P,D], segment_report."""
        _, volume = decoded.popitem()
        report = {"networks": self.networks, "window_size": self.window_size, "start_ns": time.time_ns()}
        label_slices = np.empty(volume.shape, np.uint8)
        scores = np.empty((len(text_features), len(volume)), np.float32)
        in_flight = deque()
        try:
            for slices, window in iterate_windows(volume, self.window_size, self.networks["image_size"]):
                inputs = {"window": window, "text_features": text_features}
                in_flight.append((slices, self.start(gave_up, "window_model", LABELLED, as_tensors(inputs))))
                # the next windows are made while these are computed; after the last one all are awaited
                while len(in_flight) == self.windows_in_flight or (in_flight and slices.stop == len(volume)):
                    done, pending = in_flight.popleft()
                    found = self.read(await pending, "window_model")
                    label_slices[done.start : done.stop] = from_square(found["label_slices"], *volume.shape[1:])
                    scores[:, done.start : done.stop] = found["scores"].T
        finally:
            for _, pending in in_flight:  # of a request that ends early: the networks are busy until then
                await pending
        report |= {"highest_scores": scores.max(1).tolist(), "end_ns": time.time_ns()}
        report = np.array([json.dumps(report).encode()], np.object_)
        return {"label_slices": label_slices, "scores": scores, "segment_report": report}

    async def call(self, gave_up, model, names, tensors):
        return self.read(await self.start(gave_up, model, names, tensors), model)

    def start(self, gave_up, model, names, tensors):
        """Begins an inference of the model that the parameter names, unless the caller gave up."""
        if gave_up():
            raise StepError("the request was cancelled, or its time-out is over", pb_utils.TritonError.CANCELLED)
        return pb_utils.InferenceRequest(
            model_name=self.parameters[model],
            requested_output_names=list(names),
            inputs=list(tensors),
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).async_exec()

    def read(self, response, model):
        """The outputs of a response by name. They are copies: its own memory goes with it."""
        if response.has_error():
            pb_utils.Logger.log_error(f"{self.parameters[model]}: {response.error().message().splitlines()[0]}")
            sentence = f"{self.parameters[model]} failed; the server's log says why"
            raise StepError(sentence, pb_utils.TritonError.INTERNAL)
        outputs = {tensor.name(): tensor.as_numpy().copy() for tensor in response.output_tensors()}
        if "refusal" in outputs:
            raise StepError(outputs["refusal"].item().decode(), pb_utils.TritonError.INVALID_ARG)
        return outputs


def as_tensors(arrays):
    return [pb_utils.Tensor(*pair) for pair in arrays.items()]


def watch(request):
    """Whether the caller gave up: by cancelling, which only gRPC can, or by a time-out sent with the request."""
    end_ns = time.monotonic_ns() + (request.timeout() * 1000 or sys.maxsize)
    return lambda: request.is_cancelled() or time.monotonic_ns() > end_ns


def without_words(error):
    """Where it happened and no more: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    file, line = [place for place in places if place[0].parent == Path(__file__).parent][-1]
    return f"{type(error).__name__} in line {line} of {file.name}"
