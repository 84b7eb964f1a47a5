"""The outputs of the networks -> the answer of the 2D model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.image.probability_maps import check_size, encode_masks, segment_prompt
from medimageparse_serving.image.recognition import Distributions, existence_p_values, read_threshold, recognize
from medimageparse_serving.image.report import Rejected, Segmented, build_report, describe_prompts
from medimageparse_serving.prompts.request import Asked


def encode_answer(
    tensors: Mapping[str, NDArray[Any]],
    prompts: list[str],
    geometry: Geometry,
    asked: Asked,
    segmented: Segmented,
    *,
    output: str,
    distributions: Distributions,
    max_mask_bytes: int,
) -> dict[str, object]:
    """`probabilities` [P,H,W], `text_features` (one category a prompt) and `report`.

    tensors: mask_logits, similarities, matched_queries and category_logits of the networks, the pixels [1,S,S,3] that
    they saw, `truncated`, and p_value_threshold if it was sent
    """
    check_size(len(prompts), geometry, max_mask_bytes)
    threshold = read_threshold(tensors.get("p_value_threshold"), asked.recognize)
    mask_logits: NDArray[np.float32] = tensors["mask_logits"]
    of_type = distributions.get(asked.image_type or "", {})
    p_values = existence_p_values(mask_logits, tensors["pixels"][0], prompts, of_type)
    if asked.recognize:
        found, reasons = recognize(mask_logits, geometry, p_values, threshold)
        masks, by_prompt = encode_masks(list(found), found.__getitem__, geometry, output)
    else:
        reasons = {}
        masks, by_prompt = encode_masks(
            range(len(prompts)), lambda prompt: segment_prompt(mask_logits[prompt], geometry), geometry, output
        )
    described = describe_prompts(by_prompt, prompts, p_values, tensors)
    rejected = [Rejected(prompts[i], p_values[i], reason) for i, reason in reasons.items()]
    return {
        "probabilities": masks,
        "text_features": [prompt.category for prompt in described],
        "report": build_report(described, rejected, threshold, geometry, asked, segmented, output),
    }
