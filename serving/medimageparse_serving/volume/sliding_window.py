"""Slices of any size -> windows of square network images, and the labels' way back. Memory stays within a window."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def plan_windows(n_slices: int, window_size: int) -> list[range]:
    """The slices of each window, without halo; the last may be shorter."""
    return [range(start, min(start + window_size, n_slices)) for start in range(0, n_slices, window_size)]


def with_halo(window: range, n_slices: int) -> list[int]:
    """The window's slices and one neighbour on each side, reflected at the ends of the volume."""
    if n_slices == 1:
        return [0, 0, 0]
    last = n_slices - 1
    return [last - abs(last - abs(index)) for index in range(window.start - 1, window.stop + 1)]


def iterate_windows(volume: NDArray[Any], window_size: int, image_size: int) -> Iterator[tuple[range, NDArray[Any]]]:
    """Volume [D,H,W] -> (slices of the window, window [S+2,size,size] of whole numbers in the volume's type)."""
    is_ready = volume.dtype == np.uint8 and volume.shape[1:] == (image_size, image_size)
    squares: dict[int, NDArray[Any]] = {}
    for window in plan_windows(len(volume), window_size):
        indices = with_halo(window, len(volume))
        if is_ready:
            is_inside = indices == list(range(indices[0], indices[0] + len(indices)))
            yield window, volume[indices[0] : indices[0] + len(indices)] if is_inside else volume[indices]
            continue
        # two slices of the window before this one are needed again
        squares = {d: squares[d] if d in squares else to_square(volume[d], image_size) for d in sorted(set(indices))}
        yield window, np.stack([squares[d] for d in indices])


def by_digits(window: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Whole numbers [S+2,size,size] -> `window` UINT8 [K,S+2,size,size] and `digit_values` FP32 [K].

    UINT8 is one digit, which counts 1. What else there is has digits to base 256, and more of them below zero.
    """
    if window.dtype == np.uint8:
        return {"window": window[None], "digit_values": np.ones(1, np.float32)}
    digits: dict[int, NDArray[np.uint8]] = {}
    for value in (1, -1):
        rest = np.maximum(window * value, 0).astype(np.int32)
        while not digits or rest.any():
            digits[value] = (rest & 255).astype(np.uint8)
            rest, value = rest >> 8, value * 256
    return {"window": np.stack(list(digits.values())), "digit_values": np.array(list(digits), np.float32)}


def to_square(image: NDArray[Any], size: int) -> NDArray[Any]:
    """One slice [H,W] padded to a square and resized to [size,size]; UINT8 as integers, FP32 plainly, then truncated.

    The padding is never made: its zeros add nothing, so the columns of the resize matrix that meet it are left out.
    """
    padded = max(image.shape)
    rows, columns = (slice(before, before + n) for before, n in zip(margins(image.shape), image.shape, strict=True))
    if padded == size:
        square = np.zeros((size, size), image.dtype)
        square[rows, columns] = image if image.dtype == np.uint8 else np.trunc(image)
        return square
    if image.dtype != np.uint8:
        weights = bicubic_matrix(padded, size).astype(np.float32)
        plain: NDArray[np.float32] = np.trunc(weights[:, rows] @ (image @ weights[:, columns].T))
        return plain
    weights, bits = integer_matrix(padded, size)
    narrow = shift(image.astype(np.float32) @ weights[:, columns].T, bits)
    return shift(weights[:, rows] @ narrow, bits).astype(np.uint8)


def margins(shape: tuple[int, ...]) -> list[int]:
    """Zeros before the rows and before the columns that make a slice square."""
    return [(max(shape) - n) // 2 for n in shape]


@lru_cache(maxsize=4)
def bicubic_matrix(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Weights [out,in] of bicubic interpolation: a = -0.75, half-pixel centres, no antialiasing, borders repeated."""
    a = -0.75
    matrix = np.zeros((n_out, n_in))
    for row in range(n_out):
        centre = (row + 0.5) * n_in / n_out - 0.5
        first = math.floor(centre) - 1
        for column in range(first, first + 4):
            t = abs(centre - column)
            near = ((a + 2) * t - (a + 3)) * t * t + 1
            far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
            matrix[row, min(max(column, 0), n_in - 1)] += near if t <= 1 else far
    return matrix


@lru_cache(maxsize=4)
def integer_matrix(n_in: int, n_out: int) -> tuple[NDArray[np.float32], int]:
    """The weights as the published resize of UINT8 images uses them: 16-bit integers, and how many bits are fraction.

    FP32 holds them and all their sums with 8-bit values exactly: below 2^24.
    """
    matrix = bicubic_matrix(n_in, n_out)
    bits = max(p for p in range(23) if math.floor(0.5 + matrix.max() * 2**p) < 2**15)
    return np.trunc(matrix * 2**bits + np.copysign(0.5, matrix)).astype(np.float32), bits


def shift(sums: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Rounds away the fraction and clamps to 0..255, between the two passes too."""
    grey: NDArray[np.float32] = np.clip(np.floor((sums + 2.0 ** (bits - 1)) * 2.0**-bits), 0, 255)
    return grey


def from_square(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Labels [S,size,size] -> [S,H,W]: nearest, without the padding."""
    if height == width == labels.shape[-1]:
        return labels
    rows, columns = places_in_square(labels.shape[-1], height, width)
    return labels[:, rows[:, None], columns]


def places_in_square(size: int, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row and each column of a slice [H,W] the nearest one of its square [size,size]."""
    padded = max(height, width)
    scaled = np.arange(padded, dtype=np.float32) * np.float32(size / padded)
    nearest = np.minimum(scaled.astype(np.int64), size - 1)
    top, left = margins((height, width))
    return nearest[top : top + height], nearest[left : left + width]
