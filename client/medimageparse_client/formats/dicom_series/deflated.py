"""How large a DICOM file is unpacked: pydicom unpacks the deflated ones to their end, whatever they hold."""

import zlib
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

PREAMBLE = 132
PIECE = 2**16  # bytes, of which deflate makes at most a thousand times as many


def unpacked_size(file: BinaryIO, head: bytes, limit: int) -> int:
    """Bytes of a deflated file, counted to a little over `limit`; 0 for any other. `head` is its beginning."""
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return 0
    start = PREAMBLE if head[PREAMBLE - 4 : PREAMBLE] == b"DICM" else 0
    # the first element is the length of those that are not deflated
    file.seek(start + 12 + int.from_bytes(head[start + 8 : start + 12], "little"))
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while size <= limit and (piece := file.read(PIECE)):
        size += len(inflater.decompress(piece))
    return size
