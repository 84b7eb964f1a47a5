"""What a TIFF file consists of, looked at before Pillow and libtiff see it, and what of it is not read here."""

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from medimageparse_serving.image.image_faults import CUT_SHORT, DAMAGED, NO_PALETTE, NO_PIXELS, NOT_DECODED
from medimageparse_serving.image.image_parts import Part, jpeg_parts
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.refused import Refused

# tags
KIND_OF_PAGE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES = 254, 256, 257, 258, 259, 262, 273, 277
ROWS, STRIP_BYTES, PLANES, COLOURS, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 278, 279, 284, 320, 322, 323, 324, 325
EXTRA, SAMPLE_FORMAT = 338, 339
SINGLE = (WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANES, TILE_WIDTH, TILE_HEIGHT)
LISTS = (BITS, EXTRA, SAMPLE_FORMAT, STRIPS, STRIP_BYTES, TILES, TILE_BYTES, COLOURS)
PLACES = (STRIPS, STRIP_BYTES, TILES, TILE_BYTES)  # one number for each strip or tile
DIRECTORIES = (34665, 34853, 40965)  # of EXIF, GPS and interoperability, which Pillow reads too

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # of a tag's types
NUMBERS = {3: "H", 4: "I"}
PREVIEW_OR_MASK = 0b101  # in KIND_OF_PAGE
JPEG = 7
COMPRESSIONS = {1, 5, JPEG, 8, 32773, 32946}  # none, LZW, JPEG, Deflate, PackBits, Deflate as it was called before
MOST_SAMPLES = 6  # of a pixel, that Pillow reads; it logs what has more
INVERTED_GREY, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
WAY_OUT = "send it as PNG, or as TIFF of 8 or 16 bits in grey or RGB"


@dataclass(frozen=True)
class Entry:
    """A tag of a directory: its values lie in the file from `start` on."""

    tag: int
    kind: int
    count: int
    start: int

    @property
    def n_bytes(self) -> int:
        return BYTES.get(self.kind, 0) * self.count


def order_of(file: bytes) -> str:
    return "<" if file.startswith(b"II") else ">"


def unpack(form: str, file: bytes, start: int) -> tuple[int, ...]:
    """Numbers at a place of the file. Refuses places that it does not have."""
    try:
        return struct.unpack_from(order_of(file) + form, file, start)
    except struct.error as error:
        raise Refused(f"image cannot be decoded: {CUT_SHORT}") from error


def directories(file: bytes) -> Iterator[tuple[bool, Iterator[Entry]]]:
    """Whether each is a page's, and its entries. A chain that leads back to itself ends there, as in Pillow."""
    (place,) = unpack("I", file, 4)
    ahead, seen = [(place, True)], set[int]()
    while ahead:
        place, is_page = ahead.pop()
        if not place or place in seen:
            continue
        seen.add(place)
        (n_entries,) = unpack("H", file, place)
        yield is_page, entries(file, place + 2, n_entries)
        if is_page:
            ahead.append((unpack("I", file, place + 2 + 12 * n_entries)[0], True))
        of_directories = (entry for entry in entries(file, place + 2, n_entries) if entry.tag in DIRECTORIES)
        ahead.extend((unpack("I", file, entry.start)[0], False) for entry in of_directories if entry.kind in (4, 13))


def entries(file: bytes, place: int, count: int) -> Iterator[Entry]:
    for start in range(place, place + 12 * count, 12):
        tag, kind, n_values = unpack("HHI", file, start)
        entry = Entry(tag, kind, n_values, start + 8)
        yield entry if entry.n_bytes <= 4 else Entry(tag, kind, n_values, unpack("I", file, start + 8)[0])


def tiff_parts(file: bytes) -> Iterator[Part]:
    """Of each directory and each of its tags, and of each strip or tile of the first page."""
    for _, found in directories(file):
        yield Part(1, 0, False)
        for entry in found:
            yield Part(1, 0 if entry.tag in PLACES else entry.n_bytes, False)
    tags = first_page(file)
    for start, length in strips(tags):
        yield Part(1, 0, False)
        if tags.get(COMPRESSION) == (JPEG,):
            yield from jpegs_parts(file[start : start + length])


def jpegs_parts(strip: bytes) -> Iterator[Part]:
    """Of a strip that is a JPEG of its own, whose first scan does not count: each strip has one."""
    has_scan = False
    for part in jpeg_parts(strip):
        yield Part(part.n_steps, 0, part.is_scan and has_scan)
        has_scan = has_scan or part.is_scan


def first_page(file: bytes) -> dict[int, tuple[int, ...]]:
    """The tags that say how its pixels are stored. Refuses what Pillow and libtiff could read in two ways."""
    tags: dict[int, tuple[int, ...]] = {}
    _, found = next(directories(file), (True, iter(())))
    for entry in found:
        if entry.tag in SINGLE or entry.tag in LISTS:
            form = NUMBERS.get(entry.kind)
            if form is None or entry.tag in tags or not entry.count or (entry.tag in SINGLE and entry.count != 1):
                raise Refused(f"image cannot be decoded: {DAMAGED}")
            if entry.start + entry.n_bytes > len(file):
                raise Refused(f"image cannot be decoded: {CUT_SHORT}")
            tags[entry.tag] = unpack(f"{entry.count}{form}", file, entry.start)
    if not tags.get(WIDTH, (0,))[0] or not tags.get(HEIGHT, (0,))[0]:
        raise Refused(f"image cannot be decoded: {NO_PIXELS}")
    return tags


def strips(tags: dict[int, tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    """Where each strip or tile begins, and its bytes."""
    starts, lengths = (STRIPS, STRIP_BYTES) if STRIPS in tags else (TILES, TILE_BYTES)
    return zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)


def check_tiff(file: bytes, limits: Limits) -> None:
    """Refuses kinds that Pillow does not read, or reads wrongly, and files that lack some of their pixels."""
    tags = first_page(file)
    if what := unread(tags):
        raise Refused(f"image is a TIFF {what}, which is not read here; send it as PNG, or as TIFF of 8 or 16 bits")
    if tags.get(PHOTOMETRIC) == (PALETTE,) and COLOURS not in tags:
        raise Refused(f"image cannot be decoded: {NO_PALETTE}")
    width, height = tags[WIDTH][0], tags[HEIGHT][0]
    limits.check_size(width, height)
    across, down = width, min(height, tags.get(ROWS, (height,))[0])
    if STRIPS not in tags:
        across, down = tags.get(TILE_WIDTH, (0,))[0], tags.get(TILE_HEIGHT, (0,))[0]
    if not 0 < across * down <= limits.max_pixels:
        raise Refused(f"image cannot be decoded: {DAMAGED}")
    n_layers = tags.get(SAMPLES, (1,))[0] if tags.get(PLANES) == (2,) else 1
    expected = n_layers * -(-width // across) * -(-height // down)
    places = list(strips(tags))
    if len(places) < expected or any(start + length > len(file) for start, length in places):
        raise Refused(f"image cannot be decoded: {CUT_SHORT}")
    if len(places) > expected or sum(length for _, length in places) > len(file):
        raise Refused(f"image cannot be decoded: {DAMAGED}")


def unread(tags: dict[int, tuple[int, ...]]) -> str:
    """What a TIFF is of, if that is not read here."""
    bits, (compression,) = tags.get(BITS, (1,)), tags.get(COMPRESSION, (1,))
    (colours,) = tags.get(PHOTOMETRIC, (INVERTED_GREY,))
    if compression not in COMPRESSIONS:
        return f"of compression {compression}"
    if tags.get(SAMPLES, (1,))[0] > MOST_SAMPLES:
        return f"of {tags[SAMPLES][0]} values a pixel"
    if set(tags.get(SAMPLE_FORMAT, (1,))) != {1}:
        return "of floats or signed values"
    if len(set(bits)) > 1 or bits[0] not in (1, 2, 4, 8, 12, 16):
        return f"of {max(bits)} bits"
    if colours not in (INVERTED_GREY, GREY, RGB, PALETTE, CMYK, YCBCR):
        return f"of colours of kind {colours}"
    return "of more than 8 bits in which 0 is white" if colours == INVERTED_GREY and bits[0] > 8 else ""


def bits_of_tiff(file: bytes) -> int:
    return first_page(file).get(BITS, (1,))[0]


def fault_of_tiff(file: bytes) -> str:
    """Nothing is missing, or `check_tiff` had said so."""
    return NOT_DECODED.format(WAY_OUT)


def count_pages(file: bytes) -> int:
    """Pages but for previews and masks; the first counts always."""
    n_pages = 0
    for is_page, found in directories(file):
        kinds = (entry for entry in found if entry.tag == KIND_OF_PAGE and entry.kind in NUMBERS)
        marks = [unpack(NUMBERS[entry.kind], file, entry.start)[0] for entry in kinds]
        n_pages += is_page and (not n_pages or not any(mark & PREVIEW_OR_MASK for mark in marks))
    return n_pages


@contextlib.contextmanager
def silent_libtiff() -> Iterator[None]:
    """Nothing on standard error meanwhile: libtiff writes there what it thinks of a file."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
