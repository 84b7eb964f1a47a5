"""What a caller asks for besides labels, and what makes it: checked before the work, filled window by window."""

import json
from collections.abc import Collection
from dataclasses import asdict
from math import prod
from typing import Any

import numpy as np
from medimageparse_contract.options import OUTPUTS_3D, is_file, is_tensor, map_kind
from numpy.typing import NDArray

from medimageparse_serving.refused import Refused
from medimageparse_serving.triton.tensors import Inputs
from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.instance_table import describe_instances
from medimageparse_serving.volume.instances import Edges, find_instances
from medimageparse_serving.volume.probabilities import PromptMaps
from medimageparse_serving.volume.stored_maps import StoredMaps
from medimageparse_serving.volume.uncertainty import Draws, check_draws, read_draws

Arrays = dict[str, NDArray[Any]]
INSTANCE_BYTES = 10  # of a voxel while they are counted, at most: measured


class Wishes:
    """The options `output`, `instances` and `draws` of one request.

    wanted: the names of the outputs that the caller takes; a map that nobody takes is not made
    """

    def __init__(self, inputs: Inputs, wanted: Collection[str]) -> None:
        self.output, self.wanted = inputs.choice("output", OUTPUTS_3D), wanted
        self.instances, self.n_draws = bool(inputs.item("instances")), read_draws(inputs.item("draws"))
        kind = map_kind(self.output)
        self.kind = kind if self.is_wanted(kind) else ""
        self.has_spread = self.n_draws > 1 and self.is_wanted("uncertainty")
        if self.instances and self.n_draws > 1:
            raise Refused("instances are those of one draw; send draws 1, or leave instances out")

    def is_wanted(self, name: str) -> bool:
        """Whether the caller takes a map, as a tensor or as a file."""
        return name in self.wanted or f"{name}_file" in self.wanted

    @property
    def encoded(self) -> set[str]:
        """What is made of the labels."""
        labels = {"label_map": is_tensor(self.output), "nifti_file": is_file(self.output), "report": True}
        return {name for name, is_asked in labels.items() if is_asked}

    def check(self, n_prompts: int, shape: Collection[int], max_draw_prompts: int, max_map_bytes: int) -> None:
        """Refuses what takes too much memory or work, before it begins. shape: of the volume."""
        if self.n_draws > 1:
            check_draws(self.n_draws, n_prompts, max_draw_prompts)
        n_maps = bool(self.kind) + self.has_spread
        n_bytes = (n_maps * n_prompts + INSTANCE_BYTES * self.instances) * prod(shape)
        if n_bytes > max_map_bytes:
            raise Refused(
                f"masks, probabilities, draws or instances of {n_prompts} prompts and {prod(shape)} voxels take "
                f"{n_bytes} bytes, over {max_map_bytes}, the limit of this server; send fewer prompts in one request, "
                "crop the image, or leave these options out"
            )

    def check_passes(self) -> None:
        """Refuses what is made of prompts that are all decoded together."""
        if self.kind or self.instances or self.n_draws > 1:
            raise Refused(
                "masks, probabilities, instances and draws are of prompts that are decoded together, and these are too "
                "many; send fewer presets in one request, or leave these options out"
            )

    def prepare(self, n_prompts: int, geometry: Geometry, image_size: int) -> "Makers":
        """Takes the memory."""
        return Makers(self, n_prompts, geometry, image_size)


class Makers:
    """readers: to be shown each window"""

    def __init__(self, wishes: Wishes, n_prompts: int, geometry: Geometry, image_size: int) -> None:
        self.wishes, self.n_prompts, self.geometry = wishes, n_prompts, geometry
        self.draws = self.maps = self.edges = None
        if wishes.n_draws > 1:
            self.draws = Draws(
                wishes.n_draws,
                n_prompts,
                wishes.kind,
                geometry,
                image_size,
                wishes.output,
                has_spread=wishes.has_spread,
            )
        elif wishes.kind:
            self.maps = PromptMaps(wishes.kind, n_prompts, geometry, image_size, wishes.output)
        if wishes.instances:
            self.numbers = StoredMaps.empty(1, geometry, np.uint16, output=wishes.output)
            self.edges = Edges(self.numbers.slices.shape[1:], image_size)
        self.readers = [reader for reader in (self.draws, self.maps, self.edges) if reader]
        self.told: dict[str, list[Any]] = {}  # field of a prompt's report -> its value for each prompt

    def finish(self, label_slices: NDArray[np.uint8]) -> Arrays:
        """The outputs that are made of all windows."""
        output, wanted = self.wishes.output, self.wishes.wanted
        answer: Arrays = {}
        if self.draws:
            self.told["draws"] = [asdict(told) for told in self.draws.describe(self.geometry.voxel_ml)]
            answer |= self.draws.answer(output, wanted)
        if self.maps:
            answer |= self.maps.answer(output, wanted)
        if self.edges:
            owners = find_instances(label_slices, self.edges.edges, self.numbers.slices[0])
            described = describe_instances(self.numbers.stored[0], owners, self.n_prompts, self.geometry)
            self.told["instances"] = [[asdict(each) for each in of_prompt] for of_prompt in described]
            answer |= self.numbers.answer("instances", output, wanted, is_one=True)
        return answer

    def tell(self, report: NDArray[Any]) -> NDArray[Any]:
        """The report with what was made; as it is where nobody asked."""
        if not self.told:
            return report
        told = json.loads(report.item())
        for field, values in self.told.items():
            for prompt, value in zip(told["prompts"], values, strict=True):
                prompt[field] = value
        drawn = {"draws": self.wishes.n_draws} if self.draws else {}
        return np.array([json.dumps(told | drawn).encode()], np.object_)
