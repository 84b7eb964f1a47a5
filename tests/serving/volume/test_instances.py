"""Instances against the original's cases, against scikit-image, and at their limits."""

import numpy as np
import pytest
from helpers.places import DATA
from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.instances import Edges, find_instances
from medimageparse_serving.volume.merging import merge
from medimageparse_serving.volume.probabilities import exists, square_probabilities
from skimage.measure import label
from skimage.segmentation import expand_labels

GOLDEN = DATA / "v2_instances.npz"


def instances_of(labels, edges):
    instances = np.zeros(labels.shape, np.uint16)
    return instances, len(find_instances(labels, edges, instances))


@pytest.mark.parametrize("case", ["binary_blobs", "two_classes", "all_edge"])
def test_instances_are_the_originals(case):
    with np.load(GOLDEN) as golden:
        mask, edge, expected = (golden[f"inst/{case}/{name}"] for name in ("mask", "edge", "instances"))
        components = golden[f"inst/{case}/components"]
    instances, n = instances_of(mask, edge > 0)
    assert np.array_equal(instances, expected)
    assert n == expected.max()
    assert np.array_equal(instances_of(mask, np.zeros(mask.shape, np.bool_))[0], components)


@pytest.mark.parametrize("seed", range(6))
def test_instances_are_those_of_scikit_image(seed):
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 14)), *random.integers(2, 14, 2))
    labels = random.integers(0, 4, shape, np.uint8) * (random.random(shape) < 0.8)
    labels = labels.astype(np.uint8)
    edges = random.random(shape) < 0.3
    interior = labels * ~edges
    expected = expand_labels(label(interior, connectivity=1), 1) * (labels > 0)
    instances, n = instances_of(labels, edges)
    assert np.array_equal(instances, expected)
    numbers = label(interior, connectivity=1)
    assert n == numbers.max()
    owners = find_instances(labels, edges, np.zeros(labels.shape, np.uint16))
    assert np.array_equal(np.concatenate([[0], owners])[numbers], interior)


def test_a_view_of_turned_axes_is_filled_likewise():
    labels = np.random.default_rng(1).integers(0, 2, (6, 7, 8), np.uint8)
    edges = np.zeros(labels.shape, np.bool_)
    stored = np.zeros((8, 7, 6), np.uint16)
    n = len(find_instances(labels, edges, np.flip(stored.transpose(2, 1, 0), (0, 2))))
    expected, n_expected = instances_of(labels, edges)
    assert n == n_expected
    assert np.array_equal(np.flip(stored.transpose(2, 1, 0), (0, 2)), expected)


def test_thick_edges_lose_area_and_an_edge_alone_is_no_instance():
    labels = np.ones((1, 9, 9), np.uint8)
    edges = np.ones(labels.shape, np.bool_)
    assert instances_of(labels, edges)[1] == 0
    edges[0, 4, 4] = False
    instances, n = instances_of(labels, edges)
    assert (n, instances.sum()) == (1, 5)


def test_more_instances_than_numbers_are_refused():
    labels = np.zeros((1, 5, 5), np.uint8)
    labels[0, ::2, ::2] = 1
    edges, room = np.zeros(labels.shape, np.bool_), np.zeros(labels.shape, np.uint16)
    assert len(find_instances(labels, edges, room.copy(), most=9)) == 9
    with pytest.raises(Refused, match="more than .* instances.*fewer prompts"):
        find_instances(labels, edges, room, most=8)


def test_edges_are_merged_as_masks_are_on_slices_with_labels():
    random, size = np.random.default_rng(2), 32
    logits = random.normal(0, 4, (3, 2, 8, 8)).astype(np.float32)
    scores = np.array([[0.9, 0.4], [0.9, 0.8], [0.9, 0.9]], np.float32)
    label_slices = np.ones((3, size, size), np.uint8) * np.array([1, 1, 0], np.uint8)[:, None, None]
    edges = Edges((5, size, size), size)
    edges.read(range(1, 4), {"edge_logits": logits, "scores": scores, "label_slices": label_slices})
    gates = exists(scores)
    for s in range(2):
        labels, _ = merge(square_probabilities(logits[s], gates[s], size), scores[s], gates[s])
        assert np.array_equal(edges.edges[1 + s], labels > 0)
    assert edges.edges[1:3].any()
    assert not edges.edges[[0, 3, 4]].any()
