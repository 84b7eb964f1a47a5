"""Synthetic images and prompts for them: repeatable, complete, and with left and right where they belong."""

import numpy as np
import pytest
from medimageparse_contract.categories import CLASSES
from medimageparse_demo.image_prompts import CATEGORY_OF, NAMES, held_out_prompts, sample_prompt, training_prompts
from medimageparse_demo.images import (
    KIND_STRUCTURES,
    LONGEST_SIDE,
    SHORTEST_SIDE,
    SMALLEST,
    STRUCTURES,
    WIDEST,
    make_image,
)
from medimageparse_demo.prompts import normalized


@pytest.fixture(scope="module")
def images():
    return {kind: [make_image(seed, kind) for seed in range(30)] for kind in KIND_STRUCTURES}


def column(image, name):
    """Mean distance of a structure from the left edge of the picture, in widths."""
    return np.nonzero(image.masks[name])[1].mean() / image.pixels.shape[1]


@pytest.mark.parametrize("kind", [*KIND_STRUCTURES, None])
def test_same_seed_same_image(kind):
    first, second = make_image(7, kind), make_image(7, kind)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert list(first.masks) == list(second.masks)
    for name, mask in first.masks.items():
        np.testing.assert_array_equal(mask, second.masks[name])
    other = make_image(8, first.kind)
    assert first.pixels.shape != other.pixels.shape or not np.array_equal(first.pixels, other.pixels)


def test_all_kinds_are_drawn():
    assert {make_image(seed).kind for seed in range(12)} == set(KIND_STRUCTURES)


@pytest.mark.parametrize("kind", KIND_STRUCTURES)
def test_pixels_and_masks_fit(images, kind):
    for image in images[kind]:
        assert image.kind == kind
        assert image.pixels.dtype == np.uint8
        *shape, channels = image.pixels.shape
        assert channels == 3
        assert SHORTEST_SIDE <= min(shape) <= max(shape) <= LONGEST_SIDE
        assert max(shape) <= WIDEST * min(shape) + 1
        assert image.pixels.std() > 15
        assert image.masks
        assert set(image.masks) <= set(KIND_STRUCTURES[kind])
        for mask in image.masks.values():
            assert mask.dtype == bool
            assert mask.shape == tuple(shape)
            assert mask.sum() >= SMALLEST * max(shape) ** 2
    shapes = [image.pixels.shape for image in images[kind]]
    assert {np.sign(rows - columns) for rows, columns, _ in shapes} == {-1, 0, 1}


@pytest.mark.parametrize("kind", KIND_STRUCTURES)
def test_every_structure_occurs_and_images_differ_in_what_they_show(images, kind):
    for name in KIND_STRUCTURES[kind]:
        assert sum(name in image.masks for image in images[kind]) >= 8, name
    assert min(len(image.masks) for image in images[kind]) < len(KIND_STRUCTURES[kind])


def test_scans_are_grey_and_tissue_is_not(images):
    for kind in ("X-Ray-Chest", "CT-Abdomen"):
        for image in images[kind]:
            assert (image.pixels == image.pixels[:, :, :1]).all()
    for image in images["Pathology"]:
        red, green, blue = image.pixels.mean((0, 1))
        assert min(red, blue) > green + 10


def test_the_patients_left_is_on_the_right(images):
    for image in images["X-Ray-Chest"]:
        assert column(image, "right lung") < column(image, "heart") < column(image, "left lung")
    for image in images["CT-Abdomen"]:
        middle = column(image, "aorta")
        for name in image.masks:
            if name in ("liver", "right kidney"):
                assert column(image, name) < middle, name
            if name in ("spleen", "stomach", "left kidney"):
                assert column(image, name) > middle, name


def test_lungs_are_dark_and_what_lies_in_an_organ_belongs_to_it(images):
    for image in images["X-Ray-Chest"]:
        grey, lungs = image.pixels[:, :, 0], image.masks["left lung"] | image.masks["right lung"]
        assert grey[lungs].mean() < grey[image.masks["heart"]].mean()
        if "infection" in image.masks:
            assert lungs[image.masks["infection"]].all()
            assert grey[image.masks["infection"]].mean() > grey[lungs & ~image.masks["infection"]].mean()
    for image in images["CT-Abdomen"]:
        if "tumor" in image.masks:
            assert image.masks["liver"][image.masks["tumor"]].all()


def test_cells_of_two_types_do_not_overlap(images):
    for image in images["Pathology"]:
        assert sum(image.masks.values(), np.zeros(image.pixels.shape[:2], int)).max() == 1


def test_every_structure_has_names_and_one_of_the_documented_categories():
    assert set(NAMES) == set(CATEGORY_OF) == set(STRUCTURES)
    assert len(set(STRUCTURES)) == len(STRUCTURES)
    assert set(CATEGORY_OF.values()) <= set(CLASSES[:16])
    assert len(set(CATEGORY_OF.values())) >= 6


def test_held_out_prompts_are_new_sentences_of_known_words():
    trained = {normalized(prompt) for name in STRUCTURES for prompt in training_prompts(name)}
    words = {word for prompt in trained for word in prompt.split()}
    for name in STRUCTURES:
        held_out = {normalized(prompt) for prompt in held_out_prompts(name)}
        assert len(held_out) >= 10
        assert not held_out & trained
        assert {word for prompt in held_out for word in prompt.split()} <= words


def test_no_wording_names_two_structures():
    owner = {}
    for name in STRUCTURES:
        for prompt in training_prompts(name) + held_out_prompts(name):
            assert owner.setdefault(normalized(prompt), name) == name


def test_no_prompt_has_the_separator():
    assert not any("&" in prompt for name in STRUCTURES for prompt in training_prompts(name) + held_out_prompts(name))


def test_sampled_prompts_are_training_prompts():
    rng = np.random.default_rng(0)
    for name in STRUCTURES:
        trained = {normalized(prompt) for prompt in training_prompts(name)}
        assert {normalized(sample_prompt(name, rng)) for _ in range(50)} <= trained
