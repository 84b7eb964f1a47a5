"""What is wrong with a file that is sent as an image, in words: it is of another format, of a rare kind, or damaged."""

import re
import struct
import zlib
from collections.abc import Iterator

from medimageparse_contract.image_formats import NAMES, PNG_MARK

from medimageparse_serving.refused import Refused

SEND = f"send a {NAMES} file, as it is or in base64"

# what else is sent now and then: where its mark stands, the mark, what to call it
OTHER_FORMATS = (
    (0, b"GIF8", "a GIF"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (0, b"\0\0\0\x0cjP", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (4, b"ftyphe", "a HEIC or AVIF"),
    (4, b"ftypmif1", "a HEIC or AVIF"),
    (4, b"ftypmsf1", "a HEIC or AVIF"),
    (4, b"ftypavi", "a HEIC or AVIF"),
    (4, b"ftyp", "an MP4 or QuickTime"),
    (8, b"AVI ", "an AVI"),
    (0, b"8BPS", "a Photoshop"),
    (0, b"\x8aMNG", "an MNG"),
    (0, b"\x8bJNG", "a JNG"),
    (0, b"P5\n", "a PGM"),
    (0, b"P6\n", "a PPM"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\3\4", "a ZIP"),
    (0, b"PK\5\6", "a ZIP"),
    (0, b"\x1f\x8b", "a gzip"),
    (0, b"BZh", "a bzip2"),
    (0, b"\xfd7zXZ\0", "an xz"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip"),
    (0, b"Rar!", "a RAR"),
    (257, b"ustar", "a tar"),
    (128, b"DICM", "a DICOM"),
    (0, b"\2\0\0\0UL", "a DICOM"),  # without its preamble
    (0, b"\x08\0\5\0", "a DICOM"),  # without preamble and header
    (344, b"n+1\0", "a NIfTI"),
    (344, b"ni1\0", "a NIfTI"),
    (4, b"n+2\0\r\n", "a NIfTI"),
    (4, b"ni2\0\r\n", "a NIfTI"),
    (0, b"NRRD0", "an NRRD"),
    (0, b"ObjectType = ", "a MetaImage"),
    (0, b"\x93NUMPY", "a NumPy"),
    (0, b"\x89HDF\r\n", "an HDF5"),
    (0, b"MATLAB 5.0", "a MATLAB"),
)
TEXT_FORMATS = (
    (re.compile(rb"<(!doctype html|html|head|body)\b", re.I), "an HTML"),
    (re.compile(rb"<(svg|!doctype svg)\b", re.I), "an SVG"),
    (re.compile(rb"<\?xml\b", re.I), "an XML or SVG"),
)
# how a PNG or JPEG begins after somebody read it as text: other ends of line, UTF-8 made of its bytes, or no 8th bit
AS_TEXT = (b"\x89PNG", b"\xc2\x89PNG", b"\xef\xbf\xbdPNG", b"\tPNG", b"\xc3\xbf\xc3\x98\xc3\xbf", b"\xef\xbf\xbd" * 3)
URL_SAFE = (b"iVBORw0KGgo", b"_9j_", b"SUkq", b"TU0A", b"Qk", b"UklGR")  # how files of our formats begin in it
DATA_URL = re.compile(rb"\s*data:[^,]{0,200},", re.I)

CUT_SHORT = "it ends too early: it is cut short, or damaged on its way; send the whole file again"
WRONG_CHECKSUM = "a checksum in the PNG does not match, so it was damaged on its way; send the file again"
NO_PIXELS = "it has no pixels; send a picture"
NO_PALETTE = "its colours are numbers of a palette, and the palette is missing; send it as RGB"
TOO_FEW_ROWS = "it has fewer rows of pixels than it says, and was damaged or cut short before; send the whole picture"
DAMAGED = "its content is damaged; send the file again, or save it again as PNG"
NOT_DECODED = "it is of a rare kind or damaged; {}"
NOT_READ = "it is a JPEG {}, which is not read here; send it as PNG or plain JPEG"

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour types
# first column and row of an interlaced PNG's passes, and their steps
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PIECE = 2**20  # bytes that are unpacked at once

JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # with content behind it, or the end mark
START_OF_SCAN, END_OF_IMAGE, JPEG_LS = 0xDA, 0xD9, 0xF7
FRAMES = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}
LOSSLESS, HIERARCHICAL = {0xC3, 0xCB}, {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}


def refuse_other_formats(image: bytes) -> None:
    """Refuses files of other formats, by their names."""
    for offset, mark, name in OTHER_FORMATS:
        if image.startswith(mark, offset):
            raise Refused(f"image is {name} file; {SEND}")
    text = image[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, name in TEXT_FORMATS:
        if start.match(text):
            raise Refused(f"image is {name} file; {SEND}")
    if image.startswith(AS_TEXT) and not image.startswith(PNG_MARK):
        raise Refused("image was changed on its way as if it were text; send the file's bytes, or send it in base64")


def fault_of_base64(image: bytes) -> str:
    """Why text is not the base64 that is read here."""
    if DATA_URL.match(image):
        return "image is a data URL; send only what follows the comma"
    if image.lstrip().startswith(URL_SAFE) and re.search(rb"[-_]", image):
        return "image is URL-safe base64, with - and _; send the usual base64, with + and slash"
    return f"image is neither a file that is read here nor valid base64 (A-Z, a-z, 0-9, + and slash); {SEND}"


def jpeg_segments(file: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content, as libjpeg reads them one after the other; what follows the end mark does not count."""
    position = 2
    while found := JPEG_MARKER.search(file, position):
        marker, position = found[1][0], found.end()
        length = 2 if marker == END_OF_IMAGE else int.from_bytes(file[position : position + 2])
        yield marker, file[position + 2 : position + length]
        if marker == END_OF_IMAGE:
            return
        position += max(2, length)


def fault_of_jpeg(file: bytes) -> str:
    """Why a JPEG file cannot be decoded, as far as its markers tell."""
    segments = list(jpeg_segments(file))
    for marker, content in segments:
        if marker in FRAMES and len(content) >= 6:
            return fault_of_frame(marker, content) or fault_of_end(segments)
    return fault_of_end(segments)


def fault_of_frame(marker: int, content: bytes) -> str | None:
    bits, height, width, n_channels = struct.unpack(">BHHB", content[:6])
    if marker == JPEG_LS:
        return NOT_READ.format("of the kind JPEG-LS")
    if marker in LOSSLESS:
        return NOT_READ.format("of the lossless kind")
    if marker in HIERARCHICAL:
        return NOT_READ.format("of the hierarchical kind")
    if bits != 8:
        return NOT_READ.format(f"of {bits} bits")
    if not height or not width:
        return NO_PIXELS
    return None if n_channels in (1, 3, 4) else NOT_READ.format(f"of {n_channels} channels")


def fault_of_end(segments: list[tuple[int, bytes]]) -> str:
    return DAMAGED if segments and segments[-1][0] == END_OF_IMAGE else CUT_SHORT


def has_all_rows(file: bytes) -> bool:
    """Whether a PNG file holds as many bytes of pixels as it says; Pillow leaves missing rows black."""
    missing = count_pixel_bytes(file)
    position, unpack = len(PNG_MARK), zlib.decompressobj()
    while position + 12 <= len(file) and missing > 0:
        length, name = struct.unpack_from(">I4s", file, position)
        packed = file[position + 8 : position + 8 + length] if name == b"IDAT" else b""
        while packed and missing > 0 and not unpack.eof:
            try:
                missing -= len(unpack.decompress(packed, min(missing, PIECE)))
            except zlib.error:
                return False
            packed = unpack.unconsumed_tail
        position += length + 12
    return missing <= 0


def count_pixel_bytes(file: bytes) -> int:
    """How many bytes a PNG's rows have as its header states them, each with one for its filter."""
    width, height, bits, colour, _, _, is_interlaced = struct.unpack_from(">IIBBBBB", file, 16)
    n_bytes = 0
    for left, top, right, down in PASSES if is_interlaced else [(0, 0, 1, 1)]:
        n_columns, n_rows = len(range(left, width, right)), len(range(top, height, down))
        n_bytes += n_rows * (1 + (n_columns * CHANNELS[colour] * bits + 7) // 8) if n_columns else 0
    return n_bytes


def fault_of_png(file: bytes) -> str:
    """Why a PNG file cannot be decoded, as far as its chunks tell."""
    names: list[bytes] = []
    position = len(PNG_MARK)
    while names[-1:] != [b"IEND"]:
        if position + 12 > len(file):
            return CUT_SHORT
        length, name = struct.unpack_from(">I4s", file, position)
        end = position + 8 + length
        if end + 4 > len(file):
            return CUT_SHORT
        if zlib.crc32(file[position + 4 : end]) != int.from_bytes(file[end : end + 4]):
            return WRONG_CHECKSUM
        names.append(name)
        position = end + 4
    width, height = struct.unpack_from(">II", file, 16)
    return DAMAGED if b"IDAT" in names and width and height else NO_PIXELS
