"""The command of a tritonserver, and a start that is tried once more."""

import os
import socket
import sys

import pytest
from helpers.repositories import ENSEMBLE, build, make_repository
from medimageparse_serving.launch import triton_server
from medimageparse_serving.launch.serve import TritonServer, free_port
from medimageparse_serving.launch.triton_installation import Installation, ServeError


def test_features_fit_into_the_memory_pool_of_every_gpu(tmp_path, monkeypatch):
    make_repository(tmp_path, {"outer": ENSEMBLE, "first": "", "second": ""})
    monkeypatch.setattr(triton_server, "compute_capabilities", lambda: ["9.0", "9.0"])
    for runtime, gpus in (("tensorrt", ["0", "1"]), ("cpu", [])):
        server = TritonServer(tmp_path, runtime, ("outer",))
        server.shm_prefix = "ours-"
        pools = [part for part in server.command(Installation("tritonserver")) if "cuda-memory-pool" in part]
        assert pools == [f"--cuda-memory-pool-byte-size={gpu}:{2 * 2**30}" for gpu in gpus]


@pytest.mark.parametrize(("runtime", "flag"), [("tensorrt", False), ("cpu", True), ("onnxruntime", True)])
def test_the_command_names_models_runtime_and_addresses(tmp_path, runtime, flag):
    make_repository(tmp_path, {"outer": ENSEMBLE, "first": "", "second": ""})
    server = TritonServer(
        tmp_path, runtime, ("outer",), host="0.0.0.0", http_port=(port := free_port()), flags=("--id=x",)
    )
    server.shm_prefix = "ours-"
    command = server.command(Installation("tritonserver", ("--backend-directory=b",)))
    assert [part for part in command if part.startswith("--load-model")] == [
        "--load-model=outer",
        "--load-model=first",
        "--load-model=second",
    ]
    assert (f"--model-config-name={runtime}" in command) == flag
    for part in (f"--http-port={port}", "--grpc-address=0.0.0.0", "--disable-auto-complete-config", "--id=x"):
        assert part in command
    assert server.http_url == f"127.0.0.1:{port}"


# stands in for tritonserver: gives up at its first start, then answers that it is ready
STARVED_AT_FIRST = """#!{python}
import http.server, os, re, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
if "--model-load-thread-count=1" not in sys.argv or "{always}":
    print("what():  boost::interprocess::lock_exception", flush=True)
    os.abort()
[port] = re.findall(r"--http-port=(\\d+)", " ".join(sys.argv))
http.server.HTTPServer(("127.0.0.1", int(port)), Ready).serve_forever()
"""


@pytest.mark.parametrize("always", ["", "always"])
def test_a_server_starved_at_its_start_is_started_once_more(both, monkeypatch, tmp_path, always):
    build(both, "medimageparse")
    binary = tmp_path / "tritonserver"
    binary.write_text(STARVED_AT_FIRST.format(python=sys.executable, always=always))
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if always:
        with pytest.raises(ServeError, match=r"^tritonserver ended with code -6; its last lines:\n.*lock_exception$"):
            TritonServer(both).__enter__()
    else:
        with TritonServer(both) as server:
            assert server.process.poll() is None
            assert not any("lock_exception" in line for line in server.last_lines)


def test_free_ports_differ_and_a_taken_one_is_refused():
    assert len({free_port() for _ in range(5)}) > 1
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServeError, match="is taken"):
            free_port(other.getsockname()[1])
