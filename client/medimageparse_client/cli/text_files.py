"""Small files that people write: prompts and keys, as editors and shells on any system leave them."""

import codecs
import errno
import re
from pathlib import Path

from medimageparse_client.errors import InvalidRequest
from medimageparse_client.inputs import check_prompts

BYTE_ORDER_MARKS = {  # UTF-32 before UTF-16, whose mark is the beginning of its own
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
NO_WIDTH = re.compile("[\ufeff\u200b\u2060]")  # a byte order mark amid the text, zero width space, word joiner
AT_ENDS = "\u200c\u200d\u200e\u200f"  # joiners and directions mean something inside a word only
BLANKS = re.compile("[\t\v\f\x1c-\x1f\x85\u2028\u2029]")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
LINE_ENDS = re.compile("\r\n|\r|\n")
KEY = re.compile("[!-~]+")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 that is known as such; else OSError."""
    data = path.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    encoding = encoding or utf_16_without_mark(data) or "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(LINE_ENDS.findall(error.object[: error.start].decode("latin-1"))) + 1
        fault = f"line {line} has the byte 0x{error.object[error.start]:02X}, which is not UTF-8"
        if not encoding.startswith("utf-8"):
            fault = f"this is not whole {encoding[:6].upper()}"
        raise OSError(errno.EILSEQ, f"{fault}; save the file as UTF-8", str(path)) from error


def utf_16_without_mark(data: bytes) -> str | None:
    """Which UTF-16 it is where every second byte of most characters is 0, as in no other text."""
    if len(data) % 2 or not data:
        return None
    low, high = data[::2].count(0), data[1::2].count(0)
    if max(low, high) <= len(data) // 4 or min(low, high):
        return None
    return "utf-16-le" if high else "utf-16-be"


def read_prompts(path: Path) -> list[str]:
    """The lines of a file, without blank ones and those that begin with #."""
    prompts = []
    for number, line in enumerate(LINE_ENDS.split(read_text(path)), start=1):
        prompt = BLANKS.sub(" ", NO_WIDTH.sub("", line)).strip(AT_ENDS).strip()
        if not prompt or prompt.startswith("#"):
            continue
        try:
            check_prompt(prompt)
        except InvalidRequest as error:
            raise InvalidRequest(f"{path}: line {number}: {error}") from error
        prompts.append(prompt)
    if not prompts:
        raise InvalidRequest(f"{path}: the file holds no prompt; write one a line")
    return prompts


def check_prompt(prompt: str) -> None:
    check_prompts(prompt)
    if control := CONTROL.search(prompt):
        raise InvalidRequest(f"the prompt holds the control character U+{ord(control[0]):04X}; remove it")


def read_key(path: Path) -> str:
    """The one word in a file."""
    words = NO_WIDTH.sub("", read_text(path)).split()
    if not words:
        raise OSError(errno.EINVAL, "the file holds no key", str(path))
    if len(words) > 1 or not KEY.fullmatch(words[0]):
        raise OSError(errno.EINVAL, "this is no key: it has blanks or characters outside ASCII", str(path))
    return words[0]
