"""What a caller who watches a volume is told, and what is too much work."""

import json

import numpy as np
import pytest
from helpers import fake_triton
from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.progress import MOST_STEPS, Progress

fake_triton.install()

from medimageparse_serving.volume.pipeline import check_work  # noqa: E402


def told_of(labels, prompts, window_size):
    """What is told of labels [D,H,W] that come window by window."""
    told = []
    progress = Progress(prompts, len(labels), told.append)
    for start in range(0, len(labels), window_size):
        progress.add(labels[start : start + window_size])
    return [json.loads(text) for text in told]


def test_slices_are_counted_and_prompts_found_where_they_have_a_voxel():
    labels = np.zeros((10, 3, 4), np.uint8)
    labels[5, 1, 2], labels[9, 0, 0], labels[2, 2, 3] = 3, 1, 255  # of the last there is no prompt
    told = told_of(labels, ["liver", "cyst", "spleen"], 4)
    assert [(progress["slices_done"], progress["slices"]) for progress in told] == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert [progress["prompts_found"] for progress in told] == [[], [], ["spleen"], ["liver", "spleen"]]


@pytest.mark.parametrize("n_slices", [1, 4, 99, 100, 101, 399, 400, 401, 2048])
def test_little_is_told_of_many_slices_and_the_end_always_and_once(n_slices):
    done = [progress["slices_done"] for progress in told_of(np.zeros((n_slices, 1, 1), np.uint8), ["liver"], 4)]
    assert len(done) <= MOST_STEPS + 2
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, n_slices)


def test_more_slices_x_prompts_than_the_limit_are_refused_in_a_sentence():
    check_work(1024, 64, 65536)
    sentence = "^2048 slices with 64 prompts .* are more than 65536 slices x prompts, .* send fewer prompts .* or crop"
    with pytest.raises(Refused, match=sentence):
        check_work(2048, 64, 65536)
