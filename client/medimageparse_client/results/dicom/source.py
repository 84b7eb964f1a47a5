"""What DICOM objects share: the series that they are of, whose patient and study they copy, and who made them."""

import copy
from dataclasses import replace

import pydicom
from highdicom import PatientSexValues
from pydicom.valuerep import DA, TM

from medimageparse_client.errors import InvalidRequest
from medimageparse_client.formats.dicom_series.choice import number_of_series
from medimageparse_client.formats.series import DicomSeries
from medimageparse_client.results.segmented import Segmented

MANUFACTURER, MODEL = "MedImageParse-on-Triton", "MedImageParse 3D"
UNICODE = "ISO_IR 192"  # prompts come in any script
SERIES_NUMBERS = 1000  # results stand behind the series of the study
# Type 2 in PS3.3: present in every object, empty where nobody knows; anonymized series often lack some.
TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
# of TYPE_2 what must be written in one way
KINDS = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM, "PatientSex": PatientSexValues}
REFERRED = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "UID",
    "SOPClassUID": "kind of object",
    "SOPInstanceUID": "UID of each slice",
    "FrameOfReferenceUID": "frame of reference",
}


def source_of(result: Segmented) -> DicomSeries:
    """The series of a result, its headers with all that an object copies; InvalidRequest if none can be referred to."""
    series = result.series
    if series is None:
        raise InvalidRequest(
            "a DICOM object refers to the slices that it was made of, and this volume was none; segment a DICOM series"
        )
    if series.is_resampled:
        raise InvalidRequest(
            "the gantry tilt was taken out of the series, so that masks do not lie on its slices; save .nii.gz"
        )
    return replace(series, sources=tuple(map(completed, series.sources)))


def completed(header: pydicom.Dataset) -> pydicom.Dataset:
    """A copy with each of TYPE_2, empty where it is missing, and with what highdicom asks of a multi-frame file."""
    for name, what in REFERRED.items():
        if not header.get(name):
            raise InvalidRequest(
                f"the series has no {what} ({name}), so no object can refer to it; save .nii.gz, or export it again"
            )
    header = copy.copy(header)
    for name in TYPE_2:
        if name not in header or not is_conformant(name, header[name].value):
            setattr(header, name, "")
    if "PerFrameFunctionalGroupsSequence" in header:
        share(header)
    return header


def is_conformant(name: str, value: object) -> bool:
    """Whether an object may hold the value; of odd ones pydicom tells in its error, and highdicom takes none."""
    kind = KINDS.get(name)
    try:
        return kind is None or kind(str(value)) is not None
    except ValueError:
        return False


def share(header: pydicom.Dataset) -> None:
    """Puts what is equal in all frames where highdicom looks for it."""
    shared = copy.copy(next(iter(header.get("SharedFunctionalGroupsSequence") or ()), pydicom.Dataset()))
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name not in shared:
            setattr(shared, name, header.PerFrameFunctionalGroupsSequence[0][name].value)
    header.SharedFunctionalGroupsSequence = [shared]


def checkpoint_of(result: Segmented) -> str:
    """The SHA-256 of the weights, as the server tells it."""
    return str(result.report.get("networks", {}).get("checkpoint_sha256") or "unknown")


def series_number(series: DicomSeries) -> int:
    return SERIES_NUMBERS + number_of_series(series.sources[0])
