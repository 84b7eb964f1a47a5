"""From mask logits of several prompts to one label per pixel, spec section 6; part of the mask decoder's graph."""

import torch
from medimageparse_serving.volume.probabilities import enlarging_matrix
from torch import Tensor, nn

from medimageparse.variants import MAX_PROMPTS


def non_maximum_suppression(masks: Tensor, scores: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Greedy suppression per slice: which prompts stay, [S, P] bool, and to whom the others are lost, [S, P] uint8.

    `lost_to` is the label (from 1) of the best prompt that stays and suppresses this one; 0 where none does.

    masks [S, P, N] bool, scores [S, P], gate [S, P] bool. Best score first, equal scores in prompt order; a gated-out
    or empty mask neither stays nor suppresses; a mask whose IoU with one that stays is over 0.5 goes. Written as a
    fixed point: after k rounds the k best prompts are decided, so MAX_PROMPTS - 1 rounds decide any chain.
    """
    bits = masks.float()
    areas = bits.sum(-1)  # [S, P]
    common = bits @ bits.transpose(1, 2)  # [S, P, P], exact in float32 up to 4096 x 4096 pixels
    overlapping = 3 * common > areas[:, :, None] + areas[:, None, :]  # IoU > 0.5 in whole numbers
    order = torch.ones_like(scores).cumsum(1)
    tied_before = (scores[:, :, None] == scores[:, None, :]) & (order[:, :, None] < order[:, None, :])
    before = (scores[:, :, None] > scores[:, None, :]) | tied_before  # [S, by, whom]
    suppresses = (overlapping & before).float()
    candidates = (gate & (areas > 0)).float().unsqueeze(1)  # [S, 1, P]
    stays = candidates
    for _ in range(MAX_PROMPTS - 1):
        stays = torch.relu(candidates - stays @ suppresses)  # whole numbers: 1 for a candidate that nothing suppresses
    suppressors = stays.transpose(1, 2) * suppresses * candidates  # [S, by, whom]
    # the best score is the one with the fewest before it
    by_rank = suppressors * (1 + bits.shape[1] - before.float().sum(1))[:, :, None]
    lost_to = torch.where(by_rank.amax(1) > 0, by_rank.argmax(1) + 1, torch.zeros_like(by_rank.argmax(1)))
    return stays.squeeze(1) > 0, lost_to.to(torch.uint8)


class Merging(nn.Module):
    """Mask logits [S, P, grid, grid] and existence logits [S, P] -> labels [S, size, size] uint8, scores and lost_to.

    Label k is the k-th prompt, 0 the background, which wins at probability 0.5; the earlier prompt wins ties.
    scores [S, P] are probabilities of existence; lost_to [S, P] uint8 is the label of the prompt that suppressed this
    one, or 0.
    """

    def __init__(self, grid: int, image_size: int):
        super().__init__()
        enlarge = torch.tensor(enlarging_matrix(grid, image_size))
        self.register_buffer("enlarge", enlarge, persistent=False)

    def kept(self, probabilities: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Which prompts are shown, [S, P] bool, and lost_to: existence decides for one prompt, else suppression."""
        several = torch.ones_like(scores).sum(1, keepdim=True) > 1
        gate = (scores > 0.5) | ((scores == 0.5) & several)
        shown, lost_to = non_maximum_suppression((probabilities > 0.5).flatten(2), scores, gate)
        return gate & (shown | ~several), lost_to

    def shown(self, mask_logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [S, P, size, size], zero where a prompt is not shown on a slice; and lost_to."""
        probabilities = torch.sigmoid(self.enlarge @ mask_logits.float() @ self.enlarge.T)
        kept, lost_to = self.kept(probabilities, scores)
        return probabilities * kept[:, :, None, None].float(), lost_to

    def merge(self, mask_logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits and probabilities of existence -> labels and lost_to."""
        shown, lost_to = self.shown(mask_logits, scores)
        prompt = shown.argmax(1)  # the first of equals
        return torch.where(shown.amax(1) > 0.5, prompt + 1, torch.zeros_like(prompt)).to(torch.uint8), lost_to

    def forward(self, mask_logits: Tensor, existence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = torch.sigmoid(existence.float())
        labels, lost_to = self.merge(mask_logits, scores)
        return labels, scores, lost_to
