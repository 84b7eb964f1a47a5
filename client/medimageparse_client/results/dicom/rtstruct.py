"""A segmentation of a DICOM series -> a DICOM RT Structure Set (PS3.3 A.19): ROI k is prompt k."""

import io
from datetime import datetime

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.base import SOPClass
from medimageparse_contract.version import VERSION
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from medimageparse_client.formats.dicom_header import without_pydicoms_warnings
from medimageparse_client.formats.geometry import LPS_TO_RAS
from medimageparse_client.formats.series import DicomSeries
from medimageparse_client.results.codes import Described, describe
from medimageparse_client.results.colours import Colour, colours_of
from medimageparse_client.results.dicom.concepts import concept
from medimageparse_client.results.dicom.contours import Points, outlines
from medimageparse_client.results.dicom.source import MANUFACTURER, MODEL, UNICODE, series_number, source_of
from medimageparse_client.results.segmented import Segmented

ANATOMY = "91723000"  # the category Anatomical Structure
STUDY = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, which the standard asks for here


@without_pydicoms_warnings()
def encode_rtstruct(result: Segmented) -> bytes:
    """The bytes of an RTSTRUCT file: closed contours in mm on the slices of the series, holes as keyholes.

    An absent prompt is an ROI without contours, so that numbers stay those of the labels. Masks are whole where the
    result has `maps`. Raises InvalidRequest for a result that is of no series, or not in the voxels of its slices.
    """
    series = source_of(result)
    colours = colours_of(result.prompts, "3d")
    header = series.sources[0]
    made = empty_structure_set(series)
    images = [image_of(series, z) for z in range(len(series.positions))]
    made.ReferencedFrameOfReferenceSequence = [frame_of_reference(series, images)]
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for number, prompt in enumerate(result.prompts, 1):
        known = describe(prompt)
        made.StructureSetROISequence.append(
            item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=header.FrameOfReferenceUID,
                ROIName=known.label,
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        )
        contours = contours_of(result.mask(prompt), series, images)
        made.ROIContourSequence.append(contour_item(number, colours[number], contours))
        made.RTROIObservationsSequence.append(observation(number, known))
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def empty_structure_set(series: DicomSeries) -> SOPClass:
    header, now = series.sources[0], datetime.now()
    made = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=hd.UID(),
        series_number=series_number(series),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=VERSION,
        specific_character_set=UNICODE,
        series_description="MedImageParse structures",
    )
    made.copy_patient_and_study_information(header)
    made.OperatorsName = ""
    made.FrameOfReferenceUID = header.FrameOfReferenceUID
    made.PositionReferenceIndicator = header.get("PositionReferenceIndicator", "")
    made.StructureSetLabel = "MedImageParse"
    made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.ApprovalStatus = "UNAPPROVED"
    return made


def image_of(series: DicomSeries, z: int) -> Dataset:
    """What a contour on slice z refers to."""
    header = series.sources[0 if series.is_multi_frame else z]
    image = item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if series.is_multi_frame:
        image.ReferencedFrameNumber = series.frames[z]
    return image


def frame_of_reference(series: DicomSeries, images: list[Dataset]) -> Dataset:
    header = series.sources[0]
    files = {
        image.ReferencedSOPInstanceUID: item(
            ReferencedSOPClassUID=image.ReferencedSOPClassUID, ReferencedSOPInstanceUID=image.ReferencedSOPInstanceUID
        )
        for image in images
    }
    referred = item(SeriesInstanceUID=header.SeriesInstanceUID, ContourImageSequence=list(files.values()))
    study = item(
        ReferencedSOPClassUID=STUDY,
        ReferencedSOPInstanceUID=header.StudyInstanceUID,
        RTReferencedSeriesSequence=[referred],
    )
    return item(FrameOfReferenceUID=header.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def contours_of(mask: npt.NDArray[np.bool_], series: DicomSeries, images: list[Dataset]) -> list[Dataset]:
    """The contours of a mask [x,y,z], slice by slice."""
    return [
        item(
            ContourImageSequence=[images[z]],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(points),
            ContourData=in_mm(points, series, z),
        )
        for z in np.flatnonzero(mask.any(axis=(0, 1)))
        for points in outlines(mask[:, :, z].T)
    ]


def in_mm(points: Points, series: DicomSeries, z: int) -> list[str]:
    """x, y, z in mm (LPS), one point after the other."""
    along = (LPS_TO_RAS @ series.volume.affine)[:3, :2]  # per column and per row
    places = series.positions[z] + points @ along.T
    return [f"{number:.3f}" for number in places.ravel()]


def contour_item(number: int, colour: Colour, contours: list[Dataset]) -> Dataset:
    described = item(ROIDisplayColor=list(colour), ReferencedROINumber=number)
    if contours:
        described.ContourSequence = contours
    return described


def observation(number: int, known: Described) -> Dataset:
    """An organ is called one; what else a prompt means for a plan is for a person to say."""
    return item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIInterpretedType="ORGAN" if known.category.value == ANATOMY else "",
        ROIInterpreter="",
        RTROIIdentificationCodeSequence=[concept(known.type)],
    )


def item(**tags: object) -> Dataset:
    """A data set with these tags."""
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made
