"""Base64 as Azure's clients write it -> the file in it."""

import binascii

import pybase64

PIECE = 2**20  # characters decoded at once: between two of them other requests get their turn
BLANKS = b" \t\r\n"  # encodebytes ends a line every 76 characters

NOT_BASE64 = "image is not base64; send the file in the usual alphabet (A-Z, a-z, 0-9, + and /), padded with ="
URL_SAFE = "image is URL-safe base64, with - and _; send the usual alphabet, with + and /"
DATA_URL = "image is a data URL; send only what follows its comma"
EMPTY = "image is empty; send a file in base64"


def decode_base64(text: str) -> bytes:
    """The bytes of standard, padded base64; blanks, tabs and ends of line anywhere are skipped.

    Raises ValueError with a sentence for the caller.
    """
    file, rest, is_padded = bytearray(), b"", False
    for start in range(0, len(text), PIECE):
        piece = rest + text[start : start + PIECE].encode().translate(None, BLANKS)
        if piece and is_padded:  # something behind the end
            raise ValueError(NOT_BASE64)
        whole = len(piece) - len(piece) % 4
        try:
            file += pybase64.b64decode(piece[:whole], validate=True)
        except binascii.Error:
            raise ValueError(fault_of(text)) from None
        rest, is_padded = piece[whole:], piece.endswith(b"=")
    if rest:
        raise ValueError(fault_of(text))
    if not file:
        raise ValueError(EMPTY)
    return bytes(file)


def fault_of(text: str) -> str:
    """Why a text is not the base64 that is read here."""
    if text[:100].lstrip().lower().startswith("data:"):
        return DATA_URL
    return URL_SAFE if "-" in text or "_" in text else NOT_BASE64
