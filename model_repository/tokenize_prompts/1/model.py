"""Step 2 of both pipelines: text -> input_ids, attention_mask."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils

from .clip_tokenizer import decode_text, split_prompts, tokenize


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.max_prompts = int(parameters["max_prompts"]["string_value"])
        self.max_characters = int(parameters["max_characters"]["string_value"])
        tokenize(["ready"])  # reads the vocabulary before the first request

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        start_ns = time.time_ns()
        text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        try:
            prompts = split_prompts(decode_text(text.item()), self.max_prompts, self.max_characters)
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        input_ids, attention_mask, truncated = tokenize(prompts)
        report = json.dumps({"start_ns": start_ns, "end_ns": time.time_ns()})
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", input_ids),
                pb_utils.Tensor("attention_mask", attention_mask),
                pb_utils.Tensor("prompts", np.array([prompt.encode() for prompt in prompts], np.object_)),
                pb_utils.Tensor("truncated", truncated),
                pb_utils.Tensor("tokenize_report", np.array([report.encode()], np.object_)),
            ]
        )
