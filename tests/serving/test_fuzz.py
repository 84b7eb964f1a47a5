"""Whatever a file or a prompt says, the modules answer or raise Refused with one sentence, and warn of nothing."""

import gzip
import io
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from helpers.fuzzed_input import SECRET, TIMES, any_nifti, any_picture, any_text, nifti_files
from hypothesis import given, settings
from hypothesis import strategies as st
from medimageparse_serving.image.image_file import decode_image
from medimageparse_serving.image.limits import Limits as ImageLimits
from medimageparse_serving.prompts.clip_tokenizer import MAX_TOKENS, decode_text, split_prompts, tokenize
from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.nifti_masks import encode_nifti, restore_labels
from medimageparse_serving.volume.nifti_volume import CHOICES, Limits, Options, decode_volume
from medimageparse_serving.volume.report import Segmented, build_report, describe_prompts
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

LIMITS = Limits(max_image_bytes=10**7, max_decompressed_bytes=10**6, max_voxels=10**5, max_side=1000, max_slices=500)
KINDS = {1: (Nifti1Header, 348), 2: (Nifti2Header, 540)}  # and their headers' bytes
PARTS = {"max_scans": 20, "max_parts": 1000, "max_metadata_bytes": 10**5}
IMAGE_LIMITS = ImageLimits(max_image_bytes=10**6, max_pixels=10**5, max_side=1000, **PARTS)


def many(count):
    return settings(max_examples=count * TIMES, derandomize=True, database=None, deadline=None)


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog, capfd):
    yield
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def assert_a_sentence(error):
    sentence = str(error)
    assert re.fullmatch(r"[a-zA-Z0-9].{20,300}", sentence), sentence
    for unwanted in ("Traceback", "/", ".py", "Error", "0x", "Errno", "codec", "sys.", SECRET):
        assert unwanted not in sentence


@many(500)
@given(any_nifti(), st.fixed_dictionaries({}, optional={name: st.sampled_from(it) for name, it in CHOICES.items()}))
def test_a_nifti_file_is_decoded_or_refused(image, options):
    try:
        volume, geometry = decode_volume(image, Options(**options), LIMITS)
    except Refused as error:
        assert_a_sentence(error)
        return
    assert volume.dtype in (np.uint8, np.float32)
    assert np.isfinite(volume).all()
    assert max(volume.shape) <= LIMITS.max_side
    labels = (np.arange(volume.size) % 3).astype(np.uint8).reshape(volume.shape)
    segmented = Segmented({}, 1, [0.5, 0.5], [0, 0], [[], []])
    described = describe_prompts(labels, segmented, geometry, ["a", "b"], np.zeros(2, np.bool_))
    report = build_report(described, geometry, segmented)
    json.dumps(asdict(report), allow_nan=False)
    content = gzip.decompress(encode_nifti(restore_labels(labels, geometry), geometry))
    kind, size = KINDS[geometry.header.nifti_version]
    header = kind(content[:size], check=False)
    assert not any(header[name].item() for name in ("descrip", "aux_file", "intent_name"))
    assert header.get_data_shape() == tuple(geometry.image.shape)
    assert sorted(content[size + 4 :]) == sorted(labels.ravel())


@many(300)
@given(any_picture())
def test_an_image_is_decoded_or_refused(image):
    try:
        square, geometry = decode_image(image, IMAGE_LIMITS)
    except Refused as error:
        assert_a_sentence(error)
        return
    assert square.dtype == np.uint8
    assert square.shape == (geometry.side, geometry.side, 3)
    assert max(geometry.height, geometry.width) == geometry.side
    json.dumps(asdict(geometry), allow_nan=False)


@many(300)
@given(any_text())
def test_a_text_is_tokenized_or_refused(text):
    try:
        prompts = split_prompts(decode_text(text, 16384), max_prompts=64, max_characters=16384)
    except Refused as error:
        assert_a_sentence(error)
        return
    input_ids, attention_mask, truncated = tokenize(prompts)
    assert input_ids.shape == attention_mask.shape
    assert len(input_ids) == len(truncated) == len(prompts) <= 64
    assert 3 <= input_ids.shape[1] <= MAX_TOKENS
    assert input_ids.min() >= 0
    assert input_ids.max() == 49407
    assert json.dumps([prompt.encode().decode() for prompt in prompts])


@many(200)
@given(nifti_files(), st.sampled_from(CHOICES["orientation"]), st.sampled_from(CHOICES["slice_axis"]))
def test_the_voxels_are_those_that_nibabel_reads(image, orientation, slice_axis):
    try:
        volume, geometry = decode_volume(image, Options("none", orientation, slice_axis), LIMITS)
    except Refused:
        return
    kind, size = KINDS[geometry.header.nifti_version]
    header = kind(image[:size], check=False)
    header["vox_offset"] = header["vox_offset"] or header.single_vox_offset
    with np.errstate(all="ignore"):
        expected = np.asarray(header.data_from_fileobj(io.BytesIO(image)), np.float64)
    assert np.allclose(restore_labels(volume, geometry), expected.reshape(geometry.image.shape), rtol=1e-6)
