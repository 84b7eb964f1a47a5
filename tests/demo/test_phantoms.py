"""Synthetic volumes and prompts: repeatable, complete, and with left and right where they belong."""

import numpy as np
import pytest
from medimageparse_demo.phantoms import (
    CT_STRUCTURES,
    MODALITY_STRUCTURES,
    MR_STRUCTURES,
    SMALLEST_SLICE,
    STRUCTURES,
    labels_dhw,
    make_phantom,
    windowed,
)
from medimageparse_demo.prompts import (
    OTHER_STRUCTURES,
    held_out_prompts,
    normalized,
    sample_absent_prompt,
    sample_prompt,
    training_prompts,
)

SHAPE = (24, 96, 96)


@pytest.fixture(scope="module")
def phantoms():
    return {modality: [make_phantom(seed, modality, SHAPE) for seed in range(30)] for modality in ("CT", "MR")}


def centre(phantom, name):
    """World coordinates in mm (RAS: the patient's left has negative x)."""
    voxel = np.argwhere(phantom.labels == STRUCTURES[name]).mean(0)
    return phantom.affine[:3, :3] @ voxel + phantom.affine[:3, 3]


@pytest.mark.parametrize("modality", ["CT", "MR", None])
def test_same_seed_same_volume(modality):
    first, second = make_phantom(7, modality, SHAPE), make_phantom(7, modality, SHAPE)
    np.testing.assert_array_equal(first.intensities, second.intensities)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.structures == second.structures
    assert not np.array_equal(first.labels, make_phantom(8, first.modality, SHAPE).labels)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_every_structure_occurs_and_is_missing_somewhere(phantoms, modality):
    for name in MODALITY_STRUCTURES[modality]:
        shown = sum(name in phantom.structures for phantom in phantoms[modality])
        assert shown >= 6, name
    shown = [len(phantom.structures) for phantom in phantoms[modality]]
    assert min(shown) < len(MODALITY_STRUCTURES[modality])


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_no_cross_section_is_a_sliver(phantoms, modality):
    for phantom in phantoms[modality]:
        for label in phantom.structures.values():
            areas = (labels_dhw(phantom) == label).sum((1, 2))
            assert areas[areas > 0].min() >= SMALLEST_SLICE * SHAPE[1] * SHAPE[2]


def test_structures_say_what_the_labels_hold(phantoms):
    for phantom in phantoms["CT"] + phantoms["MR"]:
        assert set(np.unique(phantom.labels)) - {0} == set(phantom.structures.values())
        assert all(STRUCTURES[name] == label for name, label in phantom.structures.items())
        assert set(phantom.structures) <= set(MODALITY_STRUCTURES[phantom.modality])


def test_left_and_right_are_the_patients(phantoms):
    for phantom in phantoms["CT"]:
        sides = {name: centre(phantom, name)[0] for name in phantom.structures}
        for name, x in sides.items():
            if name.startswith("left") or name in ("spleen", "stomach"):
                assert x < 0, name
            if name.startswith("right") or name in ("liver", "gallbladder"):
                assert x > 0, name


def test_up_and_front_are_where_they_belong(phantoms):
    for phantom in phantoms["CT"]:
        places = {name: centre(phantom, name) for name in phantom.structures}
        assert all(places["spine"][1] < place[1] for name, place in places.items() if name != "spine")
        for upper, lower in (("heart", "liver"), ("liver", "bladder"), ("left lung", "left kidney")):
            if upper in places and lower in places:
                assert places[upper][2] > places[lower][2]


def test_volume_is_stored_as_las(phantoms):
    phantom = phantoms["CT"][0]
    assert phantom.intensities.shape == phantom.labels.shape == SHAPE[::-1]
    assert phantom.intensities.dtype == np.int16
    assert phantoms["MR"][0].intensities.dtype == np.float32
    np.testing.assert_allclose(np.sign(np.diag(phantom.affine)), (-1, 1, 1, 1))
    np.testing.assert_allclose(np.abs(np.diag(phantom.affine))[:3], phantom.spacing_mm)


def test_windowed_slices_come_first(phantoms):
    for modality in ("CT", "MR"):
        phantom = phantoms[modality][0]
        slices = windowed(phantom)
        assert slices.shape == SHAPE
        assert slices.dtype == np.uint8
        assert slices.min() == 0
        assert slices.max() == 255


def test_soft_tissue_window_has_known_greys(phantoms):
    phantom = phantoms["CT"][0]
    slices, hounsfield = windowed(phantom), phantom.intensities.transpose(2, 1, 0)
    assert (slices[hounsfield <= -160] == 0).all()
    assert (slices[hounsfield >= 240] == 255).all()
    assert (slices[hounsfield == 40] == 127).all()


def test_demo_has_at_least_ten_structures():
    assert len(CT_STRUCTURES) >= 10
    assert len(MR_STRUCTURES) >= 3
    assert len(OTHER_STRUCTURES) >= 15


@pytest.mark.parametrize("modality", ["CT", "MR", None])
def test_held_out_prompts_are_new_sentences_of_known_words(modality):
    names = [*STRUCTURES, *OTHER_STRUCTURES]
    trained = {normalized(prompt) for name in names for prompt in training_prompts(name, modality)}
    words = {word for prompt in trained for word in prompt.split()}
    for name in names:
        held_out = {normalized(prompt) for prompt in held_out_prompts(name, modality)}
        assert len(held_out) >= 10
        assert not held_out & trained
        assert {word for prompt in held_out for word in prompt.split()} <= words


def test_no_wording_names_two_structures():
    owner = {}
    for name in (*STRUCTURES, *OTHER_STRUCTURES):
        for prompt in training_prompts(name) + held_out_prompts(name):
            assert owner.setdefault(normalized(prompt), name) == name


def test_sampled_prompts_are_training_prompts():
    rng = np.random.default_rng(0)
    for name in STRUCTURES:
        trained = {normalized(prompt) for prompt in training_prompts(name)}
        assert {normalized(sample_prompt(name, None, rng)) for _ in range(50)} <= trained


def test_absent_prompts_never_name_what_is_present():
    rng = np.random.default_rng(0)
    present = ("liver", "spine", "aorta")
    shown = {normalized(p) for name in present for m in ("CT", "MR") for p in training_prompts(name, m)}
    for structure, prompt in (sample_absent_prompt(rng, present, "CT") for _ in range(500)):
        assert structure not in present
        assert normalized(prompt) not in shown
