"""Step 5: label_slices and geometry -> nifti_file, label_map, report."""

import json
import time
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .nifti_masks import build_report, describe_prompts, describe_stages, encode_nifti_file, restore_labels


class TritonPythonModel:
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
        label_slices = tensors["label_slices"]
        label_map = restore_labels(label_slices, geometry)
        answers = {}
        if "label_map" in geometry["outputs"]:
            answers["label_map"] = np.ascontiguousarray(label_map)
        if "nifti_file" in geometry["outputs"]:
            answers["nifti_file"] = as_bytes(encode_nifti_file(label_map, geometry))
        prompts = [prompt.decode() for prompt in tensors["prompts"]]
        described = describe_prompts(label_slices, segmented["highest_scores"], geometry, prompts, tensors["truncated"])
        stages = {"decode_volume": geometry, "tokenize_prompts": tokenized, "segment_volume": segmented}
        stages["encode_masks"] = {"start_ns": start_ns, "end_ns": time.time_ns()}
        report = build_report(described, geometry, segmented, describe_stages(stages))
        answers["report"] = as_bytes(json.dumps(report).encode())
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in answers.items()])


def as_bytes(content):
    return np.array([content], np.object_)


def without_words(error):
    """Where it happened and no more, for caller and log: words can be a patient's, and a traceback has paths."""
    places = [(Path(place.filename), place.lineno) for place in traceback.extract_tb(error.__traceback__)]
    file, line = [place for place in places if place[0].parent == Path(__file__).parent][-1]
    sentence = f"these tensors gave no result: {type(error).__name__} in line {line} of {file.name}"
    is_ours = isinstance(error, (MemoryError, OSError))  # all else comes from tensors that do not fit
    code = pb_utils.TritonError.INTERNAL if is_ours else pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError(sentence, code)
