"""Step 5 of 3D: label_slices and geometry -> nifti_file, label_map, report."""

from medimageparse_contract.options import OUTPUTS_3D
from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs
from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.nifti_masks import encode_answer
from medimageparse_serving.volume.report import Segmented


class TritonPythonModel(Step):
    def answer(self, inputs: Inputs) -> dict[str, object]:
        return encode_answer(
            inputs.array("label_slices"),
            inputs.record("geometry", Geometry),
            inputs.texts("prompts"),
            inputs.array("truncated"),
            inputs.record("segment_report", Segmented),
            inputs.choice("output", OUTPUTS_3D),
        )
