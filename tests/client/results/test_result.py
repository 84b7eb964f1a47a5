"""What a result gives besides its arrays: masks by name, numbers, pictures and tables for a notebook."""

import pickle

import numpy as np
import pytest
from medimageparse_client import Client, MedImageParseError, UnknownPrompt
from PIL import Image


@pytest.fixture
def results(triton, volume_file):
    with Client() as client:
        volume = client.segment(volume_file, ["liver", "left <kidney>"])
        image = client.segment_image(Image.new("RGB", (8, 6), "red"), ["left lung", "right lung"])
    return volume, image


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("ask", ["mask", "describe"])
def test_an_unknown_prompt_lists_those_that_there_are(results, kind, ask):
    with pytest.raises(UnknownPrompt) as caught:
        getattr(results[kind], ask)("spleen")
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, MedImageParseError)
    assert str(caught.value).startswith("the result has no prompt 'spleen'; it has ")
    assert all(repr(prompt) in str(caught.value) for prompt in results[kind].prompts)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("kind", [0, 1])
def test_preview_gives_the_picture_and_writes_it_where_a_path_is_given(results, kind, tmp_path):
    picture = results[kind].preview()
    assert isinstance(picture, Image.Image)
    np.testing.assert_array_equal(np.asarray(results[kind].preview(tmp_path / "p.png")), np.asarray(picture))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p.png")), np.asarray(picture))


@pytest.mark.parametrize("kind", [0, 1])
def test_a_notebook_shows_a_table_of_the_prompts(results, kind):
    table = results[kind]._repr_html_()
    assert table.count("<tr>") == 3
    assert "<kidney>" not in table
    assert all(prompt.split()[0] in table for prompt in results[kind].prompts)


def test_statistics_are_rows_for_a_data_frame(results):
    rows = results[0].statistics()
    assert [(row["prompt"], row["label"], row["mean"], row["deviation"]) for row in rows] == [
        ("liver", 1, 1, 0),
        ("left <kidney>", 2, 2, 0),
    ]
    assert [set(row) for row in rows] == [set(rows[0])] * 2
    assert [row["area_pixels"] for row in results[1].statistics()] == [48, 0]


def test_masks_of_an_image_are_pictures_of_their_own(results, tmp_path):
    results[1].save_masks(tmp_path / "new")
    for prompt, name in (("left lung", "left_lung.png"), ("right lung", "right_lung.png")):
        picture = Image.open(tmp_path / "new" / name)
        np.testing.assert_array_equal(np.asarray(picture), results[1].mask(prompt))


def test_a_label_table_needs_a_known_ending(results, tmp_path):
    results[0].save_label_table(tmp_path / "labels.ctbl")
    assert (tmp_path / "labels.ctbl").read_text().splitlines()[2].startswith("1 liver ")
    with pytest.raises(ValueError, match="saved as .label, .txt, .ctbl"):
        results[0].save_label_table(tmp_path / "labels.xml")
