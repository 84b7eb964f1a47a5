"""The supervisor with a server that is made up here: what it asks, what it believes, and when it acts."""

import fcntl
import io
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from medimageparse_serving.launch import canary, leftovers, manifests, supervise
from medimageparse_serving.launch.serve import REPOSITORY
from medimageparse_serving.launch.server_log import find_reason
from medimageparse_serving.launch.supervise import Supervisor, pause_s
from medimageparse_serving.launch.triton_installation import ServeError
from PIL import Image

MODEL = "medimageparse"


class FakeServer:
    """Answers the canary as `answers` says: a byte for every pixel of the mask, an HTTP status, or None: never.

    `failing_starts` are left; between two looks at the metrics `others` computations are finished.
    """

    def __init__(self):
        self.answers, self.failing_starts, self.stops, self.done, self.others = 1, 0, [], 0, 0
        self.hosts, self.ready_timeout_s, self.process = {"grpc": "127.0.0.1"}, 10, None
        self.busy_model, self.repository = MODEL, REPOSITORY
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.done += server.others
                count = f'nv_inference_exec_count{{model="{server.busy_model}",version="1"}} {server.done}'
                self.send(200, f"{count}\nother 7\n".encode())

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if server.answers is None:
                    server.released.wait(30)
                    return
                if server.answers > 255:
                    self.send(server.answers, b"{}")
                    return
                mask = canary.base64.b64encode(bytes([server.answers]) * canary.SIDE**2).decode()
                text = json.dumps({"data": mask, "shape": [1, canary.SIDE, canary.SIDE]})
                self.send(200, json.dumps({"outputs": [{"name": "image_features", "data": [text]}]}).encode())

            def send(self, status, body):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.http_url = f"127.0.0.1:{self.http.server_port}"
        self.metrics_url = f"http://{self.http_url}/metrics"

    def start(self):
        if self.failing_starts:
            self.failing_starts -= 1
            raise ServeError("no luck")
        self.process = SimpleNamespace(pid=os.getpid(), poll=lambda: None)

    def stop(self, at_once=False):
        self.stops.append(at_once)

    def drain(self, models):
        self.stops.append(models)


@pytest.fixture
def server():
    server = FakeServer()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def supervisor(server, monkeypatch):
    monkeypatch.setattr(supervise, "children", lambda pid: [pid])  # this process: it runs
    monkeypatch.setattr(supervise, "collect_orphans", lambda pid: None)  # they are pytest's
    monkeypatch.setattr(supervise, "CANARY_SHARE", 0)
    monkeypatch.setattr(supervise, "pause_s", lambda n_recent: 0)
    return Supervisor(server, [MODEL], interval_s=0, patience_s=0.5)


def probe(supervisor, path):
    try:
        with urllib.request.urlopen(supervisor.probe_url + path, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_canaries_are_files_that_others_can_read():
    image = nib.Nifti1Image.from_bytes(canary.nifti_file())
    voxels = np.asanyarray(image.dataobj)
    assert voxels.shape == (canary.SIDE, canary.SIDE, canary.SLICES)
    assert set(np.unique(voxels)) == {canary.BACKGROUND, canary.BODY, canary.ORGAN}
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
    picture = np.asarray(Image.open(io.BytesIO(canary.png_file())))
    assert np.array_equal(picture, voxels[:, :, 0].T)


@pytest.mark.parametrize("answer", ["", "{}", "[1]", '{"data": "AAAA", "shape": [1, 2, 2]}', '{"data": 3}'])
@pytest.mark.parametrize("model", [MODEL, "medimageparse_3d"])
def test_what_is_no_segmentation_is_no_answer(model, answer):
    with pytest.raises(canary.CanaryError, match="no segmentation"):
        canary.segmentation_digest(model, answer)


def test_one_bit_makes_another_digest():
    masks = [bytearray(canary.SIDE**2), bytearray(canary.SIDE**2)]
    masks[1][77] = 1
    shape = [1, canary.SIDE, canary.SIDE]
    digests = {
        canary.segmentation_digest(MODEL, json.dumps({"data": canary.base64.b64encode(mask).decode(), "shape": shape}))
        for mask in masks
    }
    assert len(digests) == 2


def test_pauses_grow_and_are_bounded():
    assert [pause_s(n) for n in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_probes_tell_three_things_apart(server, supervisor):
    assert [state[0] for state in supervisor.states().values()] == [False, False, True]
    with supervisor:
        assert [probe(supervisor, path) for path in ("/startup", "/ready", "/live", "/")] == [200, 200, 200, 503]
        supervisor.problem = "a python step ended"
        assert [probe(supervisor, path) for path in ("/startup", "/ready", "/live")] == [200, 503, 200]
        supervisor.last_sign -= 1000
        assert probe(supervisor, "/live") == 503
    assert server.stops == [[MODEL], False]  # it may finish its work


@pytest.mark.parametrize(("answers", "problem"), [(2, "segmented wrong"), (500, "answered 500"), (None, "no answer")])
def test_a_wrong_a_failed_and_a_missing_answer_are_noticed(server, supervisor, answers, problem):
    with supervisor:
        assert supervisor._check_canaries() == ""
        server.answers = answers
        assert problem in supervisor._wait_for_problem()


@pytest.mark.parametrize("answers", [503, None])
def test_a_busy_server_is_left_in_peace(server, supervisor, answers):
    with supervisor:
        server.answers, server.others = answers, 2
        assert supervisor._check_canaries() == ""
        server.others = 1  # as far as the canary itself came
        assert "no other request was finished" in supervisor._check_canaries()


def test_what_another_model_does_is_no_sign_of_life(server, supervisor):
    supervisor.own_models = supervise.own_models(REPOSITORY, [MODEL, "medimageparse_3d"])
    with supervisor:
        server.answers, server.others, server.busy_model = None, 2, "image_encoder"
        assert supervisor._check_canaries() == ""
        for server.busy_model in ("image_encoder_3d", "tokenize_prompts"):  # the other's, and what both call
            assert "no other request was finished" in supervisor._check_canaries()


def test_an_ended_process_is_noticed(server, supervisor, monkeypatch):
    with supervisor:
        monkeypatch.setattr(supervise, "is_running", lambda pid: False)
        assert supervisor._wait_for_problem() == "a process of the server ended or was stopped"
        server.process.poll = lambda: -9
        assert supervisor._wait_for_problem() == "tritonserver ended with code -9"


def test_a_server_that_does_not_start_again_is_given_up(server, supervisor, monkeypatch, capsys):
    monkeypatch.setattr(supervise, "adopt_orphans", lambda: None)
    with supervisor:
        server.answers, server.failing_starts = 500, supervise.MAX_STARTS
        with pytest.raises(ServeError, match="^the server does not start any more: no luck$"):
            supervisor.watch()
        assert server.failing_starts == 0
        assert not supervisor.states()["/ready"][0]
        assert supervisor.states()["/startup"][0]
    assert capsys.readouterr().err.count("no luck") == supervise.MAX_STARTS


def test_a_restart_must_give_the_same_answer(server, supervisor):
    with supervisor:
        server.answers, server.failing_starts = 2, 1
        with pytest.raises(ServeError, match="not segment the canary as it did before"):
            supervisor._restart()
        server.answers = 1
        supervisor._restart()
        assert supervisor.states()["/ready"][0]


def test_a_server_without_an_answer_at_its_start_is_refused(server, supervisor):
    server.answers = 500
    with pytest.raises(ServeError, match=f"^{MODEL} does not segment the canary: the server answered 500"):
        supervisor.__enter__()
    assert server.stops


def test_a_taken_probe_port_is_refused(server):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServeError, match="cannot be used for the probes: Address already in use"):
            Supervisor(server, [MODEL], other.getsockname()[1])


def test_only_what_belongs_to_nobody_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "temporary_folder", lambda: tmp_path)
    shm = tmp_path / "shm"
    shm.mkdir()
    names = ["medimageparse-alive", "medimageparse-killed"]
    locks = [leftovers.claim(name, shm) for name in names]
    for name in names:
        (shm / f"{name}-region").touch()
        (tmp_path / name).mkdir()
    assert leftovers.sweep(shm) == []
    locks[1].close()  # as the system does when a process ends, however it ends
    assert leftovers.sweep(shm) == names[1:]
    assert {path.name for path in shm.iterdir()} == {"medimageparse-alive-lock", "medimageparse-alive-region"}
    assert {path.name for path in tmp_path.iterdir()} == {"shm", "medimageparse-alive"}
    with pytest.raises(BlockingIOError), (shm / "medimageparse-alive-lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    locks[0].close()


@pytest.fixture
def network(tmp_path):
    """A repository with one network: its version folder."""
    folder = tmp_path / "encoder" / "1"
    (tmp_path / "encoder" / "configs").mkdir(parents=True)
    folder.mkdir()
    (tmp_path / "encoder" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    (folder / "model.onnx").write_bytes(b"a graph")
    (folder / "model.plan").write_bytes(b"an engine")
    manifest = {
        "graph_sha256": manifests.sha256(folder / "model.onnx"),
        "engine": {"plan_sha256": manifests.sha256(folder / "model.plan"), "gpu": "NVIDIA H100, 9.0, 590.1"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def check(network, runtime):
    manifests.check_manifests(network.parents[1], ["encoder"], runtime)


def nvidia_smi(folder, monkeypatch, answer):
    """Puts one on PATH that prints what it is asked for and nothing else."""
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ntest \"$1\" = --query-gpu=compute_cap && printf '{answer}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("damage", [b"a gra", b"another graph"])
def test_a_damaged_graph_is_refused(network, damage):
    check(network, "cpu")
    (network / "model.onnx").write_bytes(damage)
    with pytest.raises(ServeError, match="^the model.onnx of encoder is not the one in its manifest: .*make export"):
        check(network, "onnxruntime")


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_damaged_manifest_is_refused(network, text):
    (network / "manifest.json").unlink()
    if text:
        (network / "manifest.json").write_text(text)
    with pytest.raises(ServeError, match="^the manifest.json of encoder is missing or damaged"):
        check(network, "cpu")


def test_an_engine_needs_its_gpu(network, tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, r"9.0\n9.0\n")
    check(network, "tensorrt")
    nvidia_smi(tmp_path, monkeypatch, r"9.0\n8.6\n")
    sentence = (
        r"^the engine of encoder was built on NVIDIA H100 \(compute capability 9.0\), .* has 8.6, 9.0; .*make engines"
    )
    with pytest.raises(ServeError, match=sentence):
        check(network, "tensorrt")
    nvidia_smi(tmp_path, monkeypatch, "")
    with pytest.raises(ServeError, match="nvidia-smi finds none here"):
        check(network, "tensorrt")


def test_a_damaged_engine_is_refused(network):
    (network / "model.plan").write_bytes(b"an eng")
    with pytest.raises(ServeError, match="^the model.plan of encoder is not the one in its manifest: .*make engines"):
        check(network, "tensorrt")
    manifest = json.loads((network / "manifest.json").read_text())
    del manifest["engine"]
    (network / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ServeError, match="^the manifest of encoder knows no engine"):
        check(network, "tensorrt")


def test_a_step_needs_its_code(tmp_path):
    (tmp_path / "step" / "1").mkdir(parents=True)
    (tmp_path / "step" / "config.pbtxt").write_text('backend: "python"')
    with pytest.raises(ServeError, match=r"^the model\.py of step is missing"):
        manifests.check_manifests(tmp_path, ["step"], "cpu")
    (tmp_path / "step" / "1" / "model.py").touch()
    manifests.check_manifests(tmp_path, ["step"], "cpu")


def test_the_reason_is_the_models_own():
    lines = [
        "I0101 00:00:00 1 server.cc:1] all is well",
        "error: creating server: Invalid argument - load failed for model 'outer': ensemble 'outer' depends on 'inner'",
        "load failed for model 'inner': version 1 is at UNAVAILABLE state: Internal: the graph is bad",
    ]
    assert find_reason(lines) == "inner does not load: Internal: the graph is bad"
    assert find_reason(lines[:1]) == ""
    damaged = "E0101 Poll failed for model directory 'a': failed to read text proto from somewhere"
    assert find_reason([damaged]) == "a does not load: failed to read text proto from somewhere"
    full = "load failed for model 'a': Internal: Unable to initialize shared memory key 'x' to requested size"
    assert "--shm-size" in find_reason([*lines, full])


def test_processes_are_found():
    assert os.getpid() in supervise.children(os.getppid())
    assert supervise.is_running(os.getpid())
    assert not supervise.is_running(2**22 + 1)
