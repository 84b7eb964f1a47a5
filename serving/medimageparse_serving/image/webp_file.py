"""What a WebP file consists of, looked at before Pillow sees it: libwebp takes memory when it opens one."""

import struct
from collections.abc import Iterator

from medimageparse_serving.image.image_faults import CUT_SHORT, DAMAGED
from medimageparse_serving.image.image_parts import Part
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.refused import Refused

PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
IS_ANIMATED = 0b10  # in the first byte of VP8X
FIRST_CHUNK = 12


def end_of(file: bytes) -> int:
    return 8 + int.from_bytes(file[4:8], "little")


def chunks(file: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each."""
    position = FIRST_CHUNK
    while position + 8 <= min(end_of(file), len(file)):
        name, length = struct.unpack_from("<4sI", file, position)
        yield name, position + 8, length
        position += 8 + length + length % 2


def webp_parts(file: bytes) -> Iterator[Part]:
    """Of each chunk."""
    for name, start, length in chunks(file):
        yield Part(1, 0 if name in PIXELS else min(length, len(file) - start), False)


def check_webp(file: bytes, limits: Limits) -> None:
    """Refuses what is cut short or animated, and the canvas and the pictures that are too large."""
    if end_of(file) > len(file):
        raise Refused(f"image cannot be decoded: {CUT_SHORT}")
    for name, start, _ in chunks(file):
        content = file[start : start + 10]
        limits.check_size(*size_of(name, content))
        if name == b"VP8X" and content[0] & IS_ANIMATED:
            raise Refused("image is an animated WebP; send one of its frames")


def size_of(name: bytes, content: bytes) -> tuple[int, int]:
    """Width and height that a chunk states, 0 by 0 where it states none."""
    if name not in (b"VP8X", b"VP8L", b"VP8 "):
        return 0, 0
    if len(content) < 10:
        raise Refused(f"image cannot be decoded: {DAMAGED}")
    if name == b"VP8X":
        return int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1
    if name == b"VP8L":
        bits = int.from_bytes(content[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", content[6:10])
    return width & 0x3FFF, height & 0x3FFF


def fault_of_webp(file: bytes) -> str:
    """Nothing is missing, or `check_webp` had said so."""
    return DAMAGED
