"""What a caller gives for a volume -> the DICOM series that it is, if it is one.

Needs nothing of the extra `dicom` until a series comes.
"""

import os
from pathlib import Path
from typing import Any

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats.series import DicomSeries, holds_series


def open_series(
    volume: Any, *, series: int | str | None, time_point: int | None, allow_gaps: bool, resample_tilt: bool
) -> DicomSeries | None:
    """The series that a caller gives, read or still to be read; None where it is something else."""
    if isinstance(volume, DicomSeries):
        return volume
    if not holds_series(volume):
        if series is not None:
            raise InvalidVolume("series (--series) chooses among DICOM series, and this volume is none; leave it out")
        return None
    source = source_of(volume)
    try:
        from medimageparse_client.formats.dicom_series import read_series

        return read_series(
            source, series=series, time_point=time_point, allow_gaps=allow_gaps, resample_tilt=resample_tilt
        )
    except ModuleNotFoundError as error:
        raise InvalidVolume(
            f"DICOM series need {error.name}, which is not installed: pip install 'medimageparse-client[dicom]'"
        ) from error


def source_of(volume: str | os.PathLike[str] | bytes | bytearray | memoryview) -> str | Path | bytes:
    if isinstance(volume, bytes | bytearray | memoryview):
        return bytes(volume)
    return volume if isinstance(volume, str) else Path(volume)
