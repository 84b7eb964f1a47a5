"""The slices of a series -> one array of what their stored pixels stand for."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from medimageparse_client.errors import InvalidImage, InvalidVolume
from medimageparse_client.formats.dicom_header import PIXELS, PYDICOM_ERRORS, TAGS
from medimageparse_client.formats.dicom_pixels import StoredPixels, read_frames
from medimageparse_client.formats.dicom_series.files import read_whole
from medimageparse_client.formats.dicom_series.slices import Slice
from medimageparse_client.formats.dicom_slice import HOUNSFIELD
from medimageparse_client.formats.nifti import MAX_BYTES

AT_ONCE = 32  # files that are held in memory while they are decoded
CUT_SHORT = "a file of the series is damaged or cut short; give the series again, whole"
MAX_VOXELS = MAX_BYTES // 2  # of int16
INT16 = np.iinfo(np.int16)


def stack_values(slices: list[Slice], notes: list[str]) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """Values [x,y,z]: int16 where all are whole numbers that fit, else float32."""
    maps = [map_of(one) for one in slices]
    columns, rows = slices[0].shape
    if columns * rows * len(slices) > MAX_VOXELS:
        raise InvalidVolume(
            f"the series has {columns} x {rows} x {len(slices)} voxels, more than one request carries; crop it"
        )
    volume = np.empty((columns, rows, len(slices)), np.float32, order="F")
    is_whole = all(float(number).is_integer() for pair in maps for number in pair)
    for (slope, intercept), z, pixels in zip(maps, range(len(slices)), stored_of(slices, notes), strict=True):
        volume[:, :, z] = (pixels.astype(np.float64) * slope + intercept).T
        is_whole &= pixels.dtype.kind in "biu"
    if is_whole and INT16.min <= volume.min() and volume.max() <= INT16.max:
        return volume.astype(np.int16)
    return volume


def stored_of(slices: list[Slice], notes: list[str]) -> Iterator[npt.NDArray[Any]]:
    """The stored pixels [H,W] of each slice, a few files at a time."""
    warnings: dict[str, int] = {}
    whole: dict[int, npt.NDArray[Any]] = {}
    for n, one in enumerate(slices):
        if id(one.header) not in whole:
            whole.clear()
            files = list({id(other.header): other for other in slices[n : n + AT_ONCE]}.values())
            for other, stored in zip(files, decode(files), strict=True):
                whole[id(other.header)] = stored.values.reshape(-1, *stored.values.shape[-2:])
                for warning in stored.warnings:
                    warnings[warning] = warnings.get(warning, 0) + 1
        frames = whole[id(one.header)]
        if one.frame >= len(frames) or frames.shape[1:] != one.shape[::-1]:
            raise InvalidVolume("a file of the series has other pixels than its header says; give it again, whole")
        yield frames[one.frame]
    notes.extend(f"files ({count}): {warning}" for warning, count in warnings.items())


def decode(slices: list[Slice]) -> list[StoredPixels]:
    """The pixels of the file of each slice."""
    files = []
    for one in slices:
        data = read_whole(one.open)
        try:
            header = pydicom.dcmread(BytesIO(data), force=True, specific_tags=TAGS)
        except PYDICOM_ERRORS:
            raise InvalidVolume(CUT_SHORT) from None
        if not any(name in header for name in PIXELS):
            raise InvalidVolume(CUT_SHORT)
        files.append((data, header))
    try:
        return read_frames(files)
    except InvalidImage as error:
        fault = str(error).split(";")[0]  # what comes then is the way out for a single picture
        raise InvalidVolume(f"{fault}; give the series again, whole or uncompressed (gdcmconv --raw)") from None


def map_of(one: Slice) -> tuple[float, float]:
    """Slope and intercept of a slice or frame; PET has others for each."""
    slope, intercept = one.number("RescaleSlope"), one.number("RescaleIntercept")
    if one.modality == "CT":
        unit = one.tag("RescaleType")
        if slope is None or intercept is None:
            raise InvalidVolume("the CT has no rescale tags, so its Hounsfield units are unknown; give the original")
        if unit and unit not in HOUNSFIELD:
            raise InvalidVolume("the CT's values are not Hounsfield units, in which its windows are; give the original")
    else:
        real = one.number("RealWorldValueSlope"), one.number("RealWorldValueIntercept")
        slope, intercept = real if None not in real else (slope, intercept)
    if one.tag("ModalityLUTSequence"):
        raise InvalidVolume("the slices have a Modality LUT, which is not read here; export them with rescale tags")
    if slope == 0:
        raise InvalidVolume("a slice's RescaleSlope is 0, so it is all one grey; correct the tag")
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
