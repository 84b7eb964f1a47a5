"""serve.py while its processes are killed, and what it says when it cannot serve at all."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from helpers.running_server import (
    COMMAND,
    PATIENCE_S,
    command_line,
    let_wait,
    probe,
    regions,
    serving,
    triton_of,
    triton_server,
    wait_until,
)
from medimageparse_client import Client, MedImageParseError, ServerError, ServerUnavailable
from medimageparse_client.cli import main
from medimageparse_client.repeat import RETRIES
from medimageparse_serving.launch.addresses import open_local
from medimageparse_serving.launch.server_processes import children, is_running

NO_NOHUP = ["env", "--default-signal=HUP"]  # the tests themselves may run under nohup


@pytest.fixture(scope="module")
def service(tmp_path_factory, both_demos):
    """Both demo models under a serve.py whose canary comes every second."""
    with serving(tmp_path_factory.mktemp("service") / "log", both_demos, "--canary-interval=1") as service:
        yield service


class Load:
    """Requests to both models, one after the other each, until told to stop; keeps what is not as at first."""

    def __init__(self, url, volume, patient=()):
        """patient: those whose client asks again when the server is unavailable."""
        self.url, self.patient, self.stopped = url, patient, threading.Event()
        window = volume.slicer[:, :, 1:4]
        picture = np.asarray(window.dataobj)[:, :, 1]
        picture = np.clip(picture / 2 + 128, 0, 255).astype(np.uint8)
        self.requests = {
            "volume": lambda client: client.segment(window, ["liver", "spleen"]).label_map,
            "image": lambda client: client.segment_image(picture, ["left lung", "heart"]).probabilities > 127,
        }
        self.right, self.errors = dict.fromkeys(self.requests, 0), {kind: [] for kind in self.requests}
        self.wrong, self.pause_s = 0, 0
        self.threads = [threading.Thread(target=self.run, args=(kind,)) for kind in self.requests]

    def __enter__(self):
        with Client(self.url, timeout_s=PATIENCE_S) as client:
            self.expected = {kind: request(client) for kind, request in self.requests.items()}
        for thread in self.threads:
            thread.start()
        self.wait_for_right_answers()
        return self

    def __exit__(self, *exception):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def run(self, kind):
        retries = RETRIES if kind in self.patient else 0
        while not self.stopped.is_set():
            try:
                with Client(self.url, timeout_s=PATIENCE_S, retries=retries) as client:
                    answer = self.requests[kind](client)
            except MedImageParseError as error:
                self.errors[kind].append(error)
                self.stopped.wait(0.2)
                continue
            if np.array_equal(answer, self.expected[kind]):
                self.right[kind] += 1
            else:
                self.wrong += 1
            self.stopped.wait(self.pause_s)

    def send(self, pid, signal_number):
        """A signal among requests, which come more slowly from then on: the server has enough to do."""
        os.kill(pid, signal_number)
        self.pause_s = 0.2

    def wait_for_right_answers(self):
        before = dict(self.right)
        wait_until(lambda: all(self.right[kind] > before[kind] for kind in before))


def processes_of(service, victim):
    """Those of tritonserver, or of the step whose folder is named."""
    triton, steps, _ = triton_of(service)
    return [pid for pid, line in {triton: "tritonserver", **steps}.items() if victim in line]


@pytest.mark.parametrize(
    ("victim", "kind", "number"),
    [
        ("/medimageparse_3d/", "volume", signal.SIGKILL),
        ("/decode_image/", "image", signal.SIGSTOP),
        ("/encode_masks/", "volume", signal.SIGKILL),
        ("/mask_decoder/", "image", signal.SIGKILL),
        ("/image_encoder_3d/", "volume", signal.SIGSTOP),
    ],
)
def test_a_step_is_loaded_again_while_the_other_model_answers(service, volume, victim, kind, number):
    """Nor does its own caller see an error, whose client asks again where that is worth it."""
    triton, steps, prefix = triton_of(service)
    ill = processes_of(service, victim)
    told = service.log.read_text()
    with Load(service.grpc, volume, patient=[kind]) as load:
        load.send(ill[0], number)
        wait_until(lambda: probe(service, "/ready") == 503)
        assert [probe(service, path) for path in ("/startup", "/live")] == [200, 200]
        wait_until(lambda: probe(service, "/ready") == 200)
        load.wait_for_right_answers()
    assert load.wrong == 0
    assert load.errors == {"volume": [], "image": []}
    said = service.log.read_text().removeprefix(told)
    assert f"ended or was stopped; {victim.strip('/')} is loaded again" in said
    assert said.count("right again") == 1
    now, loaded, _ = triton_of(service)
    assert (now, len(loaded)) == (triton, len(steps))
    assert set(steps) - set(loaded) == set(ill)  # all others are those of before
    assert regions(prefix) == [f"{prefix}lock"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_goes_while_a_step_is_loaded_again_comes_back(service, volume, number):
    triton, told = triton_of(service)[0], service.log.read_text()
    with Load(service.grpc, volume) as load:
        ill = processes_of(service, "/mask_decoder/")
        load.send(ill[0], signal.SIGKILL)
        wait_until(lambda: set(processes_of(service, "/mask_decoder/")) - set(ill))  # it has the server's connections
        load.send(triton, number)
        wait_until(lambda: "the server is restarted" in service.log.read_text().removeprefix(told))
        load.wait_for_right_answers()
    assert load.wrong == 0
    assert triton_of(service)[0] != triton


def test_a_killed_server_comes_back_and_answers_nothing_wrong(service, volume):
    """Callers whose client asks again see no error."""
    triton, steps, prefix = triton_of(service)
    assert probe(service, "/ready") == 200
    restarts = service.log.read_text().count("right again")
    with Load(service.grpc, volume, patient=["volume", "image"]) as load:
        load.send(triton, signal.SIGKILL)
        wait_until(lambda: probe(service, "/ready") == 503)
        assert [probe(service, path) for path in ("/startup", "/live")] == [200, 200]
        wait_until(lambda: probe(service, "/ready") == 200)
        load.wait_for_right_answers()
    assert load.wrong == 0
    assert load.errors == {"volume": [], "image": []}
    assert service.log.read_text().count("right again") == restarts + 1
    assert not any(map(is_running, (triton, *steps)))
    assert not any(Path(f"/proc/{step}").exists() for step in (triton, *steps))  # no zombies either
    assert regions(prefix) == []
    assert len(triton_of(service)[1]) == len(steps)


def test_a_stopped_server_is_noticed(service, volume):
    triton, steps, prefix = triton_of(service)
    with Load(service.grpc, volume) as load:
        load.send(triton, signal.SIGSTOP)
        wait_until(lambda: probe(service, "/ready") == 503)
        wait_until(lambda: probe(service, "/ready") == 200)
        load.wait_for_right_answers()
    assert not any(Path(f"/proc/{process}").exists() for process in (triton, *steps))
    assert regions(prefix) == []
    assert load.wrong == 0


def test_a_step_that_grows_too_large_is_loaded_again(tmp_path, both_alone, volume):
    repository, leak = tmp_path / "leaking", tmp_path / "leak"
    shutil.copytree(both_alone, repository)
    (repository / "mask_decoder" / "1" / "onnxruntime_model.py").write_text(LEAKING.format(file=str(leak)))
    flags = ("--canary-interval=1", "--step-memory=1")
    with serving(tmp_path / "log", repository, *flags) as service, Load(service.grpc, volume) as load:
        ill, [triton] = processes_of(service, "/mask_decoder/"), processes_of(service, "tritonserver")
        leak.touch()
        load.pause_s = 0.2
        wait_until(lambda: "has more memory than a step may have" in service.log.read_text())
        leak.unlink()
        wait_until(lambda: probe(service, "/ready") == 200)
        load.wait_for_right_answers()
        assert not set(ill) & set(processes_of(service, "/mask_decoder/"))
        assert processes_of(service, "tritonserver") == [triton]
    assert load.wrong == 0
    assert load.errors["volume"] == []


LEAKING = """
from pathlib import Path

from medimageparse_serving.triton.onnxruntime_model import TritonPythonModel as Network


class TritonPythonModel(Network):
    def execute(self, requests):
        if Path({file!r}).exists():
            self.kept = b"x" * 2**31
        return super().execute(requests)
"""


def test_a_network_that_hangs_is_noticed_while_the_other_model_answers(tmp_path, both_alone, volume):
    repository, hang = tmp_path / "hanging", tmp_path / "hang"
    shutil.copytree(both_alone, repository)
    let_wait(repository, "mask_decoder", hang)
    flags = ("--canary-interval=1", "--canary-timeout=2")
    with serving(tmp_path / "log", repository, *flags) as service, Load(service.grpc, volume) as load:
        triton, steps, prefix = triton_of(service)
        hang.touch()
        load.pause_s = 0.2
        wait_until(lambda: "no other request was finished" in service.log.read_text())
        hang.unlink()
        wait_until(lambda: probe(service, "/ready") == 200)
        load.wait_for_right_answers()
        assert load.wrong == 0
        assert not any(map(is_running, (triton, *steps)))
        assert regions(prefix) == []


def test_health_believes_the_canary_and_not_the_port(tmp_path, volumes_alone, capsys):
    with triton_server(volumes_alone) as server:
        assert main(["health", "--url", server.grpc_url]) == 0
        for step in children(server.process.pid):
            if "medimageparse_3d/" in command_line(step):
                os.kill(step, signal.SIGKILL)
        with Client(server.grpc_url, timeout_s=PATIENCE_S) as client:
            assert client.health().is_ready  # so says tritonserver
        assert main(["health", "--url", server.grpc_url]) == 3
        assert "medimageparse_3d does not segment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "outlived", "number"),
    [
        pytest.param(NO_NOHUP, (), signal.SIGHUP, id="SIGHUP"),
        pytest.param(["nohup"], (signal.SIGHUP,), signal.SIGTERM, id="SIGTERM, and SIGHUP before it under nohup"),
    ],
)
def test_a_request_under_way_is_finished_when_the_server_is_to_end(volumes_alone, phantom, before, outlived, number):
    """And a full disk under the log disturbs nothing."""
    flags = ("--canary-interval=1000", "--verbose")
    with serving(Path("/dev/full"), volumes_alone, *flags, before=before) as service:
        for harmless in outlived:
            service.process.send_signal(harmless)
            with Client(service.grpc, timeout_s=PATIENCE_S) as client:
                assert client.health(canary=True).is_ready
            assert service.process.poll() is None
        with asking(service, phantom) as answer:
            service.process.send_signal(number)
            assert service.process.wait(PATIENCE_S) == 0
            assert answer.result().label_map.any()


def test_a_request_under_way_is_finished_when_the_terminal_is_closed(tmp_path, volumes_alone, phantom):
    """The last word to a terminal that is gone goes nowhere, and disturbs nothing."""
    ours, terminal = pty.openpty()
    flags = ("--canary-interval=1000", "--verbose")
    with serving(
        tmp_path / "log", volumes_alone, *flags, before=[*NO_NOHUP, "setsid", "--ctty"], stdin=terminal
    ) as service:
        os.close(terminal)
        with asking(service, phantom) as answer:
            os.close(ours)
            assert service.process.wait(PATIENCE_S) == 0
            assert answer.result().label_map.any()


@contextmanager
def asking(service, phantom):
    """The answer to a volume of which the server has begun to work."""

    def ask():
        with Client(service.grpc, timeout_s=PATIENCE_S) as client:
            return client.segment(nib.Nifti1Image(phantom.intensities, phantom.affine), ["liver", "spleen"])

    canaries = volumes_decoded(service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        wait_until(lambda: volumes_decoded(service) > canaries)
        assert not answer.done()
        yield answer


def volumes_decoded(service):
    with open_local(service.metrics, timeout=30) as answer:
        return int(re.search(r'nv_inference_exec_count\{model="decode_volume",.*\} (\d+)', answer.read().decode())[1])


def refusal(repository, *before, **options):
    """The last line of a serve.py that ends with exit code 1."""
    ended = subprocess.run(
        [*before, *COMMAND, "--repository", repository], capture_output=True, text=True, timeout=PATIENCE_S, **options
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        (
            "image_encoder_3d/1/model.onnx",
            lambda data: data[:-1000],
            "the model.onnx of image_encoder_3d is not the one",
        ),
        ("mask_decoder_3d/1/model.onnx", lambda data: None, "mask_decoder_3d/1/model.onnx is missing"),
        (
            "text_encoder_3d/1/manifest.json",
            lambda data: data[:100],
            "the manifest.json of text_encoder_3d is missing or",
        ),
        ("encode_masks/1/model.py", lambda data: data[: len(data) // 2], "encode_masks does not load: "),
        ("decode_volume/1/model.py", lambda data: None, "the model.py of decode_volume is missing"),
    ],
)
def test_a_damaged_repository_is_refused(tmp_path, volumes_alone, file, change, sentence):
    shutil.copytree(volumes_alone, tmp_path / "damaged")
    file = tmp_path / "damaged" / file
    data = change(file.read_bytes())
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    assert sentence in refusal(tmp_path / "damaged")


# a mount namespace of its own, where a small tmpfs stands in for a folder
SMALL = 'mount -t tmpfs -o size=$1 tmpfs "$2" && shift 2 && exec "$@"'
UNSHARED = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture
def unshared():
    if subprocess.run([*UNSHARED, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespace to fill up")


@pytest.mark.usefixtures("unshared")
def test_a_full_shared_memory_is_refused(volumes_alone):
    sentence = refusal(volumes_alone, *UNSHARED, "sh", "-c", SMALL, "sh", "4m", "/dev/shm")
    assert "/dev/shm is full or too small" in sentence


@pytest.mark.usefixtures("unshared")
def test_a_full_disk_is_refused(tmp_path, volumes_alone):
    (tmp_path / "disk").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "disk")}
    size = ("64k", str(tmp_path / "disk"))
    sentence = refusal(volumes_alone, *UNSHARED, "sh", "-c", SMALL, "sh", *size, env=environment)
    assert sentence == "serve.py: /tmp (TMPDIR) or /dev/shm cannot be written: No space left on device"


def small(size, folder):
    """What to start a command with, so that `folder` is a tmpfs of that size for it."""
    return [*UNSHARED, "sh", "-c", SMALL, "sh", size, folder]


def fill(service, folder):
    """A file that takes the rest of the folder as the service sees it."""
    path = Path(f"/proc/{service.process.pid}/root") / folder.lstrip("/") / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


@pytest.mark.usefixtures("unshared")
def test_when_shared_memory_fills_up_requests_fail_or_are_right(tmp_path, both_alone, service, volume, phantom):
    large = nib.Nifti1Image(np.tile(phantom.intensities, (2, 2, 1)), phantom.affine)
    with Client(service.grpc, timeout_s=PATIENCE_S) as client:
        expected = client.segment(large, ["liver"]).label_map
    with (
        serving(tmp_path / "log", both_alone, "--canary-interval=1", before=small("128m", "/dev/shm")) as service,
        Load(service.grpc, volume) as load,
        Client(service.grpc, timeout_s=PATIENCE_S) as client,
    ):
        filler = fill(service, "/dev/shm")
        for _ in range(5):
            with pytest.raises(ServerError) as failed:
                client.segment(large, ["liver"])
            assert re.search("failed; the server's log says why|No space left on device", str(failed.value))
        filler.unlink()
        load.wait_for_right_answers()
        wait_until(lambda: probe(service, "/ready") == 200)
        assert np.array_equal(client.segment(large, ["liver"]).label_map, expected)
    assert load.wrong == 0
    assert {type(error) for errors in load.errors.values() for error in errors} <= {ServerUnavailable, ServerError}


@pytest.mark.usefixtures("unshared")
def test_a_disk_that_fills_up_disturbs_nothing(tmp_path, both_alone, volume):
    (tmp_path / "disk").mkdir()
    disk = str(tmp_path / "disk")
    environment = os.environ | {"TMPDIR": disk}
    with (
        serving(tmp_path / "log", both_alone, before=small("8m", disk), env=environment) as service,
        Load(service.grpc, volume) as load,
    ):
        fill(service, disk)
        load.wait_for_right_answers()
        assert load.errors == {"volume": [], "image": []}
        load.send(triton_of(service)[0], signal.SIGKILL)
        wait_until(lambda: probe(service, "/ready") == 503)
        wait_until(lambda: probe(service, "/ready") == 200)
        load.wait_for_right_answers()
    assert load.wrong == 0


PID_1 = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def test_as_pid_1_it_collects_ends_and_recovers(tmp_path, both_alone, volume):
    if subprocess.run([*PID_1, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no PID namespace to be PID 1 of")
    with serving(tmp_path / "log", both_alone, "--canary-interval=1", before=PID_1) as service:
        [first] = children(service.process.pid)
        inside = SimpleNamespace(process=SimpleNamespace(pid=first))
        assert re.search(r"NSpid:\s+\d+\s+1\n", Path(f"/proc/{first}/status").read_text())
        triton, steps, prefix = triton_of(inside)
        with Load(service.grpc, volume) as load:
            for victim in (next(iter(steps)), triton):
                load.send(victim, signal.SIGKILL)
                wait_until(lambda: probe(service, "/ready") == 503)
                wait_until(lambda: probe(service, "/ready") == 200)
                load.wait_for_right_answers()
        assert load.wrong == 0
        wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in (triton, *steps)))  # no zombies
        assert regions(prefix) == []
        os.kill(first, signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0
