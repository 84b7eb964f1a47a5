"""The way from the networks' square back to the picture: `decode_image` finds it, `encode_probabilities` goes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Intensity:
    """What was done to the values of each channel."""

    used: str
    bounds: list[float] | None  # the values that became 0 and 255; None if values were kept
    padding: list[int]  # values that count for nothing and became 0


@dataclass(frozen=True)
class Geometry:
    """The upright picture, height x width, lies in its black square of `side` behind `top` rows and `left` columns.

    With tiles the square is what they cover.
    """

    format: str
    mode: str  # Pillow's, as the file stores it
    pages: int  # of a TIFF, whose first is read; 1 of all others
    exif_orientation: int
    height: int
    width: int
    side: int
    top: int
    left: int
    intensity: Intensity
    warnings: list[str]
    tiles: int = 1  # in which the networks saw it
