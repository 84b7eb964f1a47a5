"""A series of several volumes (echoes, phases, b-values) -> the slices of one."""

from typing import Any

import numpy as np

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats.dicom_series.geometry import SAME_MM
from medimageparse_client.formats.dicom_series.slices import Slice

# what the volumes of one series may differ in
TAGS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "StackID",
    "ImageType",
    "FrameType",
    "AcquisitionNumber",
    "AcquisitionTime",
)
UNTOLD = ("ImageType", "FrameType", "StackID", "AcquisitionTime")  # may hold anything: their values are not told


def one_phase(slices: list[Slice], time_point: int | None, notes: list[str]) -> list[Slice]:
    """All of a plain series; of one that has every place several times, the slices of `time_point`."""
    places = np.sort([one.position @ slices[0].normal for one in slices])
    n_places = 1 + int((np.diff(places) >= SAME_MM).sum())
    n_volumes, rest = divmod(len(slices), n_places)
    is_one = n_volumes == 1 or rest or n_places == 1
    volumes = [slices] if is_one else split(slices, n_volumes, n_places, time_point)
    if time_point and time_point >= len(volumes) or (time_point or 0) < 0:
        raise InvalidVolume(f"there is no time point {time_point}; the last one is {len(volumes) - 1}")
    if not is_one:
        notes.append(f"the series holds {n_volumes} volumes; number {time_point} was taken (time_point, from 0)")
    return volumes[time_point or 0]


def split(slices: list[Slice], n_volumes: int, n_places: int, time_point: int | None) -> list[list[Slice]]:
    """The volumes, in the order of the tag in which they differ."""
    for name in TAGS:
        volumes: dict[Any, list[Slice]] = {}
        for one in slices:
            volumes.setdefault(sortable(one.tag(name)), []).append(one)
        if len(volumes) != n_volumes or not all(has_each_place_once(volume, n_places) for volume in volumes.values()):
            continue
        if time_point is None:
            values = "" if name in UNTOLD else f" ({', '.join(f'{number:g}' for _, number, _ in sorted(volumes))})"
            raise InvalidVolume(
                f"the series holds {n_volumes} volumes that differ in {name}{values}; choose one: time_point "
                "(--time-point) from 0 on, in this order"
            )
        return [volumes[key] for key in sorted(volumes)]
    raise InvalidVolume(
        f"the slices are doubled: each of {n_places} places has {n_volumes}, and no tag says which belong together; "
        "take the doubled ones out, or export each volume as a series of its own"
    )


def has_each_place_once(slices: list[Slice], n_places: int) -> bool:
    heights = np.sort([one.position @ slices[0].normal for one in slices])
    return len(slices) == n_places and bool((np.diff(heights) >= SAME_MM).all())


def sortable(value: Any) -> tuple[bool, float, str]:
    """Numbers by value, before words by letter."""
    try:
        return False, float(value), ""
    except (TypeError, ValueError):
        return True, 0.0, str(value)
