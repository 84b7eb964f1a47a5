"""preset="auto": the sets of the catalogue for the modality and the body part of a DICOM series (PS3.16, Annex L)."""

from typing import TYPE_CHECKING

from medimageparse_client.errors import InvalidRequest

if TYPE_CHECKING:
    import pydicom

AUTO = "auto"
ABDOMEN = ("ABDOMEN", "ABDOMENPELVIS", "CHESTABDOMEN", "CHESTABDPELVIS", "NECKCHESTABDOMEN", "NECKCHESTABDPELV")
CHEST = ("CHEST", "THORAX", *ABDOMEN[2:], "NECKCHEST")
NECK = ("NECK", "HEADNECK", "NECKCHEST", *ABDOMEN[4:])
SPINE = ("SPINE", "CSPINE", "TSPINE", "LSPINE", "CTSPINE", "TLSPINE", "LSSPINE")
# the heads of MR are not among them: their sets are each for one sequence
SHOWN = {
    "ct-head-neck": ("HEAD", *NECK),
    "ct-thorax": (*CHEST, "HEART"),
    "ct-abdomen": ABDOMEN,
    "ct-spine": SPINE,
    "mr-neck": NECK,
    "mr-thorax": CHEST,
    "mr-heart": ("HEART",),
    "mr-abdomen": ABDOMEN,
    "mr-spine": SPINE,
}
# CID 4031, of enhanced files, which need not have BodyPartExamined
REGIONS = {
    "818981001": "ABDOMEN",
    "113345001": "ABDOMEN",  # of before 2019
    "818982008": "ABDOMENPELVIS",
    "816094009": "CHEST",
    "51185008": "CHEST",  # of before 2019
    "416550000": "CHESTABDOMEN",
    "416775004": "CHESTABDPELVIS",
    "416152001": "NECKCHESTABDOMEN",
    "416319003": "NECKCHESTABDPELV",
    "417437006": "NECKCHEST",
    "69536005": "HEAD",
    "774007": "HEADNECK",
    "45048000": "NECK",
    "80891009": "HEART",
    "421060004": "SPINE",
    "122494005": "CSPINE",
    "122495006": "TSPINE",
    "122496007": "LSPINE",
    "1217257000": "CTSPINE",
    "1217256009": "TLSPINE",
    "1217253001": "LSSPINE",
}


def sets_of(preset: str, modality: str = "", header: "pydicom.Dataset | None" = None) -> str:
    """The preset; of "auto" the sets for what a series shows, with "&" between them, or InvalidRequest.

    header: one of the series; none for a volume that is no series
    """
    if preset != AUTO:
        return preset
    way_out = "name a preset (medimageparse structures lists them), or give prompts"
    if header is None:
        raise InvalidRequest(f"the preset auto is for DICOM series, which say what they show; {way_out}")
    part, prefix = body_part(header), f"{modality.lower()}-"
    names = [name for name, parts in SHOWN.items() if part in parts and name.startswith(prefix)]
    if not names:
        why = "the series does not name its body part" if not part else "no set is for its modality and body part"
        raise InvalidRequest(f"the preset auto found no structures to look for, since {why}; {way_out}")
    return " & ".join(names)


def body_part(header: "pydicom.Dataset") -> str:
    """A term of Annex L without blanks and signs; "" where the file has none."""
    from medimageparse_client.formats.dicom_header import without_pydicoms_warnings  # reading the series needed it

    with without_pydicoms_warnings():
        if written := str(header.get("BodyPartExamined") or ""):
            return "".join(letter for letter in written.upper() if letter.isalnum())
        shared = first_of(header, "SharedFunctionalGroupsSequence")
        frame = first_of(shared, "FrameAnatomySequence")
        region = first_of(header, "AnatomicRegionSequence") or first_of(frame, "AnatomicRegionSequence")
        return REGIONS.get(str(region.get("CodeValue") or ""), "") if region else ""


def first_of(tags: "pydicom.Dataset | None", name: str) -> "pydicom.Dataset | None":
    """The first data set of a sequence, if there is one."""
    return next(iter((tags.get(name) if tags else None) or ()), None)
