"""What `make engines` says of a network before it builds: its profile, its size, and what to change for more."""

import re

import onnx_ir
import pytest
from helpers.places import ROOT
from helpers.tiny_networks import BOTH_MODELS
from medimageparse.engine_facts import MORE, constant_bytes, described, dimensions_of, tensor_bytes
from medimageparse.served_tensors import Dimension, networks
from medimageparse.variants import PUBLISHED, TINY, VARIANTS

FIXED = {"tokens", "digits"}  # CLIP's positions; eight digits reach as far as values may


def test_every_dimension_can_grow_or_is_known_not_to():
    names = {d.name for variant in VARIANTS.values() for n in networks(variant).values() for d in dimensions_of(n)}
    assert names == set(MORE) | FIXED
    assert not set(MORE) & FIXED


@pytest.mark.parametrize("sentence", dict.fromkeys(MORE.values()))
def test_what_is_to_be_changed_is_there(sentence):
    files = [path for path in re.findall(r"[\w/]+\.(?:py|pbtxt)", sentence)]
    assert files
    text = "".join((ROOT / (p if p.startswith("export") else f"model_repository/{p}")).read_text() for p in files)
    for constant in re.findall(r"\b[A-Z][A-Z_]{3,}\b", sentence):
        assert re.search(rf"^{constant} = ", text, re.MULTILINE)
    steps = (ROOT / "model_repository" / "tokenize_prompts" / "config.pbtxt").read_text()
    for parameter in re.findall(r"`(max_\w+)`", sentence):
        assert f'key: "{parameter}"' in steps


@pytest.mark.slow
@BOTH_MODELS
def test_a_network_is_described(exported, variant):
    for name, network in networks(variant).items():
        graph = onnx_ir.load(exported(variant, "fp16") / name / "1" / "model.onnx")
        text = described(network, graph, 2 * 10**9)
        for d in dimensions_of(network):
            assert f"{d.name} {d.smallest}, {d.usual}, {d.largest}" in text
        assert "up to 2,000 MB" in text
        assert 0 < constant_bytes(graph) <= (exported(variant, "fp16") / name / "1" / "model.onnx").stat().st_size


def test_bytes_of_the_features_at_the_published_size():
    """44.6 MB a slice, as docs/gpu.md says."""
    features = networks(PUBLISHED)["image_encoder_3d"].outputs
    assert isinstance(features[0].shape[0], Dimension)
    assert tensor_bytes(features, "smallest") == pytest.approx(44.6e6, rel=0.01)
    assert tensor_bytes(features, "largest") == 16 * tensor_bytes(features, "smallest")
    assert tensor_bytes(networks(TINY)["text_encoder_3d"].inputs, "smallest") == 2 * 2 * 8
