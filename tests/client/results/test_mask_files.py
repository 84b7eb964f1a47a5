"""Each structure gets a file of its own, whatever its prompt is."""

import pytest
from medimageparse_client.results.mask_files import mask_names

PROMPTS = [
    ["liver", "left kidney"],
    ["a", "a!", "A", "a?"],
    ["3_a", "a", "a!"],  # the label before the third gives the name of the first
    ["4_3_a", "3_a", "a", "a!", "a?"],
    ["/", "..", "\u809d\u810f", "label_1"],
    ["x" * 300, "x" * 301],
    ["../../etc/passwd", "etc/passwd", "C:\\temp"],
]


@pytest.mark.parametrize("prompts", PROMPTS, ids=str)
def test_no_two_prompts_share_a_file_and_none_leaves_the_folder(prompts):
    names = mask_names({prompt: label for label, prompt in enumerate(prompts, start=1)}, ".nii.gz")
    assert list(names) == prompts
    assert len({name.casefold() for name in names.values()}) == len(prompts)
    for name in names.values():
        assert name.endswith(".nii.gz")
        assert not set(name) & set('/\\:*?"<>|')
        assert not name.startswith(".")


def test_a_plain_prompt_names_its_file():
    assert mask_names({"left kidney": 1}, ".png") == {"left kidney": "left_kidney.png"}
