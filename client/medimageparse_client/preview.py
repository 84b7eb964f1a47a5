"""A picture of a segmentation: a few slices side by side, or an image; labels in colour, a legend below."""

import colorsys
from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

TILE = 300  # pixels, the longer side of a slice
N_SLICES, N_COLUMNS = 6, 3
MARGIN = 8
LINE = 22  # pixels, one line of the legend
WIDTH = N_COLUMNS * (TILE + MARGIN) - MARGIN  # pixels of what stands above the legend
BACKGROUND = "#202020"
OPACITY = 0.35  # of a label; its outline is opaque
NOTE_IMAGE = "For research only."
NOTE = "Radiological display; the letters are the patient's sides. For research only."
NOTE_UNORIENTED = "The file does not say how the patient lies: sides and planes are unknown. For research only."

Array = npt.NDArray[Any]


class Plane(NamedTuple):
    """One anatomical plane of a volume stored right to left, front to back, feet to head (LPS)."""

    name: str
    axis: int
    rows: int
    columns: int
    sides: str  # patient sides at the left, right, top and bottom of the picture


PLANES = (Plane("sagittal", 0, 2, 1, "APSI"), Plane("coronal", 1, 2, 0, "RLSI"), Plane("axial", 2, 1, 0, "RLAP"))


def draw_preview(
    volume: Array,
    label_map: Array,
    affine: npt.NDArray[np.float64],
    legend: dict[int, str],
    *,
    grey_range: Sequence[float] | None = None,
    is_oriented: bool = True,
) -> Image.Image:
    """The picture (RGB).

    volume, label_map: [x,y,z] in the voxels that `affine` takes to millimetres (RAS+)
    legend: label -> text
    grey_range: the intensities shown as black and white; the volume's percentiles when left out
    is_oriented: whether `affine` comes from the file; without it no sides are written
    """
    shape = label_map.shape
    to_display = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(("L", "P", "S"))
    )
    to_stored = nib.orientations.inv_ornt_aff(to_display, shape)
    volume = nib.orientations.apply_orientation(volume.reshape(shape), to_display)
    label_map = nib.orientations.apply_orientation(label_map, to_display)
    spacing_mm = np.linalg.norm((affine @ to_stored)[:3, :3], axis=0)

    plane = choose_plane(spacing_mm)
    low, high = grey_range or percentiles(volume)
    size_mm = [label_map.shape[axis] * spacing_mm[axis] for axis in (plane.columns, plane.rows)]
    size = [max(1, round(TILE * side / max(size_mm))) for side in size_mm]
    stored_axis = int(np.flatnonzero(to_stored[:3, plane.axis])[0])
    tiles = []
    for position in choose_slices(np.moveaxis(label_map, plane.axis, 0)):
        tile = draw_slice(cut(volume, plane, position), cut(label_map, plane, position), low, high, size)
        index = to_stored[stored_axis, plane.axis] * position + to_stored[stored_axis, 3]
        caption = f"{'ijk'[stored_axis]} = {index:.0f}"
        tiles.append(frame(tile, plane.sides, f"{plane.name}  {caption}") if is_oriented else frame(tile, "", caption))
    return arrange(tiles, legend, NOTE if is_oriented else NOTE_UNORIENTED)


def draw_image_preview(image: Image.Image, label_map: Array, legend: dict[int, str]) -> Image.Image:
    """The picture (RGB) of an image (RGB) and its labels [H,W], as large as the frame allows; legend: label -> text."""
    scale = WIDTH / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    board = Image.new("RGB", (WIDTH, size[1]))
    board.paste(paint_labels(image.resize(size, Image.Resampling.BILINEAR), label_map), ((WIDTH - size[0]) // 2, 0))
    return add_legend(board, legend, NOTE_IMAGE)


def choose_plane(spacing_mm: npt.NDArray[np.float64]) -> Plane:
    """Across thick slices if the volume has such, axial otherwise."""
    is_thick = spacing_mm.max() > 1.5 * np.median(spacing_mm)
    return PLANES[int(spacing_mm.argmax())] if is_thick else PLANES[2]


def choose_slices(labels_by_slice: Array) -> list[int]:
    """Where each label is largest, filled up with evenly spaced slices; [D,...] -> at most N_SLICES positions."""
    depth = len(labels_by_slice)
    labels = np.unique(labels_by_slice)
    areas = {label: (labels_by_slice == label).sum(axis=(1, 2)) for label in labels[labels > 0]}
    largest_first = sorted(areas.values(), key=lambda area: -area.sum())
    wanted = [int(area.argmax()) for area in largest_first]
    occupied = np.flatnonzero(sum(areas.values())) if areas else np.arange(depth)
    wanted += np.linspace(occupied[0], occupied[-1], N_SLICES + 2).round().astype(int).tolist()[1:-1]
    return sorted(list(dict.fromkeys(wanted))[:N_SLICES])


def percentiles(volume: Array) -> tuple[float, float]:
    """Intensities to show as black and white when nothing better is known."""
    low, high = np.percentile(volume[::2, ::2, ::2].astype(np.float32), (0.5, 99.5))
    return float(low), float(high)


def cut(volume: Array, plane: Plane, position: int) -> Array:
    """One slice [rows, columns] as it is looked at; head up."""
    flat: Array = np.take(volume, position, axis=plane.axis).T  # the lower axis is the columns
    return flat[::-1] if plane.rows == 2 else flat


def draw_slice(grey: Array, labels: Array, low: float, high: float, size: list[int]) -> Image.Image:
    """One slice of `size` (width, height), `low` black and `high` white, its labels filled and outlined."""
    brightness = np.clip((grey.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    picture = Image.fromarray((255 * brightness).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return paint_labels(picture.convert("RGB"), labels)


def paint_labels(picture: Image.Image, labels: Array) -> Image.Image:
    """A picture (RGB) of any size with the labels [H,W] over it filled and outlined."""
    rgb = np.asarray(picture, np.float32)
    # nearest, by index: label maps may be wider than the 8 bits of a picture
    rows = np.arange(picture.height) * labels.shape[0] // picture.height
    columns = np.arange(picture.width) * labels.shape[1] // picture.width
    labels = labels[rows][:, columns]
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        opacity = np.where(outline(mask), 1.0, OPACITY * mask)[..., None]
        rgb = rgb * (1 - opacity) + np.array(colour(int(label))) * opacity
    return Image.fromarray(rgb.round().astype(np.uint8))


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of `mask` with a neighbour outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)


def colour(label: int) -> tuple[int, int, int]:
    """A colour for each label; neighbours in number are far apart in hue."""
    hue = (0.02 + (label - 1) * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65 if label % 2 else 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def frame(tile: Image.Image, sides: str, caption: str) -> Image.Image:
    """The slice on a black tile with the patient's sides (left, right, top, bottom) at its edges and a caption."""
    framed = Image.new("RGB", (TILE, TILE + LINE))
    framed.paste(tile, ((TILE - tile.width) // 2, (TILE - tile.height) // 2))
    draw = ImageDraw.Draw(framed)
    font = ImageFont.load_default(14)
    edges = ((4, TILE / 2, "lm"), (TILE - 4, TILE / 2, "rm"), (TILE / 2, 4, "mt"), (TILE / 2, TILE - 4, "mb"))
    for side, (x, y, anchor) in zip(sides, edges, strict=False):
        draw.text((x, y), side, "white", font, anchor, stroke_width=1, stroke_fill="black")
    draw.text((TILE / 2, TILE + LINE / 2), caption, "silver", font, "mm")
    return framed


def arrange(tiles: list[Image.Image], legend: dict[int, str], note: str) -> Image.Image:
    """The tiles in rows, then the legend and the note."""
    n_rows = -(-len(tiles) // N_COLUMNS)
    board = Image.new("RGB", (WIDTH, n_rows * (TILE + LINE + MARGIN) - MARGIN), BACKGROUND)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, N_COLUMNS)
        board.paste(tile, (column * (TILE + MARGIN), row * (TILE + LINE + MARGIN)))
    return add_legend(board, legend, note)


def add_legend(board: Image.Image, legend: dict[int, str], note: str) -> Image.Image:
    """`board` in a frame, then the legend, one label a line, then the note."""
    width, top = board.width + 2 * MARGIN, board.height + 2 * MARGIN
    picture = Image.new("RGB", (width, top + (len(legend) + 1) * LINE + MARGIN), BACKGROUND)
    picture.paste(board, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for label, text in legend.items():
        draw.rectangle((MARGIN, top + 4, MARGIN + 24, top + LINE - 4), colour(label))
        draw.text((MARGIN + 34, top + LINE / 2), fit(text, font, width - 50), "white", font, "lm")
        top += LINE
    draw.text((MARGIN, top + LINE / 2), note, "silver", font, "lm")
    return picture


def fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text` on one line, its middle left out where it is too long."""
    text = " ".join(text.split())
    kept = len(text)
    shown = text
    while font.getlength(shown) > width and kept > 20:
        kept -= 1
        shown = f"{text[: kept // 2]} … {text[-(kept - kept // 2) :]}"
    return shown
