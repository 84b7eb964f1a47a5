"""A checkpoint of few words says where it was asked with others."""

import pytest
from medimageparse_contract.catalogue import structures
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_demo import image_prompts, prompts
from medimageparse_demo.vocabulary import PRESET, known_words, write_words
from medimageparse_serving.prompts.vocabulary import doubts, read_words


@pytest.fixture
def known(tmp_path):
    """What the demo writes, read as the server does."""
    for model in (MODEL_2D, MODEL_3D):
        (tmp_path / model / "1").mkdir(parents=True)
    write_words(tmp_path)
    return {model: read_words(tmp_path / model / "1") for model in (MODEL_2D, MODEL_3D)}


def test_the_demo_knows_the_words_of_its_training_of_paraphrases_and_of_its_set(known):
    for model, module in ((MODEL_3D, prompts), (MODEL_2D, image_prompts)):
        assert known[model] == set(known_words(model))
        for structure in module.NAMES:
            assert not doubts(module.training_prompts(structure), known[model])
            assert not doubts([name.upper() for name in module.held_out_prompts(structure)], known[model])
    assert not doubts([row.prompt for row in structures("3d", preset=PRESET)], known[MODEL_3D])


def test_a_prompt_with_another_word_is_doubted_by_its_number_and_never_by_its_words(known):
    [doubt] = doubts(["liver", "gall bladder", "The Spleen!", "kidney, floating"], known[MODEL_3D])
    assert "all words of prompts 2, 4," in doubt
    assert "gall" not in doubt
    [doubt] = doubts(["hypophysis"], known[MODEL_3D])
    assert "all words of prompt 1," in doubt


def test_without_a_list_nothing_is_doubted(tmp_path):
    assert doubts(["gall bladder"], read_words(tmp_path)) == []
