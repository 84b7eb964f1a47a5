"""Reads DICOM slices for programs that want the picture alone; `Client.segment_image` reads them by itself."""

from medimageparse_client.formats.dicom_slice import DicomSlice, read_slice

__all__ = ["DicomSlice", "read_slice"]
