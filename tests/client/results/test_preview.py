import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from medimageparse_client.results import lettering
from medimageparse_client.results.colours import colour, colours_of
from medimageparse_client.results.lettering import find_runs, fit, length, visible
from medimageparse_client.results.preview import (
    BACKGROUND,
    INDENT,
    LINE,
    MARGIN,
    N_SLICES,
    TILE,
    WIDTH,
    choose_plane,
    choose_slices,
    draw_image_preview,
    draw_preview,
    draw_slice,
)
from medimageparse_contract.catalogue import structures
from PIL import Image, ImageColor, features


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
    assert {7, 33} <= set(positions)
    assert len(positions) == N_SLICES
    assert positions == sorted(positions)


def test_every_label_is_seen_however_many_there_are():
    """Each on a slice of its own, and more of them than a preview usually has slices."""
    labels = np.zeros((40, 8, 8), np.uint8)
    for label in range(1, 12):
        labels[3 * label : 3 * label + 2, label % 8] = label
    positions = choose_slices(labels)
    assert set(np.unique(labels[positions])) == set(range(12))
    assert len(positions) == 11


def test_labels_that_one_slice_shows_leave_the_others_apart():
    labels = np.zeros((41, 8, 8), np.uint8)
    for label in range(1, 7):
        labels[:, label] = label
        labels[17 + label, label, 0] = 0  # where each is largest differs by a voxel
    labels[40] = 0
    positions = choose_slices(labels)
    assert len(positions) == N_SLICES
    assert np.diff(positions).min() >= 4


def test_a_label_of_one_voxel_is_seen_in_a_picture_with_fewer_pixels():
    label_map = np.zeros((3 * TILE, 3 * TILE, 1), np.uint16)
    label_map[100, 200, 0] = 1
    label_map[-1, -1, 0] = 2
    picture = np.asarray(draw_preview(np.zeros(label_map.shape), label_map, np.eye(4), {}))
    for label in (1, 2):
        assert (picture == colour(label)).all(axis=-1).any()


@pytest.mark.parametrize("is_filled", [True, False])
def test_legend_and_picture_have_the_same_colours(is_filled):
    label_map = np.zeros((60, 60, 1), np.uint8)
    label_map[5:25, 5:25], label_map[30:50, 30:50] = 1, 2
    colours = colours_of(["liver", "no structure of any catalogue"], "3d")
    volume = np.full(label_map.shape, 100)
    picture = draw_preview(volume, label_map, np.eye(4), {1: "a", 2: "b"}, colours=colours, is_filled=is_filled)
    pixels = np.asarray(picture)
    legend, tiles = pixels[MARGIN + TILE + LINE + MARGIN :], pixels[MARGIN : MARGIN + TILE, MARGIN : MARGIN + TILE]
    for label, rgb in colours.items():
        assert (legend == rgb).all(axis=-1).any()
        assert (tiles == rgb).all(axis=-1).sum() >= 4 * 19  # its outline
        rows, columns = np.nonzero((tiles == rgb).all(axis=-1))
        middle = tuple(tiles[(rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2])
        assert (middle == (100, 100, 100)) is not is_filled, label


def test_known_prompts_have_the_catalogues_colours_and_no_two_are_alike():
    [liver] = {row.rgb for row in structures("3d") if row.id == "liver"}
    for prompt in ("Liver", next(row.prompt for row in structures("3d") if row.id == "liver"), " LIVER "):
        assert colours_of([prompt], "3d") == {1: liver}
    prompts = [*(row.prompt for row in structures("3d")), "liver", "LIVER", "unknown"]
    assert len(set(colours_of(prompts, "3d").values())) == len(prompts)


def test_slices_without_labels_and_of_thin_volumes():
    assert len(choose_slices(np.zeros((40, 8, 8), np.uint8))) == N_SLICES
    assert choose_slices(np.zeros((1, 8, 8), np.uint8)) == [0]
    assert choose_slices(np.ones((2, 8, 8), np.uint8)) == [0, 1]


def test_grey_range():
    volume = np.broadcast_to(np.array([0, 50, 100, 200])[:, None, None], (4, 4, 1))
    picture = draw_preview(volume, np.zeros((4, 4, 1), np.uint8), np.diag([-1.0, -1, 1, 1]), {}, grey_range=(50, 100))
    middle = np.asarray(picture)[MARGIN + TILE // 2 + 20, MARGIN : MARGIN + TILE, 0]
    assert (middle[[40, 112]] == 0).all()
    assert (middle[[188, 250]] == 255).all()


def middle_of(values, grey_range=None, padding=()):
    """The grey values of a preview along its middle, one for each of `values`."""
    volume = np.broadcast_to(np.array(values)[:, None, None], (len(values), len(values), 1))
    labels = np.zeros(volume.shape, np.uint8)
    picture = draw_preview(volume, labels, np.diag([-1.0, -1, 1, 1]), {}, grey_range=grey_range, padding=padding)
    row = np.asarray(picture)[MARGIN + TILE // 2 + 20, MARGIN : MARGIN + TILE, 0]
    return row[(np.arange(len(values)) * TILE + TILE // 2) // len(values)].tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_values_that_the_networks_saw_as_they_are_are_shown_as_they_are(dtype):
    """No window, no percentiles: what is nearly black for the networks is nearly black here."""
    assert middle_of(np.array([0, 1, 3, 7], dtype)) == [0, 1, 3, 7]
    assert middle_of(np.array([0, 60, 200, 255], dtype)) == [0, 60, 200, 255]


def test_values_outside_are_clipped():
    assert middle_of(np.float32([-50, 0.5, 254.9, 1000])) == [0, 0, 254, 255]
    assert middle_of(np.int16([-1000, -160, 40, 2000]), (-160, 240)) == [0, 0, 127, 255]


def test_padding_is_black_as_it_was_for_the_networks():
    assert middle_of(np.uint16([65535, 100, 300, 0]), (100, 300), [65535.0, 0.0]) == [0, 0, 255, 0]
    assert middle_of(np.float64([0.1 * 3, 0.1, 0.2, 0.25]), (0.1, 0.2), [float(np.float32(0.3))]) == [0, 0, 255, 255]


def test_values_that_are_no_numbers_are_shown_too():
    assert middle_of(np.float32([np.nan, np.inf, -np.inf, 100])) == [0, 255, 0, 100]
    assert middle_of(np.float64([np.nan, np.inf, -np.inf, 1e300]), (-1.5, 1.5)) == [0, 255, 0, 255]


def test_a_volume_of_one_value_is_black_where_the_networks_saw_black():
    assert middle_of(np.int16([900] * 4), (900, 900)) == [0] * 4


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


@pytest.fixture
def only_own_font(monkeypatch):
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ())


@pytest.fixture
def without_raqm(only_own_font, monkeypatch):
    """As Pillow is where FriBiDi is missing: no shaping, no right to left."""
    lettering.load_font.cache_clear()
    monkeypatch.setattr(features, "check", lambda feature: False)
    yield
    lettering.load_font.cache_clear()


@pytest.fixture
def with_font(monkeypatch, tmp_path):
    """Puts a font into the search that has only the given letters; each looks like an H."""

    def install(letters):
        font = TTFont(lettering.OWN_FONT)
        for table in font["cmap"].tables:
            table.cmap = {ord(letter): "H" for letter in letters} if table.isUnicode() else {}
        font.save(tmp_path / "test.ttf")
        monkeypatch.setattr(lettering, "SYSTEM_FONTS", ("no such font", str(tmp_path / "test.ttf")))

    lettering.load_font.cache_clear()
    yield install
    lettering.load_font.cache_clear()


def letters_of(path):
    return set(TTFont(io.BytesIO(Path(path).read_bytes()), fontNumber=0).getBestCmap())


def assert_no_box(runs):
    """By the fonts' own tables, not by what is drawn."""
    for text, font in runs:
        assert {ord(letter) for letter in text if letter not in lettering.JOINERS} <= letters_of(font.path)


def preview_of(*texts):
    legend = dict(enumerate(texts, start=1))
    return np.asarray(draw_image_preview(Image.new("RGB", (300, 30)), np.zeros((30, 300), np.uint8), legend))


def assert_same_legend(text, expected):
    np.testing.assert_array_equal(preview_of(text), preview_of(expected))
    assert not np.array_equal(preview_of(expected), preview_of(""))


OWN_LETTERS = {
    "English": "spleen & kidney (left), 50 % > 3 µm",
    "French": "foie droit, tumeur à l'œsophage : très grande, déçu, naïf, là-bas, où, Ÿ",
    "German": "Größe der Lebermetastase, Übergang, ß, ẞ, ö",
    "Spanish": "riñón, ¿hígado?, pingüino",
    "Portuguese": "coração, pulmões, fígado à direita",
    "Polish": "wątroba, śledziona, żołądek, łódź, ć ń ę ó ź",
    "Czech": "játra, žlučník, ř ě š č ď ť ň ů",
    "Hungarian": "máj, tüdő, ű",
    "Romanian": "ficat, ș ț ă â î",
    "Turkish": "karaciğer, böbrek, ı İ ş ç",
    "Nordic": "Å ø æ þ ð milt",
    "Baltic": "aknas, kepenys, ė ų ū ģ ķ ļ ņ õ",
    "Vietnamese": "gan, thận phải, lá lách ở bên trái, ưỡn, ặ ộ ữ",
    "Greek": "ήπαρ, καρδιά, ᾠδή, ΰ",
    "Russian": "печень, сердце, Ёлка, щ",
    "Ukrainian": "печінка, ґанок, їжак, є",
    "Serbian": "јетра, љ њ џ ђ ћ",
    "Kazakh": "бауыр, ә ғ қ ң ө ұ ү һ",
    "Armenian": "լյարդ",
    "Georgian": "ღვიძლი",
    "Hebrew": "כבד שמאלי",
    "Arabic": "الكبد الأيمن",
    "Persian": "کبد می‌شود",
    "mixed": "الكبد CT 12",
    "decomposed": "e\u0301le\u0300ve, n\u0303, A\u030a",
    "with a mark of its own": "x\u0304 and q\u0307",
    "typography": "“liver” – „Leber“ … ≥ 3 × 2 ± ° → ♥",
}
OTHER_LETTERS = {
    "Chinese": "肝脏",
    "Japanese": "肝臓、カタカナ",
    "Korean": "간 오른쪽",
    "Hindi": "यकृत",
    "Bengali": "যকৃৎ",
    "Tamil": "கல்லீரல்",
    "Thai": "ตับ",
    "Khmer": "ថ្លើម",
    "Burmese": "အသည်း",
    "Amharic": "ጉበት",
    "mixed": "liver (肝脏)",
    "emoji": "\U0001f469\u200d\u2695\ufe0f",
    "flag": "\U0001f1e9\U0001f1ea",
    "private use": "x\ue000y",
    "unassigned": "x\u0378y",
    "no character": "x\uffff\U0010ffffy",
    "half a character": "x\ud800y",
    "nothing": "",
    "nothing that is seen": "\u200b\u200d \u202e\t",
}


@pytest.mark.parametrize("text", OWN_LETTERS.values(), ids=OWN_LETTERS)
def test_these_languages_show_on_every_machine(text, only_own_font):
    if lettering.needs_shaping(visible(text)) and not features.check("raqm"):
        pytest.skip("this Pillow has no raqm, so the text is shown as label k")
    runs = find_runs(visible(text))
    assert [font.path for _, font in runs] == [lettering.OWN_FONT]
    assert_no_box(runs)
    assert not np.array_equal(preview_of(f"{text}: 12.3 ml"), preview_of("label 1: 12.3 ml"))


@pytest.mark.parametrize("text", OTHER_LETTERS.values(), ids=OTHER_LETTERS)
@pytest.mark.parametrize("found", ["12.3 ml", "not found", "120 pixels, liver"])
def test_where_a_letter_is_missing_stand_the_label_and_what_was_found(text, found, only_own_font):
    assert_same_legend(f"{text}: {found}", f"label 1: {found}")


@pytest.mark.parametrize("text", [*OWN_LETTERS.values(), *OTHER_LETTERS.values()])
def test_no_box_is_drawn_with_the_fonts_of_this_machine(text):
    assert_no_box(find_runs(visible(text)) or [])


def test_fonts_of_the_system_are_used_for_what_the_own_font_lacks(with_font):
    with_font("肝脏 abc")
    ((text, font),) = find_runs("肝脏 abc")
    assert (text, Path(font.path).name) == ("肝脏 abc", "test.ttf")
    assert find_runs("肝臓") is None
    assert not np.array_equal(preview_of("肝脏: 1 ml"), preview_of("label 1: 1 ml"))
    assert find_runs("liver")[0][1].path == lettering.OWN_FONT


def test_a_line_may_need_several_fonts(with_font):
    with_font("肝脏\u0301")
    runs = find_runs("liver 肝脏, left 肝\u0301")
    assert [text for text, _ in runs] == ["liver ", "肝脏", ", left ", "肝\u0301"]
    assert_no_box(runs)
    assert length(runs) == sum(font.getlength(text) for text, font in runs)


def test_text_from_right_to_left_is_not_put_together_of_several_fonts(with_font):
    with_font("肝脏")
    assert find_runs("כבד 肝脏") is None
    assert_same_legend("כבד 肝脏: 1 ml", "label 1: 1 ml")


@pytest.mark.parametrize("name", [name for name in OWN_LETTERS if name not in ("with a mark of its own",)])
def test_without_shaping_what_needs_it_is_a_label(name, without_raqm):
    text = OWN_LETTERS[name]
    if name in ("Hebrew", "Arabic", "Persian", "mixed"):
        assert_same_legend(f"{text}: 1 ml", "label 1: 1 ml")
    else:
        assert_no_box(find_runs(visible(text)))


@pytest.mark.parametrize("text", ["x\u0304", "यकृत", "ตับ", "ᠮᠣᠩᠭᠣᠯ", "\u1112\u119e\u11ab", "١٢٣"])
def test_marks_and_joined_letters_need_shaping(text, without_raqm):
    assert find_runs(visible(text)) is None


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("liver:\n 3 ml", "liver: 3 ml"),
        ("a\tb\r\nc\u2028d\u00a0e\x85f\x0bg", "a b c d e f g"),
        ("\ufeffliver\u200b\u00ad\u2060", "liver"),
        ("a\x00b\x07c\x1b[31md\x7f", "abc[31md"),
        ("left\u202e revil\u202c \u2066x\u2069\u200e\u200f\u061c", "left revil x"),
        ("e\u0301", "é"),
        ("\u2764\ufe0f\u200d", "\u2764"),
        ("می\u200cشود", "می\u200cشود"),
        ("क्\u200dष", "क्\u200dष"),
        ("li\u200cver\u200d", "liver"),
        ("\U000e0041tag\U000e007f\u115f\u3164", "tag"),
    ],
)
def test_what_is_not_seen_changes_nothing(text, seen):
    assert visible(text) == seen


def test_long_prompts_are_shortened(only_own_font):
    for text in (
        "Visualization of the liver in abdominal CT imaging " * 10,
        "e\u0302\u0323 x\u0304" * 200,
        "W" * 20000,
    ):
        text = visible(text)
        runs = fit(text, 400)
        assert 350 < length(runs) <= 400
        (shown,) = (part for part, _ in runs)
        first, last = shown.split(" … ")
        assert text.startswith(first)
        assert text.endswith(last)
        assert abs(len(first) - len(last)) <= 2
    assert fit("liver", 400) == find_runs("liver")
    assert fit("肝" * 500, 400) is None


def test_a_long_prompt_leaves_room_for_what_was_found():
    short, long = preview_of("x: 12.3 ml"), preview_of("word " * 100 + ": 12.3 ml")
    assert short.shape == long.shape
    row = slice(-2 * LINE - MARGIN, -LINE - MARGIN)
    (columns,) = np.nonzero((long[row] == 255).all(axis=(2)).any(axis=0))
    assert columns.max() < long.shape[1] - MARGIN


def test_a_line_stays_within_its_own(only_own_font):
    """However many marks are piled up."""
    calm = preview_of("a: 1 ml", "b: 1 ml", "c: 1 ml")
    piled = preview_of("a: 1 ml", "b" + "\u0301\u0323" * 40 + ": 1 ml", "c: 1 ml")
    top = calm.shape[0] - MARGIN - 4 * LINE
    changed = np.flatnonzero((calm != piled).any(axis=(1, 2)))
    assert top + LINE <= changed.min() <= changed.max() < top + 2 * LINE


def patches(picture):
    """Label -> left upper corner of its colour in the legend."""
    corners = {}
    packed = picture @ np.array([65536, 256, 1])
    for label in range(1, 65):
        rows, columns = np.nonzero(packed == np.array(colour(label)) @ [65536, 256, 1])
        if len(rows):
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one rectangle, and nothing over it
            corners[label] = (columns.min(), rows.min())
    return corners


@pytest.mark.parametrize(
    ("n_labels", "text", "n_columns"),
    [(8, "organ", 1), (9, "organ", 3), (64, "organ", 3), (64, "organ " * 6, 2), (64, "organ " * 30, 1), (64, "肝", 3)],
)
def test_many_labels_stand_in_columns_that_fit(n_labels, text, n_columns, only_own_font):
    picture = preview_of(*[f"{text} {label}: 1234.5 ml" for label in range(1, n_labels + 1)])
    corners = patches(picture)
    assert sorted(corners) == list(range(1, n_labels + 1))
    lefts, tops = ({corner[axis] for corner in corners.values()} for axis in (0, 1))
    assert (len(lefts), len(tops)) == (n_columns, -(-n_labels // n_columns))
    assert set(np.diff(sorted(tops))) <= {LINE}
    assert picture.shape[1] == WIDTH + 2 * MARGIN
    background = np.array(ImageColor.getrgb(BACKGROUND))
    for left in sorted(lefts)[1:]:
        gap = picture[min(tops) : max(tops) + LINE, left - 4 : left]
        assert (gap == background).all()
        assert left + INDENT < picture.shape[1]


def test_repeated_use_finds_the_same_fonts():
    assert find_runs("foie")[0][1] is find_runs("cœur")[0][1]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (1, 2000), (4000, 3)])
def test_an_image_of_any_shape_fills_the_frame(size):
    label_map = np.zeros(size[::-1], np.uint8)
    label_map[: size[1] // 2, : size[0] // 2] = 1
    picture = draw_image_preview(Image.new("RGB", size), label_map, {1: "corner"})
    assert picture.width == WIDTH + 2 * MARGIN
    assert picture.height <= WIDTH + 3 * MARGIN + 2 * LINE
    assert tuple(np.asarray(picture)[-LINE - MARGIN - LINE // 2, MARGIN + 2]) == colour(1)  # the legend
