"""medimageparse health shows the gateway."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from medimageparse_client.cli import gateway, main

pytestmark = pytest.mark.usefixtures("triton")


@contextmanager
def answering(status):
    """The port of something that answers every GET with a status; it keeps the paths."""

    class Handler(BaseHTTPRequestHandler):
        paths = []

        def do_GET(self):
            self.paths.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield server.server_port, Handler.paths
        finally:
            server.shutdown()


@pytest.mark.parametrize(("status", "word", "code"), [(200, "ready", 0), (503, "not ready", 3), (404, "not ready", 3)])
@pytest.mark.parametrize("is_named", [True, False])
def test_its_state_is_shown_whether_it_is_named_or_on_its_usual_port(capsys, monkeypatch, status, word, code, is_named):
    with answering(status) as (port, paths):
        monkeypatch.setattr(gateway, "USUAL_PORT", port)
        named = ["--gateway", f"http://127.0.0.1:{port}"] if is_named else ["--url", "127.0.0.1:8001"]
        assert main(["health", *named]) == code
    assert f"gateway at http://127.0.0.1:{port}: {word}\n" in capsys.readouterr().out
    assert paths == ["/ready"]


def test_one_that_is_not_there_is_told_only_if_it_was_named(capsys, monkeypatch):
    monkeypatch.setattr(gateway, "USUAL_PORT", 1)
    assert main(["health"]) == 0
    assert "gateway" not in capsys.readouterr().out
    assert main(["health", "--gateway", "http://127.0.0.1:1"]) == 3
    assert "gateway at http://127.0.0.1:1: no answer" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://a:1", "http://", "http://a:b", "http://[::"])
def test_an_address_that_is_none_is_a_wrong_command_line(capsys, url):
    with pytest.raises(SystemExit) as stop:
        main(["health", "--gateway", url])
    assert stop.value.code == 2
    assert "http://HOST:PORT" in capsys.readouterr().err
