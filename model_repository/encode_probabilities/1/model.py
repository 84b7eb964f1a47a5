"""Step 5 of 2D: mask_logits and geometry -> image_features, text_features, report."""

from typing import Any

from medimageparse_serving.image.answer import encode_answer
from medimageparse_serving.image.recognition import read_distributions
from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs

REPORTS = ("geometry", "tokenize_report", "segment_report")


class TritonPythonModel(Step):
    def configure(self, parameters: dict[str, str]) -> None:
        self.max_mask_bytes = int(parameters["max_mask_bytes"])
        self.distributions = read_distributions()

    def answer(self, inputs: Inputs) -> dict[str, Any]:
        tensors, prompts = inputs.arrays(), inputs.texts("prompts")
        geometry, tokenized, segmented = (inputs.json(name) for name in REPORTS)
        return encode_answer(tensors, prompts, geometry, tokenized, segmented, self.distributions, self.max_mask_bytes)
