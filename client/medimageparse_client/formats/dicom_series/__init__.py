"""The slices of a DICOM series (a folder, a zip, a multi-frame file, a DICOMweb address) -> one volume.

Needs the extra `dicom`. The headers are checked first: what is no regular volume is refused by name, never guessed.
"""

from pathlib import Path

import numpy as np

from medimageparse_client.formats.dicom_header import without_pydicoms_warnings
from medimageparse_client.formats.dicom_series.choice import choose, sort_out
from medimageparse_client.formats.dicom_series.files import find_files, read_headers
from medimageparse_client.formats.dicom_series.geometry import arrange, check_equal
from medimageparse_client.formats.dicom_series.phases import one_phase
from medimageparse_client.formats.dicom_series.slices import slices_of
from medimageparse_client.formats.dicom_series.tilt import upright
from medimageparse_client.formats.dicom_series.values import stack_values
from medimageparse_client.formats.geometry import LPS_TO_RAS
from medimageparse_client.formats.nifti import image_of_array
from medimageparse_client.formats.series import DicomSeries

__all__ = ["DicomSeries", "read_series"]


@without_pydicoms_warnings()
def read_series(
    source: str | Path | bytes,
    *,
    series: int | str | None = None,
    time_point: int | None = None,
    allow_gaps: bool = False,
    resample_tilt: bool = False,
) -> DicomSeries:
    """The series in a folder, a zip or a multi-frame file.

    series: where there are several, the number in the list of the refusal, or a SeriesInstanceUID
    time_point: of a series with several volumes (echoes, phases, b-values) which one, from 0
    allow_gaps: takes slices at unequal distances; nothing is interpolated
    resample_tilt: takes out a gantry tilt by linear interpolation within the slices

    Raises InvalidVolume with a sentence for everything that is no regular volume of grey slices.
    """
    notes: list[str] = []
    headers = sort_out(read_headers(find_files(source), notes), notes)
    slices = slices_of(choose(headers, series, notes))
    check_equal(slices)
    placed = arrange(one_phase(slices, time_point, notes), allow_gaps=allow_gaps, allow_tilt=resample_tilt, notes=notes)
    values, affine = stack_values(placed.slices, notes), placed.affine
    if placed.is_tilted:
        values, affine = upright(values, affine)
    volume = image_of_array(values, np.asarray(LPS_TO_RAS @ affine))
    # of a multi-frame file all slices have one header
    sources = tuple({id(one.header): one.header for one in placed.slices}.values())
    positions = np.array([one.position for one in placed.slices])
    frames = tuple(one.frame + 1 for one in placed.slices)
    return DicomSeries(volume, sources, tuple(notes), placed.slices[0].modality, placed.is_tilted, positions, frames)
