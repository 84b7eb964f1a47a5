"""The supervisor with a server that is made up here: what it asks, what it believes, and when it acts."""

import errno
import json
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from medimageparse_serving.launch import canary, steps, supervise
from medimageparse_serving.launch.model_calls import own_models
from medimageparse_serving.launch.serve import REPOSITORY
from medimageparse_serving.launch.service_metrics import ServiceMetrics
from medimageparse_serving.launch.steps import Fault
from medimageparse_serving.launch.supervise import Supervisor, pause_s
from medimageparse_serving.launch.triton_installation import ServeError

MODEL = "medimageparse"
HUNG_S = 0.1  # of patience with a server that will not answer


class FakeServer:
    """Answers the canary as `answers` says: a byte for every pixel of the mask, an HTTP status, or None: never.

    `failing_starts` are left; between two looks at the metrics `others` computations are finished.
    """

    def __init__(self):
        self.answers, self.failing_starts, self.stops, self.done, self.others = 1, 0, [], 0, 0
        self.hosts, self.ready_timeout_s, self.process = {"grpc": "127.0.0.1"}, 10, None
        self.busy_model, self.repository = MODEL, REPOSITORY
        self.released, self.loaded, self.starts, self.n_asked = threading.Event(), [], 0, 0
        self.inner_key, self.is_open, self.asked_while_closed = "a word", False, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.done += server.others
                count = f'nv_inference_exec_count{{model="{server.busy_model}",version="1"}} {server.done}'
                self.send(200, f"{count}\nother 7\n".encode())

            def do_POST(self):
                server.n_asked += 1
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not server.is_open and sent["parameters"] != {"inner_key": server.inner_key}:
                    self.send(503, b"{}")
                    return
                server.asked_while_closed += not server.is_open
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
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.http_url = f"127.0.0.1:{self.http.server_port}"
        self.metrics_url = f"http://{self.http_url}/metrics"

    def start(self, is_open=True):
        self.is_open, self.starts = is_open, self.starts + 1
        if self.failing_starts:
            self.failing_starts -= 1
            raise ServeError("no luck")
        self.process = SimpleNamespace(pid=os.getpid(), poll=lambda: None)

    def open(self):
        self.is_open = True

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
    monkeypatch.setattr(steps, "children", lambda pid: [pid])  # this process: it runs
    monkeypatch.setattr(steps, "model_of", lambda pid: "decode_image")
    monkeypatch.setattr(steps, "collect_orphans", lambda pid: None)  # they are pytest's
    monkeypatch.setattr(supervise, "CANARY_SHARE", 0)
    monkeypatch.setattr(supervise, "ENDING_S", 0)
    monkeypatch.setattr(supervise, "TICK_S", 0.01)
    monkeypatch.setattr(supervise, "pause_s", lambda n_recent: 0)
    return Supervisor(server, [MODEL], ServiceMetrics("cpu", {MODEL: "0123456789ab"}), interval_s=0, patience_s=0.5)


def probe(supervisor, path):
    try:
        with urllib.request.urlopen(supervisor.probe_url + path, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


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
        assert supervisor.canaries.find_problem() == ""
        server.answers = answers
        supervisor.canaries.patience_s = HUNG_S
        assert problem in supervisor._wait_for_fault().sentence


@pytest.mark.parametrize("answers", [503, None])
def test_a_busy_server_is_left_in_peace(server, supervisor, answers):
    with supervisor:
        server.answers, server.others, supervisor.canaries.patience_s = answers, 2, HUNG_S
        assert supervisor.canaries.find_problem() == ""
        server.others = 1  # as far as the canary itself came
        assert "no other request was finished" in supervisor.canaries.find_problem()


def test_what_another_model_does_is_no_sign_of_life(server, supervisor):
    supervisor.canaries.own_models = own_models(REPOSITORY, [MODEL, "medimageparse_3d"])
    with supervisor:
        server.answers, server.others, server.busy_model = None, 2, "image_encoder"
        supervisor.canaries.patience_s = HUNG_S
        assert supervisor.canaries.find_problem() == ""
        for server.busy_model in ("image_encoder_3d", "tokenize_prompts"):  # the other's, and what both call
            assert "no other request was finished" in supervisor.canaries.find_problem()


def test_an_ended_process_is_noticed(server, supervisor, monkeypatch):
    with supervisor:
        ended = {os.getpid() + 1}
        monkeypatch.setattr(steps, "is_running", lambda pid: pid not in ended)
        supervisor.steps.model_of = {os.getpid() + 1: "decode_image"}
        fault = supervisor._wait_for_fault()
        assert fault == Fault("a process of decode_image ended or was stopped", ("decode_image",))
        supervisor.steps.model_of = {os.getpid() + 1: ""}
        assert supervisor._wait_for_fault() == Fault("a process of the server ended or was stopped")
        ended.add(os.getpid())
        assert supervisor._wait_for_fault() == Fault("tritonserver was stopped")
        server.process.poll = lambda: -9
        assert supervisor._wait_for_fault() == Fault("tritonserver ended with code -9")


class Loaded(Exception):
    """Ends a watch."""


@pytest.mark.parametrize("helps", [True, False])
def test_a_dead_step_is_loaded_again_and_else_the_server_restarted(server, supervisor, monkeypatch, capsys, helps):
    """It does not help where the canary is wrong afterwards."""
    monkeypatch.setattr(supervise, "adopt_orphans", lambda: None)
    faults = [Fault("a process of decode_image ended or was stopped", ("decode_image",))]

    def find_fault():
        if not faults and not supervisor.problem:
            raise Loaded
        return faults.pop() if faults else None

    def load_again(models):
        assert not supervisor.states()["/ready"][0]
        server.loaded.append(models)
        server.answers = 1 if helps else 2

    with supervisor:
        starts = server.starts
        monkeypatch.setattr(supervisor.steps, "find_fault", find_fault)
        monkeypatch.setattr(supervisor.steps, "load_again", load_again)
        monkeypatch.setattr(server, "stop", lambda at_once=False: setattr(server, "answers", 1))
        with pytest.raises(Loaded):
            supervisor.watch()
        assert supervisor.states()["/ready"][0]
        assert server.starts == starts + (not helps)
        assert supervisor.metrics.samples["medimageparse_steps_loaded_again_total"] == 1
    assert server.loaded == [("decode_image",)]
    said = capsys.readouterr().err
    assert "ended or was stopped; decode_image is loaded again" in said
    assert ("the canary was segmented wrong; the server is restarted" in said) == (not helps)
    assert "segmented right again" in said


def test_a_step_that_dies_while_the_canary_waits_for_it_is_loaded_again_too(server, supervisor, monkeypatch, capsys):
    """The canary has no answer before the second one is well."""
    monkeypatch.setattr(supervise, "adopt_orphans", lambda: None)
    monkeypatch.setattr(supervisor.canaries, "patience_s", 60)
    second = Fault("a process of encode_probabilities ended or was stopped", ("encode_probabilities",))
    faults = [Fault("a process of decode_image ended or was stopped", ("decode_image",)), second]

    def find_fault():
        if len(faults) == 2 or (faults and server.n_asked > before):
            return faults.pop(0)
        if not faults and not supervisor.problem:
            raise Loaded
        return None

    def load_again(models):
        server.loaded.append(models)
        server.answers = None if len(server.loaded) == 1 else 1
        if server.answers:
            server.released.set()

    with supervisor:
        before = server.n_asked
        monkeypatch.setattr(supervisor.steps, "find_fault", find_fault)
        monkeypatch.setattr(supervisor.steps, "load_again", load_again)
        with pytest.raises(Loaded):
            supervisor.watch()
        assert server.starts == 1
    assert server.loaded == [("decode_image",), ("encode_probabilities",)]
    assert capsys.readouterr().err.count("segmented right again") == 1


def test_a_step_that_cannot_be_loaded_costs_a_restart(server, supervisor, monkeypatch, capsys):
    def load_again(models):
        raise ServeError("tritonserver does not load it")

    with supervisor:
        monkeypatch.setattr(supervisor.steps, "load_again", load_again)
        assert not supervisor._heal(Fault("a process of decode_image ended or was stopped", ("decode_image",)))
    assert "tritonserver does not load it; the server is restarted" in capsys.readouterr().err


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


def test_a_start_that_a_caller_may_have_ended_does_not_count(server, supervisor, monkeypatch, capsys):
    """However often it happens: callers reach the port before the server has warmed up."""
    with supervisor:
        attempts = []

        def start(is_open):
            attempts.append(0)
            server.answers = 1 if len(attempts) > 2 * supervise.MAX_STARTS else 500
            ended = -11 if server.answers == 500 else None
            server.process = SimpleNamespace(pid=os.getpid(), poll=lambda: ended)

        monkeypatch.setattr(server, "start", start)
        supervisor._restart()
        assert supervisor.states()["/ready"][0]
    assert len(attempts) == 2 * supervise.MAX_STARTS + 1
    assert capsys.readouterr().err.count("ended while it warmed up") == 2 * supervise.MAX_STARTS


def test_an_error_of_the_system_does_not_end_the_supervisor(server, supervisor, monkeypatch, capsys):
    """Such as no free descriptors: the start counts as a failed one, and the next may do."""
    with supervisor:
        stops = [OSError(errno.EMFILE, "Too many open files", "/dev/shm")] * (supervise.MAX_STARTS - 1)
        stop = server.stop

        def failing(at_once=False):
            if stops:
                raise stops.pop()
            stop(at_once)

        monkeypatch.setattr(server, "stop", failing)
        supervisor._restart()
        assert supervisor.states()["/ready"][0]
    assert "failed: Too many open files\n" in capsys.readouterr().err


def test_callers_are_let_in_after_the_canary(server, supervisor):
    with supervisor:
        assert server.asked_while_closed
        assert server.is_open
        asked = server.asked_while_closed
        supervisor._restart()
        assert server.asked_while_closed > asked
        assert server.is_open


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
            Supervisor(server, [MODEL], ServiceMetrics("cpu", {}), other.getsockname()[1])


def test_prometheus_is_told_of_restarts_and_canaries(server, supervisor):
    def told(name):
        with urllib.request.urlopen(supervisor.probe_url + "/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return float(next(line.split()[1] for line in text.splitlines() if re.match(rf"{name}[ {{]", line)))

    with supervisor:
        assert told("medimageparse_ready") == 1
        began = told("medimageparse_canary_right_timestamp_seconds")
        assert supervisor.canaries.find_problem() == ""
        assert told("medimageparse_canary_right_timestamp_seconds") > began
        server.answers = 500
        assert supervisor.canaries.find_problem()
        assert told("medimageparse_canary_wrong_total") == 1
        server.answers, supervisor.problem = 1, "restarting"
        assert told("medimageparse_ready") == 0
        supervisor._restart()
        assert (told("medimageparse_restarts_total"), told("medimageparse_ready")) == (1, 1)
