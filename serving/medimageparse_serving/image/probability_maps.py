"""Mask logits of the square image -> 8-bit probabilities of the image as it was sent, and report."""

import base64
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy
from medimageparse_contract.categories import CATEGORIES
from numpy.typing import NDArray
from scipy.special import expit, softmax

from medimageparse_serving.refused import Refused

THRESHOLD = 0.5  # of probability; 127.5 of its 8-bit value

# a prompt's number, its probabilities [H,W] and its mask [H,W]
Found = tuple[int, NDArray[np.float32], NDArray[np.bool_]]


def check_size(n_prompts: int, geometry: dict[str, Any], max_mask_bytes: int) -> None:
    """Refuses what would not fit, before memory is taken."""
    height, width = geometry["height"], geometry["width"]
    if n_prompts * height * width > max_mask_bytes:
        raise Refused(
            f"{n_prompts} masks of {height} x {width} pixels are more than {max_mask_bytes} bytes; "
            "send fewer prompts in one request, or a smaller image"
        )


def enlarge(logits: NDArray[np.float32], side: int, rows: range, columns: range) -> NDArray[np.float32]:
    """These rows and columns of logits [s,s] resized to [side,side]; bilinear, as the networks were trained."""
    low, high, share = neighbours(len(logits), side, columns)
    wide = logits[:, low] * (1 - share) + logits[:, high] * share  # [s, columns]
    low, high, share = neighbours(len(logits), side, rows)
    enlarged: NDArray[np.float32] = wide[low] * (1 - share)[:, None] + wide[high] * share[:, None]
    return enlarged


def neighbours(n: int, side: int, wanted: range) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Of n values spread over `side` pixels, the two around each wanted pixel's centre and the second one's share."""
    position = np.clip((np.array(wanted) + 0.5) * n / side - 0.5, 0, n - 1)
    low = position.astype(np.int64)
    return low, np.minimum(low + 1, n - 1), (position - low).astype(np.float32)


def image_probabilities(logits: NDArray[np.float32], geometry: dict[str, Any]) -> NDArray[np.float32]:
    """Logits [s,s] of the padded square -> probabilities [H,W] of the image."""
    top, left = geometry["top"], geometry["left"]
    rows, columns = range(top, top + geometry["height"]), range(left, left + geometry["width"])
    probabilities: NDArray[np.float32] = expit(enlarge(logits, geometry["side"], rows, columns))
    return probabilities


def segment_prompts(mask_logits: NDArray[np.float32], geometry: dict[str, Any]) -> Iterator[Found]:
    """One prompt after the other, so that only one is in memory as FP32."""
    for prompt, logits in enumerate(mask_logits):
        probabilities = image_probabilities(logits, geometry)
        yield prompt, probabilities, probabilities > THRESHOLD


def encode_masks(
    found: Iterable[Found], n_prompts: int, geometry: dict[str, Any]
) -> tuple[NDArray[np.uint8], dict[int, dict[str, Any]]]:
    """What was found, at most n_prompts, as [N,H,W], and by prompt number what the report says of each mask."""
    masks = np.empty((n_prompts, geometry["height"], geometry["width"]), np.uint8)
    described: dict[int, dict[str, Any]] = {}
    for place, (prompt, probabilities, mask) in enumerate(found):
        masks[place] = mask if geometry["output"] == "masks" else to_uint8(probabilities, mask)
        highest = round(float(probabilities.max()), 6)
        described[prompt] = describe_mask(mask) | {"highest_probability": highest}
    return masks[: len(described)], described


def to_uint8(probabilities: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probabilities as 0..255, above 127.5 where the mask is and nowhere else; the mask lies within p > 0.5."""
    values = np.ceil(255 * probabilities - 0.5).astype(np.uint8)
    return np.where(mask, values, np.minimum(values, 127))


def describe_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Pixels, and first and last row and column, both inclusive."""
    area = int(np.count_nonzero(mask))
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [[int(rows[end]), int(columns[end])] for end in (0, -1)] if area else None
    return {"present": area > 0, "area_pixels": area, "box_pixels": box}


def describe_categories(category_logits: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Per prompt the likeliest of the 16 categories, and how sure the network is of it and of background."""
    shares = softmax(category_logits.astype(np.float64), axis=1)
    return [
        {
            "category": CATEGORIES[best],
            "category_confidence": round(float(row[best]), 6),
            "background_confidence": round(float(row[-1]), 6),
        }
        for row, best in zip(shares, shares[:, :-1].argmax(1), strict=True)
    ]


def describe_prompts(
    described: dict[int, dict[str, Any]],
    prompts: list[str],
    p_values: list[float | None],
    tensors: Mapping[str, NDArray[Any]],
) -> list[dict[str, Any]]:
    """What was found for each prompt; `present` means that at least one pixel is in its mask."""
    categories = describe_categories(tensors["category_logits"])
    return [
        {
            "text": prompts[prompt],
            **mask,
            "matched_query": int(tensors["matched_queries"][prompt]),
            "similarity": round(float(tensors["similarities"][prompt]), 6),
            **categories[prompt],
            "p_value": p_values[prompt],
            "truncated": bool(tensors["truncated"][prompt]),
        }
        for prompt, mask in described.items()
    ]


def encode_image_features(masks: NDArray[np.uint8]) -> bytes:
    """The JSON text that MedImageParse clients read."""
    data = base64.b64encode(masks.data).decode()
    return json.dumps({"data": data, "shape": masks.shape, "dtype": "uint8"}).encode()


def build_report(
    described: list[dict[str, Any]],
    rejected: list[dict[str, Any]],
    p_value_threshold: float | None,
    geometry: dict[str, Any],
    tokenized: dict[str, Any],
    networks: dict[str, Any],
) -> dict[str, Any]:
    """The `report` output but for its milliseconds. The prompts' texts stand here only: who sent them gets them."""
    return {
        "prompts": described,
        "joint": tokenized["joint"],
        "image_type": tokenized["image_type"],
        "p_value_threshold": p_value_threshold,
        "rejected": rejected,
        "image": {name: value for name, value in geometry.items() if name != "warnings"},
        "warnings": geometry["warnings"],
        "networks": networks,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "notes": {
            "box_pixels": "first and last row and column of the upright image, inclusive, from 0",
            "p_value": "small where the mask covers other colours than this target does in images of this type",
        },
    }
