"""A folder of volumes while the server restarts, ends, loses a step or is full; and who stops a request."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import nibabel as nib
import numpy as np
import pytest
from helpers.running_server import serving, triton_of, triton_server, wait_until
from medimageparse_client import retry
from medimageparse_client.cli import main

from .test_cancel import executions

N_VOLUMES = 12


@pytest.fixture(autouse=True)
def _asking_often(monkeypatch):
    """A server that is back is noticed soon."""
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.5)


@pytest.fixture
def scans(tmp_path, volume):
    """A folder of equal volumes."""
    folder = tmp_path / "scans"
    folder.mkdir()
    nib.save(volume, folder / "00.nii.gz")
    for number in range(1, N_VOLUMES):
        os.link(folder / "00.nii.gz", folder / f"{number:02d}.nii.gz")
    return folder


class Killer(threading.Thread):
    """Kills a process once the run has written a few results."""

    def __init__(self, out, find_pid):
        super().__init__()
        self.out, self.find_pid = out, find_pid
        self.start()

    def run(self):
        wait_until(lambda: len(list(self.out.glob("*.nii.gz"))) >= 3)
        os.kill(self.find_pid(), signal.SIGKILL)


def contents(folder):
    """What hidden files or half results would add to; reports, which have times, are left out."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


@pytest.mark.parametrize("victim", ["tritonserver", "decode_volume/", "medimageparse_3d/"])
def test_a_restart_costs_no_volume(tmp_path, volumes_alone, scans, victim, capsys):
    """Nor does a step that is loaded again; of one inside of the pipeline the caller hears nothing."""
    out = tmp_path / "out"
    with serving(tmp_path / "log", volumes_alone, "--canary-interval=1") as service:
        triton, steps, _ = triton_of(service)
        [pid, *_] = [pid for pid, line in {triton: "tritonserver", **steps}.items() if victim in line]
        killer = Killer(out, lambda: pid)
        assert main(["segment", str(scans), "liver", "spleen", "-o", str(out), "--url", service.grpc]) == 0
        killer.join()
    printed = capsys.readouterr()
    assert printed.out == f"{N_VOLUMES} of {N_VOLUMES} volumes segmented\n"
    if victim == "tritonserver":
        assert "trying again for up to 120 s" in printed.err
    else:
        assert f"{victim.strip('/')} is loaded again" in (tmp_path / "log").read_text()
    if victim == "decode_volume/":
        assert printed.err == ""
    assert len(set(contents(out).values())) == 1
    assert len(contents(out)) == N_VOLUMES


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_stays_away_ends_the_run_and_the_next_run_goes_on(
    tmp_path, server, volumes_alone, scans, protocol, capsys
):
    out = tmp_path / "out"
    command = ["segment", str(scans), "liver", "spleen", "-o", str(out), "--retry-for", "1", "--skip-existing"]
    with triton_server(volumes_alone) as doomed:
        killer = Killer(out, lambda: doomed.process.pid)
        url = doomed.grpc_url if protocol == "grpc" else f"http://{doomed.http_url}"
        assert main([*command, "--url", url]) == 3
        killer.join()
    n_done = len(contents(out))
    printed = capsys.readouterr()
    assert printed.out == f"{n_done} of {N_VOLUMES} volumes segmented\n"
    assert f"{N_VOLUMES - n_done} volumes are left" in printed.err
    assert main([*command, "--url", server.grpc_url]) == 0
    assert len(contents(out)) == N_VOLUMES
    assert len(set(contents(out).values())) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_full_queue_is_waited_for(tmp_path, volumes_alone, scans, protocol, capsys):
    folder = shutil.copytree(volumes_alone, tmp_path / "model_repository")
    config = folder / "medimageparse_3d" / "config.pbtxt"
    text, n_changed = re.subn(r"max_queue_size: \d+", "max_queue_size: 1", config.read_text())
    assert n_changed == 1
    config.write_text(text)
    out = tmp_path / "out"
    with triton_server(folder) as narrow:
        url = narrow.grpc_url if protocol == "grpc" else f"http://{narrow.http_url}"
        command = ["segment", str(scans), "liver", "-o", str(out), "--url", url, "--in-flight", "8", "--force"]
        assert main([*command, "--retry-for", "0"]) == 3  # so it does get full
        assert "its queue is full" in capsys.readouterr().err
        assert main(command) == 0
    assert len(contents(out)) == N_VOLUMES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_who_stops_a_request_reads_one_word_and_finds_nothing(server, phantom, tmp_path, protocol, number):
    slices = np.tile(phantom.intensities, 8)  # seconds of work
    nib.save(nib.Nifti1Image(slices, phantom.affine), tmp_path / "long.nii.gz")
    url = server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"
    command = [sys.executable, "-m", "medimageparse_client", "segment", "long.nii.gz", "liver", "-o", "masks.nii.gz"]
    before = executions(server, "decode_volume")
    process = subprocess.Popen([*command, "--url", url], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: executions(server, "decode_volume") > before)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "medimageparse: stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["long.nii.gz"]
