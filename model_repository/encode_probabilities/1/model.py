"""Step 5 of 2D: mask_logits and geometry -> probabilities, text_features, report."""

from medimageparse_contract.options import OUTPUTS_2D
from medimageparse_serving.image.answer import encode_answer
from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.image.recognition import read_distributions
from medimageparse_serving.image.report import Segmented
from medimageparse_serving.prompts.request import Asked
from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs


class TritonPythonModel(Step):
    def configure(self, parameters: dict[str, str]) -> None:
        self.max_mask_bytes = int(parameters["max_mask_bytes"])
        self.distributions = read_distributions()

    def answer(self, inputs: Inputs) -> dict[str, object]:
        return encode_answer(
            inputs.arrays(),
            inputs.texts("prompts"),
            inputs.record("geometry", Geometry),
            inputs.record("tokenize_report", Asked),
            inputs.record("segment_report", Segmented),
            output=inputs.choice("output", OUTPUTS_2D),
            distributions=self.distributions,
            max_mask_bytes=self.max_mask_bytes,
        )
