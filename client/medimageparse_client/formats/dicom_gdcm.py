"""Decodes the pixels of the DICOM files on stdin with GDCM, and writes them to stdout as .npy, one after the other.

Before each file stands its length, in 8 bytes.

It is a program of its own, since GDCM ends its whole process (abort, segmentation fault) at some damaged files. Its
arguments are the tags to read.
"""

import sys
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import JPEGExtended12Bit, JPEGLosslessSV1


def main() -> None:
    while size := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(int.from_bytes(size, "little"))
        np.save(sys.stdout.buffer, decode(data), allow_pickle=False)


def decode(data: bytes) -> npt.NDArray[Any]:
    header = pydicom.dcmread(BytesIO(data), force=True, specific_tags=sys.argv[1:])
    if header.file_meta.TransferSyntaxUID == JPEGExtended12Bit:
        # GDCM finds the process in the stream itself; under this one's own name pydicom keeps 12 bits from it
        header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.pixel_array_options(decoding_plugin="gdcm", correct_unused_bits=False)
    return header.pixel_array


if __name__ == "__main__":
    main()
