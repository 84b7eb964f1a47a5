"""Compressed DICOM slices: each transfer syntax gives the pixels of the uncompressed file, or is named."""

import base64
import io
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import compressed, dicom_bytes, dicom_header, grey_file
from medimageparse_client import InvalidImage
from medimageparse_client.formats.dicom_header import read_header
from medimageparse_client.formats.dicom_pixels import GDCM_PROGRAM, read_pixels
from medimageparse_client.formats.dicom_slice import read_slice
from PIL import Image
from pydicom._uid_dict import UID_dictionary
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MPEGTransferSyntaxes,
    RLELossless,
)

# 16 x 12 pixels, (37 * row + 11 * column * column) % 4096 and 4095 in the corner, by OpenJPH, reversible
HTJ2K = (
    "|4;u>04YEK0000C0000G00000000000000C0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTm"
    "wh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000-~a*tlfVEbTl@tFbN~Rr024p}62Jfx0J!`Dhjaka0f%$|e*OZ7bO68r6Tko!FaQ"
    "L=o9*%fgLDADq56RO0RXfBe*6N5bO68r7Q6rfT>t<~S1`>LuHe}5l`B`SIClI1f9OO2`#1pqdykYv`T&FkWt0JU0RCVK2Xz3z04~-50cpShCK"
    "W_a1u9TgRZ+prTv1U`QB_q@!OUE>R#jC+1v7KiT2)mQ70k>6cdWecS$W-h7+8=qKLGvn4-!ET1o?abN3etsWtahb0RDdp2Xz4d*#"
)

LOSSLESS = (
    "JPEGLosslessProcess14",
    "JPEGLosslessProcess14_1",
    "JPEGLSLossless",
    "JPEGLSNearLossless",  # GDCM writes it without loss too
    "JPEG2000Lossless",
    "JPEG2000",
    "RLELossless",
)
TYPES = [("u1", 8), ("u2", 10), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16)]


def smooth(dtype, n_bits, shape=(40, 30)):
    """Values that compress well, with the lowest and the highest of all."""
    low, high = (0, 2**n_bits - 1) if dtype[0] == "u" else (-(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = 0.5 + 0.45 * np.sin(rows / 5) * np.cos(columns / 7)
    pixels = low + (high - low) * waves
    pixels[0, :2] = low, high
    return pixels.astype(dtype)


def with_stream(pixels, stream, syntax, **tags):
    """A DICOM file around a compressed picture."""
    header = dicom_header(pixels, Modality="MR", **tags)
    header.PixelData = encapsulate([stream])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(file, header, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return file.getvalue()


def stored(data):
    return read_pixels(data, read_header(data)).values


@pytest.mark.usefixtures("gdcm_within")
@pytest.mark.parametrize(("dtype", "n_bits"), TYPES)
@pytest.mark.parametrize("name", LOSSLESS)
def test_pixels_without_loss(name, dtype, n_bits, tmp_path):
    pixels = smooth(dtype, n_bits)
    plain = grey_file(pixels, BitsStored=n_bits)
    packed = compressed(plain, name, tmp_path)
    assert read_header(packed).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(stored(packed), pixels)


@pytest.mark.usefixtures("gdcm_within")
@pytest.mark.parametrize(
    ("name", "dtype", "n_bits"),
    [("JPEGBaselineProcess1", "u1", 8), ("JPEGExtendedProcess2_4", "u1", 8), ("JPEGExtendedProcess2_4", "u2", 12)],
)
def test_pixels_with_loss(name, dtype, n_bits, tmp_path):
    pixels = smooth(dtype, n_bits)
    pixels[0, :2] = pixels[0, 2]  # corners that no cosine can follow
    decoded = stored(compressed(grey_file(pixels, BitsStored=n_bits), name, tmp_path))
    assert decoded.dtype == pixels.dtype
    assert np.abs(decoded.astype(int) - pixels).max() <= 2


def test_jpeg_of_another_writer():
    pixels = smooth("u1", 8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    with Image.open(stream) as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(stored(with_stream(pixels, stream.getvalue(), JPEGBaseline8Bit)), expected)


def test_jpeg_2000_of_another_writer():
    pixels = smooth("u2", 16)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    np.testing.assert_array_equal(stored(with_stream(pixels, stream.getvalue(), JPEG2000Lossless)), pixels)


def test_high_throughput_jpeg_2000():
    rows, columns = np.mgrid[:16, :12]
    pixels = ((37 * rows + 11 * columns * columns) % 4096).astype(np.uint16)
    pixels[0, 0] = 4095
    np.testing.assert_array_equal(stored(with_stream(pixels, base64.b85decode(HTJ2K), HTJ2KLossless)), pixels)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_run_lengths(dtype):
    pixels = smooth(dtype, 8 * int(dtype[1]))
    header = dicom_header(pixels, Modality="MR")
    header.compress(RLELossless)
    np.testing.assert_array_equal(stored(dicom_bytes(header)), pixels)


def test_deflated_files():
    pixels = smooth("i2", 16)
    header = dicom_header(pixels, Modality="MR")
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(stored(dicom_bytes(header)), pixels)


@pytest.mark.usefixtures("gdcm_within")
@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_padding_in_compressed_files(name, tmp_path):
    pixels = smooth("i2", 16) // 20
    pixels[:10] = -2000
    plain = grey_file(pixels, PixelPaddingValue=("US", 63536))
    packed = read_slice(compressed(plain, name, tmp_path), None)
    assert packed.padding == (-2000, -2000)
    np.testing.assert_array_equal(packed.grey, read_slice(plain, None).grey)


SYNTAXES = [uid for uid, description in UID_dictionary.items() if description[1] == "Transfer Syntax"]


def is_readable(uid):
    try:
        return get_decoder(uid).is_available
    except NotImplementedError:
        return False


@pytest.mark.parametrize("uid", [uid for uid in SYNTAXES if uid not in MPEGTransferSyntaxes and not is_readable(uid)])
def test_a_transfer_syntax_without_decoder_is_named(uid):
    pixels = smooth("u2", 12)
    with pytest.raises(InvalidImage, match="which cannot be read; send it uncompressed .*, or a PNG") as caught:
        read_slice(with_stream(pixels, b"any bytes", uid), None)
    assert pydicom.uid.UID(uid).name in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("uid", MPEGTransferSyntaxes)
@pytest.mark.parametrize("frames", [1, 30])
def test_videos_are_called_that(uid, frames):
    video = with_stream(smooth("u1", 8), b"any bytes", uid, NumberOfFrames=frames)
    with pytest.raises(InvalidImage, match=r"is a video \((Fragmentable )?(MPEG|HEVC).*send one picture of it as PNG"):
        read_slice(video, None)


def test_a_private_transfer_syntax_is_shown():
    file = with_stream(smooth("u2", 12), b"any bytes", "1.2.840.113619.5.2")
    with pytest.raises(InvalidImage, match=r"1\.2\.840\.113619\.5\.2, which cannot be read"):
        read_slice(file, None)


def test_of_pydicoms_transfer_syntaxes_all_are_readable():
    """With what the extra `dicom` installs."""
    uids = [uid for uid in SYNTAXES if uid in pydicom.pixels.decoders.base._PIXEL_DATA_DECODERS]
    assert len(uids) >= 16
    assert [uid for uid in uids if not is_readable(uid)] == []


@pytest.mark.parametrize(
    ("uid", "n_bits"), [(JPEGLSLossless, 12), (JPEGLosslessSV1, 12), (JPEGExtended12Bit, 12), (HTJ2KLossless, 12)]
)
def test_a_missing_decoder_is_named_with_what_to_install(uid, n_bits, monkeypatch):
    """12-bit JPEG too, for which pydicom counts Pillow as a decoder."""
    for decoder in map(get_decoder, (uid, JPEGLosslessSV1)):
        for plugin in ("gdcm", "pylibjpeg", "pyjpegls"):
            monkeypatch.delitem(decoder._available, plugin, raising=False)
    file = with_stream(smooth("u2", n_bits), b"any bytes", uid, BitsStored=n_bits)
    with pytest.raises(InvalidImage, match=r"decoder is not installed: pip install .*\[dicom\]'") as caught:
        read_slice(file, None)
    assert uid.name in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", [*LOSSLESS, "JPEGBaselineProcess1", "JPEGExtendedProcess2_4"])
def test_damaged_streams_are_called_damaged(name, tmp_path):
    n_bits = 8 if name == "JPEGBaselineProcess1" else 12
    pixels = smooth("u1" if n_bits == 8 else "u2", n_bits)
    header = pydicom.dcmread(io.BytesIO(compressed(grey_file(pixels, BitsStored=n_bits), name, tmp_path)))
    stream = next(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=1))
    for damaged in (stream[: len(stream) // 2], stream[:20], bytes(200)):  # CharLS takes seconds for some thirds
        header.PixelData = encapsulate([damaged])
        with pytest.raises(InvalidImage, match="cannot be decoded as .* damaged, or compressed in a rare way"):
            read_slice(dicom_bytes(header), None)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_compressed_files_cut_short(name, share, tmp_path):
    data = compressed(grey_file(smooth("u2", 12), BitsStored=12), name, tmp_path)
    with pytest.raises(InvalidImage, match="cut short|damaged"):
        read_slice(data[: int(share * len(data))], None)


def test_a_file_that_ends_gdcms_process_does_not_end_ours(tmp_path):
    header = pydicom.dcmread(io.BytesIO(compressed(grey_file(smooth("u2", 12)), "JPEGLSLossless", tmp_path)))
    header.Rows = 80  # of 40
    data = dicom_bytes(header)
    sent = len(data).to_bytes(8, "little") + data
    ended = subprocess.run([sys.executable, "-P", GDCM_PROGRAM], input=sent, capture_output=True)
    assert ended.returncode < 0  # by a signal
    with pytest.raises(InvalidImage, match="cannot be decoded as JPEG-LS Lossless"):
        read_slice(data, None)


def test_damage_that_a_decoder_passes_over_is_told(tmp_path):
    data = bytearray(compressed(grey_file(smooth("u2", 12), BitsStored=12), "JPEGLosslessProcess14_1", tmp_path))
    scan = data.index(b"\xff\xda")
    data[scan + 300 : scan + 320] = bytes(20)
    (warning,) = read_slice(bytes(data), None).warnings
    assert "damage in the file's pixels" in warning


def test_pixels_whose_compression_is_not_named():
    """A file that calls its pixels uncompressed, and one that says nothing, without preamble."""
    data = with_stream(smooth("u1", 8), b"any bytes", JPEGLSLossless)
    uncompressed = data.replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.1\0\0\0")
    header_only = data[data.index(b"\x08\0\x16\0UI") :]
    for file in (uncompressed, header_only):
        with pytest.raises(InvalidImage, match="does not say how its pixels are compressed"):
            read_slice(file, None)
