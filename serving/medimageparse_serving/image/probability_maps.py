"""Mask logits of the square image -> 8-bit probabilities of the image as it was sent."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pybase64
from numpy.typing import NDArray
from scipy.special import expit

from medimageparse_serving.eight_bits import to_eight_bits
from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.image.report import MaskReport, describe_mask
from medimageparse_serving.refused import Refused

THRESHOLD = 0.5  # of probability; 127.5 of its 8-bit value
STRIP = 256  # rows that are computed at a time: few enough for the cache, many enough that threads seldom wait
AT_A_TIME = 2  # prompts, each in a thread; as many are in memory as FP32

# a prompt's probabilities [H,W] and its mask [H,W]
Found = tuple[NDArray[np.float32], NDArray[np.bool_]]


def check_size(n_prompts: int, geometry: Geometry, max_mask_bytes: int) -> None:
    """Refuses masks over the limit, before memory is taken."""
    height, width = geometry.height, geometry.width
    if n_prompts * height * width > max_mask_bytes:
        raise Refused(
            f"{n_prompts} masks of {height} x {width} pixels are more than {max_mask_bytes} bytes; "
            "send fewer prompts in one request, or a smaller image"
        )


def enlarge(logits: NDArray[np.float32], side: int, rows: range, columns: range) -> NDArray[np.float32]:
    """These rows and columns of logits [s,s] resized to [side,side]; bilinear, as the networks were trained."""
    return between(widen(logits, side, columns), side, rows)


def widen(logits: NDArray[np.float32], side: int, columns: range) -> NDArray[np.float32]:
    """These columns of logits [s,s] that are resized to `side` in width: [s,columns]."""
    return np.ascontiguousarray(between(logits.T, side, columns).T)


def between(values: NDArray[np.float32], side: int, wanted: range) -> NDArray[np.float32]:
    """These rows of values [s,w] that are resized to `side` in height: [wanted,w]."""
    low, high, share = neighbours(len(values), side, wanted)
    found, upper = values[low], values[high]
    found *= (1 - share)[:, None]
    upper *= share[:, None]
    found += upper
    return found


def neighbours(n: int, side: int, wanted: range) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Of n values spread over `side` pixels, the two around each wanted pixel's centre and the second one's share."""
    position = np.clip((np.array(wanted) + 0.5) * n / side - 0.5, 0, n - 1)
    low = position.astype(np.int64)
    return low, np.minimum(low + 1, n - 1), (position - low).astype(np.float32)


def image_probabilities(logits: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Logits [s,s] of the padded square -> probabilities [H,W] of the image."""
    top, left = geometry.top, geometry.left
    wide = widen(logits, geometry.side, range(left, left + geometry.width))
    probabilities = np.empty((geometry.height, geometry.width), np.float32)
    for start in range(0, geometry.height, STRIP):
        strip = probabilities[start : start + STRIP]
        expit(between(wide, geometry.side, range(top + start, top + start + len(strip))), out=strip)
    return probabilities


def segment_prompt(logits: NDArray[np.float32], geometry: Geometry) -> Found:
    """Of logits [s,s] of the padded square."""
    probabilities = image_probabilities(logits, geometry)
    return probabilities, probabilities > THRESHOLD


def encode_masks(
    prompts: Sequence[int], find: Callable[[int], Found], geometry: Geometry, output: str
) -> tuple[NDArray[np.uint8], dict[int, MaskReport]]:
    """What `find` says of each prompt number, as [N,H,W], and what the report says of each mask."""
    masks = np.empty((len(prompts), geometry.height, geometry.width), np.uint8)

    def encode(place: int) -> MaskReport:
        probabilities, mask = find(prompts[place])
        masks[place] = mask if output == "masks" else to_uint8(probabilities, mask)
        return describe_mask(mask, probabilities)

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        described = threads.map(encode, range(len(prompts)))
        return masks, dict(zip(prompts, described, strict=True))


def to_uint8(probabilities: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probabilities as 0..255, above 127.5 where the mask is and nowhere else; the mask lies within p > 0.5."""
    values = np.empty(mask.shape, np.uint8)
    for start in range(0, len(mask), STRIP):
        rows = slice(start, start + STRIP)
        # bytes of a mask are 0 or 1; numpy's `where` would take eight times as long
        np.minimum(to_eight_bits(probabilities[rows]), (mask[rows].view(np.uint8) << 7) + 127, out=values[rows])
    return values


def encode_image_features(masks: NDArray[np.uint8]) -> bytes:
    """The JSON text that MedImageParse clients read."""
    rest = json.dumps({"shape": masks.shape, "dtype": "uint8"}).removeprefix("{").encode()
    return b"".join([b'{"data": "', pybase64.b64encode(masks.data), b'", ', rest])
