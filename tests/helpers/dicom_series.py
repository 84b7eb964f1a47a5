"""DICOM series for tests: a phantom in which every voxel can be told from its neighbours, as files in a folder."""

import numpy as np
import pydicom
from helpers.dicom_files import STORAGE, dicom_header
from pydicom.uid import generate_uid

SHAPE = 24, 20, 8  # columns, rows, slices
SPACING = 0.8, 0.7, 2.5  # mm along a row, down a column, from slice to slice
ORIGIN = -30.0, 20.0, 100.0
TO_LPS = np.diag([-1, -1, 1, 1])  # and back to RAS
PROMPTS = ("liver", "left kidney", "something of mine", "spleen")  # of the last nothing is found
# along a row and down a column (LPS)
DIRECTIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.96, 0.28, 0.0, -0.224, 0.768, 0.6),
    "from the feet": (1, 0, 0, 0, -1, 0),
}


def phantom(shape=SHAPE):
    """Hounsfield units [x,y,z] of air with one box and a ramp, without any symmetry."""
    values = np.full(shape, -1000, np.int16)
    values[3:12, 2:8, 1:6] = 40
    values += np.arange(np.prod(shape), dtype=np.int16).reshape(shape) % 97
    return values


def make_series(values=None, orientation="axial", positions=None, **tags):
    """The data sets of a CT series, one for each slice of `values` [x,y,z], in the order of the normal.

    positions: mm along the normal, for slices that do not lie as they should
    tags: for all slices; a list has one value for each slice
    """
    values = phantom() if values is None else values
    directions = np.array(DIRECTIONS[orientation], float)
    normal = np.cross(directions[:3], directions[3:])
    positions = np.arange(values.shape[2]) * SPACING[2] if positions is None else positions
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    series = []
    for z, along in enumerate(positions):
        place = {
            "ImagePositionPatient": (np.array(ORIGIN) + along * normal).tolist(),
            "ImageOrientationPatient": directions.tolist(),
            "PixelSpacing": [SPACING[1], SPACING[0]],
            "SliceThickness": SPACING[2],
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "InstanceNumber": z + 1,
            "SeriesDescription": "Doe, Jane: abdomen",
            "SOPInstanceUID": generate_uid(),
            "RescaleIntercept": -1024,
            "RescaleType": "HU",
            "StudyDate": "20200101",
            "StudyTime": "120000",
            "PatientBirthDate": "19700101",
            "PatientSex": "F",
            "AccessionNumber": "A1",
            "ReferringPhysicianName": "",
            "StudyID": "1",
            "SeriesNumber": 1,
        }
        own = {
            name: value[z] if isinstance(value, list) and len(value) == len(positions) else value
            for name, value in tags.items()
        }
        stored = (values[:, :, z].T.astype(np.int32) + 1024).astype(np.uint16)
        header = dicom_header(stored, **uids | place | own)
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        series.append(header)
    return series


def affine_of(orientation="axial", spacing=SPACING):
    """Voxels [x,y,z] to mm (RAS+), worked out here a second time."""
    row, column = np.array(DIRECTIONS[orientation], float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row, column, np.cross(row, column)]) * spacing
    affine[:3, 3] = ORIGIN
    return np.diag([-1, -1, 1, 1]) @ affine


def save_series(series, folder):
    """One file for each slice, whose names say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for header in series:
        header.save_as(folder / f"{header.SOPInstanceUID[-12:]}.dcm", enforce_file_format=True)
    return folder


def compressed(header, syntax):
    """A copy of a slice in another transfer syntax that pydicom can write."""
    copy = pydicom.Dataset(header)
    copy.file_meta = pydicom.dataset.FileMetaDataset(header.file_meta)
    copy.compress(syntax, generate_instance_uid=False)
    return copy


MR = {"Modality": "MR", "SOPClassUID": STORAGE + "4", "RescaleType": None}
PET = {"Modality": "PT", "SOPClassUID": STORAGE + "128", "RescaleType": "BQML"}


def enhanced(series):
    """One enhanced multi-frame file with the slices of `series` as frames, in that order; rescale stands per frame."""
    first = series[0]
    header = pydicom.Dataset()
    for element in first:
        if element.keyword not in PER_FRAME:
            header[element.tag] = element
    header.SOPClassUID = {"CT": ENHANCED_CT, "MR": ENHANCED_MR, "PT": ENHANCED_PET}[first.Modality]
    header.SOPInstanceUID = generate_uid()
    header.NumberOfFrames = len(series)
    header.SharedFunctionalGroupsSequence = [group(PixelMeasuresSequence=pixels_of(first))]
    header.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=group(ImagePositionPatient=one.ImagePositionPatient),
            PlaneOrientationSequence=group(ImageOrientationPatient=one.ImageOrientationPatient),
            PixelValueTransformationSequence=group(
                RescaleSlope=one.RescaleSlope, RescaleIntercept=one.RescaleIntercept, RescaleType="US"
            ),
            FrameContentSequence=group(FrameAcquisitionNumber=1),
        )
        for one in series
    ]
    header.PixelData = b"".join(one.PixelData for one in series)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return header


def with_echoes(*volumes):
    """One enhanced MR file of several volumes, the one with the longest echo first."""
    file = enhanced([one for volume in volumes for one in make_series(volume, **MR)])
    for n, frame in enumerate(file.PerFrameFunctionalGroupsSequence):
        echo = 20.0 * (len(volumes) - n // SHAPE[2])
        frame.MREchoSequence = [group(EffectiveEchoTime=echo)]
    return file


def group(**tags):
    """A data set in which a data set stands for a sequence of one."""
    made = pydicom.Dataset()
    for name, value in tags.items():
        setattr(made, name, [value] if isinstance(value, pydicom.Dataset) else value)
    return made


def pixels_of(header):
    return group(PixelSpacing=header.PixelSpacing, SliceThickness=header.SliceThickness)


ENHANCED_CT, ENHANCED_MR, ENHANCED_PET = (STORAGE + number for number in ("2.1", "4.1", "130"))
PER_FRAME = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PixelData",
    "InstanceNumber",
)
