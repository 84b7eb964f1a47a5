"""Several draws of the mask decoder's noise -> their mean, their spread, and how well they agree."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from medimageparse_contract.options import MAX_DRAWS
from numpy.typing import NDArray

from medimageparse_serving.eight_bits import to_eight_bits
from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.merging import merge
from medimageparse_serving.volume.probabilities import exists, square_probabilities
from medimageparse_serving.volume.sliding_window import places_in_square
from medimageparse_serving.volume.stored_maps import StoredMaps

UNCERTAINTY_SCALE = 510  # a standard deviation of 0.5, the largest there is, is 255

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class DrawsReport:
    """What the draws say of one prompt, before prompts compete.

    voxels, volume_ml: mean, smallest and largest of the draws
    dice: the mean overlap of every two draws, of which two without a voxel count as 1
    """

    voxels: dict[str, float]
    volume_ml: dict[str, float]
    dice: float


def check_draws(n_draws: int, n_prompts: int, limit: int) -> None:
    """Refuses more than the mask decoder takes at once: each prompt goes through it once a draw."""
    if n_draws * n_prompts > limit:
        raise Refused(
            f"{n_draws} draws of {n_prompts} prompts are more than {limit} draws x prompts, the limit of this server; "
            "send fewer prompts in one request, or fewer draws"
        )


def read_draws(sent: int | None) -> int:
    """How many draws the caller asks for, 1 if nothing is said."""
    n_draws = 1 if sent is None else sent
    if not 1 <= n_draws <= MAX_DRAWS:
        raise Refused(f"draws is out of range; send a whole number from 1 to {MAX_DRAWS}, or leave it out")
    return n_draws


class Draws:
    """Mean and spread of several draws of a volume, filled window by window.

    kind: "masks", "probabilities" or "": which map of the mean is kept
    has_spread: whether the map of uncertainty is kept
    image_size: the side of the square slices that the networks see
    """

    outputs = ("mask_logits",)

    def __init__(
        self,
        n_draws: int,
        n_prompts: int,
        kind: str,
        geometry: Geometry,
        image_size: int,
        output: str,
        *,
        has_spread: bool,
    ) -> None:
        self.n_draws, self.kind, self.image_size = n_draws, kind, image_size
        self.uncertainty = StoredMaps.empty(n_prompts, geometry, output=output) if has_spread else None
        self.means = StoredMaps.empty(n_prompts, geometry, output=output) if kind else None
        _, height, width = (geometry.image.shape[axis] for axis in geometry.axes)
        self.places = places_in_square(image_size, height, width)
        # voxels that two draws share; of one with itself, its own
        self.common = np.zeros((n_prompts, n_draws, n_draws))

    def read(self, slices: range, found: Arrays) -> Arrays:
        """Adds a window: mask_logits [S,K*P,s,s] and scores [S,K*P], all prompts of a draw side by side.

        Gives what one draw gives: labels of the mean probabilities, mean scores, lost_to.
        """
        n_slices, side = len(slices), found["mask_logits"].shape[-1]
        logits = found["mask_logits"].reshape(n_slices, self.n_draws, -1, side, side)
        scores = found["scores"].reshape(n_slices, self.n_draws, -1)
        label_slices = np.zeros((n_slices, self.image_size, self.image_size), np.uint8)
        lost_to = np.zeros((n_slices, scores.shape[2]), np.uint8)
        for s in range(n_slices):
            gates = exists(scores[s])
            means = np.stack([self._add(p, slices[s], logits[s, :, p], gates[:, p]) for p in range(scores.shape[2])])
            label_slices[s], lost_to[s] = merge(means, scores[s].mean(0), gates.any(0))
        return found | {"label_slices": label_slices, "scores": scores.mean(1), "lost_to": lost_to}

    def _add(self, prompt: int, d: int, logits: NDArray[np.float32], gate: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Adds a prompt's draws on a slice, logits [K,s,s], and gives their mean [size,size]."""
        if not gate.any():
            return np.zeros((self.image_size, self.image_size), np.float32)
        drawn = square_probabilities(logits, gate, self.image_size)
        mean: NDArray[np.float32] = drawn.mean(0)
        place = np.ix_(*self.places)
        if self.uncertainty:
            spread = np.sqrt(((drawn - mean) ** 2).mean(0))[place]
            self.uncertainty.slices[prompt, d] = np.rint(UNCERTAINTY_SCALE * spread)
        if self.means:
            self.means.slices[prompt, d] = mean[place] > 0.5 if self.kind == "masks" else to_eight_bits(mean[place])
        masks = (drawn[:, place[0], place[1]] > 0.5).reshape(self.n_draws, -1).astype(np.float32)
        self.common[prompt] += masks @ masks.T  # whole numbers, exact: a slice has at most 2^24 voxels
        return mean

    def answer(self, output: str, wanted: Collection[str]) -> Arrays:
        maps = {"uncertainty": self.uncertainty, self.kind: self.means}
        made = [kept.answer(name, output, wanted) for name, kept in maps.items() if kept]
        return {name: array for one in made for name, array in one.items()}

    def describe(self, voxel_ml: float) -> list[DrawsReport]:
        return [describe_draws(common, voxel_ml) for common in self.common]


def describe_draws(common: NDArray[np.float64], voxel_ml: float) -> DrawsReport:
    """From the voxels [K,K] that every two draws share."""
    voxels = np.diagonal(common)
    sums = voxels[:, None] + voxels
    dice = np.where(sums > 0, 2 * common / np.maximum(sums, 1), 1)[np.triu_indices(len(common), 1)]
    values = {"mean": float(voxels.mean()), "minimum": float(voxels.min()), "maximum": float(voxels.max())}
    return DrawsReport(
        voxels={name: round(value, 3) for name, value in values.items()},
        volume_ml={name: round(value * voxel_ml, 6) for name, value in values.items()},
        dice=round(float(dice.mean()), 6),
    )
