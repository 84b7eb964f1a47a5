"""Prompts and keys as editors, shells and spreadsheets of any system leave them."""

import codecs

import pytest
from medimageparse_client import InvalidRequest
from medimageparse_client.cli.text_files import read_key, read_prompts

PLAIN = "# organs\nliver\n\n  the left kidney \nd\u00e9bris \u809d\u81d3\n"
PROMPTS = ["liver", "the left kidney", "d\u00e9bris \u809d\u81d3"]


@pytest.fixture
def prompts_of(tmp_path):
    def prompts_of(content):
        path = tmp_path / "prompts.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_prompts(path)

    return prompts_of


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
def test_every_encoding_that_says_what_it_is(prompts_of, encoding, line_end):
    assert prompts_of(PLAIN.replace("\n", line_end).encode(encoding)) == PROMPTS


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_BE, "utf-32-be")],
)
def test_byte_order_marks(prompts_of, mark, encoding):
    assert prompts_of(mark + PLAIN.encode(encoding)) == PROMPTS


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff# organs\nliver\nspleen\n",
        "# organs\n\ufeffliver\nspleen\n",  # cat header.txt list.txt
        "# organs\n\ufeff# more\nliver\nspleen\n",
        "\ufeff\ufeffliver\nspleen",
        "\ufeff\n\n# organs\nliver\nspleen",
        "liver\u200b\n\u200bspleen\u2060\n",
        "li\u200bver\n\u200f spleen \u200e\n",
        "\u00a0liver\u00a0\n\u3000spleen\n",
        "  # organs\nliver\n#\n#spleen?\nspleen",
    ],
)
def test_marks_blanks_and_comments_are_no_part_of_a_prompt(prompts_of, content):
    assert prompts_of(content) == ["liver", "spleen"]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\t"])
def test_only_line_ends_end_a_prompt(prompts_of, inside):
    assert prompts_of(f"left{inside}kidney\nliver\n") == ["left kidney", "liver"]


def test_joiners_inside_a_word_and_repeated_prompts_stay(prompts_of):
    word = "\u0645\u06cc\u200c\u0634\u0648\u062f"
    assert prompts_of(f"{word}\nliver\nliver\na # b\n") == [word, "liver", "liver", "a # b"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "liver\nd\u00e9bris\n".encode("cp1252"),
            "line 2 has the byte 0xE9, which is not UTF-8; save the file as UTF-8",
        ),
        ("liver\r\r\nd\u00e9bris\n".encode("latin-1"), "line 3 has the byte 0xE9"),
        ("\ufeffliver\n".encode() + b"\xff", "line 2 has the byte 0xFF"),
        ("\u809d\u81d3\n".encode("shift-jis"), "line 1 has the byte"),
        ("\u809d\u81d3\n".encode("gb18030"), "line 1 has the byte"),
        (b"# organs\n" + "liver\n".encode("utf-16"), "line 2 has the byte 0xFF"),  # PowerShell's >>
        ("liver".encode("utf-16") + b"\0", "this is not whole UTF-16; save the file as UTF-8"),
        (codecs.BOM_UTF16_LE + b"\0\xd8l\0", "this is not whole UTF-16"),
        ("liver".encode("utf-32")[:-1], "this is not whole UTF-32"),
        (b"\x1f\x8b\x08\0\0\0", "line 1 has the byte 0x8B"),
    ],
)
def test_other_encodings_are_refused_with_name_line_and_way_out(prompts_of, tmp_path, content, sentence):
    with pytest.raises(OSError, match=sentence) as caught:
        prompts_of(content)
    assert caught.value.filename == str(tmp_path / "prompts.txt")


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"# organs\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
def test_a_file_without_prompts_says_so(prompts_of, tmp_path, content):
    with pytest.raises(InvalidRequest, match=f"^{tmp_path}/prompts.txt: the file holds no prompt"):
        prompts_of(content)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("liver\nleft\x07kidney\n", r"line 2: the prompt holds the control character U\+0007"),
        ("liver\0\n", r"line 1: the prompt holds the control character U\+0000"),
        ("\x1bliver", r"line 1: .* U\+001B"),
        ("liver\x7f", r"line 1: .* U\+007F"),
        ("# organs\n\nliver & spleen\n", "line 3: a prompt contains '&'"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(prompts_of, content, sentence):
    with pytest.raises(InvalidRequest, match=f"prompts.txt: {sentence}"):
        prompts_of(content)


@pytest.mark.parametrize(
    "content", [b"abc-123", b"abc-123\n", b"\xef\xbb\xbfabc-123\r\n", "abc-123\r\n".encode("utf-16"), b"\n abc-123\n\n"]
)
def test_a_key_is_the_one_word_of_its_file(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    assert read_key(tmp_path / "key") == "abc-123"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no key"),
        (b"\xef\xbb\xbf\n", "holds no key"),
        (b"merlin 8813", "this is no key"),
        (b"merlin\n8813", "this is no key"),
        ("m\u00e9rlin".encode(), "this is no key"),
        ("m\u00e9rlin".encode("cp1252"), "is not UTF-8"),
    ],
)
def test_what_is_no_key_is_not_told(tmp_path, content, sentence):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(OSError, match=sentence) as caught:
        read_key(tmp_path / "key")
    assert caught.value.filename == str(tmp_path / "key")
    assert "rlin" not in str(caught.value)
