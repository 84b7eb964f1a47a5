"""Which traces tritonserver is asked for, and which are refused before it starts."""

import pytest
from medimageparse_contract.version import VERSION
from medimageparse_serving.launch import tracing
from medimageparse_serving.launch.serve import ServeError, TritonServer, parse_arguments
from medimageparse_serving.launch.tracing import TRACED, checked_flags, environment, trace_flags
from medimageparse_serving.triton import traces

URL = "http://collector.example:4318/v1/traces"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "outer" / "1").mkdir(parents=True)
    (tmp_path / "outer" / "config.pbtxt").write_text('name: "outer"')
    return tmp_path


def test_nothing_is_traced_unless_asked_for(folder):
    options = parse_arguments(["--runtime", "cpu"])
    assert trace_flags(options["trace_url"], options["trace_rate"]) == []
    assert TRACED not in TritonServer(folder, models=("outer",)).told()


def test_the_flags_are_opentelemetrys_and_the_steps_are_told(folder):
    flags = trace_flags(URL, 10)
    assert flags == [
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=10",
        f"--trace-config=opentelemetry,url={URL}",
        "--trace-config=opentelemetry,resource=service.name=medimageparse",
        f"--trace-config=opentelemetry,resource=service.version={VERSION}",
    ]
    server = TritonServer(folder, models=("outer",), flags=flags)
    assert server.flags == tuple(flags)
    assert server.told()[TRACED] == environment(flags)[TRACED] == "1"
    assert traces.TRACED == tracing.TRACED


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_a_collectors_address_is_enough(path):
    assert f"--trace-config=opentelemetry,url={URL}" in trace_flags(f"http://collector.example:4318{path}", 1)


@pytest.mark.parametrize(
    "url",
    [
        "collector:4318",
        "grpc://collector:4317",
        "http://",
        "http://collector:port",
        "http://me:merlin-8813@collector:4318",
        "http://collector:4318/a b",
        "http://collector:4318,rate=1",
    ],
)
def test_an_address_that_cannot_be_is_told_and_not_repeated(url):
    with pytest.raises(ServeError, match="--trace-url is http://HOST:4318 of a collector") as refused:
        trace_flags(url, 1)
    assert "merlin" not in str(refused.value)


def test_a_rate_that_cannot_be_is_told():
    assert "--trace-config=rate=0" in trace_flags(URL, 0)
    with pytest.raises(ServeError, match="--trace-rate is 1 for each request"):
        trace_flags(URL, -1)


@pytest.mark.parametrize(
    "flags",
    [
        ["--trace-config=level=TENSORS"],
        ["--trace-config=level=tensors"],
        ["--trace-config", "level=TENSORS"],
        ["--trace-c=level=TENSORS"],
        ["--trace-level=TENSORS"],
        ["--trace-level", "TENSORS"],
        ["--trace-l=MAX"],
        ["--trace-config=level=TIMESTAMPS,TENSORS"],
        ["--trace-config=mode=triton"],
        ["--trace-config=triton,file=/tmp/trace.json"],
        ["--trace-file=/tmp/trace.json"],
        ["--id=x", "--trace-config=mode=opentelemetry", "--trace-config=level=TENSORS"],
    ],
)
def test_what_could_write_tensors_into_a_trace_is_refused(folder, flags):
    with pytest.raises(ServeError, match="TENSORS and its trace file would hold voxels and prompts"):
        TritonServer(folder, models=("outer",), flags=flags)


def test_other_flags_pass():
    flags = ("--id=x", "--trace-config=opentelemetry,bsp_schedule_delay=100", "--trace-config=count=-1")
    assert checked_flags(flags) == flags
