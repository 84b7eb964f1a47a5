"""What the server answers about an image, as the caller sees it."""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medimageparse_client.errors import OddAnswer
from medimageparse_client.files import ending_of, picture_bytes, write_file, write_files, write_picture
from medimageparse_client.formats.picture import EncodedImage, encode_picture
from medimageparse_client.formats.shown_picture import decode_picture, upright_size
from medimageparse_client.results.answer import Answer, odd_answers_refused
from medimageparse_client.results.colours import colour, colours_of
from medimageparse_client.results.mask_files import mask_names
from medimageparse_client.results.preview import draw_image_preview
from medimageparse_client.results.report import ImageFacts, ImagePrompt, Report, facts_of, label_of, labels_of
from medimageparse_client.results.statistics import IMAGE_COLUMNS, Row, html_table, rows_of

if TYPE_CHECKING:
    from medimageparse_client.formats.dicom_slice import DicomSlice
    from medimageparse_client.formats.volume_slice import VolumeSlice

MAX_LABEL = 255  # of an 8-bit PNG
VOLUME_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, eq=False)
class ImageSegmentation:
    """Probability maps and what the server says about them.

    prompts: as asked, in order, or as recognized; may be none after a recognition
    probabilities: uint8 [P,H,W] in the pixels of the image that was sent, 127.5 is 0.5
    categories: one of 16 for each prompt, for example "lung" or "tumor"
    report: the server's: per prompt area, bounding box, category, p-value; hashes, times; `warnings`, sentences on what
        makes the picture doubtful, usually none.
        For a slice, of DICOM or of a volume, area and box are those in its own pixels, and `dicom` or `slice` says
        how it was windowed
    image: the bytes of an image file in whose pixels the masks lie, for the preview
    """

    prompts: tuple[str, ...]
    probabilities: npt.NDArray[np.uint8] = field(repr=False)
    categories: tuple[str, ...]
    report: Report = field(repr=False)
    image: bytes = field(repr=False)
    volume_slice: "VolumeSlice | None" = field(default=None, repr=False)

    @property
    def labels(self) -> dict[str, int]:
        """Prompt -> label; of a repeated prompt the first."""
        return labels_of(self.prompts)

    @cached_property
    def label_map(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """[H,W], k where the k-th prompt is the most probable one above 0.5 (of equals the first), 0 elsewhere."""
        label_map = np.zeros(self.probabilities.shape[1:], np.min_scalar_type(len(self.prompts)))
        highest = np.full(label_map.shape, 127, np.uint8)
        for label, probability in enumerate(self.probabilities, start=1):
            is_higher = probability > highest
            label_map[is_higher] = label
            highest[is_higher] = probability[is_higher]
        return label_map

    def mask(self, prompt: str) -> npt.NDArray[np.bool_]:
        """The pixels [H,W] of one prompt; masks of two may overlap. UnknownPrompt for one that was not asked."""
        return find_mask(self.probabilities[label_of(self.labels, prompt) - 1])

    @property
    def facts(self) -> ImageFacts:
        """What this package reads out of the report."""
        return facts_of(self.report, ImageFacts)

    def describe(self, prompt: str) -> Report:
        """What the report says about one prompt: present, area_pixels, box_pixels, category, p_value and more."""
        described: Report = self.report["prompts"][label_of(self.labels, prompt) - 1]
        return described

    def statistics(self) -> list[Row]:
        """One row a prompt, for pandas.DataFrame: what the report says."""
        return rows_of(self.report, IMAGE_COLUMNS)

    def _repr_html_(self) -> str:
        return html_table(self.statistics())

    def masks(self) -> dict[str, bytes]:
        """Name of a file -> its bytes, a black and white .png for each prompt."""
        pictures = {name: self.mask(prompt) for prompt, name in mask_names(self.labels, ".png").items()}
        return {name: picture_bytes(Image.fromarray(mask), ".png") for name, mask in pictures.items()}

    def save_masks(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `masks` gives into a folder; each file whole or not at all."""
        write_files(folder, self.masks())

    def to_bytes(self, ending: str = ".png") -> bytes:
        """The label map as the bytes of an 8-bit palette .png, or probabilities, prompts and categories of an .npz.

        Of a slice of a volume also as a .nii.gz or .nii: labels in the whole volume, 0 on its other slices.
        """
        if ending == ".npz":
            file = BytesIO()
            texts = {"prompts": np.array(self.prompts, np.str_), "categories": np.array(self.categories, np.str_)}
            np.savez_compressed(file, probabilities=self.probabilities, **texts)
            return file.getvalue()
        if ending in VOLUME_ENDINGS and self.volume_slice:
            return self.volume_slice.encode_labels(self.label_map, ending)
        if ending != ".png":
            raise ValueError("masks are saved as .png or .npz, and those of a slice of a volume as .nii.gz or .nii")
        if len(self.prompts) > MAX_LABEL:
            raise ValueError(f"a .png holds {MAX_LABEL} labels at most; save as .npz")
        picture = Image.fromarray(self.label_map)
        colours = colours_of(self.prompts, "2d")
        labels = range(1, MAX_LABEL + 1)
        picture.putpalette([0, 0, 0, *(level for label in labels for level in colours.get(label) or colour(label))])
        return picture_bytes(picture, ending)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what `to_bytes` gives, as the name ends; whole or not at all."""
        write_file(path, self.to_bytes(ending_of(path, (".png", ".npz", *VOLUME_ENDINGS))))

    def draw(self, *, is_filled: bool = True) -> Image.Image:
        """The image with the labels in colour and a legend.

        is_filled: whether labels are tinted; without it their outlines stand alone
        """
        facts = self.facts
        legend = {label: describe_area(prompt, facts.prompts[label - 1]) for prompt, label in self.labels.items()}
        intensity = facts.image.intensity
        picture = decode_picture(self.image, facts.image.exif_orientation, intensity.bounds, intensity.padding)
        colours = colours_of(self.prompts, "2d")
        # a slice of a volume may have pixels that are not as high as wide
        labels = Image.fromarray(self.label_map).resize(picture.size, Image.Resampling.NEAREST)
        return draw_image_preview(picture, np.asarray(labels), legend, colours=colours, is_filled=is_filled)

    def preview(self, path: str | os.PathLike[str] | None = None, *, is_filled: bool = True) -> Image.Image:
        """What `draw` gives; with a path (.png) it is written too, whole or not at all."""
        return write_picture(self.draw(is_filled=is_filled), path)


def find_mask(probability: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where a map is above 0.5."""
    return probability > 127


def describe_area(prompt: str, described: ImagePrompt) -> str:
    """A line of the legend."""
    if not described.present:
        return f"{prompt}: not found"
    return f"{prompt}: {described.area_pixels} pixels, {described.category}"


def decode_image_answer(prompts: tuple[str, ...] | None, image: EncodedImage, answer: Answer) -> ImageSegmentation:
    """The outputs of the model, all of one request, put together; they must fit the image that was sent.

    Without prompts those that the report names are the result's.
    """
    report: Report = answer.json("report", dict[str, Any])
    with odd_answers_refused("report"):
        facts = facts_of(report, ImageFacts)
        size = upright_size(image.data, facts.image.exif_orientation)
    categories = answer.texts("text_features")
    probabilities = answer.tensor("probabilities", np.uint8, 3, may_be_empty=True)
    texts = tuple(described.text for described in facts.prompts)
    if not len(probabilities) == len(categories) == len(texts) == len(texts if prompts is None else prompts):
        raise OddAnswer("the server's answer does not have one map and one category for each prompt")
    if probabilities.shape[1:] != size:
        raise OddAnswer("the server's answer has maps of another size than the image that was sent")
    result = ImageSegmentation(texts if prompts is None else prompts, probabilities, categories, report, image.data)
    return result if image.made_of is None else bring_to_slice(result, image.made_of, prompts is None)


def bring_to_slice(result: ImageSegmentation, slice_: "DicomSlice | VolumeSlice", are_apart: bool) -> ImageSegmentation:
    """From the square that was sent to the pixels of the slice; `are_apart` masks share no pixel, and still don't."""
    shape = slice_.own_shape
    maps = np.array([slice_.own_grid(square) for square in result.probabilities], np.uint8).reshape(-1, *shape)
    if are_apart and len(maps):
        is_first = np.arange(len(maps))[:, None, None] == maps.argmax(0)
        maps = np.where(is_first, maps, np.minimum(maps, 127))
    described = [
        entry | measure(find_mask(probability))
        for entry, probability in zip(result.report["prompts"], maps, strict=True)
    ]
    warnings = [*slice_.warnings, *result.report.get("warnings", [])]
    return replace(
        result,
        probabilities=maps,
        report=result.report | {"prompts": described, slice_.KEY: slice_.describe(), "warnings": warnings},
        image=encode_picture(Image.fromarray(slice_.grey.astype(np.uint8))),
        volume_slice=slice_ if slice_.KEY == "slice" else None,
    )


def measure(mask: npt.NDArray[np.bool_]) -> Report:
    """What the report says about a mask's size: the box from its first to its last pixel, inclusive."""
    rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
    box = [[rows[0], columns[0]], [rows[-1], columns[-1]]] if rows else None
    return {"present": bool(rows), "area_pixels": int(mask.sum()), "box_pixels": box}
