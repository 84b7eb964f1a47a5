"""The files that `medimageparse` takes as images: what they are called, and how each begins."""

NAMES = "PNG, JPEG, TIFF, BMP or WebP"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")  # usual ones; the content says what a file is
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")  # as Pillow calls them
PNG_MARK = b"\x89PNG\r\n\x1a\n"
MARKS = {"PNG": (PNG_MARK,), "JPEG": (b"\xff\xd8\xff",), "TIFF": (b"II*\0", b"MM\0*")}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of what follows a BMP's file header, one for each version


def format_of(file: bytes) -> str | None:
    """One of FORMATS by the first 18 bytes of a file; None for all others."""
    for name, marks in MARKS.items():
        if file.startswith(marks):
            return name
    if file.startswith(b"BM") and int.from_bytes(file[14:18], "little") in BMP_HEADERS:
        return "BMP"
    return "WEBP" if file.startswith(b"RIFF") and file[8:12] == b"WEBP" else None
