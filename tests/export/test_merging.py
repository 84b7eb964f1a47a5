"""Merging against torch's own resize and a plain greedy loop, ties and limits included."""

import pytest
import torch
from medimageparse.merging import Merging, non_maximum_suppression
from medimageparse.variants import MAX_PROMPTS


def greedy(masks, scores, gate):
    """The published loop on one slice: masks [P, N], scores [P], gate [P] -> kept prompts, and whom each is lost to."""
    order = sorted(range(len(scores)), key=lambda prompt: (-scores[prompt].item(), prompt))
    kept, lost = [], [0] * len(scores)
    for prompt in order:
        if not gate[prompt] or not masks[prompt].any():
            continue
        overlaps = [(masks[prompt] & masks[k]).sum() / (masks[prompt] | masks[k]).sum() > 0.5 for k in kept]
        if any(overlaps):
            lost[prompt] = 1 + kept[overlaps.index(True)]
        else:
            kept.append(prompt)
    return sorted(kept), lost


@pytest.mark.parametrize("n_prompts", [2, 7, MAX_PROMPTS])
def test_suppression_is_the_greedy_loop(n_prompts):
    generator = torch.Generator().manual_seed(n_prompts)
    n_slices = 20
    first, length = (torch.randint(0, n, (2, n_slices, n_prompts, 1), generator=generator) for n in (40, 16))
    steps = torch.arange(60)
    masks = (steps >= first[0]) & (steps < first[0] + length[0])  # intervals, some empty, many overlapping
    scores = torch.randint(0, 10, (n_slices, n_prompts), generator=generator) / 10  # many equal
    stays, lost_to = non_maximum_suppression(masks, scores, scores >= 0.5)
    assert n_prompts == 2 or lost_to.any()
    for s in range(n_slices):
        kept, lost = greedy(masks[s], scores[s], scores[s] >= 0.5)
        assert stays[s].nonzero().flatten().tolist() == kept
        assert lost_to[s].tolist() == lost


def test_a_chain_through_all_prompts_is_decided():
    """Every mask suppresses only the next one: the first stays, the second goes, the third stays, and so on."""
    steps = torch.arange(4 * MAX_PROMPTS)
    first = 2 * torch.arange(MAX_PROMPTS)[:, None]
    masks = ((steps >= first) & (steps < first + 7))[None]  # IoU 5/9 with a neighbour, 3/11 with the next but one
    scores = torch.linspace(0.99, 0.51, MAX_PROMPTS)[None]
    (stays,), (lost_to,) = non_maximum_suppression(masks, scores, scores >= 0.5)
    assert stays.tolist() == [prompt % 2 == 0 for prompt in range(MAX_PROMPTS)]
    assert lost_to.tolist() == [0 if prompt % 2 == 0 else prompt for prompt in range(MAX_PROMPTS)]


def test_iou_of_exactly_one_half_stays():
    masks = torch.tensor([[[1, 1, 1, 0], [0, 1, 1, 1]]], dtype=torch.bool)  # 2 of 4
    scores = torch.tensor([[0.9, 0.8]])
    stays, lost_to = non_maximum_suppression(masks, scores, scores >= 0.5)
    assert stays.all()
    assert not lost_to.any()


@pytest.fixture(scope="module")
def merging():
    return Merging(4, 16)


def everywhere(*logits):
    """Constant mask logits, one number per prompt, on one slice."""
    return torch.tensor(logits)[None, :, None, None].expand(1, -1, 4, 4)


@pytest.mark.parametrize(("existence", "label"), [(0.0, 0), (1e-3, 1), (-1e-3, 0)])
def test_a_single_prompt_needs_more_than_one_half(merging, existence, label):
    labels, scores, _ = merging(everywhere(3.0), torch.tensor([[existence]]))
    assert labels.unique().tolist() == [label]
    assert scores.item() == pytest.approx(0.5, abs=1e-3)


def test_several_prompts_need_only_one_half(merging):
    labels, *_ = merging(everywhere(3.0, -3.0), torch.tensor([[0.0, -1.0]]))
    assert labels.unique().tolist() == [1]


def test_background_wins_at_one_half(merging):
    assert merging(everywhere(0.0, -1.0), torch.tensor([[2.0, 2.0]]))[0].unique().tolist() == [0]


def test_the_earlier_of_equals_wins(merging):
    left, right = torch.full((1, 1, 4, 4), -30.0), torch.full((1, 1, 4, 4), -30.0)
    left[..., :3], right[..., 1:] = 30.0, 30.0
    for existence in ([2.0, 1.0], [1.0, 2.0]):  # who exists more does not matter here
        labels, *_ = merging(torch.cat([right, left], 1), torch.tensor([existence]))
        assert labels[0, 8, [0, 8, 15]].tolist() == [2, 1, 1]  # the middle has probability 1.0 in both


def test_labels_are_bytes_for_every_prompt():
    labels, *_ = Merging(4, 16)(
        everywhere(*torch.linspace(-5, 5, MAX_PROMPTS)), torch.linspace(1, 2, MAX_PROMPTS)[None]
    )
    assert labels.dtype == torch.uint8
    assert labels.unique().tolist() == [MAX_PROMPTS]
