"""What the server makes of a volume besides labels: maps of each prompt alone, instances, spread."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medimageparse_client.formats.voxels import decode_map
from medimageparse_client.results.answer import Answer, NiftiFile, odd_answers_refused


@dataclass(frozen=True, eq=False)
class MapFile:
    """A map as the server sent it.

    voxels: [P,x,y,z] of the volume that was sent, of instances [x,y,z]
    nifti: the same as the bytes of a .nii.gz, [x,y,z,P]
    """

    voxels: npt.NDArray[Any]
    nifti: bytes


def decode_maps(answer: Answer, names: Iterable[str], shape: tuple[int, ...], n_prompts: int) -> dict[str, MapFile]:
    """The maps that were asked for, by name; they must fit the volume that was sent."""
    maps: dict[str, MapFile] = {}
    for name in names:
        nifti = answer.json(f"{name}_file", NiftiFile).data
        with odd_answers_refused(f"{name}_file"):
            if name == "instances":
                voxels = decode_map(nifti, shape, (np.uint16,))
            else:
                voxels = np.moveaxis(decode_map(nifti, (*shape, n_prompts), (np.uint8,)), 3, 0)
        maps[name] = MapFile(voxels, nifti)
    return maps
