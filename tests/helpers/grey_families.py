"""Volumes of the kinds that clinics and tools write, and what `intensity=auto` is to make of each. Phantoms, seeded."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from medimageparse_demo.phantoms import make_phantom
from scipy import ndimage

N_SEEDS = 2


@dataclass(frozen=True)
class GreyCase:
    """used: which answers are right; is_doubtful: whether there must be a warning, must be none, or may be (None)."""

    name: str
    values: np.ndarray  # [D,H,W], as the header's slope and intercept give them
    used: tuple[str, ...]
    is_doubtful: bool | None = False


@lru_cache(maxsize=8)
def phantom(seed: int, modality: str) -> np.ndarray:
    """[D,H,W], HU in CT."""
    return make_phantom(seed, modality, (14, 128, 128)).intensities.transpose(2, 1, 0).astype(np.float32)


def inside_of_body(ct: np.ndarray) -> np.ndarray:
    """The largest centred block of a CT phantom without air around and few lungs."""
    depth, height, width = ct.shape
    block = ct[:, int(height * 0.38) : int(height * 0.62), int(width * 0.38) : int(width * 0.62)]
    calm = [d for d in range(depth) if (block[d] < -300).mean() < 0.005]
    return block[calm] if len(calm) >= 3 else block[:0]


def ct_cases(seed: int) -> Iterator[GreyCase]:
    rng = np.random.default_rng(seed)
    ct = np.rint(phantom(seed, "CT"))
    window = ("ct-soft-tissue",)
    yield GreyCase("CT", ct, window)
    for lowest, highest in ((-1000, 1000), (-1024, 3071), (-500, 500), (-250, 400), (-200, 300)):
        yield GreyCase(f"CT clipped to {lowest}..{highest}", np.clip(ct, lowest, highest), window)
    yield GreyCase("CT clipped to -160..240", np.clip(ct, -160, 240), ("ct-soft-tissue", "percentile"), None)
    _, height, width = ct.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    for padding in (-2000, -3024, -2048, -32768):
        yield GreyCase(f"CT padded with {padding}", np.where(x**2 + y**2 > 1, padding, ct), window)
    padded = np.where(x**2 + y**2 > 1, -3024.0, ct)
    yield GreyCase("padded CT, resampled", ndimage.zoom(padded, (1, 0.7, 0.7), order=3).astype(np.float32), window)
    yield GreyCase("padded CT, resampled, linear", ndimage.zoom(padded, (1, 0.7, 0.7), order=1), window)
    noisy = ct + rng.normal(0, 35, ct.shape)
    yield GreyCase("noisy CT", np.rint(noisy), window)
    yield GreyCase("CT resampled to floats", ndimage.zoom(ct, (1, 0.7, 0.7), order=3).astype(np.float32), window)
    yield GreyCase("CT with metal", np.where(rng.random(ct.shape) < 0.002, 20000, ct), window)
    inside = inside_of_body(ct)
    if inside.size:
        yield GreyCase("CT cropped inside the body", np.rint(inside + rng.normal(0, 12, inside.shape)), window, True)
    lungs = ct[(ct < -700).mean((1, 2)) > 0.4]
    if lungs.size:
        yield GreyCase("CT of the chest", lungs, window)
    for offset in (1024, 1000):
        shifted = np.clip(ct + offset, 0, None)
        yield GreyCase(f"HU + {offset} without an intercept", shifted, ("percentile",), True)
    yield GreyCase("HU + 1024, padded with 0", np.where(x**2 + y**2 > 1, 0, ct + 1024), ("percentile",), True)
    picture = np.clip((ct + 160) / 400 * 255, 0, 255)
    yield GreyCase("CT as a picture of 0..255", picture.astype(np.uint8), ("none",))
    yield GreyCase("CT as a picture of 0..255 in int16", picture.astype(np.int16), ("none",))
    yield GreyCase("CT as a picture of 0..255 with fractions", picture.astype(np.float32), ("none",))


def mr_cases(seed: int) -> Iterator[GreyCase]:
    rng = np.random.default_rng(seed)
    mr = phantom(seed, "MR").clip(0)
    unit = (mr / mr.max()).astype(np.float32)
    noisy = np.hypot(unit + rng.normal(0, 0.02, unit.shape), rng.normal(0, 0.02, unit.shape))
    scaled = ("percentile",)
    for highest in (60, 90, 150):
        for dtype in (np.uint8, np.int16):
            yield GreyCase(f"MR of 0..{highest} in {np.dtype(dtype)}", (unit * highest).astype(dtype), scaled)
    for highest in (400, 1500, 4095, 30000):
        # MR whose tissue happens to lie near 1000 may be warned of as CT
        yield GreyCase(f"MR of 0..{highest}", np.rint(noisy / noisy.max() * highest), scaled, None)
        rings = ndimage.spline_filter1d(ndimage.zoom(unit, (1, 1.3, 1.3), order=3), order=3) * highest
        yield GreyCase(f"MR of 0..{highest}, undershooting", rings.astype(np.float32), scaled)
        yield GreyCase(f"MR of 0..{highest}, undershooting, whole", np.rint(rings), scaled)
    one = np.rint(noisy * 2500)
    one.ravel()[:4] = -250
    yield GreyCase("MR with four voxels far below 0", one, scaled)
    for factor in (1, 1.0001, 3, 20, 100):
        yield GreyCase(f"MR of 0..{factor}", (unit * np.float32(factor)), scaled)
    phase = np.where(unit > 0.05, rng.integers(-4096, 4095, unit.shape), 0)
    yield GreyCase("MR phase, background 0", phase, scaled, None)
    yield GreyCase("MR phase", rng.integers(-2048, 2047, unit.shape) * 2, scaled, None)
    yield GreyCase("MR phase in radians", rng.uniform(-np.pi, np.pi, unit.shape).astype(np.float32), scaled)
    yield GreyCase("MR phase in degrees", np.rint(rng.uniform(-180, 180, unit.shape)), scaled, None)
    real = unit * 1500 * np.cos(ndimage.gaussian_filter(rng.normal(0, 1, unit.shape), 6) * 40)
    yield GreyCase("real part of MR", np.rint(real + rng.normal(0, 20, unit.shape)), scaled, None)
    field = ndimage.gaussian_filter(rng.normal(0, 1, unit.shape), 8) * (unit > 0.05)
    yield GreyCase("field map in Hz", (field / np.abs(field).max() * 400).astype(np.float32), scaled, None)
    content = noisy[unit > 0.05]
    z_scored = ((noisy - content.mean()) / content.std()).astype(np.float32)
    yield GreyCase("z-scored MR", z_scored, scaled)
    yield GreyCase("z-scored MR, background 0", np.where(unit > 0.05, z_scored, 0), scaled)
    yield GreyCase(
        "MR padded with -1000",
        np.where(rng.permuted(np.arange(unit.shape[1])).argsort()[:, None] < 9, -1000, np.rint(noisy * 2500)),
        scaled,
        None,
    )
    picture = np.clip((mr - np.percentile(mr[mr > 0], 0.5)) / np.ptp(np.percentile(mr[mr > 0], (0.5, 99.5))), 0, 1)
    yield GreyCase("MR as a picture of 0..255", (picture * 255).astype(np.uint8), ("none",))


def pet_cases(seed: int) -> Iterator[GreyCase]:
    rng = np.random.default_rng(seed)
    body = phantom(seed, "CT") > -500
    uptake = body * rng.gamma(2, 0.5, body.shape)
    uptake[len(uptake) // 2, 20:26, 20:26] = 20
    uptake = ndimage.gaussian_filter(uptake, (0, 1, 1)).astype(np.float32)
    yield GreyCase("PET in SUV", uptake, ("percentile",))
    yield GreyCase("PET in Bq/ml", np.rint(uptake * 5000), ("percentile",))
    yield GreyCase(
        "PET with values below 0", uptake * 5000 - 300 * rng.random(body.shape) * ~body, ("percentile",), None
    )


def picture_cases(seed: int) -> Iterator[GreyCase]:
    rng = np.random.default_rng(seed)
    speckle = ndimage.gaussian_filter(rng.rayleigh(1, (6, 96, 96)), (0, 1.5, 1.5))
    y, x = np.mgrid[0:1:96j, -1:1:96j]
    fan = np.hypot(x, y) < 0.95
    ultrasound = np.where(fan & (np.abs(x) < y + 0.1), np.clip(speckle / speckle.max() * 255, 0, 255), 0)
    yield GreyCase("ultrasound", ultrasound.astype(np.uint8), ("none",))
    screen = np.full((3, 96, 128), 12, np.uint8)
    screen[:, 20:70, 30:100] = rng.integers(0, 256, (3, 50, 70))
    screen[:, 4:10, 4:60] = 255
    yield GreyCase("screenshot", screen, ("none",))
    labels = np.zeros((6, 64, 64), np.uint8)
    labels[2:5, 10:40, 10:40], labels[3, 15:30, 15:30] = 1, 2
    for factor, dtype in ((1, np.uint8), (1, np.float32), (50, np.int16)):
        yield GreyCase(
            f"label map x {factor} in {np.dtype(dtype)}", labels.astype(dtype) * dtype(factor), ("percentile",), True
        )
    yield GreyCase("mask of 0 and 1", (labels > 0).astype(np.uint8), ("percentile",), True)
    yield GreyCase("mask of 0 and 255", (labels > 0).astype(np.uint8) * np.uint8(255), ("none", "percentile"), True)
    for value in (0, 7, 255, -1000, 1500):
        yield GreyCase(
            f"all {value}", np.full((3, 32, 32), value, np.int16), ("none", "percentile", "ct-soft-tissue"), True
        )


def all_cases(n_seeds: int = N_SEEDS) -> dict[str, list[GreyCase]]:
    """By name; few voxels, as FP32 unless the type is part of the case."""
    cases: dict[str, list[GreyCase]] = {}
    for seed in range(n_seeds):
        for maker in (ct_cases, mr_cases, pet_cases, picture_cases):
            for case in maker(seed):
                cases.setdefault(case.name, []).append(case)
    return cases
