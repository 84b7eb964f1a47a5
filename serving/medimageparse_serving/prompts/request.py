"""What a request asks for: its prompts, and which of them are decoded together."""

from dataclasses import dataclass

import numpy as np
from medimageparse_contract.image_types import TARGETS, ImageType
from numpy.typing import NDArray

from medimageparse_serving.prompts.clip_tokenizer import decode_text, split_prompts
from medimageparse_serving.refused import Refused


@dataclass(frozen=True)
class Limits:
    """The limits of a request. It is checked before it costs anything."""

    max_prompts: int
    max_characters: int
    max_groups: int


@dataclass(frozen=True)
class Asked:
    """How the prompts were asked for."""

    image_type: str | None
    recognize: bool
    joint: bool


@dataclass(frozen=True, eq=False)
class PromptRequest:
    """prompts: as asked, or the targets of the image type; prompt_groups: [G,N], those decoded together."""

    prompts: list[str]
    prompt_groups: NDArray[np.int64]
    asked: Asked


def read_request(text: bytes | None, image_type: bytes | None, joint: bool | None, limits: Limits) -> PromptRequest:
    """Without text it is recognition: all targets of the image type, each decoded alone."""
    recognize = text is None
    is_joint = not recognize if joint is None else joint
    known_type = None if image_type is None else known_image_type(image_type)
    if text is None:
        prompts = targets_of(known_type)
    else:
        prompts = split_prompts(decode_text(text, limits.max_characters), limits.max_prompts, limits.max_characters)
    groups = group_prompts(len(prompts), is_joint, limits.max_groups)
    return PromptRequest(prompts, groups, Asked(known_type, recognize, is_joint))


def known_image_type(name: bytes) -> ImageType:
    """The request's `image_type` as a string."""
    image_type = name[:100].decode(errors="replace").strip()  # none is as long
    if image_type not in TARGETS:
        raise Refused(f"image_type is not known; send one of: {', '.join(TARGETS)}")
    return image_type


def targets_of(image_type: ImageType | None) -> list[str]:
    """The prompts of a request without `text`."""
    if image_type is None:
        raise Refused("there is neither text nor image_type; send prompts as text, or an image_type to recognize")
    return list(TARGETS[image_type])


def group_prompts(n_prompts: int, joint: bool, max_groups: int) -> NDArray[np.int64]:
    """Which prompts are decoded together, [G,N]: all of them (joint), or each alone."""
    if not joint and n_prompts > max_groups:
        raise Refused(f"{n_prompts} prompts to decode one by one; send at most {max_groups}, or joint=true")
    prompts = np.arange(n_prompts)
    return prompts[None] if joint else prompts[:, None]
