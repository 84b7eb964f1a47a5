"""A picture of a segmentation: a few slices side by side, or an image; labels in colour, a legend below."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from medimageparse_client.results.colours import Colour, colour
from medimageparse_client.results.lettering import Runs, draw_runs, find_runs, fit, length, own_font, visible

TILE = 300  # pixels, the longer side of a slice
N_SLICES, N_COLUMNS = 6, 3  # more slices only where some label would not be seen
SEEN = 0.25  # of a label's largest area: a slice with less does not show it
MARGIN = 8
LINE = 22  # pixels, one line of the legend
MAX_LINES = 8  # of a legend in one column, if its texts fit into several
WIDTH = N_COLUMNS * (TILE + MARGIN) - MARGIN  # pixels of what stands above the legend
INDENT = 34  # pixels of the legend's colours
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


class Paint(NamedTuple):
    """How labels are drawn: their outlines opaque in these colours, and within them the same at this opacity."""

    colours: Mapping[int, Colour]
    opacity: float

    def colour(self, label: int) -> Colour:
        return self.colours.get(label) or colour(label)


PLAIN = Paint({}, OPACITY)


def draw_preview(
    volume: Array,
    label_map: Array,
    affine: npt.NDArray[np.float64],
    legend: dict[int, str],
    *,
    grey_range: Sequence[float] | None = None,
    padding: Sequence[float] = (),
    is_oriented: bool = True,
    colours: Mapping[int, Colour] | None = None,
    is_filled: bool = True,
) -> Image.Image:
    """The picture (RGB).

    volume, label_map: [x,y,z] in the voxels that `affine` takes to millimetres (RAS+)
    legend: label -> "prompt: what was found"
    grey_range: the intensities that the networks saw as black and white; 0 and 255 when left out
    padding: those that they saw as black wherever they lie
    is_oriented: whether `affine` comes from the file; without it no sides are written
    colours: label -> its colour; hues where it says nothing
    is_filled: whether labels are tinted within their outlines
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
    paint = Paint(colours or {}, OPACITY if is_filled else 0)
    low, high = grey_range or (0, 255)
    size_mm = [label_map.shape[axis] * spacing_mm[axis] for axis in (plane.columns, plane.rows)]
    size = [max(1, round(TILE * side / max(size_mm))) for side in size_mm]
    stored_axis = int(np.flatnonzero(to_stored[:3, plane.axis])[0])
    tiles = []
    for position in choose_slices(np.moveaxis(label_map, plane.axis, 0)):
        grey = cut(volume, plane, position).astype(np.float64)
        for value in padding:  # the server's arithmetic has fewer digits
            grey[np.isclose(grey, value, rtol=1e-6)] = low
        tile = draw_slice(grey, cut(label_map, plane, position), low, high, size, paint)
        index = to_stored[stored_axis, plane.axis] * position + to_stored[stored_axis, 3]
        caption = f"{'ijk'[stored_axis]} = {index:.0f}"
        tiles.append(frame(tile, plane.sides, f"{plane.name}  {caption}") if is_oriented else frame(tile, "", caption))
    return arrange(tiles, legend, NOTE if is_oriented else NOTE_UNORIENTED, paint)


def draw_image_preview(
    image: Image.Image,
    label_map: Array,
    legend: dict[int, str],
    *,
    colours: Mapping[int, Colour] | None = None,
    is_filled: bool = True,
) -> Image.Image:
    """The picture (RGB) of an image (RGB) and its labels [H,W], as large as the frame allows; the rest as above."""
    paint = Paint(colours or {}, OPACITY if is_filled else 0)
    scale = WIDTH / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    board = Image.new("RGB", (WIDTH, size[1]))
    board.paste(
        paint_labels(image.resize(size, Image.Resampling.BILINEAR), label_map, paint), ((WIDTH - size[0]) // 2, 0)
    )
    return add_legend(board, legend, NOTE_IMAGE, paint)


def choose_plane(spacing_mm: npt.NDArray[np.float64]) -> Plane:
    """Across thick slices if the volume has such, axial otherwise."""
    is_thick = spacing_mm.max() > 1.5 * np.median(spacing_mm)
    return PLANES[int(spacing_mm.argmax())] if is_thick else PLANES[2]


def choose_slices(labels_by_slice: Array) -> list[int]:
    """Positions that together show every label, as few as that takes, filled up with what lies far from them.

    [D,...] -> at least N_SLICES of them if there are as many.
    """
    depth = len(labels_by_slice)
    n_labels = int(labels_by_slice.max()) + 1
    areas = np.stack([np.bincount(labels.ravel(), minlength=n_labels) for labels in labels_by_slice])[:, 1:]
    areas = areas[:, areas.any(axis=0)]
    if not areas.size:
        return sorted(set(np.linspace(0, depth - 1, N_SLICES + 2).round().astype(int).tolist()[1:-1]))
    chosen = cover(areas / areas.max(axis=0))
    occupied = np.flatnonzero(areas.any(axis=1))
    while len(chosen) < min(N_SLICES, len(occupied)):
        distances = np.abs(occupied[:, None] - chosen).min(axis=1)
        chosen.append(int(occupied[distances.argmax()]))
    return sorted(chosen)


def cover(shares: npt.NDArray[np.float64]) -> list[int]:
    """[D,L], how much of each label's largest area a slice has -> slices that show every label; the richest first."""
    chosen: list[int] = []
    hidden = np.ones(shares.shape[1], bool)
    while hidden.any():
        chosen.append(int(shares[:, hidden].sum(axis=1).argmax()))
        hidden &= shares[chosen[-1]] < SEEN
    return chosen


def cut(volume: Array, plane: Plane, position: int) -> Array:
    """One slice [rows, columns] as it is looked at; head up."""
    flat: Array = np.take(volume, position, axis=plane.axis).T  # the lower axis is the columns
    return flat[::-1] if plane.rows == 2 else flat


def draw_slice(
    grey: Array, labels: Array, low: float, high: float, size: list[int], paint: Paint = PLAIN
) -> Image.Image:
    """One slice of `size` (width, height), `low` and what is no number black, `high` white, labels filled, outlined."""
    values = np.clip(np.nan_to_num(grey.astype(np.float64), nan=low), low, high) - low
    brightness = values * 255 / max(high - low, 1e-6)
    picture = Image.fromarray(brightness.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return paint_labels(picture.convert("RGB"), labels, paint)


def paint_labels(picture: Image.Image, labels: Array, paint: Paint) -> Image.Image:
    """A picture (RGB) of any size with the labels [H,W] over it outlined, and tinted if `paint` says so."""
    rgb = np.asarray(picture, np.float32)
    # nearest, by index: label maps may be wider than the 8 bits of a picture
    rows = np.arange(picture.height) * labels.shape[0] // picture.height
    columns = np.arange(picture.width) * labels.shape[1] // picture.width
    sampled = labels[rows][:, columns]
    for label in np.unique(labels[labels > 0]):
        mask = sampled == label
        if not mask.any():  # it lies between the pixels of the picture
            row, column = np.nonzero(labels == label)
            mask[row * picture.height // labels.shape[0], column * picture.width // labels.shape[1]] = True
        opacity = np.where(outline(mask), 1.0, paint.opacity * mask)[..., None]
        rgb = rgb * (1 - opacity) + np.array(paint.colour(int(label))) * opacity
    return Image.fromarray(rgb.round().astype(np.uint8))


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of `mask` with a neighbour outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)


def frame(tile: Image.Image, sides: str, caption: str) -> Image.Image:
    """The slice on a black tile with the patient's sides (left, right, top, bottom) at its edges and a caption."""
    framed = Image.new("RGB", (TILE, TILE + LINE))
    framed.paste(tile, ((TILE - tile.width) // 2, (TILE - tile.height) // 2))
    draw = ImageDraw.Draw(framed)
    font = own_font()
    edges = ((4, TILE / 2, "lm"), (TILE - 4, TILE / 2, "rm"), (TILE / 2, 4, "mt"), (TILE / 2, TILE - 4, "mb"))
    for side, (x, y, anchor) in zip(sides, edges, strict=False):
        draw.text((x, y), side, "white", font, anchor, stroke_width=1, stroke_fill="black")
    draw.text((TILE / 2, TILE + LINE / 2), caption, "silver", font, "mm")
    return framed


def arrange(tiles: list[Image.Image], legend: dict[int, str], note: str, paint: Paint) -> Image.Image:
    """The tiles in rows, then the legend and the note."""
    n_rows = -(-len(tiles) // N_COLUMNS)
    board = Image.new("RGB", (WIDTH, n_rows * (TILE + LINE + MARGIN) - MARGIN), BACKGROUND)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, N_COLUMNS)
        board.paste(tile, (column * (TILE + MARGIN), row * (TILE + LINE + MARGIN)))
    return add_legend(board, legend, note, paint)


def add_legend(board: Image.Image, legend: dict[int, str], note: str, paint: Paint) -> Image.Image:
    """`board` in a frame, then the legend, one label a line, then the note."""
    lines = {label: legend_line(label, text, board.width - INDENT) for label, text in legend.items()}
    n_columns = choose_columns([INDENT + length(runs) for runs in lines.values()], board.width)
    n_rows, column_width = -(-len(lines) // n_columns), board.width // n_columns
    top = board.height + 2 * MARGIN
    picture = Image.new("RGB", (board.width + 2 * MARGIN, top + (n_rows + 1) * LINE + MARGIN), BACKGROUND)
    picture.paste(board, (MARGIN, MARGIN))
    for place, (label, runs) in enumerate(lines.items()):
        line = Image.new("RGB", (column_width, LINE), BACKGROUND)  # letters with many marks stay within theirs
        ImageDraw.Draw(line).rectangle((0, 4, INDENT - 10, LINE - 4), paint.colour(label))
        draw_runs(line, INDENT, runs, "white")
        column, row = divmod(place, n_rows)
        picture.paste(line, (MARGIN + column * column_width, top + row * LINE))
    ImageDraw.Draw(picture).text((MARGIN, top + (n_rows + 0.5) * LINE), note, "silver", own_font(), "lm")
    return picture


def legend_line(label: int, text: str, width: float) -> Runs:
    """A text "prompt: what was found" within `width`; for "prompt" stands "label 3" where no font has its letters."""
    prompt, colon, found = text.rpartition(": ") if ": " in text else (text, "", "")
    tail = find_runs(colon + found) or []
    prompt = visible(prompt)
    head = fit(prompt, width - length(tail)) if prompt else None
    return [*(head or [(f"label {label}", own_font())]), *tail]


def choose_columns(widths: list[float], width: int) -> int:
    """As many, up to three, as every line fits in; one for a short legend."""
    if len(widths) <= MAX_LINES:
        return 1
    return next((n for n in (3, 2) if max(widths) + MARGIN <= width // n), 1)
