"""Lines of text in any language, as far as this machine's fonts have its letters; never boxes.

DejaVuSans.ttf lies beside this file, unchanged (version 2.37): Latin with all accents, Greek, Cyrillic, Hebrew, Arabic,
Armenian, Georgian. For other letters the usual fonts of Linux, macOS and Windows are looked for by name.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont, features

SIZE = 13  # pixels
OWN_FONT = str(Path(__file__).with_name("DejaVuSans.ttf"))
# file names without their ending; Pillow looks into the system's and the user's font folders
SYSTEM_FONTS = (
    *("NotoSansCJK-Regular", "NotoSansCJKsc-Regular", "wqy-zenhei", "wqy-microhei", "DroidSansFallbackFull"),  # Linux
    *("DroidSansFallback", "NanumGothic", "TakaoPGothic", "ipagp", "uming"),
    *("msyh", "msjh", "simsun", "YuGothM", "meiryo", "msgothic", "malgun", "segoeui", "Nirmala"),  # Windows
    *("LeelawUI", "mmrtext", "ebrima", "gadugi", "himalaya", "monbaiti", "seguisym"),
    *("Arial Unicode", "PingFang", "Hiragino Sans GB", "STHeiti Light", "AppleSDGothicNeo", "Kohinoor"),  # macOS
    *("KohinoorBangla", "KohinoorGujarati", "KohinoorTelugu", "Tamil Sangam MN", "Kannada Sangam MN"),
    *("Malayalam Sangam MN", "Gurmukhi MN", "Oriya Sangam MN", "Sinhala Sangam MN", "Thonburi", "Lao Sangam MN"),
    *("Khmer Sangam MN", "Myanmar Sangam MN", "Kefa", "GeezaPro", "ArialHB"),
    *(
        f"Noto{style}{script}-Regular"  # Linux and Android
        for script in (
            *("", "Arabic", "Hebrew", "Devanagari", "Bengali", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Oriya"),
            *("Sinhala", "Tamil", "Telugu", "Tibetan", "Thai", "Lao", "Khmer", "Myanmar", "Ethiopic", "Mongolian"),
            *("Syriac", "Thaana", "Cherokee", "Symbols", "Symbols2"),
        )
        for style in ("Sans", "Serif")
    ),
    *("Lohit-Devanagari", "Lohit-Bengali", "Lohit-Tamil", "Lohit-Telugu", "Garuda", "Padauk-Regular", "FreeSans"),
    "unifont",
)
PROBE_SIZE = 64  # pixels; so large no letter looks like the box for letters that a font lacks
NO_LETTER = "\U0010ffff"  # no font has it, by definition

# Unicode's default ignorable characters, and controls: nobody sees them, but some turn or hide what stands around
UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
JOINERS = "\u200c\u200d"  # say how letters of Arabic and Indic scripts join; elsewhere nothing
# Mongolian, 'Phags-pa and the parts of Hangul syllables; all other letters that need shaping tell by their properties
SHAPED = re.compile("[\u1100-\u11ff\u1800-\u18af\ua840-\ua87f\ua960-\ua97f\ud7b0-\ud7ff]")


class Font(NamedTuple):
    """One font file twice: what is drawn, and what is asked whether it has a letter."""

    drawn: ImageFont.FreeTypeFont
    probe: ImageFont.FreeTypeFont


Runs: TypeAlias = list[tuple[str, ImageFont.FreeTypeFont]]


@cache
def load_font(name: str) -> Font | None:
    layout = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
    try:
        return Font(
            ImageFont.truetype(name, SIZE, layout_engine=layout),
            ImageFont.truetype(name, PROBE_SIZE, layout_engine=ImageFont.Layout.BASIC),
        )
    except OSError:  # not on this machine, or not readable
        return None


def own_font() -> ImageFont.FreeTypeFont:
    """The font that is always there."""
    font = load_font(OWN_FONT)
    assert font is not None
    return font.drawn


def fonts() -> Iterator[Font]:
    for name in (OWN_FONT, *SYSTEM_FONTS):
        if (font := load_font(name)) is not None:
            yield font


@cache
def has_letter(font: Font, letter: str) -> bool:
    """Whether the font draws something else for it than for a letter that it lacks."""
    if letter.isspace() or letter in JOINERS:
        return True
    if unicodedata.category(letter) in ("Cn", "Co", "Cs"):  # of no meaning, whatever a font shows
        return False
    drawn, missing = (font.probe.getmask(text) for text in (letter, NO_LETTER))
    return (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


def find_font(text: str) -> ImageFont.FreeTypeFont | None:
    """The first font that has every letter."""
    return next((font.drawn for font in fonts() if all(has_letter(font, letter) for letter in set(text))), None)


def visible(text: str) -> str:
    """`text` on one line, accents on their letters, without what is not seen."""
    kept = ""
    for letter in UNSEEN.sub("", unicodedata.normalize("NFC", " ".join(text.split()))):
        if letter not in JOINERS or needs_shaping(kept[-1:]):
            kept += letter
    return kept.strip()


def needs_shaping(text: str) -> bool:
    """Whether letters change or move with their neighbours, or run from right to left."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL", "AN")
        or unicodedata.category(letter).startswith("M")
        or letter in JOINERS
        or SHAPED.match(letter)
        for letter in text
    )


def syllables(text: str) -> list[str]:
    """Letters with the marks that belong to them."""
    found: list[str] = []
    for letter in text:
        if found and (letter in JOINERS or unicodedata.category(letter).startswith("M")):
            found[-1] += letter
        else:
            found.append(letter)
    return found


def find_runs(text: str) -> Runs | None:
    """Parts of `text`, each with its font, from left to right; None where a letter cannot be shown."""
    if needs_shaping(text) and not features.check("raqm"):
        return None
    if (font := find_font(text)) is not None:
        return [(text, font)]
    if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text):
        return None  # the order of the parts would be wrong
    runs: Runs = []
    for syllable in syllables(text):
        if (font := find_font(syllable)) is None:
            return None
        if runs and runs[-1][1] is font:
            runs[-1] = (runs[-1][0] + syllable, font)
        else:
            runs.append((syllable, font))
    return runs


def length(runs: Runs) -> float:
    return sum(font.getlength(text) for text, font in runs)


def fit(text: str, width: float) -> Runs | None:
    """`text` in one line, its middle left out where it is too long; None where a letter cannot be shown."""
    runs = find_runs(text)
    if runs is None or length(runs) <= width:
        return runs
    parts = syllables(text)

    def shortened(n_kept: int) -> str:
        return "".join([*parts[: (n_kept + 1) // 2], " … ", *parts[len(parts) - n_kept // 2 :]])

    if find_runs(shortened(2)) is None:
        return None
    n_kept = bisect_right(range(2, len(parts)), width, key=lambda n: length(find_runs(shortened(n)) or [])) + 1
    return find_runs(shortened(max(2, n_kept)))


def draw_runs(picture: Image.Image, x: float, runs: Runs, colour: str) -> None:
    """Along the middle of a picture as high as a line, from `x` on."""
    draw = ImageDraw.Draw(picture)
    baseline = picture.height / 2 + 0.36 * SIZE  # half of a capital letter's height below the middle
    for text, font in runs:
        draw.text((x, baseline), text, colour, font, "ls")
        x += font.getlength(text)
