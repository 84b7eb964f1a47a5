"""Image types, their targets and the groups that prompts are decoded in."""

from typing import get_args

import numpy as np
import pytest
from helpers.places import ROOT
from medimageparse_contract.image_types import TARGETS, ImageType
from medimageparse_serving.image.recognition import read_distributions
from medimageparse_serving.prompts.request import group_prompts, known_image_type, targets_of

STEPS = ROOT / "model_repository"


def test_the_targets_of_an_image_type():
    assert targets_of(known_image_type(b"X-Ray-Chest")) == ["left lung", "right lung"]
    assert targets_of("CT-Abdomen")[:3] == ["postcava", "aorta", "right kidney"]
    assert get_args(ImageType) == tuple(TARGETS)
    assert (len(TARGETS), sum(map(len, TARGETS.values()))) == (14, 52)
    assert all(len(set(targets)) == len(targets) for targets in TARGETS.values())


def test_all_targets_but_those_of_ct_liver_have_a_distribution():
    distributions = read_distributions()
    assert set(TARGETS) - set(distributions) == {"CT-Liver"}
    for image_type, targets in distributions.items():
        assert set(TARGETS[image_type]) <= set(targets)


@pytest.mark.parametrize("name", [b"", b"CT", b"ct-abdomen", b"secret", b"\xff\xfe"])
def test_an_unknown_image_type_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"not known; send one of: CT-Abdomen, CT-Chest, .*, OCT$") as error:
        known_image_type(name)
    assert "secret" not in str(error.value)


def test_neither_text_nor_image_type_is_refused():
    with pytest.raises(ValueError, match="neither text nor image_type; send prompts as text, or"):
        targets_of(None)


def test_groups():
    assert group_prompts(3, joint=True, max_groups=1).tolist() == [[0, 1, 2]]
    assert group_prompts(3, joint=False, max_groups=3).tolist() == [[0], [1], [2]]
    assert group_prompts(64, joint=True, max_groups=16).shape == (1, 64)
    assert group_prompts(1, joint=False, max_groups=16).dtype == np.int64
    with pytest.raises(ValueError, match="4 prompts to decode one by one; send at most 3, or joint=true"):
        group_prompts(4, joint=False, max_groups=3)


def test_every_image_type_is_within_the_limit_of_groups():
    config = (STEPS / "tokenize_prompts" / "config.pbtxt").read_text()
    assert 'key: "max_groups" value { string_value: "16" }' in config
    for targets in TARGETS.values():
        group_prompts(len(targets), joint=False, max_groups=16)
