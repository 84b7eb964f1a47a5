"""Step 5 of 3D: label_slices and geometry -> nifti_file, label_map, report."""

from typing import Any

from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs
from medimageparse_serving.volume.nifti_masks import encode_answer


class TritonPythonModel(Step):
    def answer(self, inputs: Inputs) -> dict[str, Any]:
        return encode_answer(
            inputs.array("label_slices"),
            inputs.json("geometry"),
            inputs.texts("prompts"),
            inputs.array("truncated"),
            inputs.json("segment_report"),
        )
