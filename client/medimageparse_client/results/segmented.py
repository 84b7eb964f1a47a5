"""What the writers of files need of a segmented volume."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from medimageparse_client.formats.series import DicomSeries
from medimageparse_client.results.report import Report, VolumeFacts
from medimageparse_client.results.volume_maps import MapFile

SegType: TypeAlias = Literal["binary", "labelmap", "fractional"]


class Segmented(Protocol):
    """A `Segmentation`, which says what each is; it knows its writers, and they know this of it."""

    @property
    def prompts(self) -> tuple[str, ...]: ...
    @property
    def label_map(self) -> npt.NDArray[np.integer[Any]]: ...
    @property
    def affine(self) -> npt.NDArray[np.float64]: ...
    @property
    def affine_of_files(self) -> npt.NDArray[np.float64]: ...
    @property
    def facts(self) -> VolumeFacts: ...
    @property
    def report(self) -> Report: ...
    @property
    def nifti(self) -> bytes: ...
    @property
    def maps(self) -> Mapping[str, MapFile]: ...
    @property
    def series(self) -> DicomSeries | None: ...
    @property
    def probabilities(self) -> npt.NDArray[np.uint8] | None: ...
    def mask(self, prompt: str) -> npt.NDArray[np.bool_]: ...
