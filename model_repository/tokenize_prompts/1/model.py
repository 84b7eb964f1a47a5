"""Step 2 of both pipelines: text, or the targets of an image type -> input_ids, attention_mask."""

from medimageparse_serving.prompts.clip_tokenizer import tokenize
from medimageparse_serving.prompts.request import Limits, read_request
from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs


class TritonPythonModel(Step):
    def configure(self, parameters: dict[str, str]) -> None:
        self.limits = Limits(**{name: int(value) for name, value in parameters.items()})
        tokenize(["ready"])  # reads the vocabulary before the first request

    def answer(self, inputs: Inputs) -> dict[str, object]:
        request = read_request(inputs.item("text"), inputs.item("image_type"), inputs.item("joint"), self.limits)
        input_ids, attention_mask, truncated = tokenize(request.prompts)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "prompts": request.prompts,
            "truncated": truncated,
            "prompt_groups": request.prompt_groups,
            "tokenize_report": request.asked,
        }
