"""The constant vectors of the classes: one of length one for each, made by the text encoder of the checkpoint."""

import copy

import numpy as np
import pytest
import torch
from helpers.tiny_networks import random_networks
from medimageparse.checkpoint import load_networks, published_state
from medimageparse.class_embeddings import TEMPLATES, class_embeddings, class_token_ids
from medimageparse.variants import TINY_2D
from medimageparse_contract.categories import CLASSES


def test_the_sentences():
    sentences = TEMPLATES.read_text("utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 81
    assert all(sentence.count("{}") == 1 for sentence in sentences)
    assert all(sentence == sentence.strip().lower() for sentence in sentences)
    assert "{}." in sentences


def test_every_class_stands_in_every_sentence():
    ids, mask = class_token_ids()
    assert ids.shape == mask.shape == (17, 81, mask.sum(2).max())
    assert len(np.unique(ids.reshape(17 * 81, -1), axis=0)) == 17 * 81


@pytest.fixture(scope="module")
def networks():
    return random_networks(TINY_2D)


def test_unit_vectors_one_for_each_class(networks):
    vectors = networks["mask_decoder"].class_embeddings
    assert vectors.shape == (len(CLASSES), TINY_2D.width)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(CLASSES)))
    assert (vectors @ vectors.T).fill_diagonal_(0).max() < 0.9999  # no two are the same


def test_they_change_with_the_text_encoder(networks):
    expected = networks["mask_decoder"].class_embeddings
    other = copy.deepcopy(networks["text_encoder"])
    with torch.no_grad():
        assert torch.equal(class_embeddings(other), expected)
        other.text_encoder.lang_proj.copy_(other.text_encoder.lang_proj.flip(0))
        assert (class_embeddings(other) - expected).norm(dim=1).min() > 0.1


def test_they_are_made_of_the_checkpoint_that_is_loaded(networks):
    tensors = published_state(networks, TINY_2D.model)
    assert not any("class_embeddings" in name for name in tensors)
    name = "sem_seg_head.predictor.lang_encoder.lang_proj"
    tensors[name] = tensors[name].flip(0)
    found = load_networks(tensors, TINY_2D)
    with torch.no_grad():
        assert torch.equal(found["mask_decoder"].class_embeddings, class_embeddings(found["text_encoder"]))
    assert not torch.allclose(found["mask_decoder"].class_embeddings, networks["mask_decoder"].class_embeddings)
