"""Image and prompts -> probabilities, categories, report."""

from collections.abc import Iterable

from medimageparse_contract.options import OUTPUTS_2D
from medimageparse_serving.image.pixels import to_pixels
from medimageparse_serving.image.report import Segmented
from medimageparse_serving.triton.pipeline import Arrays, Calls, Pipeline
from medimageparse_serving.triton.tensors import Inputs, as_tensors

DECODED = ("square", "geometry", "refusal")
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "prompt_groups", "tokenize_report", "refusal")
TEXT = ("token_features", "prompt_features")
MASKS = ("mask_logits", "similarities", "matched_queries", "category_logits")
TOLD = ("geometry", "prompts", "truncated", "tokenize_report", "segment_report", "p_value_threshold", "output")


class TritonPythonModel(Pipeline):
    async def answer(self, inputs: Inputs, calls: Calls, wanted: list[str]) -> Arrays:
        inputs.choice("output", OUTPUTS_2D)  # refused before the work
        known: dict[str, object] = dict(inputs.arrays())

        async def call(model: str, outputs: Iterable[str], *names: str) -> Arrays:
            tensors = as_tensors({name: known[name] for name in names if name in known})
            return await calls.call(model, outputs, tensors)

        decoded = await call("decode_model", DECODED, "image")
        known["geometry"] = decoded["geometry"]
        known |= await call("tokenize_model", TOKENIZED, "text", "image_type", "joint")
        known |= await call("text_model", TEXT, "input_ids", "attention_mask")
        known["pixels"] = to_pixels(decoded["square"], self.networks["image_size"])
        known |= await call("pixels_model", MASKS, "pixels", *TEXT, "attention_mask", "prompt_groups")
        known["segment_report"] = Segmented(self.networks)
        return await call("encode_model", [*wanted, "refusal"], *MASKS, "pixels", *TOLD)
