"""A segmented volume as a file, by its ending."""

import gzip
from collections.abc import Callable

from medimageparse_client.errors import InvalidRequest, InvalidVolume
from medimageparse_client.formats.mha import encode_mha
from medimageparse_client.formats.nrrd import encode_nrrd
from medimageparse_client.formats.series import holds_series
from medimageparse_client.results.seg_nrrd import encode_seg_nrrd
from medimageparse_client.results.segmented import Segmented, SegType

SEG, RTSTRUCT = ".seg.dcm", ".rtstruct.dcm"
OF_SERIES = (SEG, RTSTRUCT)  # refer to the slices of a DICOM series
# what has no options; the first is that of results in a folder
PLAIN: dict[str, Callable[[Segmented], bytes]] = {
    ".nii.gz": lambda result: result.nifti,  # as the server made it
    ".nii": lambda result: gzip.decompress(result.nifti),
    ".seg.nrrd": encode_seg_nrrd,  # before .nrrd, which it ends in too
    ".nrrd": lambda result: encode_nrrd(result.label_map, result.affine, sides_known=result.facts.image.sides_known),
    ".mha": lambda result: encode_mha(result.label_map, result.affine_of_files),
}
ENDINGS = (*PLAIN, *OF_SERIES)
MAY_OVERLAP = (".seg.nrrd", *OF_SERIES)  # hold whole masks where the result has them


def check_can_refer(ending: str, volume: object) -> None:
    """InvalidVolume, before anything is sent, for an ending of OF_SERIES and a volume that is no series."""
    if ending in OF_SERIES and not holds_series(volume):
        raise InvalidVolume("a DICOM object refers to the slices of a series, and this is none; write .nii.gz")


def encode_result(result: Segmented, ending: str, seg_type: SegType = "binary") -> bytes:
    """The bytes of a file that ends so; ValueError for another ending, InvalidRequest for what the result has not."""
    if ending in PLAIN:
        return PLAIN[ending](result)
    if ending in OF_SERIES:
        return encode_dicom(result, ending, seg_type)
    raise ValueError(f"a result is saved as {', '.join(ENDINGS)}")


def encode_dicom(result: Segmented, ending: str, seg_type: SegType) -> bytes:
    try:
        from medimageparse_client.results.dicom.rtstruct import encode_rtstruct
        from medimageparse_client.results.dicom.seg import encode_seg
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f"{ending} needs {error.name}, which is not installed: pip install 'medimageparse-client[dicom]'"
        ) from error
    try:
        return encode_seg(result, seg_type) if ending == SEG else encode_rtstruct(result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # of highdicom or pydicom, about the headers that they copy; their words can hold what stands there
        raise InvalidRequest(
            f"the headers of the series are not as DICOM asks, and no {ending} can be made of them "
            f"({type(error).__name__}); save .nii.gz"
        ) from None
