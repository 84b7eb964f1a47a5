"""Files in memory to slices and back: orientations, header variants, intensity handling, limits."""

import base64
import dataclasses
import gzip
import itertools
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from medimageparse_serving.volume.intensity_scaling import scale_intensity
from medimageparse_serving.volume.nifti_masks import encode_nifti, restore_labels
from medimageparse_serving.volume.nifti_volume import Limits, Options, decode_volume
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

LIMITS = Limits(max_image_bytes=10**7, max_decompressed_bytes=10**7, max_voxels=10**6, max_side=1000, max_slices=500)
AXIS_CODES = [
    "".join(codes) for order in itertools.permutations(["LR", "PA", "IS"]) for codes in itertools.product(*order)
]
TAILS = (
    b"",
    bytes(512),
    b"--boundary--\r\n",
    b"\x1f\x8b",
    gzip.compress(b"", mtime=0)[:9],
    b"\x1f\x8bx",
    gzip.compress(b"", mtime=0) * 3,
)
OBLIQUE = np.array([[-1.4, 0.3, 0.5, 20], [-0.2, 1.5, -0.9, -31], [0.4, 0.6, 4.6, 12.25], [0, 0, 0, 1]])


def volume_of(dtype=np.uint8, shape=(11, 9, 5), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def decode(image, limits=LIMITS, **options):
    content = image if isinstance(image, bytes) else image.to_bytes()
    return decode_volume(content, Options(**options), limits)


def stored_as(image, codes):
    """The same anatomy in another orientation of the voxels."""
    transform = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
    voxels = apply_orientation(np.asarray(image.dataobj), transform)
    affine = image.affine @ inv_ornt_aff(transform, image.shape)
    return nib.Nifti1Image(voxels, affine)


@pytest.mark.parametrize("affine", [np.diag([-1.0, 2, 3, 1]), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_orientation_gives_the_same_slices_and_goes_back(codes, affine):
    assert len(AXIS_CODES) == 48
    las = nib.Nifti1Image(volume_of(), affine)
    image = stored_as(las, codes)
    volume, geometry = decode(image)
    assert np.array_equal(volume, decode(las)[0])
    assert geometry.image.stored_orientation == codes
    assert np.array_equal(restore_labels(volume, geometry), np.asarray(image.dataobj))


def test_an_axial_las_volume_is_fed_as_z_y_x():
    voxels = volume_of()
    volume, geometry = decode(nib.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1])))
    assert np.array_equal(volume, voxels.transpose(2, 1, 0))
    assert (geometry.image.slice_axis, geometry.axes) == (0, [2, 1, 0])


def test_stored_orientation_feeds_the_stored_axes():
    voxels = volume_of()
    volume, geometry = decode(nib.Nifti1Image(voxels, np.diag([1.0, -1, -1, 1])), orientation="stored")
    assert np.array_equal(volume, voxels.transpose(2, 1, 0))
    assert np.array_equal(restore_labels(volume, geometry), voxels)


@pytest.mark.parametrize("slice_axis", ["0", "1", "2"])
def test_the_slice_axis_can_be_chosen(slice_axis):
    voxels = volume_of()
    volume, geometry = decode(nib.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1])), slice_axis=slice_axis)
    assert np.array_equal(volume, np.moveaxis(voxels.transpose(2, 1, 0), int(slice_axis), 0))
    assert np.array_equal(restore_labels(volume, geometry), voxels)


def test_raw_compressed_and_base64_are_the_same():
    image = nib.Nifti1Image(volume_of(np.int16), OBLIQUE)
    content = image.to_bytes()
    members = gzip.compress(content[:500]) + gzip.compress(content[500:])
    forms = [content, gzip.compress(content), members]
    forms += [encode(form) for form in forms for encode in (base64.b64encode, base64.encodebytes)]
    volumes = [decode(form)[0] for form in forms]
    assert all(np.array_equal(volume, volumes[0]) for volume in volumes)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders(kind, order):
    header = (nib.Nifti1Header if kind is nib.Nifti1Image else nib.Nifti2Header)(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    image = kind(volume_of(np.int16), OBLIQUE, header)
    content = image.to_bytes()
    assert (content[0] == 0) == (order == ">")
    volume, geometry = decode(content)
    restored = kind.from_bytes(gzip.decompress(encode_nifti(restore_labels(volume, geometry), geometry)))
    assert np.array_equal(restored.dataobj, np.asarray(image.dataobj))
    assert np.array_equal(restored.affine, kind.from_bytes(content).affine)


def test_slope_and_intercept_are_applied():
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    image = nib.Nifti1Image(np.zeros((4, 4, 2)), np.eye(4), header)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    header.set_slope_inter(10, -1024)
    content[:348] = header.binaryblock
    content[352:] = bytes(range(70, 102))
    volume, geometry = decode(bytes(content))
    assert geometry.image.intensity.used == "ct-soft-tissue"
    assert (volume[0, 0, -1], volume[1, 3, 0]) == (0, int((1010 - 1024 + 160) / 400 * 255))


def test_extensions_are_skipped():
    image = nib.Nifti1Image(volume_of(), OBLIQUE)
    plain = decode(image)[0]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"private" * 100))
    assert np.array_equal(decode(image)[0], plain)


@pytest.mark.parametrize("shape", [(6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_one_volume_with_more_axes_is_squeezed(shape):
    image = nib.Nifti1Image(volume_of(shape=shape), OBLIQUE)
    assert image.shape == shape
    volume, geometry = decode(image)
    assert geometry.image.shape == [6, 5, 4]
    assert volume.size == 6 * 5 * 4


def test_a_single_slice():
    volume, _ = decode(nib.Nifti1Image(volume_of(shape=(8, 7, 1)), np.diag([-1.0, 1, 1, 1])))
    assert volume.shape == (1, 7, 8)


def scale(values, intensity="auto", dtype=None):
    stored = np.array(values, dtype).reshape(1, 1, -1)
    volume, done, _ = scale_intensity(stored, 1.0, 0.0, intensity)
    return volume.ravel(), done.used


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i2"])
def test_whole_values_of_a_byte_stay_and_become_uint8(dtype):
    volume, used = scale([0, 7, 255], dtype=dtype)
    assert (volume.dtype, used, volume.tolist()) == (np.uint8, "none", [0, 7, 255])


def test_fractions_of_a_byte_stay():
    volume, used = scale([0, 7.5, 254.75])
    assert (volume.dtype, used, volume.tolist()) == (np.float32, "none", [0, 7.5, 254.75])


def test_a_unit_range_would_vanish_and_is_scaled():
    volume, used = scale(np.linspace(0, 1, 1001))
    assert used == "percentile"
    assert (volume.min(), volume.max()) == (0, 255)
    assert scale([0.0, 1.0, 1.0])[0].tolist() == [0, 255, 255]  # a mask


@pytest.mark.parametrize(
    ("intensity", "low", "high"),
    [
        ("auto", -160, 240),
        ("ct-soft-tissue", -160, 240),
        ("ct-lung", -910, 590),
        ("ct-brain", 0, 80),
        ("ct-bone", -500, 1300),
    ],
)
def test_ct_windows(intensity, low, high):
    volume, _ = scale([-1024, low - 1, low, (low + high) / 2, high, high + 1, 3000], intensity)
    assert volume.tolist() == [0, 0, 0, 127, 255, 255, 255]


def test_percentiles_leave_zeros_out():
    values = np.concatenate([np.zeros(5000), np.arange(1, 1001)])
    volume, used = scale(values, dtype=np.uint16)
    low, high = np.percentile(values[5000:], (0.5, 99.5))
    assert used == "percentile"
    assert np.array_equal(volume, ((values.clip(low, high) - low) / (high - low) * 255).astype(np.uint8))


def test_negative_values_above_ct_are_scaled():
    assert scale(np.linspace(-5, 5, 100))[1] == "percentile"
    assert scale([-201, 0, 500])[1] == "percentile"
    assert scale([-1000, 0, 40])[1] == "ct-soft-tissue"


def test_none_passes_values_as_they_are():
    volume, used = scale([-1000, 0, 3000], "none", np.int16)
    assert (volume.dtype, used, volume.tolist()) == (np.float32, "none", [-1000, 0, 3000])


@pytest.mark.parametrize("value", [0, 5, 700, -1000])
def test_a_volume_without_contrast_is_no_error(value):
    assert scale([value] * 9, dtype=np.int16)[0].dtype == np.uint8
    assert scale([value] * 9, "percentile", np.int16)[0].tolist() == [0] * 9


def test_a_small_file_cannot_take_much_memory():
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((900, 900, 900))
    header["magic"], header["vox_offset"] = b"n+1", 352
    bomb = gzip.compress(header.binaryblock + bytes(4) + bytes(900**2 * 40))
    tracemalloc.start()
    with pytest.raises(ValueError, match="larger than this server takes"):
        decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_more_bytes_than_the_limit_are_refused():
    with pytest.raises(ValueError, match="more than 100 bytes"):
        decode(bytes(101), Limits(100, 10, 10, 10, 10))


def test_voxels_that_no_gzip_of_this_size_can_hold_are_not_made_room_for():
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((100, 100, 100))
    header["magic"], header["vox_offset"] = b"n+1", 352
    bomb = gzip.compress(header.binaryblock + bytes(4) + bytes(10**6))
    assert len(bomb) < 4 * 10**6 / 1032
    tracemalloc.start()
    with pytest.raises(ValueError, match="ends before its last voxel"):
        decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def damaged_in_a_byte(content, place, bits):
    content = bytearray(content)
    content[place] ^= bits
    return bytes(content)


def test_each_kind_of_damage_is_called_what_it_is():
    content = nib.Nifti1Image(volume_of(np.int16), OBLIQUE).to_bytes()
    packed = gzip.compress(content)
    members = gzip.compress(content[:500]) + gzip.compress(content[500:])
    for damaged, sentence in (
        (content[:200], "is truncated"),
        (content[:-1], "is truncated"),
        (packed[:-40], "is truncated"),
        (packed[:-8], "is truncated"),
        (packed[:-1], "is truncated"),
        (members[:-1], "is truncated"),
        (gzip.compress(content[:500]) + b"more", "is truncated"),
        (gzip.compress(content[:-1]), "is truncated"),
        (damaged_in_a_byte(packed, -8, 1), "gzip checksum that does not fit"),  # CRC
        (damaged_in_a_byte(packed, -1, 1), "gzip checksum that does not fit"),  # length
        (damaged_in_a_byte(members, -8, 1), "gzip checksum that does not fit"),
        (damaged_in_a_byte(packed, 10, 6), "is damaged"),  # a kind of deflate block that there is not
        (damaged_in_a_byte(packed, 2, 1), "is damaged"),  # another method than deflate
    ):
        with pytest.raises(ValueError, match=sentence):
            decode(damaged)


@pytest.mark.parametrize("shape", [(11, 9, 5), (2, 2, 1)], ids=["more", "fewer bytes than NIfTI-2's header"])
@pytest.mark.parametrize("tail", TAILS)
def test_what_stands_behind_the_voxels_does_not_matter(tail, shape):
    content = nib.Nifti1Image(volume_of(np.int16, shape), OBLIQUE).to_bytes()
    expected = decode(content)[0]
    members = gzip.compress(content[:300]) + bytes(7) + gzip.compress(content[300:])
    longer = gzip.compress(content + b"more")
    for file in (content, gzip.compress(content), members, longer, gzip.compress(content) + gzip.compress(b"more")):
        assert np.array_equal(decode(file + tail)[0], expected)


def test_what_stands_behind_the_voxels_is_not_unpacked():
    content = nib.Nifti1Image(volume_of(np.int16), OBLIQUE).to_bytes()
    for bomb in (gzip.compress(content + bytes(10**8)), gzip.compress(content) + gzip.compress(bytes(10**8))):
        tracemalloc.start()
        decode(bomb)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"max_image_bytes": 350}, "more than 350 bytes"),
        ({"max_decompressed_bytes": 989}, "more than 989 bytes of voxels"),
        ({"max_voxels": 494}, "494 voxels and 1000 along a side"),
        ({"max_side": 10}, "1000000 voxels and 10 along a side"),
        ({"max_slices": 4}, "more than 4 slices"),
    ],
)
def test_every_limit_is_kept(changed, sentence):
    image = nib.Nifti1Image(volume_of(np.int16), np.diag([-1.0, 1, 1, 1]))  # 11 x 9 x 5, sliced along the last axis
    with pytest.raises(ValueError, match=sentence):
        decode(image, dataclasses.replace(LIMITS, **changed))
    at_the_limit = {"max_decompressed_bytes": 990, "max_voxels": 495, "max_side": 11, "max_slices": 5}
    assert decode(image, dataclasses.replace(LIMITS, **at_the_limit))[0].shape == (5, 9, 11)


@pytest.mark.parametrize("value", [1e31, -1e31, np.nan, np.inf])
def test_numbers_beyond_fp32_arithmetic_are_refused(value):
    with pytest.raises(ValueError, match="NaN or infinite voxels"):
        scale([0, 1, value], dtype=np.float64)
    with pytest.raises(ValueError, match="NaN or infinite voxels"):
        scale_intensity(np.float32([[[0, 1]]]), value, 0, "auto")
    with pytest.raises(ValueError, match="NaN or infinite voxels"):
        scale_intensity(np.float32([[[0, 1]]]), 1, value, "auto")


def test_values_that_the_networks_cannot_count_are_not_passed_on():
    with pytest.raises(ValueError, match="intensity=none"):
        scale([0, 2.0**25], "none")


def test_a_contrast_finer_than_fp32_wraps_no_grey_value():
    values = np.float64([[[1e8, 1e8 + 1e-3, 1e8 + 8]]])
    volume, *_ = scale_intensity(values, 1, 0, "percentile")
    assert set(volume.ravel().tolist()) <= {0, 255}
    tiny = np.float32([[[0, 1e-45, 2e-45]]])
    assert scale_intensity(tiny, 1, 0, "percentile")[0].tolist() == [[[0, 0, 0]]]
