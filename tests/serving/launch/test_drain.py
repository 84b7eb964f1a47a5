"""A server that stops lets requests under way finish, for as long as --drain says and no longer."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from helpers.repositories import ENSEMBLE, make_repository
from medimageparse_serving.launch.serve import TritonServer, parse_arguments

N_BUSY = 3  # looks at the models until the last request is finished


@pytest.fixture
def asked():
    return []


@pytest.fixture
def server(tmp_path, asked):
    """A TritonServer whose models are UNLOADING for N_BUSY looks, or for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            is_busy = asked.count("/v2/repository/index") <= self.server.n_busy
            state = "UNLOADING" if is_busy else "UNAVAILABLE"
            self.send_response(200)
            self.end_headers()
            if self.path.endswith("index"):
                self.wfile.write(json.dumps([{"name": "outer", "state": state}]).encode())

        def log_message(self, *_):
            pass

    make_repository(tmp_path, {"outer": ENSEMBLE, "first": "", "second": ""})
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.n_busy = N_BUSY
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()

    def server(drain_s, n_busy=N_BUSY):
        http.n_busy = n_busy
        found = TritonServer(tmp_path, "cpu", ("outer",), drain_s=drain_s)
        found.control.http_url, found.process = f"127.0.0.1:{http.server_port}", SimpleNamespace(poll=lambda: None)
        return found

    yield server
    http.shutdown()
    http.server_close()


def test_it_waits_until_the_last_request_is_finished(server, asked):
    server(drain_s=600).drain(["outer"])
    assert asked == ["/v2/repository/models/outer/unload", *["/v2/repository/index"] * (N_BUSY + 1)]


def test_it_waits_no_longer_than_it_is_told(server, asked):
    """Else this would never end."""
    server(drain_s=0.5, n_busy=10**9).drain(["outer"])
    assert asked[0] == "/v2/repository/models/outer/unload"


def test_the_command_line_takes_seconds():
    given = ["--runtime", "cpu"]
    assert parse_arguments(given)["drain"] == 60
    assert parse_arguments([*given, "--drain", "2.5"])["drain"] == 2.5


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "1e9", "soon", ""])
def test_what_is_no_time_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--runtime", "cpu", "--drain", wrong])
    assert "it is a number of seconds above 0" in capsys.readouterr().err
