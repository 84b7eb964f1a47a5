"""Step 5 of 3D: label_slices and geometry -> nifti_file, label_map, report."""

from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs
from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.nifti_masks import encode_answer
from medimageparse_serving.volume.report import Segmented


class TritonPythonModel(Step):
    def answer(self, inputs: Inputs) -> dict[str, object]:
        labels, truncated = inputs.array("label_slices"), inputs.array("truncated")
        geometry, segmented = inputs.record("geometry", Geometry), inputs.record("segment_report", Segmented)
        return encode_answer(labels, geometry, inputs.texts("prompts"), truncated, segmented, inputs.wanted)
