"""Base64 in all the ways that Azure's clients write it, and in those that they must not."""

import base64
import os

import pytest
from medimageparse_gateway.azure_base64 import DATA_URL, EMPTY, NOT_BASE64, PIECE, URL_SAFE, decode_base64

FILE = os.urandom(3 * PIECE + 7)  # of several pieces, and with padding


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 4, 57, 58, PIECE * 3 // 4, PIECE * 3 // 4 + 1, len(FILE)])
def test_any_length_is_decoded_with_line_ends_and_without(n_bytes):
    file = FILE[:n_bytes]
    assert decode_base64(base64.b64encode(file).decode()) == file
    assert decode_base64(base64.encodebytes(file).decode()) == file


@pytest.mark.parametrize("blank", [" ", "\t", "\r", "\n", "\r\n", " \n \t"])
def test_blanks_anywhere_are_skipped(blank):
    text = base64.b64encode(FILE[:1000]).decode()
    assert decode_base64(blank + blank.join(text) + blank) == FILE[:1000]


def test_blanks_where_a_piece_ends_are_skipped():
    text = base64.b64encode(FILE).decode()
    for place in range(PIECE - 3, PIECE + 3):
        assert decode_base64(text[:place] + "\n" + text[place:]) == FILE


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", EMPTY),
        (" \n", EMPTY),
        ("QUJ", NOT_BASE64),  # no padding
        ("QUI", NOT_BASE64),
        ("QUI=QUJD", NOT_BASE64),  # something behind the end
        ("QUI=" * PIECE, NOT_BASE64),
        ("=QUI", NOT_BASE64),
        ("QUJD====", NOT_BASE64),
        ("QU=I", NOT_BASE64),
        ("QUJD!", NOT_BASE64),
        ("QUJD\x0b", NOT_BASE64),
        ("QUJD\0", NOT_BASE64),
        ("QUJDé", NOT_BASE64),
        ("QUJD" * PIECE + "é", NOT_BASE64),
        ("QU\u00a0JD", NOT_BASE64),
        ("_-8=", URL_SAFE),
        ("data:image/png;base64,QUJD", DATA_URL),
        (" DATA:;base64,QUJD", DATA_URL),
        ("/tmp/ct.nii.gz", NOT_BASE64),
    ],
)
def test_what_is_not_base64_is_refused_with_the_way_out(text, sentence):
    with pytest.raises(ValueError, match=".") as refused:
        decode_base64(text)
    assert str(refused.value) == sentence


def test_padding_at_the_end_of_a_piece_ends_the_text():
    text = "A" * (PIECE - 1) + "="
    assert len(decode_base64(text)) == PIECE // 4 * 3 - 1
    with pytest.raises(ValueError, match="not base64"):
        decode_base64(text + "AAAA")
