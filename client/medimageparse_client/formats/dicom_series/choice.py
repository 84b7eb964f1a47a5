"""Which of the DICOM files that were found are the slices to segment."""

from collections import Counter
from collections.abc import Iterable

import pydicom
from pydicom.uid import UID, MediaStorageDirectoryStorage

from medimageparse_client.errors import InvalidImage, InvalidVolume
from medimageparse_client.formats.dicom_header import DERIVED, value_of
from medimageparse_client.formats.dicom_series.files import Header

RADIOGRAPHS = ("CR", "DX", "MG", "PX", "IO", "RG")  # modalities
# what is no slice of a volume -> what to do where there is nothing else
ADVICE = {
    "files without an image": "give the folder of the images that they belong to",
    "segmentations or doses": "give the series that they were made of",
    "localizers": "a localizer is a survey of a few crossing slices; give the series that was planned on it",
    "secondary captures": "a secondary capture is a picture of a screen, without values or positions; give the "
    "original series",
    "radiographs": "a radiograph is no slice; send it as an image (segment-image)",
    "pictures in colour": "a volume is of grey slices; give the original series, or send single pictures as images",
}


def sort_out(headers: list[Header], notes: list[str]) -> list[Header]:
    """The files that are grey slices; what else there is, is left out and said."""
    found = [(header, why_left_out(header.tags)) for header in headers]
    counts = Counter(why for _, why in found if why)
    slices = [header for header, why in found if not why]
    words = ", ".join(f"{why} ({n})" for why, n in sorted(counts.items()))
    if not slices:
        advice = ADVICE[counts.most_common(1)[0][0]] if counts else "give a folder or zip of DICOM slices"
        raise InvalidVolume(f"there are no slices of a volume: {words or 'no DICOM file'}; {advice}")
    if counts:
        notes.append(f"left out: {words}")
    return slices


def why_left_out(tags: pydicom.Dataset) -> str:
    """A key of ADVICE, or "" for a file that is a slice, or several."""
    kind = UID(value_of(tags, "SOPClassUID") or "")
    if kind == MediaStorageDirectoryStorage or value_of(tags, "Rows") is None:
        return "files without an image"
    if value_of(tags, "Modality") in DERIVED:
        return "segmentations or doses"
    if value_of(tags, "Modality") in RADIOGRAPHS:
        return "radiographs"
    if "LOCALIZER" in words_of(tags, "ImageType"):
        return "localizers"
    if "Secondary Capture" in kind.name:
        return "secondary captures"
    is_grey = str(value_of(tags, "PhotometricInterpretation") or "MONOCHROME").startswith("MONOCHROME")
    if (value_of(tags, "SamplesPerPixel") or 1) != 1 or not is_grey:
        return "pictures in colour"
    return ""


def words_of(tags: pydicom.Dataset, name: str) -> list[str]:
    """The values of a tag with several, in upper case."""
    value = value_of(tags, name)
    return [str(word).upper() for word in ([value] if isinstance(value, str) else value or ())]


def choose(headers: list[Header], wanted: int | str | None, notes: list[str]) -> list[Header]:
    """The files of one series; each multi-frame file counts as a series of its own."""
    groups: dict[tuple[str, str], list[Header]] = {}
    for header in headers:
        groups.setdefault(key_of(header.tags), []).append(header)
    all_series = sorted(groups.items(), key=lambda item: (number_of_series(item[1][0].tags), item[0]))
    listed = "; ".join(f"{n}: {words_for(group)}" for n, (_, group) in enumerate(all_series, 1))
    if wanted is None:
        if len(all_series) > 1:
            raise InvalidVolume(f"there are {len(all_series)} series; choose one by series (--series). {listed}")
        return all_series[0][1]
    chosen = [group for n, (uids, group) in enumerate(all_series, 1) if str(wanted) == str(n) or str(wanted) in uids]
    if not chosen:
        raise InvalidVolume(f"there is no series of this number or UID. {listed}")
    if len(chosen) > 1:
        raise InvalidVolume(f"the series is {len(chosen)} multi-frame files; choose one by its number. {listed}")
    if len(all_series) > 1:
        notes.append(f"left out: other series ({len(all_series) - 1})")
    return chosen[0]


def key_of(tags: pydicom.Dataset) -> tuple[str, str]:
    """The UIDs of a series and, for a file with several slices, of the file."""
    series = str(value_of(tags, "SeriesInstanceUID") or "")
    is_multi_frame = "PerFrameFunctionalGroupsSequence" in tags or (value_of(tags, "NumberOfFrames") or 1) > 1
    return series, str(value_of(tags, "SOPInstanceUID") or "") if is_multi_frame else ""


def number_of_series(tags: pydicom.Dataset) -> int:
    """0 where it is left out, or no number."""
    try:
        return int(value_of(tags, "SeriesNumber") or 0)
    except (InvalidImage, TypeError, ValueError):
        return 0


def words_for(group: Iterable[Header]) -> str:
    """What may be said of a series: a description can name the patient, so only its length is told."""
    headers = [header.tags for header in group]
    n_slices = sum(int(value_of(tags, "NumberOfFrames") or 1) for tags in headers)
    length = len(str(value_of(headers[0], "SeriesDescription") or ""))
    modality = value_of(headers[0], "Modality")
    name = modality if isinstance(modality, str) and modality.isalnum() and len(modality) <= 4 else "unknown modality"
    return f"{name}, slices: {n_slices}, characters in its description: {length}"
