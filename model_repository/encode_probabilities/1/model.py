"""Step 5 of 2D: mask_logits and geometry -> image_features, text_features, report."""

import json
import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .probability_maps import (
    build_report,
    check_size,
    describe_prompts,
    encode_image_features,
    encode_masks,
    segment_prompts,
)
from .recognition import existence_p_values, read_distributions, read_threshold, recognize


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.max_mask_bytes = int(parameters["max_mask_bytes"]["string_value"])
        self.distributions = read_distributions(Path(__file__).with_name("target_dist.json"))

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        try:
            return self.answer(request)
        except Exception as error:
            return pb_utils.InferenceResponse(error=without_words(error))

    def answer(self, request):
        start_ns = time.time_ns()
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        geometry, tokenized, segmented = (
            json.loads(tensors[name].item()) for name in ("geometry", "tokenize_report", "segment_report")
        )
        mask_logits, prompts = tensors["mask_logits"], [prompt.decode() for prompt in tensors["prompts"]]
        try:
            check_size(len(prompts), geometry, self.max_mask_bytes)
            threshold = read_threshold(tensors.get("p_value_threshold"), tokenized["recognize"])
        except ValueError as error:
            return pb_utils.InferenceResponse([pb_utils.Tensor("refusal", np.array([str(error).encode()], np.object_))])
        distributions = self.distributions.get(tokenized["image_type"], {})
        p_values = existence_p_values(mask_logits, tensors["pixels"][0], prompts, distributions)
        if tokenized["recognize"]:
            found, rejected = recognize(mask_logits, geometry, p_values, threshold)
        else:
            found, rejected = segment_prompts(mask_logits, geometry), {}
        masks, described = encode_masks(found, len(prompts), geometry)
        described = describe_prompts(described, prompts, p_values, tensors)
        rejected = [{"text": prompts[i], "p_value": p_values[i], "reason": reason} for i, reason in rejected.items()]
        image_features = encode_image_features(masks)
        stages = {"decode_image": geometry, "tokenize_prompts": tokenized, "segment_image": segmented}
        stages["encode_probabilities"] = {"start_ns": start_ns, "end_ns": time.time_ns()}
        report = json.dumps(build_report(described, rejected, threshold, stages)).encode()
        categories = [prompt["category"].encode() for prompt in described]
        answers = {"image_features": [image_features], "text_features": categories, "report": [report]}
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.array(value, np.object_)) for name, value in answers.items()]
        )


def without_words(error):
    """Where it happened and no more, for caller and log: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    file, line = [place for place in places if place[0].parent == Path(__file__).parent][-1]
    sentence = f"these tensors gave no result: {type(error).__name__} in line {line} of {file.name}"
    is_ours = isinstance(error, (MemoryError, OSError))  # all else comes from tensors that do not fit
    code = pb_utils.TritonError.INTERNAL if is_ours else pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError(sentence, code)
