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
from medimageparse_client.formats import nifti, picture
from medimageparse_client.results.image_segmentation import MAX_LABEL, ImageSegmentation
from medimageparse_client.results.segmentation import Segmentation

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
    lines = [f"{'label':>5}  {'score':>5}  {'voxels':>9}  {'ml':>8}  prompt\n"]
    for prompt, label in result.labels.items():
        described = result.describe(prompt)
        score, voxels, volume_ml = (described[name] for name in ("highest_score", "voxels", "volume_ml"))
        ml = "-" if volume_ml is None else f"{volume_ml:.1f}"
        cut = "  (cut to 77 tokens)" if described["truncated"] else ""
        lines.append(f"{label:>5}  {score:>5.2f}  {voxels:>9}  {ml:>8}  {prompt}{cut}\n")
    used = result.report["image"]
    sides = f"stored as {used['stored_orientation']}, read as {used['orientation']}"
    facts = (
        f"intensity {intensity_words(used['intensity'])}",
        sides if used["sides_known"] else "which side is left is not known",
        f"sliced along axis {'xyz'[used['slice_axis_stored']]}",
    )
    return "".join(lines) + f"used: {' | '.join(facts)}\n"


def image_table(result: ImageSegmentation) -> str:
    """One line a prompt, what a recognition left out, then what was used."""
    lines = [f"{'label':>5}  {'highest':>7}  {'pixels':>9}  {'p-value':>7}  {'category':<19}  prompt\n"]
    for prompt, label in result.labels.items():
        described = result.describe(prompt)
        p_value = "-" if described["p_value"] is None else f"{described['p_value']:.3f}"
        cut = "  (cut to 77 tokens)" if described["truncated"] else ""
        lines.append(
            f"{label:>5}  {described['highest_probability']:>7.2f}  {described['area_pixels']:>9}  {p_value:>7}  "
            f"{described['category']:<19}  {prompt}{cut}\n"
        )
    lines += [f"left out: {rejected['text']} ({rejected['reason']})\n" for rejected in result.report["rejected"]]
    dicom = result.report.get("dicom")
    if dicom:  # the picture that was sent is made of it
        inverted = " | inverted" if dicom["inverted"] else ""
        used = f"DICOM window {dicom['window'] or 'percentile'} {bounds_words(dicom['bounds'])}{inverted}"
    else:
        used = f"intensity {intensity_words(result.report['image']['intensity'])}"
    return "".join(lines) + f"used: {used}\n"


def intensity_words(intensity: dict[str, Any]) -> str:
    return f"{intensity['used']} {bounds_words(intensity['bounds'])}".strip()


def bounds_words(bounds: list[float] | None) -> str:
    return f"{bounds[0]:g}..{bounds[1]:g}" if bounds else ""


ENCODE: dict[str, Encoder] = {"output": encode_masks, "preview": encode_preview, "report": encode_report}
VOLUMES = Kind(
    noun="volume",
    model=MODEL_3D,
    suffixes=nifti.SUFFIXES,
    recognizes=nifti.recognizes,
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
