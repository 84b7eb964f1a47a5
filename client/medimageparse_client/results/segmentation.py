"""What the server answers, as the caller sees it."""

import gzip
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medimageparse_client.errors import OddAnswer
from medimageparse_client.files import ending_of, write_file, write_files, write_picture
from medimageparse_client.formats.geometry import along_axes
from medimageparse_client.formats.nifti import SUFFIXES, is_invertible
from medimageparse_client.formats.series import DicomSeries
from medimageparse_client.formats.voxels import decode_label_map, decode_voxels, read_layout
from medimageparse_client.results.answer import Answer, NiftiFile, odd_answers_refused
from medimageparse_client.results.colours import colours_of
from medimageparse_client.results.label_table import ENDINGS as TABLE_ENDINGS
from medimageparse_client.results.label_table import encode_label_table
from medimageparse_client.results.mask_files import encode_mask, mask_names
from medimageparse_client.results.meshes import ENCODERS, surface
from medimageparse_client.results.preview import draw_preview
from medimageparse_client.results.report import Report, VolumeFacts, VolumePrompt, facts_of, label_of, labels_of
from medimageparse_client.results.segmented import SegType
from medimageparse_client.results.statistics import VOLUME_COLUMNS, Row, html_table, rows_of, value_statistics
from medimageparse_client.results.volume_maps import MapFile, decode_maps
from medimageparse_client.results.writers import ENDINGS, encode_result


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map and what the server says about it.

    prompts: as asked, in order; label k is the k-th prompt
    label_map: integers [x,y,z] in the voxels of the volume that was sent, 0 is background
    affine: float64 [4,4], voxels to millimetres (RAS+), as the server read it from the volume; where the file does not
        say how the patient lies (`report["image"]["sides_known"]`), nobody knows whether x really is left to right
    labels: prompt -> label; of a repeated prompt the first, which holds the voxels
    scores: float32 [P,D], existence score of prompt P on slice D, 0..1
    report: the server's: per prompt volume and bounding box, intensity handling, hashes, times
    nifti: the label map as the bytes of a .nii.gz file, as the server made it
    volume: the bytes that were sent, for the preview
    maps: by name what else was asked for, as arrays and files
    series: the DICOM series that was segmented, to which a SEG refers; its report has `dicom` besides
    """

    prompts: tuple[str, ...]
    label_map: npt.NDArray[np.integer[Any]] = field(repr=False)
    affine: npt.NDArray[np.float64] = field(repr=False)
    labels: dict[str, int]
    scores: npt.NDArray[np.float32] = field(repr=False)
    report: Report = field(repr=False)
    nifti: bytes = field(repr=False)
    volume: bytes = field(repr=False)
    maps: dict[str, MapFile] = field(repr=False, default_factory=dict)
    series: DicomSeries | None = field(default=None, repr=False)

    @property
    def probabilities(self) -> npt.NDArray[np.uint8] | None:
        """[P,x,y,z] of each prompt alone, 255 is 1.0, over 127 means over 0.5; None where nobody asked for them."""
        return self._map("probabilities")

    @property
    def uncertainty(self) -> npt.NDArray[np.uint8] | None:
        """[P,x,y,z], how far several draws spread: their standard deviation, 255 is 0.5; None for one draw."""
        return self._map("uncertainty")

    @property
    def instances(self) -> npt.NDArray[np.uint16] | None:
        """[x,y,z], the number of the instance at each voxel, 0 for none; None where nobody asked for them."""
        return self._map("instances")

    def _map(self, name: str) -> npt.NDArray[Any] | None:
        return self.maps[name].voxels if name in self.maps else None

    def mask(self, prompt: str) -> npt.NDArray[np.bool_]:
        """The voxels [x,y,z] of one prompt; UnknownPrompt for one that was not asked.

        With `maps` it is whole and may overlap others; without, it is what the label map leaves it.
        """
        label = label_of(self.labels, prompt)
        for name, least in (("probabilities", 128), ("masks", 1)):
            if name in self.maps:
                return np.asarray(self.maps[name].voxels[label - 1] >= least)
        return np.asarray(self.label_map == label)

    @property
    def facts(self) -> VolumeFacts:
        """What this package reads out of the report."""
        return facts_of(self.report, VolumeFacts)

    @property
    def affine_of_files(self) -> npt.NDArray[np.float64]:
        """What formats that cannot leave the sides open say; float64 [4,4], voxels to mm (RAS+)."""
        return self.affine if self.facts.image.sides_known else along_axes(self.affine)

    def describe(self, prompt: str) -> Report:
        """What the report says about one prompt: present, highest_score, voxels, volume_ml, box_voxels, box_mm."""
        described: Report = self.report["prompts"][label_of(self.labels, prompt) - 1]
        return described

    def statistics(self) -> list[Row]:
        """One row a prompt, for pandas.DataFrame: what the report says, mean and deviation of the values in the mask.

        The values are those of the file, scaled as its header says: of CT in Hounsfield units.
        """
        voxels = decode_voxels(self.volume)
        rows = rows_of(self.report, VOLUME_COLUMNS)
        return [row | value_statistics(voxels, self.label_map == row["label"]) for row in rows]

    def _repr_html_(self) -> str:
        return html_table(rows_of(self.report, VOLUME_COLUMNS))

    def to_bytes(self, ending: str = ".nii.gz", *, seg_type: SegType = "binary") -> bytes:
        """The bytes of a file that ends so.

        .nii.gz (as the server made it), .nii, .nrrd and .mha hold the label map, .seg.nrrd (3D Slicer) names and
        colours too. .seg.dcm and .rtstruct.dcm are DICOM: they need the extra `dicom` and a result of a DICOM series.

        seg_type: what a DICOM SEG holds: "binary" (masks, whole ones where the result has `maps`), "labelmap", or
            "fractional" (probabilities)
        """
        return encode_result(self, ending, seg_type)

    def save(self, path: str | os.PathLike[str], *, seg_type: SegType = "binary") -> None:
        """Writes what `to_bytes` gives for the ending of the name; whole or not at all."""
        write_file(path, self.to_bytes(ending_of(path, ENDINGS), seg_type=seg_type))

    def map_bytes(self, name: str, ending: str = ".nii.gz") -> bytes:
        """One of `maps` as the bytes of a .nii.gz file (as the server made it) or of a .nii."""
        if name not in self.maps:
            raise ValueError(f"the result has no {name}; ask for them")
        if ending not in SUFFIXES:
            raise ValueError("a map is saved as .nii.gz or .nii")
        nifti = self.maps[name].nifti
        return nifti if ending == ".nii.gz" else gzip.decompress(nifti)

    def save_map(self, name: str, path: str | os.PathLike[str]) -> None:
        """Writes one of `maps` as .nii.gz or .nii; whole or not at all."""
        write_file(path, self.map_bytes(name, ending_of(path, SUFFIXES)))

    def masks(self) -> dict[str, bytes]:
        """Name of a file -> its bytes, a .nii.gz of 0 and 1 for each prompt, as `mask` gives it."""
        names = mask_names(self.labels, ".nii.gz")
        return {name: encode_mask(self.mask(prompt), self.nifti) for prompt, name in names.items()}

    def save_masks(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `masks` gives into a folder; each file whole or not at all."""
        write_files(folder, self.masks())

    def meshes(self, ending: str = ".stl", *, smoothing_mm: float = 0.0) -> dict[str, bytes]:
        """Name of a file -> its bytes, .stl or .ply, the surface of each prompt's mask in mm (LPS).

        smoothing_mm: sigma of the Gaussian that smooths the mask before; 0 leaves the steps of the voxels. It needs the
            extra `mesh`
        """
        if ending not in ENCODERS:
            raise ValueError(f"a mesh is saved as {' or '.join(ENCODERS)}")
        encode = ENCODERS[ending]
        names = mask_names(self.labels, ending)
        affine = self.affine_of_files
        return {name: encode(*surface(self.mask(prompt), affine, smoothing_mm)) for prompt, name in names.items()}

    def save_meshes(self, folder: str | os.PathLike[str], ending: str = ".stl", *, smoothing_mm: float = 0.0) -> None:
        """Writes what `meshes` gives into a folder; each file whole or not at all."""
        write_files(folder, self.meshes(ending, smoothing_mm=smoothing_mm))

    def save_label_table(self, path: str | os.PathLike[str]) -> None:
        """Writes names and colours of the labels: .label or .txt for ITK-SNAP, .ctbl for 3D Slicer."""
        ending = ending_of(path, TABLE_ENDINGS)
        if not ending:
            raise ValueError(f"a label table is saved as {', '.join(TABLE_ENDINGS)}")
        write_file(path, encode_label_table(self.labels, ending))

    def preview(self, path: str | os.PathLike[str] | None = None, *, is_filled: bool = True) -> Image.Image:
        """What `draw` gives; with a path (.png) it is written too, whole or not at all."""
        return write_picture(self.draw(is_filled=is_filled), path)

    def draw(self, *, is_filled: bool = True) -> Image.Image:
        """A few slices with the labels in colour and a legend, in radiological display.

        is_filled: whether labels are tinted; without it their outlines stand alone
        """
        facts = self.facts
        legend = {label: describe_size(prompt, facts.prompts[label - 1]) for prompt, label in self.labels.items()}
        return draw_preview(
            decode_voxels(self.volume),
            self.label_map,
            self.affine,
            legend,
            grey_range=facts.image.intensity.bounds,
            padding=facts.image.intensity.padding,
            is_oriented=facts.image.sides_known,
            colours=colours_of(self.prompts, "3d"),
            is_filled=is_filled,
        )


def describe_size(prompt: str, described: VolumePrompt) -> str:
    """A line of the legend."""
    if not described.present:
        return f"{prompt}: not found"
    ml = described.volume_ml
    return f"{prompt}: {described.voxels} voxels" if ml is None else f"{prompt}: {ml:.1f} ml"


def decode_answer(
    prompts: tuple[str, ...] | None, volume: bytes, answer: Answer, maps: Iterable[str] = ()
) -> Segmentation:
    """The outputs of the model, all of one request, put together; they must fit the volume that was sent.

    prompts: as sent; None for a preset, whose sentences the report has

    maps: the names of those that were asked for besides the labels
    """
    report: Report = answer.json("report", dict[str, Any])
    with odd_answers_refused("report"):
        facts = facts_of(report, VolumeFacts)
    if prompts is None:
        prompts = tuple(prompt.text for prompt in facts.prompts)
    shape = read_layout(volume).shape
    nifti = answer.json("nifti_file", NiftiFile).data
    with odd_answers_refused("nifti_file"):
        label_map = decode_label_map(nifti, shape, len(prompts))
    scores = answer.tensor("scores", np.float32, 2)
    if len(facts.prompts) != len(prompts) or scores.shape != (len(prompts), shape[facts.image.slice_axis_stored]):
        raise OddAnswer("the server's answer does not have one score for each prompt and slice")
    affine = np.array(facts.image.affine, np.float64)
    if not is_invertible(affine):
        raise OddAnswer("the server's answer has an affine that cannot be inverted")
    decoded = decode_maps(answer, maps, shape, len(prompts))
    return Segmentation(prompts, label_map, affine, labels_of(prompts), scores, report, nifti, volume, decoded)


def of_series(result: Segmentation, series: DicomSeries, described: Report) -> Segmentation:
    """The result with the series that it is of, and in the report what was made of that."""
    warnings = [*series.notes, *result.report.get("warnings", [])]
    return replace(result, series=series, report=result.report | {"dicom": described, "warnings": warnings})
