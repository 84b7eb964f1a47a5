"""Decodes the pixels of the DICOM file on stdin with GDCM, and writes them to stdout as .npy.

It is a program of its own, since GDCM ends its whole process (abort, segmentation fault) at some damaged files. Its
arguments are the tags to read.
"""

import sys
from io import BytesIO

import numpy as np
import pydicom
from pydicom.uid import JPEGExtended12Bit, JPEGLosslessSV1


def main() -> None:
    header = pydicom.dcmread(BytesIO(sys.stdin.buffer.read()), force=True, specific_tags=sys.argv[1:])
    if header.file_meta.TransferSyntaxUID == JPEGExtended12Bit:
        # GDCM finds the process in the stream itself; under this one's own name pydicom keeps 12 bits from it
        header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.pixel_array_options(decoding_plugin="gdcm", correct_unused_bits=False)
    np.save(sys.stdout.buffer, header.pixel_array, allow_pickle=False)


if __name__ == "__main__":
    main()
