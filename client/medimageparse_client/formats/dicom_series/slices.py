"""The headers of a series -> its slices, of single files and of the frames of a multi-frame file alike."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from medimageparse_client.errors import InvalidImage, InvalidVolume
from medimageparse_client.formats.dicom_header import value_of
from medimageparse_client.formats.dicom_series.files import Header, Opener
from medimageparse_client.formats.dicom_slice import is_ct_slice


@dataclass(frozen=True, eq=False)
class Slice:
    """
    groups: where its tags stand, the nearest first: of a frame its own, those of all frames, the header
    header: of its file, without pixels
    open: gives that file
    frame: which of the file's frames, from 0
    position: float64 [3], centre of the first pixel in mm (LPS)
    directions: float64 [2,3], along a row and down a column, of length 1
    spacing: float64 [2], mm along a row and down a column
    """

    groups: tuple[pydicom.Dataset, ...] = field(repr=False)
    header: pydicom.Dataset = field(repr=False)
    open: Opener = field(repr=False)
    frame: int
    position: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]
    spacing: npt.NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows."""
        return int(self.header.Columns), int(self.header.Rows)

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        return np.cross(*self.directions)

    @property
    def modality(self) -> str:
        return "CT" if is_ct_slice(self.header) else str(value_of(self.header, "Modality") or "")

    def tag(self, name: str) -> Any:
        """The value that stands nearest; None where it is left out or empty."""
        return nearest(self.groups, name)

    def number(self, name: str) -> float | None:
        numbers = numbers_of(self.groups, name, 1)
        return None if numbers is None else float(numbers[0])


def slices_of(headers: list[Header]) -> list[Slice]:
    """Raises InvalidVolume for slices that do not say where they lie or how large their pixels are."""
    try:
        slices = [one for header in headers for one in slices_of_file(header)]
    except InvalidImage as error:  # of a tag that cannot be read
        raise InvalidVolume(f"{error}") from None
    if len({str(one.tag("FrameOfReferenceUID") or "") for one in slices}) > 1:
        raise InvalidVolume(
            "the slices have different frames of reference, so nobody knows how they lie to each other; export each as "
            "a series of its own"
        )
    return slices


def slices_of_file(header: Header) -> list[Slice]:
    tags = header.tags
    if "PerFrameFunctionalGroupsSequence" in tags:
        shared = items_of(next(iter(value_of(tags, "SharedFunctionalGroupsSequence") or ()), None))
        frames = [(*items_of(frame), *shared, tags) for frame in tags.PerFrameFunctionalGroupsSequence]
        if len(frames) != (value_of(tags, "NumberOfFrames") or 1):
            raise InvalidVolume("the multi-frame file describes other frames than it holds; export it again")
    elif (n_frames := value_of(tags, "NumberOfFrames") or 1) > 1:
        raise InvalidVolume(
            f"the file holds {n_frames} frames that do not say where they lie; export it as single slices or as an "
            "enhanced multi-frame file"
        )
    else:
        frames = [(*(value_of(tags, "RealWorldValueMappingSequence") or ()), tags)]
    return [slice_of(groups, header, n) for n, groups in enumerate(frames)]


def items_of(groups: pydicom.Dataset | None) -> tuple[pydicom.Dataset, ...]:
    """The data sets in the functional groups of a frame, or of all frames."""
    return tuple(item for element in groups or () if element.VR == "SQ" for item in element.value)


def slice_of(groups: tuple[pydicom.Dataset, ...], header: Header, frame: int) -> Slice:
    position, directions, spacing = (
        numbers_of(groups, name, n)
        for name, n in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )
    if position is None or directions is None:
        raise InvalidVolume(
            "slices do not say where they lie (ImagePositionPatient, ImageOrientationPatient); give the original series"
        )
    if spacing is None or not (spacing > 0).all():
        raise InvalidVolume(
            "slices do not say how large their pixels are (PixelSpacing), so nothing could be measured; give the "
            "original series"
        )
    directions = directions.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if (abs(lengths - 1) > 0.01).any() or abs(directions[0] @ directions[1]) > 0.01:
        raise InvalidVolume("the ImageOrientationPatient is not two directions at a right angle; correct the tag")
    directions = directions / lengths[:, None]
    return Slice(groups, header.tags, header.open, frame, position, directions, spacing[::-1])  # DICOM has rows first


def nearest(groups: tuple[pydicom.Dataset, ...], name: str) -> Any:
    return next((value for group in groups if (value := value_of(group, name)) not in (None, "")), None)


def numbers_of(groups: tuple[pydicom.Dataset, ...], name: str, n: int) -> npt.NDArray[np.float64] | None:
    """The `n` finite numbers of a tag; None where it is left out or empty."""
    value = nearest(groups, name)
    if value is None:
        return None
    try:
        numbers = np.atleast_1d(np.array(value, np.float64))
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (n,) or not np.isfinite(numbers).all():
        raise InvalidVolume(f"a slice's {name} is not {n} finite numbers; correct the tag, or give the original series")
    return numbers
