"""Who gives up stops the server's work within a window of slices, and the next request is answered as ever."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time

import nibabel as nib
import numpy as np
import pytest
import tritonclient.grpc
from helpers.image_answers import image_file
from helpers.inference import executions, streaming
from helpers.running_server import wait_until
from medimageparse_client import Client, RequestTimeout
from medimageparse_contract.models import MODEL_3D, STREAMS
from medimageparse_demo.phantoms import make_phantom
from tritonclient.utils import InferenceServerException

STREAM = STREAMS[MODEL_3D]
PROMPTS = ["liver", "CT imaging of the spleen within the abdomen", "stomach", "aorta", "spine"]  # those of `answer`
N_WINDOWS = 120
PATIENCE_S = 120  # of these tests; nothing takes as long


@pytest.fixture(scope="module")
def long_volume():
    """Seconds of work: 120 windows of four slices."""
    phantom = make_phantom(6, "CT", (40, 128, 128))
    return nib.Nifti1Image(np.tile(phantom.intensities, 4 * N_WINDOWS // 40), phantom.affine)


def work_after(server, model, before, begun=2):
    """Windows of the request that began after `before` executions: when it was given up, and when all is quiet."""
    given_up = executions(server, model)
    assert given_up >= before + begun
    steady, since = given_up, time.monotonic()
    while time.monotonic() < since + 2:
        if (now := executions(server, model)) != steady:
            steady, since = now, time.monotonic()
        time.sleep(0.05)
    return given_up - before, steady - before


def inputs_of(**values):
    tensors = []
    for name, value in values.items():
        tensors.append(tritonclient.grpc.InferInput(name, [1], "BYTES"))
        tensors[-1].set_data_from_numpy(np.array([value], np.object_))
    return tensors


def test_a_cancelled_volume_stops_within_a_window(server, client, long_volume, volume, answer):
    before, encoded = executions(server, "image_encoder_3d"), executions(server, "encode_masks")
    outcome = []
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        call = triton.async_infer(
            "medimageparse_3d",
            inputs_of(image=long_volume.to_bytes(), text=b"liver"),
            callback=lambda result, error: outcome.append(error),
        )
        wait_until(lambda: executions(server, "image_encoder_3d") >= before + 2)
        call.cancel()
        given_up, done = work_after(server, "image_encoder_3d", before)
    assert isinstance(outcome[0], InferenceServerException)
    assert done <= given_up + 3  # the windows in flight, and one between the look and the cancel
    assert done < N_WINDOWS
    assert executions(server, "encode_masks") == encoded
    again = client.segment(volume, PROMPTS)
    assert np.array_equal(again.label_map, answer["label_map"])


@pytest.mark.parametrize("ending", ["cancelled", "timed out"])
def test_a_stream_that_nobody_waits_for_stops_within_a_window(server, client, long_volume, volume, answer, ending):
    before, encoded = executions(server, "image_encoder_3d"), executions(server, "encode_masks")
    sent = {"image": long_volume.to_bytes(), "text": b"liver"}
    timeout_us = {"cancelled": None, "timed out": 900_000}[ending]
    with streaming(server, STREAM, sent, ["progress", "nifti_file"], timeout=timeout_us) as responses:
        if ending == "timed out":
            with pytest.raises(InferenceServerException, match="its time-out is over"):
                list(responses)
        else:
            wait_until(lambda: executions(server, "image_encoder_3d") >= before + 2)
    given_up, done = work_after(server, "image_encoder_3d", before, begun=0)
    assert done <= given_up + 3
    assert done < N_WINDOWS
    assert executions(server, "encode_masks") == encoded
    again = client.segment(volume, PROMPTS)
    assert np.array_equal(again.label_map, answer["label_map"])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_clients_time_out_stops_the_server(server, long_volume, protocol):
    """Over HTTP too, where the server does not see who leaves: the client says at the start how long it will wait."""
    before, encoded = executions(server, "image_encoder_3d"), executions(server, "encode_masks")
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with Client(url, protocol=protocol, timeout_s=0.9) as impatient, pytest.raises(RequestTimeout):
        impatient.segment(long_volume, "liver")
    given_up, done = work_after(server, "image_encoder_3d", before, begun=0)
    if protocol == "grpc":  # over HTTP the server began to count a little later than the client
        assert done <= given_up + 3
    assert done < N_WINDOWS
    assert executions(server, "encode_masks") == encoded


@pytest.mark.parametrize(("n_files", "is_watched"), [(1, False), (2, False), (1, True)])
def test_ctrl_c_stops_the_server(server, long_volume, tmp_path, n_files, is_watched):
    """Of a file alone that is watched on a terminal the client takes the stream, and draws a bar."""
    for index in range(n_files):
        nib.save(long_volume, tmp_path / f"{index}.nii.gz")
    before, encoded = executions(server, "image_encoder_3d"), executions(server, "encode_masks")
    command = [sys.executable, "-m", "medimageparse_client", "segment", "--url", server.grpc_url, "--prompt", "liver"]
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    output = str(tmp_path / ("masks" if n_files > 1 else "masks.nii.gz"))
    reading, writing = pty.openpty() if is_watched else os.pipe()
    if is_watched:
        termios.tcsetwinsize(writing, (24, 80))  # on a terminal of no size no bar is drawn
    process = subprocess.Popen([*command, "-o", output, *files], stderr=writing)
    os.close(writing)
    wait_until(lambda: executions(server, "image_encoder_3d") >= before + 2 * n_files)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=PATIENCE_S)
    errors = os.read(reading, 2**16).decode()  # a terminal keeps a few kB, and so little was written
    os.close(reading)
    given_up, done = work_after(server, "image_encoder_3d", before)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "medimageparse: stopped")
    assert (f"/{4 * N_WINDOWS} [" in errors) == is_watched
    assert done <= given_up + 3 * n_files  # the windows in flight of each request
    assert done < n_files * N_WINDOWS
    assert executions(server, "encode_masks") == encoded


def test_cancelled_images_go_no_further(both_models, infer_image, picture):
    """One pass of the networks is what cannot be stopped; the steps after it, and who waits, are not begun."""
    sent = {"image": image_file(picture.repeat(12, 0).repeat(12, 1)), "text": b"liver & spleen"}
    expected = infer_image(sent)["image_features"].item()
    before, n_images = executions(both_models, "decode_image"), 24
    errors = []
    with tritonclient.grpc.InferenceServerClient(both_models.grpc_url) as triton:
        calls = [
            triton.async_infer("medimageparse", inputs_of(**sent), callback=lambda result, error: errors.append(error))
            for _ in range(n_images)
        ]
        wait_until(lambda: executions(both_models, "decode_image") > before)
        for call in calls:
            call.cancel()
        given_up, done = work_after(both_models, "decode_image", before, begun=1)
    assert done <= given_up + 2 < n_images
    assert sum(error is not None for error in errors) >= n_images - done
    assert infer_image(sent)["image_features"].item() == expected


def test_who_gave_up_in_the_queue_costs_no_work(server, long_volume):
    """Two requests are under way; the third waits, and is gone before its turn."""
    decoded = executions(server, "decode_volume")
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        inputs, ignored = inputs_of(image=long_volume.to_bytes(), text=b"liver"), lambda result, error: None
        calls = [triton.async_infer("medimageparse_3d", inputs, callback=ignored) for _ in range(2)]
        wait_until(lambda: executions(server, "decode_volume") == decoded + 2)
        with pytest.raises(InferenceServerException) as gave_up:
            triton.infer("medimageparse_3d", inputs, client_timeout=0.3)
        assert gave_up.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        for call in calls:
            call.cancel()
        work_after(server, "image_encoder_3d", 0)
    assert executions(server, "decode_volume") == decoded + 2
