"""What an image's file consists of, counted before Pillow sees it: that keeps a Python object for every part."""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from medimageparse_contract.image_formats import PNG_MARK
from PIL.JpegImagePlugin import MARKER

from medimageparse_serving.image.image_faults import END_OF_IMAGE, JPEG_MARKER, START_OF_SCAN
from medimageparse_serving.refused import Refused

PIXELS = (b"IDAT", b"fdAT")  # chunks of a PNG


class Part(NamedTuple):
    """A piece of a file, or several: how many steps it takes to read, its bytes if they are no pixels."""

    n_steps: int
    metadata_bytes: int
    is_scan: bool  # of a JPEG


def check_parts(parts: Iterable[Part], max_parts: int, max_metadata_bytes: int, max_scans: int) -> None:
    """Refuses what would take Pillow long or much memory; it costs a look at each part, and ends at the limit."""
    n_parts = n_bytes = n_scans = 0
    for n_steps, metadata_bytes, is_scan in parts:
        n_parts, n_bytes, n_scans = n_parts + n_steps, n_bytes + metadata_bytes, n_scans + is_scan
        if n_parts > max_parts:
            raise Refused(f"image has more than {max_parts} segments, chunks or strips; send it as a plain PNG or JPEG")
        if n_bytes > max_metadata_bytes:
            raise Refused(
                f"image has more than {max_metadata_bytes} bytes besides its pixels, such as comments or previews; "
                "send it without them"
            )
        if n_scans > max_scans:
            raise Refused(f"image is a JPEG of more than {max_scans} scans; send it as a plain JPEG, or as PNG")


def png_parts(file: bytes) -> Iterator[Part]:
    """Of each chunk."""
    position, name = len(PNG_MARK), b""
    while name != b"IEND" and position + 8 <= len(file):
        length, name = struct.unpack_from(">I4s", file, position)
        yield Part(1, 0 if name in PIXELS else min(length, len(file) - position - 8), False)
        position += length + 12


def jpeg_parts(file: bytes) -> Iterator[Part]:
    """Of each segment: its bytes count before the first scan.

    Before the first scan Pillow reads, byte by byte what stands between segments, and passes over the content of the
    markers that it knows. From there on libjpeg reads, until the end mark.
    """
    position, has_scan = 2, False
    while found := JPEG_MARKER.search(file, position):
        marker, skipped = found[1][0], 0 if has_scan else found.start() - position
        position = found.end()
        _, _, handler = MARKER.get(0xFF00 | marker, ("", "", None))
        length = int.from_bytes(file[position : position + 2]) if has_scan or handler else 0
        yield Part(1 + skipped, 0 if has_scan else length, marker == START_OF_SCAN)
        if has_scan and marker == END_OF_IMAGE:
            return
        has_scan = has_scan or marker == START_OF_SCAN
        position += length
