import io
import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from medimageparse_client import Client, ImageSegmentation, InvalidRequest, ServerError
from medimageparse_client.formats.windows import WINDOWS, Window
from medimageparse_client.results.colours import colour, colours_of
from medimageparse_client.results.image_segmentation import describe_area, measure
from medimageparse_client.results.report import ImagePrompt
from medimageparse_contract.image_types import TARGETS, ImageType
from PIL import Image


@pytest.fixture
def array():
    """RGB, wide; red in the upper left corner and half so in a stripe."""
    array = np.zeros((20, 30, 3), np.uint8)
    array[:8, :10] = [250, 10, 20]
    array[12:15] = [140, 140, 140]
    return array


def result_of(probabilities, prompts=None):
    """A result as the client makes it, without a server."""
    prompts = prompts or tuple(f"prompt {k}" for k in range(1, len(probabilities) + 1))
    report = {
        "prompts": [
            {"text": t, "category": "tumor", "highest_probability": 1.0, "p_value": None, "truncated": False}
            | measure(p > 127)
            for t, p in zip(prompts, probabilities, strict=True)
        ],
        "image": {"exif_orientation": 1, "intensity": {"used": "none", "bounds": None}},
        "rejected": [],
    }
    picture = io.BytesIO()
    Image.fromarray(np.full(probabilities.shape[1:], 90, np.uint8)).save(picture, "PNG")
    return ImageSegmentation(prompts, probabilities, ("tumor",) * len(prompts), report, picture.getvalue())


@pytest.mark.parametrize("url", ["localhost:8001", "http://localhost:8000"])
def test_segment_image(url, triton, array):
    with Client(url) as client:
        result = client.segment_image(array, ["left lung", "right lung"])
    assert result.prompts == ("left lung", "right lung")
    assert result.categories == ("lung", "lung")
    assert result.labels == {"left lung": 1, "right lung": 2}
    assert result.probabilities.dtype == np.uint8
    np.testing.assert_array_equal(result.probabilities, [array[..., 0], 255 - array[..., 0]])
    np.testing.assert_array_equal(result.mask("left lung"), array[..., 0] > 127)
    assert result.describe("left lung")["area_pixels"] == 80 + 90
    np.testing.assert_array_equal(Image.open(io.BytesIO(triton.images[0])), array)
    assert result.image == triton.images[0]
    assert triton.requests == [
        {
            "model": "medimageparse",
            "text": "left lung & right lung",
            "outputs": ["probabilities", "text_features", "report"],
        }
    ]


def test_every_kind_of_image_gives_the_same(triton, array, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    with Client() as client:
        for source in (path, str(path), path.read_bytes(), Image.fromarray(array), array):
            np.testing.assert_array_equal(client.segment_image(source, "lesion").probabilities[0], array[..., 0])


@pytest.mark.parametrize("url", ["localhost:8001", "http://localhost:8000"])
def test_options(url, triton, array):
    with Client(url) as client:
        client.segment_image(array, "lesion", image_type="Dermoscopy", joint=False)
        client.segment_image(array, image_type="X-Ray-Chest", joint=np.True_, p_value_threshold=0)
    asked, recognized = triton.requests
    assert (asked["text"], asked["image_type"], asked["joint"]) == ("lesion", "Dermoscopy", False)
    assert recognized == {
        "model": "medimageparse",
        "image_type": "X-Ray-Chest",
        "joint": True,
        "p_value_threshold": 0.0,
        "outputs": ["probabilities", "text_features", "report"],
    }


def test_recognition(triton, array):
    with Client() as client:
        result = client.segment_image(array, image_type="X-Ray-Chest")
    assert result.prompts == ("left lung", "right lung")
    assert result.probabilities.shape == (2, 20, 30)


def test_recognition_of_nothing(triton, array, tmp_path):
    triton.recognized = ()
    with Client() as client:
        result = client.segment_image(array, image_type="X-Ray-Chest")
    assert (result.prompts, result.categories, result.labels) == ((), (), {})
    assert result.probabilities.shape == (0, 20, 30)
    np.testing.assert_array_equal(result.label_map, np.zeros((20, 30)))
    for name in ("masks.png", "masks.npz"):
        result.save(tmp_path / name)
    result.preview(tmp_path / "overlay.png")
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as saved:
        assert (saved["probabilities"].shape, saved["prompts"].shape) == ((0, 20, 30), (0,))


def test_neither_prompts_nor_an_image_type(triton, array):
    with Client() as client, pytest.raises(InvalidRequest, match="give prompts, or image_type"):
        client.segment_image(array)
    assert triton.requests == []


def test_an_answer_to_other_prompts(triton, array, monkeypatch):
    answer = triton.answer_image
    monkeypatch.setattr(triton, "answer_image", lambda self, image, prompts: answer(self, image, prompts[:1]))
    with Client() as client, pytest.raises(ServerError, match="one map and one category for each prompt"):
        client.segment_image(array, ["lesion", "vessel"])


def test_a_repeated_prompt_keeps_its_first_label(triton, array):
    with Client() as client:
        result = client.segment_image(array, ["lesion", "vessel", "lesion"])
    assert result.labels == {"lesion": 1, "vessel": 2}
    assert len(result.probabilities) == 3
    assert set(np.unique(result.label_map)) <= {1, 2}


def test_in_the_label_map_the_more_probable_prompt_wins():
    maps = np.array([[[0, 127, 128, 200, 200, 255]], [[0, 127, 127, 201, 200, 128]]], np.uint8)
    result = result_of(maps)
    assert result.label_map.tolist() == [[0, 0, 1, 2, 1, 1]]
    assert result.label_map.dtype == np.uint8
    assert result.mask("prompt 1").tolist() == [[False, False, True, True, True, True]]
    assert result.mask("prompt 2").tolist() == [[False, False, False, True, True, True]]
    with pytest.raises(KeyError):
        result.mask("prompt 3")


def test_save(tmp_path):
    maps = np.zeros((3, 6, 5), np.uint8)
    maps[0, :2], maps[1, 3:], maps[2, 2, 2] = 200, 255, 130
    result = result_of(maps, ("left lung", "tumeur à droite", "x"))
    result.save(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as picture:
        assert (picture.mode, picture.size) == ("P", (5, 6))
        np.testing.assert_array_equal(np.asarray(picture), result.label_map)
        assert tuple(np.asarray(picture.convert("RGB"))[0, 0]) == colours_of(result.prompts, "2d")[1]
        assert tuple(np.asarray(picture.convert("RGB"))[2, 0]) == (0, 0, 0)
    assert (tmp_path / "masks.png").read_bytes()[24] == 8  # bits
    result.save(str(tmp_path / "masks.npz"))
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["probabilities"], maps)
        assert tuple(saved["prompts"]) == result.prompts
        assert tuple(saved["categories"]) == ("tumor",) * 3
    with pytest.raises(ValueError, match=r"\.png or \.npz"):
        result.save(tmp_path / "masks.jpg")


def test_more_labels_than_a_png_holds(tmp_path):
    result = result_of(np.full((256, 1, 1), 128, np.uint8))
    assert result.label_map.dtype == np.uint16
    with pytest.raises(ValueError, match="255 labels"):
        result.save(tmp_path / "masks.png")
    result.save(tmp_path / "masks.npz")


@pytest.mark.parametrize("orientation", [1, 6])
def test_preview(orientation, triton, tmp_path):
    """A tall and a wide picture with a mark in one corner: the colour lies on the mark."""
    grey = np.zeros((40, 90), np.uint8)
    grey[:20, 70:] = 200
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(grey).save(tmp_path / "image.jpg", exif=exif, quality=95)
    with Client() as client:
        result = client.segment_image(tmp_path / "image.jpg", ["lesion"])
    result.preview(tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        pixels = np.asarray(picture)
    rows, columns = np.nonzero((pixels[:-60] == colour(1)).all(axis=2))
    where = rows.mean() / pixels.shape[0], columns.mean() / pixels.shape[1]
    assert where[1] > 0.6
    assert (where[0] < 0.5) == (orientation == 1)


def test_preview_of_16_bits_shows_what_the_network_saw(triton, tmp_path, monkeypatch):
    result = result_of(np.zeros((1, 2, 2), np.uint8))
    result.report["image"]["intensity"]["bounds"] = [100.0, 300.0]
    picture = Image.fromarray(np.array([[100, 200], [300, 0]], np.uint16))
    picture.save(tmp_path / "16.png")
    seen = []
    monkeypatch.setattr(
        "medimageparse_client.results.image_segmentation.draw_image_preview",
        lambda image, *_, **options: seen.append(np.asarray(image)) or Image.new("RGB", (4, 4)),
    )
    object.__setattr__(result, "image", (tmp_path / "16.png").read_bytes())
    result.preview(tmp_path / "overlay.png")
    assert seen[0][..., 0].tolist() == [[0, 127], [255, 0]]


def test_legend():
    found = ImagePrompt("left lung", True, 12, 0.9, "lung", None, False)
    assert describe_area("left lung", found) == "left lung: 12 pixels, lung"
    assert describe_area("left lung", replace(found, present=False)) == "left lung: not found"


def test_the_report_can_be_written_as_json(triton, array):
    with Client() as client:
        result = client.segment_image(array, "lesion")
    assert json.loads(json.dumps(result.report)) == result.report


def test_the_client_names_what_the_server_and_the_reader_know():
    assert get_args(ImageType) == tuple(TARGETS)
    assert get_args(Window) == tuple(WINDOWS)


def test_who_watches_is_told_of_tiles(triton, array):
    """Over gRPC by the server's stream, else once at the end."""
    told = []
    with_stream = (*triton.models, "medimageparse_stream")
    for models, url in ((triton.models, ""), (with_stream, ""), (with_stream, "http://localhost:8000")):
        triton.models, triton.tiles = models, 3
        with Client(url or "localhost:8001") as client:
            client.segment_image(array, ["red", "blue"], tile=True, progress=lambda *words: told.append(words))
    at_the_end = [(3, 3, ("red", "blue"))]
    on_the_way = [(0, 3, ()), (1, 3, ("red",)), (2, 3, ("red", "blue")), (3, 3, ("red", "blue"))]
    assert told == at_the_end + on_the_way + at_the_end
