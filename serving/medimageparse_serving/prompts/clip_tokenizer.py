"""Prompts to token ids, as the tokenizer of openai/clip-vit-base-patch32 makes them, without a download."""

import gzip
import html
import re
from functools import cache
from pathlib import Path

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from medimageparse_serving.refused import Refused

MERGES = Path(__file__).with_name("clip_merges.txt.gz")
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77  # with start and end; the text encoder has this many positions

# a "&" separates prompts unless it begins an HTML escape: "grey &amp; white matter" is one prompt
SEPARATOR = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[\da-f]+);)", re.IGNORECASE)
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def decode_text(text: bytes, max_characters: int = 20_000) -> str:
    """The request's `text` as a string."""
    if len(text) > 4 * max_characters:  # UTF-8 takes at most four bytes for one
        raise Refused(f"text has {len(text)} bytes; send at most {max_characters} characters")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("text is not UTF-8; send the prompts as UTF-8, separated by '&'") from None


def split_prompts(text: str, max_prompts: int, max_characters: int = 20_000) -> list[str]:
    """The prompts of `text`, separated by `&`, trimmed and with HTML escapes resolved."""
    if len(text) > max_characters:
        raise Refused(f"text has {len(text)} characters; send at most {max_characters}")
    try:
        prompts = [html.unescape(piece).strip() for piece in SEPARATOR.split(text)]
    except ValueError:  # a number of thousands of digits
        raise Refused("text has an HTML escape that is no character; write '&amp;' for '&' in a prompt") from None
    if not any(prompts):
        raise Refused("text has no prompt; send at least one, for example 'liver & left kidney'")
    if len(prompts) > max_prompts:
        raise Refused(f"text has {len(prompts)} prompts; send at most {max_prompts} in one request")
    for number, prompt in enumerate(prompts, start=1):
        if not clean(prompt):
            raise Refused(f"prompt {number} of {len(prompts)} is empty; put text between the '&' separators")
    return prompts


def tokenize(
    prompts: list[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """`input_ids` and `attention_mask` [P,T], T the longest prompt with start and end, and `truncated` [P]."""
    tokenizer = clip_tokenizer()
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    words = [tokenizer.encode(clean(prompt)).ids for prompt in prompts]
    kept = [ids[: MAX_TOKENS - 2] for ids in words]
    lengths = np.array([len(ids) + 2 for ids in kept])
    input_ids = np.full((len(prompts), lengths.max()), end, np.int64)  # padding is the end token too
    for row, ids in zip(input_ids, kept, strict=True):
        row[: len(ids) + 1] = [start, *ids]
    attention_mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    return input_ids, attention_mask, np.array([len(ids) > MAX_TOKENS - 2 for ids in words])


def clean(prompt: str) -> str:
    """Repaired Unicode, single blanks, lower case."""
    return " ".join(ftfy.fix_text(prompt).split()).lower()


@cache
def clip_tokenizer() -> Tokenizer:
    """Byte-pair encoding: 256 bytes, the same 256 as word ends, one token a merge, start and end."""
    with gzip.open(MERGES, "rt", encoding="utf-8") as lines:
        merges = [(first, second) for first, second in map(str.split, lines)]
    tokens = [*byte_characters(), *(character + "</w>" for character in byte_characters())]
    tokens += [first + second for first, second in merges] + [START, END]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(WORD), "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def byte_characters() -> list[str]:
    """The printable stand-in for each byte, in the order of the vocabulary: printable bytes stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]
