"""A picture larger than the networks' input, in overlapping tiles at its own pixels; their probabilities are blended.

The tiles lie on a canvas whose side is a whole number of mask pixels, so that masks of tiles fit into that of all.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.refused import Refused

STEP = 4  # pixels of a picture that are one of its mask as the networks give it, along each axis
OVERLAP = 4  # a tile shares a quarter of its side with its neighbour, or more
SURE = 1e-7  # probabilities are kept so far away from 0 and 1
LEAST_WEIGHT = 1e-3  # of a tile's rim, beside 1 in its middle; it counts where no other tile is

Arrays = dict[str, NDArray[Any]]
Place = tuple[int, int]  # a tile's first row and column on the canvas


def read_tile(sent: Any, has_image_type: bool) -> bool:
    """The option `tile`."""
    if sent and has_image_type:
        raise Refused(
            "tile goes with text alone, since p-values and recognition are those of a whole picture; send no image_type"
        )
    return bool(sent)


@dataclass(frozen=True)
class Canvas:
    """size: side of a tile. geometry: where the picture lies on the canvas, and the canvas's side."""

    size: int
    geometry: Geometry
    places: list[Place]

    def cut(self, picture: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
        """The tile [1,size,size,3] at a place of the picture [H,W,3], black around it."""
        tile = np.zeros((1, self.size, self.size, 3), np.uint8)
        down, right = place[0] - self.geometry.top, place[1] - self.geometry.left
        shown = picture[max(0, down) : max(0, down + self.size), max(0, right) : max(0, right + self.size)]
        top, left = max(0, -down), max(0, -right)
        tile[0, top : top + shown.shape[0], left : left + shown.shape[1]] = shown
        return tile


def lay_out(geometry: Geometry, size: int) -> Canvas:
    """The tiles of a picture; one that is smaller than a tile along an axis lies in its middle."""
    height, width = geometry.height, geometry.width
    side = math.ceil(max(height, width, size) / STEP) * STEP
    places = [(row, column) for row in first_pixels(height, size) for column in first_pixels(width, size)]
    top, left = max(0, (size - height) // 2), max(0, (size - width) // 2)
    return Canvas(size, replace(geometry, side=side, top=top, left=left, tiles=len(places)), places)


def first_pixels(length: int, size: int) -> list[int]:
    """Where the tiles of an axis begin: as far from each other as they may, and evenly."""
    last = math.ceil(max(0, length - size) / STEP) * STEP
    n_gaps = math.ceil(last / (size - size // OVERLAP))
    return [round(last * number / n_gaps / STEP) * STEP for number in range(n_gaps + 1)] if n_gaps else [0]


def check_tiles(canvas: Canvas, n_prompts: int, max_tile_pixels: int) -> None:
    """Refuses what would take much memory or the networks for long, before they begin."""
    side = canvas.geometry.side
    if n_prompts * side * side > max_tile_pixels:
        raise Refused(
            f"{n_prompts} prompts in tiles of a picture whose longer side is {side} are more than {max_tile_pixels} "
            "prompts x side x side, the limit of this server; send fewer prompts in one request, or crop the image"
        )


async def segment_tiles(
    segment: Callable[[NDArray[np.uint8]], Awaitable[Arrays]],
    square: NDArray[np.uint8],
    geometry: Geometry,
    canvas: Canvas,
    n_prompts: int,
) -> Arrays:
    """What the networks give for the canvas of a picture, which lies in its square as `geometry` says.

    segment: gives it for the pixels [1,size,size,3] of a tile
    """
    rows = slice(geometry.top, geometry.top + geometry.height)
    picture = square[rows, geometry.left : geometry.left + geometry.width]
    blend = Blend(canvas, n_prompts)
    for place in canvas.places:
        blend.add(place, await segment(canvas.cut(picture, place)))
    return blend.finish()


class Blend:
    """Takes the networks' outputs tile by tile, and gives those of the whole canvas."""

    def __init__(self, canvas: Canvas, n_prompts: int) -> None:
        side = canvas.geometry.side // STEP
        self.sums, self.weights = np.zeros((n_prompts, side, side), np.float32), np.zeros((side, side), np.float32)
        self.weight = cosine_weights(canvas.size // STEP)
        self.highest = np.full(n_prompts, -np.inf, np.float32)
        self.best: Arrays = {}  # of each prompt, from the tile in which it is the most probable

    def add(self, place: Place, found: Arrays) -> None:
        """mask_logits [P,s,s] of a tile, and what has one row a prompt."""
        mask_logits, n = found["mask_logits"], len(self.weight)
        there = tuple(slice(first // STEP, first // STEP + n) for first in place)
        self.weights[there] += self.weight
        for sums, logits in zip(self.sums, mask_logits, strict=True):
            sums[there] += expit(logits) * self.weight
        highest = mask_logits.max((1, 2), initial=-np.inf)
        for name, rows in found.items():
            if name != "mask_logits":
                best = self.best.setdefault(name, rows.copy())
                best[highest > self.highest] = rows[highest > self.highest]
        self.highest = np.maximum(self.highest, highest)

    def finish(self) -> Arrays:
        """The networks' outputs as those of one picture. Beyond the tiles it has what their last pixels have."""
        np.divide(self.sums, self.weights, out=self.sums, where=self.weights > 0)
        n_rows, n_columns = np.count_nonzero(self.weights[:, 0]), np.count_nonzero(self.weights[0])
        self.sums[:, n_rows:] = self.sums[:, n_rows - 1 : n_rows]
        self.sums[:, :, n_columns:] = self.sums[:, :, n_columns - 1 : n_columns]
        np.clip(self.sums, SURE, 1 - SURE, out=self.sums)
        return {"mask_logits": logit(self.sums, out=self.sums), **self.best}


def cosine_weights(n: int) -> NDArray[np.float32]:
    """Of a tile's mask [n,n]: 1 in the middle, next to nothing at the rim."""
    ramp = np.maximum(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2, LEAST_WEIGHT)
    return np.outer(ramp, ramp).astype(np.float32)
