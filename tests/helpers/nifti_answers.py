"""What server tests look at in an answer: the label map as a NIfTI image, and its geometry."""

import base64
import gzip
import json

import nibabel as nib
import numpy as np


def nifti_bytes(nifti_file):
    """The output `nifti_file` as the bytes of a .nii, read as MedImageParse clients do."""
    return gzip.decompress(base64.b64decode(json.loads(nifti_file.item())["data"]))


def label_image(nifti_file):
    """The output `nifti_file` as a nibabel image of the version that it is."""
    content = nifti_bytes(nifti_file)
    version_2 = int.from_bytes(content[:4], "little") == 540
    return (nib.Nifti2Image if version_2 else nib.Nifti1Image).from_bytes(content)


def assert_same_geometry(labels, sent):
    """Shape, affine, zooms, units and sform/qform codes of the label map are the bits of the volume's."""
    header, expected = labels.header, sent.header
    assert type(labels) is type(sent)
    assert labels.shape == sent.shape[:3]
    assert np.array_equal(labels.affine, sent.affine)
    assert header.get_zooms() == expected.get_zooms()[:3]
    assert header.get_xyzt_units()[0] == expected.get_xyzt_units()[0]
    for form in ("sform", "qform"):
        (matrix, code), (expected_matrix, expected_code) = (
            getattr(h, f"get_{form}")(coded=True) for h in (header, expected)
        )
        assert code == expected_code
        assert code == 0 or np.array_equal(matrix, expected_matrix)


def brought_to(reference, image):
    """The voxels of `image` reordered and reversed until its axes run as those of `reference`."""
    transform = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(reference.affine))
    oriented = image.as_reoriented(transform)
    assert np.allclose(oriented.affine, reference.affine, atol=1e-3)  # every voxel is where it was in the patient
    return np.asarray(oriented.dataobj)
