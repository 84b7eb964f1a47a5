"""What the two commands that segment have different: files, results, requests and tables."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimageparse_contract.models import MODEL_2D, MODEL_3D

from medimageparse_client.client import Client
from medimageparse_client.files import picture_bytes
from medimageparse_client.formats import nifti, picture, voxels
from medimageparse_client.results.image_segmentation import MAX_LABEL, ImageSegmentation
from medimageparse_client.results.segmentation import Segmentation

CUT = "  (cut to 77 tokens)"
# writes a result as the bytes of a file that ends as the second argument says
Encoder = Callable[[Any, str], bytes]


@dataclass(frozen=True)
class Kind:
    """What a command segments.

    suffixes: that the files it takes usually have
    recognizes: whether a file holds such a thing, whatever its name
    results: option -> the endings of the file it names; the first is given to results in a folder
    encode: option -> what makes the bytes of that file
    max_prompts: ending -> how many a label map that ends so can hold
    segment: sends one file, or its bytes
    table: what was found, one line a prompt, and what was used
    """

    noun: str
    model: str
    suffixes: tuple[str, ...]
    recognizes: Callable[[Path], bool]
    results: dict[str, tuple[str, ...]]
    encode: dict[str, Encoder]
    max_prompts: dict[str, int]
    segment: Callable[[argparse.Namespace, Client, Path | bytes, tuple[str, ...]], Segmentation | ImageSegmentation]
    table: Callable[[Any], str]


def segment_volume(
    args: argparse.Namespace, client: Client, source: Path | bytes, prompts: tuple[str, ...]
) -> Segmentation:
    return client.segment(
        source, prompts, intensity=args.intensity, orientation=args.orientation, slice_axis=args.slice_axis
    )


def segment_image(
    args: argparse.Namespace, client: Client, source: Path | bytes, prompts: tuple[str, ...]
) -> ImageSegmentation:
    return client.segment_image(
        source,
        prompts or None,
        image_type=args.image_type,
        joint=args.joint,
        p_value_threshold=args.p_value_threshold,
        window=args.window,
    )


def encode_masks(result: Segmentation | ImageSegmentation, ending: str) -> bytes:
    return result.to_bytes(ending)


def encode_preview(result: Segmentation | ImageSegmentation, ending: str) -> bytes:
    return picture_bytes(result.draw(), ending)


def encode_report(result: Segmentation | ImageSegmentation, ending: str) -> bytes:
    return json.dumps(result.report, indent=2, ensure_ascii=False).encode() + b"\n"


def volume_table(result: Segmentation) -> str:
    """One line a prompt, then what was used."""
    facts = result.facts
    lines = [f"{'label':>5}  {'score':>5}  {'voxels':>9}  {'ml':>8}  prompt\n"]
    for prompt, label in result.labels.items():
        found = facts.prompts[label - 1]
        ml = "-" if found.volume_ml is None else f"{found.volume_ml:.1f}"
        cut = CUT if found.truncated else ""
        lines.append(f"{label:>5}  {found.highest_score:>5.2f}  {found.voxels:>9}  {ml:>8}  {prompt}{cut}\n")
    used = facts.image
    sides = f"stored as {used.stored_orientation}, read as {used.orientation}"
    words = (
        f"intensity {used.intensity}",
        sides if used.sides_known else "which side is left is not known",
        f"sliced along axis {'xyz'[used.slice_axis_stored]}",
    )
    return "".join(lines) + f"used: {' | '.join(words)}\n"


def image_table(result: ImageSegmentation) -> str:
    """One line a prompt, what a recognition left out, then what was used."""
    facts = result.facts
    lines = [f"{'label':>5}  {'highest':>7}  {'pixels':>9}  {'p-value':>7}  {'category':<19}  prompt\n"]
    for prompt, label in result.labels.items():
        found = facts.prompts[label - 1]
        p_value = "-" if found.p_value is None else f"{found.p_value:.3f}"
        cut = CUT if found.truncated else ""
        lines.append(
            f"{label:>5}  {found.highest_probability:>7.2f}  {found.area_pixels:>9}  {p_value:>7}  "
            f"{found.category:<19}  {prompt}{cut}\n"
        )
    lines += [f"left out: {rejected.text} ({rejected.reason})\n" for rejected in facts.rejected]
    # of a DICOM slice a picture was made and sent
    used = facts.dicom or f"intensity {facts.image.intensity}"
    return "".join(lines) + f"used: {used}\n"


ENCODE: dict[str, Encoder] = {"output": encode_masks, "preview": encode_preview, "report": encode_report}
VOLUMES = Kind(
    noun="volume",
    model=MODEL_3D,
    suffixes=nifti.SUFFIXES,
    recognizes=voxels.recognizes,
    results={"output": (".nii.gz", ".nii"), "preview": (".png",), "report": (".json",)},
    encode=ENCODE,
    max_prompts={},
    segment=segment_volume,
    table=volume_table,
)
IMAGES = Kind(
    noun="image",
    model=MODEL_2D,
    suffixes=picture.SUFFIXES,
    recognizes=picture.recognizes,
    results={"output": (".png", ".npz"), "preview": (".png",), "report": (".json",)},
    encode=ENCODE,
    max_prompts={".png": MAX_LABEL},
    segment=segment_image,
    table=image_table,
)
