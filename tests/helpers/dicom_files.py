"""DICOM files for tests, as bytes."""

import io

import gdcm
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

STORAGE = "1.2.840.10008.5.1.4.1.1."  # + 2 is CT, 4 is MR, 1.1 is DX


def dicom_header(pixels, **tags):
    """The data set of one grey slice, CT unless `tags` say otherwise; a tag that is None is left out.

    A tag may be a pair of a VR and a value, for writers that have it wrong.
    """
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = STORAGE + "2", generate_uid()
    header.PatientName, header.PatientID = "Doe^Jane", "4711-secret"
    n_bits = 8 * pixels.dtype.itemsize
    stored = {
        "Modality": "CT",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": n_bits,
        "BitsStored": n_bits,
        "HighBit": tags.get("BitsStored", n_bits) and tags.get("BitsStored", n_bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PixelData": pixels.tobytes(),
    } | tags
    for name, value in stored.items():
        if isinstance(value, tuple):
            header.add_new(pydicom.datadict.tag_for_keyword(name), *value)
        elif value is not None:
            setattr(header, name, value)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def dicom_bytes(header, enforce_file_format=True):
    """The file of a data set; without a preamble if the format is not enforced."""
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=enforce_file_format)
    return file.getvalue()


def dicom_file(pixels, **tags):
    """The bytes of a DICOM file with one grey slice."""
    return dicom_bytes(dicom_header(pixels, **tags))


def grey_file(pixels, **tags):
    """The same of a modality that is not CT, without rescale tags."""
    return dicom_file(pixels, **{"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None} | tags)


def compressed(data, name, folder):
    """A DICOM file in another of GDCM's transfer syntaxes."""
    (folder / "plain").write_bytes(data)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(folder / "plain"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(folder / "compressed"))
    assert writer.Write()
    return (folder / "compressed").read_bytes()
