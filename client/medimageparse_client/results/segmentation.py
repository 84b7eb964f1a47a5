"""What the server answers, as the caller sees it."""

import base64
import gzip
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medimageparse_client.files import ending_of, picture_bytes, write_file
from medimageparse_client.formats.nifti import SUFFIXES, decode_voxels
from medimageparse_client.results.preview import draw_preview


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map and what the server says about it.

    prompts: as asked, in order; label k is the k-th prompt
    label_map: integers [x,y,z] in the voxels of the volume that was sent, 0 is background
    affine: float64 [4,4], voxels to millimetres (RAS+), as the server read it from the volume; where the file does not
        say how the patient lies (`report["image"]["sides_known"]`), nobody knows whether x really is left to right
    labels: prompt -> label; of a repeated prompt the first, which holds the voxels
    scores: float32 [P,D], how sure the network is that prompt P is on slice D, 0..1
    report: the server's: per prompt volume and bounding box, intensity handling, hashes, times
    nifti: the label map as the bytes of a .nii.gz file, as the server made it
    volume: the bytes that were sent, for the preview
    """

    prompts: tuple[str, ...]
    label_map: npt.NDArray[np.integer[Any]] = field(repr=False)
    affine: npt.NDArray[np.float64] = field(repr=False)
    labels: dict[str, int]
    scores: npt.NDArray[np.float32] = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    nifti: bytes = field(repr=False)
    volume: bytes = field(repr=False)

    def mask(self, prompt: str) -> npt.NDArray[np.bool_]:
        """The voxels [x,y,z] of one prompt."""
        return np.asarray(self.label_map == self.labels[prompt])

    def describe(self, prompt: str) -> dict[str, Any]:
        """What the report says about one prompt: present, highest_score, voxels, volume_ml, box_voxels, box_mm."""
        described: dict[str, Any] = self.report["prompts"][self.labels[prompt] - 1]
        return described

    def to_bytes(self, ending: str = ".nii.gz") -> bytes:
        """The label map as the bytes of a .nii.gz file (as the server made it) or of a .nii."""
        if ending not in SUFFIXES:
            raise ValueError("a label map is saved as .nii.gz or .nii")
        return self.nifti if ending == ".nii.gz" else gzip.decompress(self.nifti)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the label map as .nii.gz or .nii; whole or not at all."""
        write_file(path, self.to_bytes(ending_of(path, SUFFIXES)))

    def preview(self, path: str | os.PathLike[str]) -> None:
        """Writes what `draw` gives (.png); whole or not at all."""
        write_file(path, picture_bytes(self.draw(), Path(path).suffix))

    def draw(self) -> Image.Image:
        """A few slices with the labels in colour and a legend, in radiological display."""
        image = self.report["image"]
        legend = {label: describe_size(prompt, self.describe(prompt)) for prompt, label in self.labels.items()}
        return draw_preview(
            decode_voxels(self.volume),
            self.label_map,
            self.affine,
            legend,
            grey_range=image["intensity"]["bounds"],
            padding=image["intensity"].get("padding", ()),
            is_oriented=image["sides_known"],
        )


def describe_size(prompt: str, described: dict[str, Any]) -> str:
    """A line of the legend."""
    if not described["present"]:
        return f"{prompt}: not found"
    return f"{prompt}: {described['volume_ml']:.1f} ml"


def decode_answer(
    prompts: tuple[str, ...], volume: bytes, nifti_file: bytes, scores: npt.NDArray[np.float32], report: bytes
) -> Segmentation:
    """The outputs of the model, all of one request, put together."""
    nifti = base64.b64decode(json.loads(nifti_file)["data"])
    told = json.loads(report)
    labels: dict[str, int] = {}
    for label, prompt in enumerate(prompts, start=1):
        labels.setdefault(prompt, label)
    return Segmentation(
        prompts=prompts,
        label_map=decode_voxels(nifti),
        affine=np.array(told["image"]["affine"], np.float64),
        labels=labels,
        scores=scores,
        report=told,
        nifti=nifti,
        volume=volume,
    )
