"""One life of `serve.py --verbose`, with other parameters than the session's server, ended by Ctrl-C."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from medimageparse.repository_copy import copy_models
from medimageparse_client import Client, InvalidRequest, MedImageParseError, Segmentation, ServerUnavailable
from medimageparse_serving.launch.serve import REPOSITORY

SECRET = "zebrafish-7391"
WINDOW_SIZE = 3
MAX_IMAGE_BYTES = 3_000_000
PROMPTS = ["liver", "spleen", "right kidney", "gallbladder", "stomach", "aorta", "spine", "heart"]


@dataclass
class Life:
    """What one run of serve.py left behind."""

    answer: Segmentation
    planted: Segmentation
    refusals: list[str]
    exit_code: int
    output: str
    processes_left: list[int]
    regions_left: list[str]
    folders_left: list[Path]
    error_after: MedImageParseError | None


def processes_of(session):
    """The processes that belong to a session, by its id."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
        except OSError:  # ended in the meantime
            continue
        if int(owner) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def child_of(parent):
    """The one child of a process."""
    [child] = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(child)


@pytest.fixture(scope="module")
def sent(phantom):
    """The whole phantom, and a slice of it with secrets in every text field of its header."""
    whole = nib.Nifti1Image(phantom.intensities, phantom.affine)
    planted = whole.slicer[::2, ::2, 24:25]
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        planted.header[field] = SECRET
    planted.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))
    assert planted.to_bytes().count(SECRET.encode()) >= 4
    return whole, planted


@pytest.fixture(scope="module")
def life(tmp_path_factory, volumes_alone, sent):
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(volumes_alone, folder / "repository")
    set_parameter(folder / "repository" / "medimageparse_3d", "window_size", WINDOW_SIZE)
    set_parameter(folder / "repository" / "decode_volume", "max_image_bytes", MAX_IMAGE_BYTES)
    (folder / "scratch").mkdir()
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
    command = [sys.executable, "-m", "medimageparse_serving.launch", "--runtime", "cpu", "--verbose"]
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--repository", folder / "repository", *ports],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "TMPDIR": str(folder / "scratch")},
        )
    try:
        ready = process.stdout.readline()
        assert ready.startswith("ready: "), log.read_text()
        triton = child_of(process.pid)
        [prefix] = re.findall(r"shm-region-prefix-name=([\w-]+)", Path(f"/proc/{triton}/cmdline").read_text())
        assert len(processes_of(triton)) > 1
        assert any(name.startswith(prefix) for name in os.listdir("/dev/shm"))
        url = re.search(r"grpc (\S+),", ready)[1]
        answer, planted, refusals = use(url, *sent)
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    return Life(
        answer,
        planted,
        refusals,
        process.returncode,
        ready + rest + log.read_text(),
        processes_of(triton),
        [name for name in os.listdir("/dev/shm") if name.startswith(prefix)],
        list((folder / "scratch").iterdir()),
        error_of(url, sent[1]),
    )


def set_parameter(model, name, value):
    config = model / "config.pbtxt"
    text, n_changed = re.subn(rf'(key: "{name}" value {{ string_value: ")\d+', rf"\g<1>{value}", config.read_text())
    assert n_changed == 1
    config.write_text(text)


def use(url, whole, planted):
    with Client(url, timeout_s=300) as client:
        answer = client.segment(whole, PROMPTS)
        secret_answer = client.segment(planted, [f"liver {SECRET}", SECRET])
        refusals = []
        voxels = np.zeros((4, 4, 4), np.float32)
        too_large = nib.Nifti1Image(np.zeros((200, 200, 40), np.int16), np.eye(4))
        for image in (nib.Nifti1Image(voxels + np.nan, np.eye(4)), nib.Nifti1Image(voxels[0], np.eye(4)), too_large):
            image.header["descrip"] = SECRET
            with pytest.raises(InvalidRequest) as refused:
                client.segment(image, [SECRET])
            refusals.append(str(refused.value))
        with pytest.raises(InvalidRequest) as refused:
            client.segment(planted, [SECRET] * 65)
        return answer, secret_answer, [*refusals, str(refused.value)]


def error_of(url, image):
    with Client(url, timeout_s=20, retries=0) as client:
        try:
            client.segment(image, ["liver"])
        except MedImageParseError as error:
            return error
    return None


def test_another_window_size_changes_hardly_a_voxel(life, client, sent):
    usual = client.segment(sent[0], PROMPTS)
    assert (life.answer.report["window_size"], usual.report["window_size"]) == (WINDOW_SIZE, 4)
    assert np.count_nonzero(usual.label_map) > 0
    assert np.mean(life.answer.label_map != usual.label_map) <= 0.0001
    assert np.allclose(life.answer.scores, usual.scores, atol=1e-3)


def test_the_size_limit_is_a_parameter(life):
    assert life.refusals[2] == f"image has more than {MAX_IMAGE_BYTES} bytes, the limit of this server"


def test_nothing_of_the_patient_is_in_the_log_or_in_the_label_map(life):
    assert "Started GRPCInferenceService" in life.output  # it is the whole log
    assert SECRET not in life.output
    assert SECRET not in "".join(life.refusals)
    assert SECRET.encode() not in nib.Nifti1Image(life.planted.label_map, None).to_bytes()
    assert life.planted.report["prompts"][1]["text"] == SECRET


def test_ctrl_c_leaves_nothing_behind(life):
    assert life.exit_code == 0
    assert life.processes_left == []
    assert life.regions_left == []
    assert life.folders_left == []
    assert isinstance(life.error_after, ServerUnavailable)


def test_serve_says_what_is_missing(tmp_path):
    repository = tmp_path / "repository"
    copy_models(REPOSITORY, repository)
    command = [sys.executable, "-m", "medimageparse_serving.launch", "--runtime", "cpu"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert stopped.returncode == 1
    assert re.fullmatch(
        r"serve\.py: \S+ is missing from the model repository; it is made by: make .*\n", stopped.stderr
    )
