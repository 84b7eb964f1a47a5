"""What the caller has (path, bytes, PIL image or array) -> the bytes of a file that the server takes."""

import os
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from medimageparse_contract import image_formats
from medimageparse_contract.image_formats import NAMES, format_of
from nibabel.spatialimages import SpatialImage
from PIL import Image

from medimageparse_client.errors import InvalidImage
from medimageparse_client.formats.first_bytes import is_dicom, read_head
from medimageparse_client.formats.nifti import encode_volume
from medimageparse_client.formats.voxels import StoredAxis
from medimageparse_client.formats.windows import Window

if TYPE_CHECKING:
    from medimageparse_client.formats.dicom_slice import DicomSlice
    from medimageparse_client.formats.volume_slice import VolumeSlice

AnyImage: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8] | SpatialImage"

SUFFIXES = (*image_formats.SUFFIXES, ".dcm", ".dicom", ".ima")  # usual ones; the content says what a file is
TAKEN = f"{NAMES.replace(' or', ',')} or DICOM"
# what else is given now and then: where its mark stands, the mark, what to call it, and what to do
CONVERT = "convert it to PNG first"
NIFTI_ADVICE = "segment takes it, and of a slice of it segment-image with --slice"
OTHER_FORMATS = (
    (0, b"\x5c\x01\0\0", "a NIfTI file", NIFTI_ADVICE),
    (0, b"\0\0\x01\x5c", "a NIfTI file", NIFTI_ADVICE),
    (0, b"\x1c\x02\0\0", "a NIfTI file", NIFTI_ADVICE),
    (0, b"\0\0\x02\x1c", "a NIfTI file", NIFTI_ADVICE),
    (0, b"\x1f\x8b", "a gzip file", f"unpack it, or if it is a .nii.gz, {NIFTI_ADVICE}"),
    (0, b"II+\0", "a BigTIFF file", CONVERT),
    (0, b"MM\0+", "a BigTIFF file", CONVERT),
    (0, b"GIF8", "a GIF file", CONVERT),
    (4, b"ftyp", "a HEIC, AVIF or video file", CONVERT),
    (4, b"jP  ", "a JPEG 2000 file", CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file", CONVERT),
    (4, b"JXL ", "a JPEG XL file", CONVERT),
    (0, b"PK\x03\x04", "a ZIP file", "unpack it first"),
    (0, b"%PDF", "a PDF file", "save its picture as PNG"),
    (0, b"NRRD", "an NRRD file", CONVERT),
    (0, b"ObjectType", "a MetaImage file", CONVERT),
    (0, b"\x93NUMPY", "a numpy file", "load it, and give the array"),
)
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# tags of a TIFF, and a value of the second
PHOTOMETRIC, SAMPLE_FORMAT, SIGNED = 262, 339, 2
PIL_ERRORS = (OSError, SyntaxError, ValueError)


@dataclass(frozen=True)
class EncodedImage:
    """The file to send, and where it was made of a slice, the way back to that."""

    data: bytes = field(repr=False)
    made_of: "DicomSlice | VolumeSlice | None" = None


def encode_image(image: AnyImage, window: Window | None = None) -> EncodedImage:
    """`image` as the server takes it; of the slices here `window` belongs to those in DICOM files of CT."""
    if isinstance(image, np.ndarray):
        data = encode_picture(picture_of_array(image))
    elif isinstance(image, Image.Image):
        data = encode_picture(image)
    elif isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
    elif isinstance(image, str | os.PathLike):
        data = read_file(Path(image))
    else:
        raise InvalidImage("an image is a path, bytes, a PIL image or a uint8 array")
    if is_dicom(data):
        return encode_dicom(data, window)
    if not format_of(data):
        raise InvalidImage(describe_other_format(data))
    if window is not None:
        raise InvalidImage("window belongs to CT slices, of DICOM or of a volume; other images are sent as they are")
    return EncodedImage(data)


def read_file(path: Path) -> bytes:
    """The file's bytes as they are; its name does not matter."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidImage(f"the file cannot be read: {error.strerror or 'no reason given'}") from error


def recognizes(path: Path) -> bool:
    """Whether a file is an image to segment, by its content; one that cannot be opened is none."""
    try:
        head = read_head(path)
        return dicom_holds_picture(path) if is_dicom(head) else format_of(head) is not None
    except OSError:
        return False


def is_dicom_without_picture(path: Path) -> bool:
    """Whether a file is DICOM of another kind, such as a report or a structure set."""
    try:
        return is_dicom(read_head(path)) and not dicom_holds_picture(path)
    except OSError:
        return False


def dicom_holds_picture(path: Path) -> bool:
    """True also where nobody can tell: reading the file then says why."""
    try:
        from medimageparse_client.formats.dicom_header import holds_picture
    except ModuleNotFoundError:
        return True
    with path.open("rb") as file:
        return holds_picture(file)


def describe_other_format(data: bytes) -> str:
    """What to say of a file that is not taken."""
    for offset, mark, name, advice in OTHER_FORMATS:
        if data.startswith(mark, offset):
            return f"this is {name}, not a {TAKEN} file; {advice}"
    return f"this is not a {TAKEN} file; send one of these"


def picture_of_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    """A PIL image of `array`, rows first."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise InvalidImage("an array is uint8 [H,W] or [H,W,3] (RGB); scale other values to 0..255")
    if not array.size:
        raise InvalidImage("the image has no pixels")
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidImage("a masked array has values under its mask; give array.filled(0), or whatever belongs there")
    return Image.fromarray(array)


def encode_picture(picture: Image.Image) -> bytes:
    """The bytes of a PNG file with the pixels of `picture` as stored."""
    if picture.mode not in PNG_MODES:
        raise InvalidImage(f"a PIL image of mode {picture.mode} is no PNG; convert it, for example to RGB")
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    if (picture.mode == "I;16" and tags.get(PHOTOMETRIC) == 0) or SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise InvalidImage("the TIFF's values are signed, or 0 is white in it, which PIL overlooks; convert it")
    if not all(picture.size):
        raise InvalidImage("the image has no pixels")
    file = BytesIO()
    try:
        picture.save(file, "PNG", compress_level=1)
    except PIL_ERRORS as error:
        raise InvalidImage("the PIL image cannot be read; its file may be damaged or closed") from error
    return file.getvalue()


def encode_volume_slice(
    volume: AnyImage, number: int, axis: StoredAxis, window: Window | None, time_point: int | None
) -> EncodedImage:
    """A slice of a NIfTI volume, as a DICOM slice of the same values would be shown."""
    if isinstance(volume, Image.Image | np.ndarray):
        raise InvalidImage("a slice is one of a NIfTI file or a nibabel image; a picture is sent without slice_number")
    try:
        from medimageparse_client.formats.volume_slice import read_volume_slice
    except ModuleNotFoundError as error:
        raise InvalidImage(f"slices of volumes need {error.name}, which is not installed: pip install scipy") from error
    volume_slice = read_volume_slice(encode_volume(volume, time_point=time_point), number, axis, window)
    return EncodedImage(encode_picture(Image.fromarray(volume_slice.square())), volume_slice)


def encode_dicom(data: bytes, window: Window | None) -> EncodedImage:
    """The slice as the network's own reader would show it."""
    try:
        from medimageparse_client.formats.dicom_slice import read_slice
    except ModuleNotFoundError as error:
        raise InvalidImage(
            f"DICOM files need {error.name}, which is not installed: pip install 'medimageparse-client[dicom]'"
        ) from error
    dicom_slice = read_slice(data, window)
    return EncodedImage(encode_picture(Image.fromarray(dicom_slice.square())), dicom_slice)
