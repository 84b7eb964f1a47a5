"""The 2D pipeline: which models it calls, in their order."""

import json
from collections.abc import Iterable

import numpy as np
from medimageparse_contract.options import OUTPUTS_2D
from numpy.typing import NDArray

from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.image.pixels import to_pixels
from medimageparse_serving.image.probability_maps import encode_image_features
from medimageparse_serving.image.progress import Progress
from medimageparse_serving.image.report import Segmented
from medimageparse_serving.image.tiles import check_tiles, lay_out, read_tile, segment_tiles
from medimageparse_serving.triton.pipeline import Arrays, Calls, Pipeline
from medimageparse_serving.triton.tensors import Inputs, as_array, as_tensors, unpack

DECODED = ("square", "geometry", "refusal")
TOKENIZED = ("input_ids", "attention_mask", "prompts", "truncated", "prompt_groups", "tokenize_report", "refusal")
TEXT = ("token_features", "prompt_features")
MASKS = ("mask_logits", "similarities", "matched_queries", "category_logits")
TOLD = ("geometry", "prompts", "truncated", "tokenize_report", "segment_report", "p_value_threshold", "output")


class ImagePipeline(Pipeline):
    """Image and prompts -> probabilities, categories, report."""

    async def answer(self, inputs: Inputs, calls: Calls, wanted: list[str]) -> Arrays:
        inputs.choice("output", OUTPUTS_2D)  # refused before the work
        is_tiled = read_tile(inputs.item("tile"), "image_type" in inputs)
        known: dict[str, object] = dict(inputs.arrays())

        async def call(model: str, outputs: Iterable[str], *names: str) -> Arrays:
            tensors = as_tensors({name: known[name] for name in names if name in known})
            return await calls.call(model, outputs, tensors)

        async def segment(pixels: NDArray[np.uint8]) -> Arrays:
            known["pixels"] = pixels
            found = await call("pixels_model", MASKS, "pixels", *TEXT, "attention_mask", "prompt_groups")
            if progress:
                progress.add(found["mask_logits"])
            return found

        decoded, size = await call("decode_model", DECODED, "image"), self.networks["image_size"]
        geometry = unpack(Geometry, json.loads(decoded["geometry"].item()))
        tokenized = await call("tokenize_model", TOKENIZED, "text", "image_type", "joint")
        prompts = [prompt.decode() for prompt in tokenized["prompts"]]
        canvas = lay_out(geometry, size) if is_tiled and max(geometry.height, geometry.width) > size else None
        if canvas:
            check_tiles(canvas, len(prompts), int(self.parameters["max_tile_pixels"]))
        calls.work.n_slices, calls.work.n_prompts = len(canvas.places) if canvas else 1, len(prompts)
        known |= tokenized | {"geometry": canvas.geometry if canvas else geometry}
        progress = Progress(prompts, len(canvas.places) if canvas else 1, calls.tell) if calls.tell else None
        known |= await call("text_model", TEXT, "input_ids", "attention_mask")
        if canvas:
            known |= await segment_tiles(segment, decoded["square"], geometry, canvas, len(prompts))
        else:
            known |= await segment(to_pixels(decoded["square"], size))
        known["segment_report"] = Segmented(self.networks)
        encoded = {"probabilities" if name == "image_features" else name for name in wanted} - {"progress"}
        answer = await call("encode_model", [*encoded, "refusal"], *MASKS, "pixels", *TOLD)
        if "image_features" in wanted:  # and not the tensor too: /generate asks for everything, and would print it
            answer["image_features"] = as_array(encode_image_features(answer.pop("probabilities")))
        return answer
