"""Maps of a volume: filled as slices, given as the image was stored."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from medimageparse_contract.options import is_file, is_tensor
from numpy.typing import DTypeLike, NDArray

from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.nifti_masks import encode_nifti_file


@dataclass(frozen=True, eq=False)
class StoredMaps:
    """Two views of the same voxels.

    stored: [P,x,y,z]
    slices: [P,D,H,W], as the networks see them
    """

    stored: NDArray[Any]
    slices: NDArray[Any]
    geometry: Geometry

    @classmethod
    def empty(
        cls, n_maps: int, geometry: Geometry, dtype: DTypeLike = np.uint8, *, output: str = "all"
    ) -> "StoredMaps":
        """All voxels are 0. They lie in memory as the output wants them, which then takes no copy.

        In a NIfTI file x runs fastest, and in a tensor z.
        """
        x, y, z = geometry.image.shape
        is_for_file = is_file(output)
        stored = np.zeros((n_maps, z, y, x) if is_for_file else (n_maps, x, y, z), dtype)
        stored = stored.transpose(0, 3, 2, 1) if is_for_file else stored
        flipped = [1 + axis for axis in range(3) if geometry.flipped[axis]]
        slices = np.flip(stored.transpose(0, *(1 + axis for axis in geometry.axes)), flipped)
        return cls(stored, slices, geometry)

    def answer(
        self, name: str, output: str, wanted: Collection[str], *, is_one: bool = False
    ) -> dict[str, NDArray[Any]]:
        """The output `name` as a tensor [P,x,y,z] and `name`_file as a NIfTI file, as far as they are asked for.

        is_one: there is one map for all prompts, [x,y,z]
        """
        stored, in_file = (self.stored[0],) * 2 if is_one else (self.stored, np.moveaxis(self.stored, 0, 3))
        made: dict[str, NDArray[Any]] = {}
        if is_tensor(output) and name in wanted:
            made[name] = np.ascontiguousarray(stored)
        if is_file(output) and f"{name}_file" in wanted:
            file = encode_nifti_file(in_file, self.geometry)
            made[f"{name}_file"] = np.array([file], np.object_)
        return made
