import nibabel as nib
import numpy as np
import pytest
from medimageparse_client.preview import (
    LINE,
    MARGIN,
    N_SLICES,
    TILE,
    WIDTH,
    choose_plane,
    choose_slices,
    colour,
    draw_image_preview,
    draw_preview,
    draw_slice,
    fit,
    percentiles,
)
from PIL import Image, ImageFont


def reddest(tile):
    """Centre (column, row) of what is drawn in the first label's colour, as fractions of a tile."""
    pixels = np.asarray(tile, np.int16)
    rows, columns = np.nonzero((pixels == colour(1)).all(axis=2))
    return columns.mean() / TILE, rows.mean() / TILE


@pytest.mark.parametrize("axes", ["LAS", "RAS", "LPS", "SPL", "ARI"])
@pytest.mark.parametrize(
    ("plane", "spacing_mm", "centre"),
    [
        ("axial", (1, 1, 4), (0.25, 0.25)),  # right front: top left
        ("coronal", (1, 4, 1), (0.25, 0.25)),  # right, head: top left
        ("sagittal", (4, 1, 1), (0.25, 0.25)),  # front, head: top left
    ],
)
def test_radiological_display(axes, plane, spacing_mm, centre):
    """A block at the patient's right, front and head, stored in any orientation."""
    canonical = np.zeros((16, 16, 16), np.uint8)  # left to right, back to front, feet to head
    canonical[10:14, 10:14, 10:14] = 1
    stored = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    label_map = nib.orientations.apply_orientation(canonical, stored)
    affine = np.diag([*spacing_mm, 1.0]) @ nib.orientations.inv_ornt_aff(stored, canonical.shape)
    picture = draw_preview(label_map * 100, label_map, affine, {1: "block"})
    tile = picture.crop((MARGIN, MARGIN, MARGIN + TILE, MARGIN + TILE))
    assert reddest(tile) == pytest.approx(centre, abs=0.02)


@pytest.mark.parametrize(
    ("spacing_mm", "name"),
    [((0.8, 0.8, 5), "axial"), ((4, 0.6, 0.6), "sagittal"), ((1, 3, 1), "coronal"), ((1, 1, 1.2), "axial")],
)
def test_plane_lies_in_the_fine_resolution(spacing_mm, name):
    assert choose_plane(np.array(spacing_mm)).name == name


def test_slices_show_every_label_where_it_is_largest():
    labels = np.zeros((40, 8, 8), np.uint8)
    labels[5:30, :4] = 1
    labels[12, 0] = labels[7, 6] = 2
    labels[7, 7] = 2
    labels[33, 5, 5] = 3
    positions = choose_slices(labels)
    assert {5, 7, 33} <= set(positions)
    assert len(positions) == N_SLICES
    assert positions == sorted(positions)


def test_slices_without_labels_and_of_thin_volumes():
    assert len(choose_slices(np.zeros((40, 8, 8), np.uint8))) == N_SLICES
    assert choose_slices(np.zeros((1, 8, 8), np.uint8)) == [0]
    assert choose_slices(np.ones((2, 8, 8), np.uint8)) == [0, 1]


def test_percentiles():
    volume = np.random.default_rng(0).permutation(np.linspace(0, 1000, 1000)).reshape(10, 10, 10)
    low, high = percentiles(volume)
    assert 0 <= low < 50
    assert 950 < high <= 1000
    assert percentiles(np.zeros((3, 1, 3))) == (0, 0)


def test_grey_range():
    volume = np.broadcast_to(np.array([0, 50, 100, 200])[:, None, None], (4, 4, 1))
    picture = draw_preview(volume, np.zeros((4, 4, 1), np.uint8), np.diag([-1.0, -1, 1, 1]), {}, grey_range=(50, 100))
    middle = np.asarray(picture)[MARGIN + TILE // 2 + 20, MARGIN : MARGIN + TILE, 0]
    assert (middle[[40, 112]] == 0).all()
    assert (middle[[188, 250]] == 255).all()


def test_sides_are_written_only_where_they_are_known():
    label_map = np.zeros((8, 8, 1), np.uint8)
    tiles = [
        np.asarray(draw_preview(label_map, label_map, np.eye(4), {}, is_oriented=is_oriented))[:TILE]
        for is_oriented in (True, False)
    ]
    assert (tiles[0][MARGIN:, MARGIN : MARGIN + TILE] > 0).any()
    assert not (tiles[1][MARGIN:, MARGIN : MARGIN + TILE] > 0).any()


def test_slice_of_one_grey_and_of_wide_labels():
    labels = np.zeros((10, 10), np.uint16)
    labels[2:8, 2:8] = 300
    picture = np.asarray(draw_slice(np.full((10, 10), 7), labels, 7, 7, [20, 20]))
    assert tuple(picture[4, 10]) == colour(300)
    assert tuple(picture[0, 0]) == (0, 0, 0)


def test_colours_differ():
    assert len({colour(label) for label in range(1, 65)}) == 64


def test_long_prompts_are_shortened():
    font = ImageFont.load_default(14)
    text = "Visualization of the liver in abdominal CT imaging " * 10
    assert font.getlength(fit(text, font, 400)) <= 400
    assert "…" in fit(text, font, 400)
    assert fit("liver:\n 3 ml", font, 400) == "liver: 3 ml"


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (1, 2000), (4000, 3)])
def test_an_image_of_any_shape_fills_the_frame(size):
    label_map = np.zeros(size[::-1], np.uint8)
    label_map[: size[1] // 2, : size[0] // 2] = 1
    picture = draw_image_preview(Image.new("RGB", size), label_map, {1: "corner"})
    assert picture.width == WIDTH + 2 * MARGIN
    assert picture.height <= WIDTH + 3 * MARGIN + 2 * LINE
    assert tuple(np.asarray(picture)[-LINE - MARGIN - LINE // 2, MARGIN + 2]) == colour(1)  # the legend
