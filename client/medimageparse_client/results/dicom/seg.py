"""A segmentation of a DICOM series -> a DICOM SEG (PS3.3 A.51): segment k is prompt k."""

import io
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from medimageparse_contract.version import VERSION
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medimageparse_client.errors import InvalidRequest
from medimageparse_client.formats.dicom_header import without_pydicoms_warnings
from medimageparse_client.formats.geometry import LPS_TO_RAS
from medimageparse_client.formats.series import DicomSeries
from medimageparse_client.results.codes import describe
from medimageparse_client.results.colours import Colour, colours_of
from medimageparse_client.results.dicom.concepts import concept, concepts
from medimageparse_client.results.dicom.source import (
    MANUFACTURER,
    MODEL,
    UNICODE,
    checkpoint_of,
    series_number,
    source_of,
)
from medimageparse_client.results.segmented import Segmented, SegType

LONGEST = 64  # characters of a text


@without_pydicoms_warnings()
def encode_seg(result: Segmented, seg_type: SegType = "binary") -> bytes:
    """The bytes of a DICOM SEG file.

    seg_type: "binary" has a bit for each voxel and segment, whole masks where the result has `maps`; "labelmap" has the
        label map; "fractional" has the probabilities of each prompt, 255 is 1.0

    An absent prompt is a segment without voxels, so that numbers stay those of the labels. Raises InvalidRequest for a
    result that is of no series, or not in the voxels of its slices.
    """
    series = source_of(result)
    checkpoint, colours = checkpoint_of(result), colours_of(result.prompts, "3d")
    prompts = enumerate(result.prompts, 1)
    made = hd.seg.Segmentation(
        source_images=list(series.sources),
        pixel_array=pixels_of(result, seg_type),
        segmentation_type=seg_type.upper(),
        segment_descriptions=[segment(prompt, label, colours[label], checkpoint) for label, prompt in prompts],
        series_instance_uid=hd.UID(),
        series_number=series_number(series),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=VERSION,
        device_serial_number=checkpoint[:LONGEST],
        content_label="SEGMENTATION",
        content_description="Structures by text prompts",
        series_description="MedImageParse segmentation",
        specific_character_set=UNICODE,
        transfer_syntax_uid=RLELossless if seg_type == "labelmap" else ExplicitVRLittleEndian,
        # readers of a LABELMAP give back a smaller volume otherwise
        omit_empty_frames=seg_type != "labelmap",
        **places_of(series),
    )
    if series.is_multi_frame:
        refer_to_frames(made, series.frames)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def pixels_of(result: Segmented, seg_type: SegType) -> npt.NDArray[Any]:
    """[slices,rows,columns] of labels or [slices,rows,columns,segments], in the order of the sources."""
    if seg_type == "fractional":
        if result.probabilities is None:
            raise InvalidRequest('a fractional SEG holds probabilities; segment with maps="probabilities"')
        return np.moveaxis(result.probabilities, 0, 3).transpose(2, 1, 0, 3) / np.float32(255)
    if seg_type == "binary" and {"masks", "probabilities"} & result.maps.keys():
        masks = np.stack([result.mask(prompt) for prompt in result.prompts], axis=3)
        return masks.transpose(2, 1, 0, 3)
    return result.label_map.transpose(2, 1, 0)


def segment(prompt: str, label: int, colour: Colour, checkpoint: str) -> hd.seg.SegmentDescription:
    """A segment with its codes, its colour and what made it."""
    known = describe(prompt)
    described = hd.seg.SegmentDescription(
        segment_number=label,
        segment_label=known.label,
        segmented_property_category=concept(known.category),
        segmented_property_type=concept(known.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            MODEL, codes.cid7162.ArtificialIntelligence, VERSION, parameters={"checkpoint_sha256": checkpoint}
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"{label} {known.label}"[:LONGEST],
        anatomic_regions=concepts([known.region]) if known.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*colour),
    )
    # highdicom has no argument for modifiers
    if known.type_modifiers:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = concepts(known.type_modifiers)
    if known.region_modifiers:
        described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = concepts(known.region_modifiers)
    return described


def places_of(series: DicomSeries) -> dict[str, Any]:
    """Where the slices lie, of a multi-frame source, whose frames may have any order; single files say it."""
    if not series.is_multi_frame:
        return {}
    directions = (LPS_TO_RAS @ series.volume.affine)[:3, :3]
    mm = np.linalg.norm(directions, axis=0)
    along_rows, down_columns, between = (float(size) for size in mm)
    return {
        "plane_positions": [hd.PlanePositionSequence("PATIENT", tuple(position)) for position in series.positions],
        "plane_orientation": hd.PlaneOrientationSequence("PATIENT", tuple((directions / mm)[:, :2].T.ravel())),
        "pixel_measures": hd.PixelMeasuresSequence((down_columns, along_rows), between, between),
    }


def refer_to_frames(made: hd.seg.Segmentation, frames: tuple[int, ...]) -> None:
    """Keeps of the references those to `frames`; highdicom refers to all that lie at a place, of other echoes too."""
    for groups in made.PerFrameFunctionalGroupsSequence:
        for derivation in groups.get("DerivationImageSequence", ()):
            sources = derivation.SourceImageSequence
            derivation.SourceImageSequence = [one for one in sources if one.ReferencedFrameNumber in frames]
