"""The header of a NIfTI file -> where its voxels lie in the patient, what is doubtful, and the answer's header."""

from dataclasses import dataclass

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from medimageparse_serving.volume.affines import (
    FARTHEST_MM,
    SHEARED,
    SMALLEST_MM,
    Affine,
    axis_codes,
    is_usable,
    name_other_sides,
    shear,
)
from medimageparse_serving.volume.geometry import HeaderFields

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI's codes for metre, millimetre, micrometre; unknown counts as mm
# How far the length of a quaternion may be over 1: FP32 makes 5e-8 of it, FP16 4e-4, two decimals 8e-3.
QUATERNION_ROUNDING = 0.01
SAME_SIZE = 0.01  # a difference between zooms and sform that is more than rounding, as a fraction
ALIGNED = 2  # NIfTI's code for coordinates aligned with something; stands for codes that the standard does not know
HIGHEST_CODE = 5

SFORM_FIELDS = ("srow_x", "srow_y", "srow_z")
QFORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
FIELDS = {"sform": SFORM_FIELDS, "qform": QFORM_FIELDS}

WAY_OUT = "set its sform or convert it from DICOM again; if it is meant as stored, orientation=stored says so"
NO_FORM = (
    "image has neither an sform nor a qform, so left and right are not known: it counts as LAS, as in nibabel "
    f"(in ITK as LPS, in niftilib as RAS), and slices are taken as stored; {WAY_OUT}"
)
NO_USABLE_FORM = (
    "image has no usable sform or qform, so the file does not say how the patient lies and left and right are not "
    f"known: slices are taken as stored; {WAY_OUT}"
)
BAD_SFORM = (
    "image has an unusable sform (singular, NaN or out of reach), so its qform is used; correct or remove the sform"
)
SHEARED_SFORM = (
    "image has a sheared sform beside a valid qform, and the qform is used, as in ITK (nibabel uses the sform); "
    "set the two to the same"
)
SHEAR = (
    "image has a sheared sform, as of a CT with a tilted gantry: boxes and volumes follow it, "
    "but the slices are not rectified, and ITK does not read such a file; resample it to make sure"
)
OTHER_SIDES = (
    "image has an sform (code {}) that says {} and a qform (code {}) that says {}: the sform is used; "
    "if left and right are those of the qform, remove the sform"
)
OTHER_SIZE = (
    "image has an sform whose voxels are larger or smaller than its zooms say: boxes and volumes follow the sform; "
    "set the zooms to its size if it is right"
)
NO_POSITION = "image has no valid offset in its {}, so positions in mm are not known: {}; set the offset"
NO_ZOOM = (
    "image does not say how large its voxels are along each axis (zooms of 0, NaN or out of reach count as 1), "
    "so millimetres and millilitres are not known; set pixdim"
)
MIRRORED = (
    "image has {}, which nibabel and this server read as positive and ITK as mirrored, so left and right are not sure; "
    "set pixdim and its qform or sform again"
)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the voxels of a file lie in the patient.

    affine: [4,4] from voxel (x, y, z) to mm, RAS+; with nothing usable along the stored axes from the first voxel
    source: "sform", "qform" or "pixdim", where the affine comes from
    sides_known: whether the file says which side is left
    stored_orientation: towards which sides the stored axes run, like "LAS"; None if not even a convention says it
    warnings: sentences for the caller
    """

    affine: Affine
    source: str
    sides_known: bool
    stored_orientation: str | None
    warnings: tuple[str, ...]
    header: HeaderFields


def read_geometry(header: Nifti1Header) -> Placement:
    """The rule by which this server knows left from right.

    A form is coded if its code is over 0. It is usable if its 3 x 3 matrix is finite, reaches not beyond FARTHEST_MM
    and is not singular; an offset that is no number does not matter. A quaternion too long by rounding is normalised.

    | sform           | qform            | used                                       | warning                       |
    |-----------------|------------------|--------------------------------------------|-------------------------------|
    | usable          | any, or none     | sform                                      | if the qform says other sides |
    | usable, sheared | usable           | qform                                      | yes                           |
    | usable, sheared | not usable       | sform                                      | yes                           |
    | not usable      | usable           | qform                                      | yes                           |
    | not coded       | usable           | qform                                      |                               |
    | not coded       | not coded        | zooms, LAS around the centre, as nibabel   | yes: sides are not known      |
    | otherwise       |                  | zooms along the stored axes, as stored     | yes: sides are not known      |

    | field              | value                   | read as                                   | warning               |
    |--------------------|-------------------------|-------------------------------------------|-----------------------|
    | qfac               | neither -1 nor 1, NaN   | 1                                         | if negative and used  |
    | zoom               | negative                | positive                                  | if used               |
    | zoom               | 0, NaN, out of reach    | 1; beside a usable sform, that one's size | if used               |
    | zoom               | other than the sform's  | not used                                  | yes                   |
    | one offset         | NaN, out of reach       | the other form's if it is usable, else 0  | yes                   |
    | code               | under 0                 | 0                                         |                       |
    | code               | over 5                  | 2 in the answer                           |                       |

    The answer's header has the file's bits where they were right, and code 0 for a form that was not used because it
    is not usable or sheared, so that others read in the answer what was used here.
    """
    header = header.copy()
    mm = MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    qfac, zooms = float(header["pixdim"][0]), np.array(header["pixdim"][1:4], np.float64)
    has_zoom = repair_pixdim(header, mm)
    codes = {form: int(header[f"{form}_code"]) for form in FIELDS}
    coded = {form: read_form(header) for form, read_form in READ.items() if codes[form] > 0}
    usable = {form: affine for form, affine in coded.items() if affine is not None and is_usable(affine, mm)}
    warnings = []

    source = next(iter(usable), "pixdim")
    if source == "sform" and shear(usable["sform"]) > SHEARED:
        warnings.append(SHEARED_SFORM if "qform" in usable else SHEAR)
        if "qform" in usable:
            source = "qform"
            del usable["sform"]
    elif source == "qform" and "sform" in coded:
        warnings.append(BAD_SFORM)
    if len(usable) == 2 and name_other_sides(*usable.values()):
        codes_and_sides = [(codes[form], axis_codes(affine)) for form, affine in usable.items()]
        warnings.append(OTHER_SIDES.format(*codes_and_sides[0], *codes_and_sides[1]))

    for form in FIELDS:
        if form not in usable:
            clear_form(header, form, keep_fields=form not in coded)
        elif codes[form] > HIGHEST_CODE:
            header[f"{form}_code"] = ALIGNED
    for form, affine in usable.items():
        others = [usable[other] for other in usable if other != form]
        told = repair_offset(header, affine, form, others[0] if others else None, mm)
        warnings += told if form == source else []
    if source in usable:
        affine = usable[source]
    elif coded:
        affine = np.diag([*header["pixdim"][1:4].astype(np.float64), 1.0])
        warnings.append(NO_USABLE_FORM)
    else:
        affine = np.asarray(header.get_base_affine(), np.float64)
        warnings.append(NO_FORM)

    if source == "sform":
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        header["pixdim"][1:4][~has_zoom] = sizes[~has_zoom]
        is_other_size = (np.abs(np.abs(zooms) - sizes)[has_zoom] > SAME_SIZE * sizes[has_zoom]).any()
        warnings += [OTHER_SIZE] if is_other_size else []
    else:
        is_odd_qfac = source == "qform" and qfac < 0 and qfac != -1
        warnings += [] if has_zoom.all() else [NO_ZOOM]
        warnings += [MIRRORED.format("negative zooms")] if (zooms[has_zoom] < 0).any() else []
        warnings += [MIRRORED.format("a qfac that is neither 1 nor -1 and is negative")] if is_odd_qfac else []
    affine = affine.copy()
    affine[:3] *= mm
    fields = (*(f"{form}_code" for form in FIELDS), *QFORM_FIELDS, *SFORM_FIELDS)
    return Placement(
        affine=affine,
        source=source,
        sides_known=source in usable,
        stored_orientation=None if coded and source == "pixdim" else axis_codes(affine),
        warnings=tuple(warnings),
        header=HeaderFields(
            nifti_version=2 if isinstance(header, Nifti2Header) else 1,
            fields={name: header[name].tolist() for name in fields},
            pixdim=header["pixdim"][:4].tolist(),
            spatial_units=int(header["xyzt_units"]) & 7,
        ),
    )


def repair_pixdim(header: Nifti1Header, mm: float) -> NDArray[np.bool_]:
    """Makes qfac 1 or -1 and the zooms positive, as nibabel does. Which of the three zooms the file says."""
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    zooms = np.abs(header["pixdim"][1:4].astype(np.float64))
    has_zoom = np.asarray((zooms >= SMALLEST_MM / mm) & (zooms <= FARTHEST_MM / mm))
    header["pixdim"][1:4] = np.where(has_zoom, zooms, 1)
    return has_zoom


def read_sform(header: Nifti1Header) -> Affine:
    return np.array([*(header[row].astype(np.float64) for row in SFORM_FIELDS), [0, 0, 0, 1]])


def read_qform(header: Nifti1Header) -> Affine | None:
    """None for a quaternion that is no rotation. One that is too long by rounding is normalised in the header."""
    fields = QFORM_FIELDS[:3]
    # wider than the header's own type: what is rounded once stays within the hair's breadth below
    quaternion = np.array([header[field].item() for field in fields], np.longdouble)
    length = np.sqrt((quaternion**2).sum())
    if not length <= 1 + QUATERNION_ROUNDING:
        return None
    type_ = header["quatern_b"].dtype
    epsilon = np.finfo(type_).eps
    if length**2 > 1 + 3 * epsilon:  # else it is fine for nibabel
        # a hair's breadth too long, which every reader takes for a rotation by 180 degrees: one that is too short
        # would be a rotation by a little less
        for field, value in zip(fields, quaternion / length * (1 + np.longdouble(0.84) * epsilon), strict=True):
            header[field] = value
    return np.asarray(header.get_qform(), np.float64)


READ = {"sform": read_sform, "qform": read_qform}


def clear_form(header: Nifti1Header, form: str, keep_fields: bool) -> None:
    """Takes a form that is not usable out of the header. A form without a code keeps what stands there, if readable."""
    header[f"{form}_code"] = 0
    for field in FIELDS[form]:
        if not (keep_fields and np.isfinite(header[field]).all()):
            header[field] = 0


def repair_offset(header: Nifti1Header, affine: Affine, form: str, other: Affine | None, mm: float) -> list[str]:
    """Replaces, in `affine` and header, each offset that is no number by the one of the other form, or by 0."""
    missing = ~(np.abs(affine[:3, 3]) * mm < FARTHEST_MM)
    if not missing.any():
        return []
    substitute = np.zeros(3) if other is None else np.where(np.abs(other[:3, 3]) * mm < FARTHEST_MM, other[:3, 3], 0)
    affine[:3, 3] = np.where(missing, substitute, affine[:3, 3])
    for axis in np.flatnonzero(missing):
        if form == "sform":
            header[SFORM_FIELDS[axis]][3] = affine[axis, 3]
        else:
            header[QFORM_FIELDS[3 + axis]] = affine[axis, 3]
    return [NO_POSITION.format(form, "0 is used" if other is None else "that of the other form is used")]
