"""Writes a CT volume (.nii.gz, Hounsfield units) as a DICOM series, to have one where no PACS is at hand.

python -m medimageparse_demo.series VOLUME FOLDER
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME = {
    "SOPClassUID": CTImageStorage,
    "Modality": "CT",
    "PatientName": "Phantom^Demo",
    "PatientID": "phantom",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "StudyDate": "20260101",
    "StudyTime": "120000",
    "StudyID": "1",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "Manufacturer": "MedImageParse demo",
    "SeriesNumber": 1,
    "SeriesDescription": "phantom",
    "ImageType": ["DERIVED", "PRIMARY", "AXIAL"],
    "AcquisitionNumber": 1,
    "KVP": 120,
    "PatientPosition": "HFS",
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
    "RescaleType": "HU",
}


def write_series(image: nib.Nifti1Image, folder: Path) -> None:
    """One file for each slice from feet to head, called after its UID."""
    image = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS")))
    values, affine = np.rint(image.get_fdata()).astype(np.int16), TO_LPS @ image.affine
    mm = np.linalg.norm(affine[:3, :3], axis=0)
    study = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    folder.mkdir(parents=True, exist_ok=True)
    for z in range(values.shape[2]):
        header = Dataset()
        own = {
            "SOPInstanceUID": generate_uid(),
            "InstanceNumber": z + 1,
            "ImagePositionPatient": [round(float(number), 6) for number in affine[:3] @ (0, 0, z, 1)],
            "ImageOrientationPatient": (affine[:3, :2] / mm[:2]).T.ravel().round(8).tolist(),
            "PixelSpacing": [float(mm[1]), float(mm[0])],  # rows first
            "SliceThickness": float(mm[2]),
            "Rows": values.shape[1],
            "Columns": values.shape[0],
            "PixelData": values[:, :, z].T.tobytes(),
        }
        for name, value in (SAME | study | own).items():
            setattr(header, name, value)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.save_as(folder / f"{header.SOPInstanceUID}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    write_series(nib.load(sys.argv[1]), Path(sys.argv[2]))
