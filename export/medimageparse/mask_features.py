"""The last convolution of the pixel decoder, which is never computed at full size (spec section 3).

Its result, the mask features, is read in two ways only, and both are linear: averaged over the grid of each level of
the decoder, and multiplied with few embeddings. So the averages are taken before the convolution, which then has a
quarter of the positions and less, and the embeddings are multiplied into its weights. Equal but for rounding, for a
third of the arithmetic: the whole convolution is an eighth of the image encoder.

Dimensions: I images, E embeddings of each, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 3


class MaskFeatures(nn.Conv2d):
    """3 x 3 convolution; called as a module it gives the mask features [I, C, H, W] of the finest [I, C, H, W]."""

    def __init__(self, width: int):
        super().__init__(width, width, KERNEL, padding=KERNEL // 2)

    def at_grids(self, finest: Tensor, grids: tuple[int, ...]) -> list[Tensor]:
        """Mask features reduced bilinearly to square grids of these sides, [I, C, grid * grid].

        Where an even number of pixels makes a position of the grid, as in all images whose side is a multiple of 32,
        it is the mean of the 2 x 2 in the middle.
        """
        side = finest.shape[-1]
        if any(side % (2 * grid) for grid in grids):
            features = self(finest)
            return [F.interpolate(features, size=(grid, grid), mode="bilinear").flatten(2) for grid in grids]
        means = F.avg_pool2d(finest, 2, stride=1, padding=1)
        return [self._at_grid(means, side // grid).flatten(2) for grid in grids]

    def _at_grid(self, means: Tensor, stride: int) -> Tensor:
        first = stride // 2 - 1  # where the first position begins
        if first == 0:
            return F.conv2d(means, self.weight, self.bias, stride=stride)
        # one position too many on each side, rather than a copy of the means without their first rows and columns
        return F.conv2d(means, self.weight, self.bias, stride=stride, padding=stride - first)[:, :, 1:-1, 1:-1]

    def logits(self, embeddings: Tensor, finest: Tensor) -> Tensor:
        """Products of embeddings [I, E, C] with the mask features of every pixel, [I, E, H, W]."""
        height, width = finest.shape[2:]
        by_tap = self.weight.permute(0, 2, 3, 1).flatten(1)  # [C, 3 * 3 * C]
        kernels = (embeddings @ by_tap).unflatten(2, (KERNEL**2, -1))  # [I, E, 3 * 3, C]
        products = kernels.flatten(1, 2) @ finest.flatten(2)  # each tap on its own: [I, E * 3 * 3, H * W]
        taps = products.unflatten(2, (height, width)).unflatten(1, (-1, KERNEL**2)).flatten(0, 1)
        logits = F.conv2d(taps, self.one_of_each, padding=1).reshape(*embeddings.shape[:2], height, width)
        return logits + (embeddings @ self.bias)[:, :, None, None]

    @property
    def one_of_each(self) -> Tensor:
        """Weights [1, 3 * 3, 3, 3] that add up what each tap makes of its own neighbour."""
        return torch.eye(KERNEL**2, dtype=self.weight.dtype, device=self.weight.device).view(1, -1, KERNEL, KERNEL)
