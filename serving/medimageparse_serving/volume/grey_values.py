"""What the values of a volume are: CT in Hounsfield units, a picture of 0..255, or something in units of its own.

No NIfTI file says so. The lowest and the highest value do not tell either: four voxels that undershoot pass any limit.
So shares of the voxels decide. The first row that holds:

| taken for | when | scaled by |
|---|---|---|
| picture | values of 0..255, the brightest of them bright | nothing |
| CT | nearly all within HU_REACH; a peak of air or mostly lung; little of the rest denser than soft tissue | window |
| CT without air | whole numbers within HU_REACH, mostly soft tissue, a peak of fat; with a warning | window |
| else | MR, PET, fractions, 0..150, label maps, ...; with a warning where it may be CT after all | percentiles |

Zeros are left out, because masks leave them around what they keep. So is padding: a lowest or highest value that many
voxels have and that lies far from all others, such as -2000 around a round field of view, or 65535; and 0 where many
voxels have it and others lie on both sides, as in z-scored MR.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medimageparse_serving.volume.levels import Levels

FEW_LEVELS = 8  # different values in a label map or a drawing, at most

PADDING_SHARE = 0.002  # of the voxels, at least
PADDING_GAP = 0.1  # of the range of the others, at least
ZEROS_AMID = 0.05  # share of the voxels that are 0, and of what the percentiles hold below and above 0, at least

# Hounsfield units. Noise in air reaches below -1024, metal above 3100; what is outside is padding or no CT.
HU_REACH, HU_REACH_SHARE = (-1300, 3100), 0.98
FAR, FAR_CLUSTER = -1500, 0.15  # padding is at least so low, and spreads by this share of itself at most
AIR = (-1300, -900)
BETWEEN = (-900, -300)  # emptier than air, but where lungs are
GAS = (-1300, -200)  # air, lungs, bowel gas: only CT has many voxels so far below 0
BELOW_FAT, FAT, LEAN_FAT = (-250, -130), (-130, -80), (-80, -30)  # the middle one is the fullest
SOFT = (-200, 300)
BODY = (-150, 200)  # fat to soft tissue; what a crop without air and bones holds
SHIFTED_BODY = 0.2  # share of BODY, at least, where Hounsfield units are looked for about an offset
# Some tools lose the intercept, or apply it twice.
OFFSETS = (1024, -1024)

# of 255: what the brightest voxel of a picture is at least, and some more are; what is stored in 8 bits mostly is one
PICTURE_HIGHEST, PICTURE_BRIGHT = 192, 128
PICTURE_BRIGHT_SHARE, PICTURE_BRIGHT_SHARE_8_BIT = 0.005, 0.001

NO_AIR = (
    "the values look like CT in Hounsfield units without air around it, and are windowed as such; if this is no CT, "
    "send intensity=percentile"
)
SHIFTED = (
    "the values look like CT in Hounsfield units {} 1024, and are not windowed as CT; if this is CT, set scl_inter to "
    "{} in the header, or correct the values, and send it again"
)
BELOW_ZERO = (
    "many values lie below 0, but they do not spread as Hounsfield units do, and are scaled by percentiles; if this is "
    "CT, name a window: intensity=ct-soft-tissue, ct-lung, ct-brain or ct-bone"
)
FEW = f"the volume has at most {FEW_LEVELS} different values; it may be a label map, send the image itself"


class Shares:
    """A sample of values, asked for the shares that lie within bounds."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values

    def between(self, bounds: tuple[float, float]) -> float:
        """From the lower bound up to, not including, the upper."""
        low, high = bounds
        inside = np.count_nonzero((self.values >= low) & (self.values < high))
        return inside / max(1, self.values.size)

    def above(self, value: float) -> float:
        return self.between((value, np.inf))

    def per_unit(self, bounds: tuple[float, float]) -> float:
        return self.between(bounds) / (bounds[1] - bounds[0])


def choose_intensity(values: NDArray[np.float32], padding: Sequence[float], is_8_bit: bool) -> tuple[str, list[str]]:
    """What to use for a volume, by a sample of its values, and warnings; is_8_bit: stored as UINT8, unscaled."""
    if values.min() >= 0 and PICTURE_HIGHEST <= values.max() <= 255 and is_picture(values, is_8_bit):
        return "none", [FEW] if has_few_levels(values) else []
    if is_ct(values, padding):
        return "ct-soft-tissue", []
    if is_ct_without_air(values):
        return "ct-soft-tissue", [NO_AIR]
    return "percentile", find_doubts(values, padding)


def has_few_levels(values: NDArray[np.float32]) -> bool:
    """Whether a sample has so few different values as a label map or a drawing."""
    return all(len(np.unique(some)) <= FEW_LEVELS for some in (values[:1000], values))  # most end after the first


def find_padding(values: NDArray[np.float32]) -> list[float]:
    """The values of padding in a sample: at most one below all others, one above, and 0."""
    found: list[float] = []
    if has_few_levels(values):
        return found
    levels = Levels.of(values)
    for edge, next_to_it in ((0, 1), (-1, -2)):
        value = float(levels.values[edge])
        low, high = levels.without([value]).percentiles((0.5, 99.5))
        gap = abs(value - float(levels.values[next_to_it]))
        if levels.counts[edge] >= PADDING_SHARE * values.size and gap >= PADDING_GAP * (high - low) and value != 0:
            found.append(value)
    content = levels.without([0, *found])
    low, high = content.percentiles((0.5, 99.5)) if content.size else (0.0, 0.0)
    lies_amid = -low >= ZEROS_AMID * (high - low) and high >= ZEROS_AMID * (high - low)
    return [*found, 0.0] if lies_amid and levels.count(0) >= ZEROS_AMID * values.size else found


def is_picture(values: NDArray[np.float32], is_8_bit: bool) -> bool:
    """Whether values within 0..255 use the range as a picture does, rather than reach far up in a few voxels."""
    share = PICTURE_BRIGHT_SHARE_8_BIT if is_8_bit else PICTURE_BRIGHT_SHARE
    return Shares(values[values != 0]).above(PICTURE_BRIGHT) >= share


def is_ct(values: NDArray[np.float32], padding: Sequence[float]) -> bool:
    """Whether the values spread as Hounsfield units of a body with air in it or around it do."""
    outside = [value for value in padding if value == 0 or not HU_REACH[0] <= value < HU_REACH[1]]
    values = values[(values != 0) & ~np.isin(values, outside)]
    shares = Shares(without_far_cluster(values))
    if shares.between(HU_REACH) < HU_REACH_SHARE:
        return False
    content, bright = shares.above(GAS[1]), shares.above(SOFT[1])
    # padded with -1000, MR looks like air and bone
    brightest_share = 1 / 20 if len(outside) < len(padding) else 1 / 3
    if content > 0.01 and not (shares.between(SOFT) >= content / 2 and bright <= brightest_share * content):
        return False
    if content <= 0.01 and shares.values.size < values.size:
        return False  # what lies below -1300 is no padding but air: an intercept was applied twice
    has_air = shares.between(AIR) >= 0.02 and shares.per_unit(AIR) >= 2 * shares.per_unit(BETWEEN)
    is_mostly_gas = shares.between(GAS) >= max(0.3, 3 * shares.above(200))
    return has_air or is_mostly_gas or is_cut_off_in_gas(shares)


def find_offset(values: NDArray[np.float32], offsets: Sequence[int]) -> int | None:
    """What was added to Hounsfield units, where the values spread as such about one of the offsets."""
    for offset in offsets:
        shifted = values - np.float32(offset)
        if Shares(shifted).between(BODY) >= SHIFTED_BODY and is_ct(shifted, []):
            return offset
    return None


def without_far_cluster(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what resampling or lossy compression makes of padding: values far below air, close to each other."""
    is_far = values < HU_REACH[0]
    far = values[is_far]
    middle = float(np.median(far)) if far.size else 0.0
    near = np.count_nonzero(np.abs(far - middle) <= FAR_CLUSTER * abs(middle))
    return values[~is_far] if middle <= FAR and near >= 0.9 * far.size else values


def is_cut_off_in_gas(shares: Shares) -> bool:
    """Whether the lowest value lies within GAS and many voxels have it, as in CT that was clipped at -200 or -500."""
    lowest = float(shares.values.min(initial=0))
    return GAS[0] <= lowest <= GAS[1] and np.count_nonzero(shares.values == lowest) >= 0.02 * shares.values.size


def is_ct_without_air(values: NDArray[np.float32]) -> bool:
    """Whether the values spread as Hounsfield units within a body: fat, soft tissue, little else."""
    shares = Shares(values[values != 0])
    return (
        shares.values.size >= 0.9 * values.size  # a masked MR is 0 around
        and shares.between(HU_REACH) >= HU_REACH_SHARE
        and shares.between(BODY) >= 0.6
        and 0.01 <= shares.between(FAT) <= 0.8
        # what spreads about 0 has neither an edge below fat nor a peak there
        and shares.between(BELOW_FAT) <= shares.between(FAT) / 4
        and shares.between(LEAN_FAT) <= shares.between(FAT)
        and bool(np.array_equal(values, np.rint(values)))
    )


def find_doubts(values: NDArray[np.float32], padding: Sequence[float]) -> list[str]:
    """What else a volume may be that is scaled by percentiles."""
    if has_few_levels(values):
        return [FEW]
    offset = find_offset(values[~np.isin(values, padding)], OFFSETS if values.min() >= 0 else OFFSETS[1:])
    if offset is not None:
        return [SHIFTED.format("+" if offset > 0 else "-", -offset)]
    shares = Shares(values[(values != 0) & ~np.isin(values, padding)])
    may_be_ct = shares.between(HU_REACH) >= HU_REACH_SHARE and shares.above(SOFT[1]) <= 1 / 3
    return [BELOW_ZERO] if may_be_ct and shares.between((-np.inf, LEAN_FAT[1])) >= 0.02 else []
