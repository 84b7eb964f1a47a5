"""What a server refuses unless told otherwise: other machines, and the APIs of its operator."""

import http.client
from ipaddress import ip_address

import psutil
import pytest
import tritonclient.grpc
from medimageparse_client import Client
from tritonclient.utils import InferenceServerException

MODEL = "medimageparse"
CLOSED_HTTP = [
    ("POST", "/v2/repository/index"),
    ("POST", f"/v2/repository/models/{MODEL}/load"),
    ("POST", f"/v2/repository/models/{MODEL}/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/ours/register"),
    ("POST", "/v2/systemsharedmemory/region/ours/unregister"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/cudasharedmemory/region/ours/register"),
    ("POST", "/v2/cudasharedmemory/unregister"),
    ("GET", f"/v2/models/{MODEL}/stats"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", f"/v2/models/{MODEL}/trace/setting"),
    ("POST", f"/v2/models/{MODEL}/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
]
CLOSED_GRPC = {
    "get_model_repository_index": (),
    "load_model": (MODEL,),
    "unload_model": (MODEL,),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("ours", "/ours", 8),
    "unregister_system_shared_memory": (),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("ours", b"", 0, 8),
    "unregister_cuda_shared_memory": (),
    "get_inference_statistics": (),
    "get_trace_settings": (),
    "update_trace_settings": (MODEL, {"trace_level": ["TENSORS"]}),
    "get_log_settings": (),
    "update_log_settings": ({"log_verbose_level": 1},),
}


def ask(address, method, path, headers=None):
    """Status and body of one HTTP request."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers or {})
    answer = connection.getresponse()
    status, body = answer.status, answer.read().decode()
    connection.close()
    return status, body


@pytest.mark.parametrize(("method", "path"), CLOSED_HTTP)
def test_the_operators_apis_are_closed_over_http(both_models, method, path):
    for headers in ({}, {"admin-key": ""}, {"admin-key": "KEY"}, {"triton-grpc-protocol-admin-key": "KEY"}):
        status, body = ask(both_models.http_url, method, path, headers)
        assert status == 403
        assert "restricted" in body


@pytest.mark.parametrize("call", CLOSED_GRPC)
def test_the_operators_apis_are_closed_over_grpc(both_models, call):
    with tritonclient.grpc.InferenceServerClient(both_models.grpc_url) as triton:
        for headers in ({}, {"triton-grpc-protocol-admin-key": "KEY"}, {"admin-key": both_models.admin_key}):
            with pytest.raises(InferenceServerException, match="restricted") as refused:
                getattr(triton, call)(*CLOSED_GRPC[call], headers=headers)
            assert refused.value.status() == "StatusCode.UNAVAILABLE"


def test_the_key_opens_them(both_models):
    assert ask(both_models.http_url, "GET", "/v2/logging", both_models.admin_headers)[0] == 200
    with tritonclient.grpc.InferenceServerClient(both_models.grpc_url) as triton:
        assert triton.get_model_repository_index(headers=both_models.admin_headers).models


def test_what_a_caller_needs_is_open(both_models, image):
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready"):
        assert ask(both_models.http_url, "GET", path)[0] == 200
    for url, protocol in ((both_models.grpc_url, "grpc"), (both_models.http_url, "http")):
        with Client(url, protocol=protocol) as client:
            assert client.health().is_ready
            assert client.segment_image(image, ["lung"]).label_map.any()


def test_nothing_listens_to_other_machines(both_models):
    sockets = psutil.Process(both_models.process.pid).net_connections("tcp")
    listening = [socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN]
    assert len({address.port for address in listening}) == 3
    assert {ip_address(address.ip.removeprefix("::ffff:")) for address in listening} == {ip_address("127.0.0.1")}
