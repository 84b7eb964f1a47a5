"""Step 2 of both pipelines: text, or the targets of an image type -> input_ids, attention_mask."""

import json
import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .clip_tokenizer import decode_text, split_prompts, tokenize
from .image_types import group_prompts, known_image_type, targets_of


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.max_prompts = int(parameters["max_prompts"]["string_value"])
        self.max_characters = int(parameters["max_characters"]["string_value"])
        self.max_groups = int(parameters["max_groups"]["string_value"])
        tokenize(["ready"])  # reads the vocabulary before the first request

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        try:
            return self.answer(request)
        except Exception as error:
            return pb_utils.InferenceResponse(error=without_words(error))

    def answer(self, request):
        start_ns = time.time_ns()
        text, image_type, joint = (read_option(request, name) for name in ("text", "image_type", "joint"))
        recognize = text is None
        joint = not recognize if joint is None else joint
        try:
            image_type = None if image_type is None else known_image_type(image_type)
            if recognize:
                prompts = targets_of(image_type)
            else:
                prompts = split_prompts(decode_text(text, self.max_characters), self.max_prompts, self.max_characters)
            prompt_groups = group_prompts(len(prompts), joint, self.max_groups)
        except ValueError as error:
            return pb_utils.InferenceResponse([pb_utils.Tensor("refusal", np.array([str(error).encode()], np.object_))])
        input_ids, attention_mask, truncated = tokenize(prompts)
        report = {"image_type": image_type, "recognize": recognize, "joint": joint}
        report |= {"start_ns": start_ns, "end_ns": time.time_ns()}
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", input_ids),
                pb_utils.Tensor("attention_mask", attention_mask),
                pb_utils.Tensor("prompts", np.array([prompt.encode() for prompt in prompts], np.object_)),
                pb_utils.Tensor("truncated", truncated),
                pb_utils.Tensor("prompt_groups", prompt_groups),
                pb_utils.Tensor("tokenize_report", np.array([json.dumps(report).encode()], np.object_)),
            ]
        )


def read_option(request, name):
    """An optional input; None when the caller left it out."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().item()


def without_words(error):
    """Where it happened and no more, for caller and log: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    file, line = [place for place in places if place[0].parent == Path(__file__).parent][-1]
    sentence = f"these tensors gave no result: {type(error).__name__} in line {line} of {file.name}"
    is_ours = isinstance(error, (MemoryError, OSError))  # all else comes from tensors that do not fit
    code = pb_utils.TritonError.INTERNAL if is_ours else pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError(sentence, code)
