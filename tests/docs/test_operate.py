"""docs/operate.md names the variables, ports, times and messages that there are."""

import ast
import inspect
import re
from functools import cache

import pytest
from helpers import fake_triton
from helpers.pages import quoted, section, table
from helpers.places import ROOT
from medimageparse_client import servers
from medimageparse_serving.launch import service_metrics, supervise
from medimageparse_serving.launch.serve import parse_arguments
from medimageparse_serving.launch.supervise import Supervisor
from medimageparse_serving.launch.triton_flags import KEEPALIVE_FLAGS

fake_triton.install()

from medimageparse_serving.triton import counts  # noqa: E402

PAGE = "docs/operate.md"
DEFAULTS = dict(re.findall(r"^([A-Z_]+) \?= ?(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
TRITONS_OWN = (  # sentences that stand in no file of ours
    "Failed to increase the shared memory pool size",
    "failed to parse the request JSON buffer",
)


VARIABLE = re.compile(  # what stands for a name or a number
    r"\.\.\.|\b[XN]\b|decode_volume|\bimage\b|1/model\.onnx|model\.\w+|manifest\.json"
    r"|/tmp \(TMPDIR\) or /dev/shm|/dev/shm|,"
)


@cache
def texts():
    """Every text of server and client as Python reads it, the parts of f-strings too."""
    files = [*ROOT.glob("serving/**/*.py"), *ROOT.glob("client/**/*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_the_variables_have_the_defaults_of_the_makefile():
    for names, meaning, told in table(section(PAGE, "Starting it"), "variable of `make serve` and `make serve-demo`"):
        defaults = [DEFAULTS[name] for name in quoted(names)]
        if any(defaults):
            assert [text.strip(" `") for text in told.split(",")] == defaults, meaning
        else:
            assert "`" not in told


def messages():
    text = section(PAGE, "Messages")
    callers, launchers = table(text, "message"), table(text[text.index("| message | way out |") :], "message")
    return [part.strip(" `") for cell, *_ in callers + launchers for part in re.split("; (?!the server's log)", cell)]


@pytest.mark.parametrize("message", messages())
def test_a_message_is_one_of_the_programs(message):
    for part in (part.strip(" :") for part in VARIABLE.split(message)):
        assert part in TRITONS_OWN or part in texts()


def test_there_are_messages_to_look_for():
    assert len(messages()) > 15


def test_the_pings_are_those_of_client_and_server():
    told = {who: (pings, gives_up) for who, pings, gives_up in table(section(PAGE, "Connections"), "who")}
    seconds = dict(re.findall(r"--grpc-(keepalive-time|keepalive-timeout)=(\d+)000", " ".join(KEEPALIVE_FLAGS)))
    assert f"{seconds['keepalive-time']} s" in told["the server"][0]
    assert f"{seconds['keepalive-timeout']} s" in told["the server"][1]
    options = dict(servers.channel_options("host:1"))
    assert f"{options['grpc.keepalive_time_ms'] // 1000} s" in told["our client"][0]
    assert f"{options['grpc.keepalive_timeout_ms'] // 1000} s" in told["our client"][1]


def test_the_probes_and_the_canarys_times_are_those_of_the_supervisor():
    text = " ".join(section(PAGE, "Crashes, probes, signals").split())
    usual = {name: parameter.default for name, parameter in inspect.signature(Supervisor).parameters.items()}
    assert f"every {usual['interval_s']} seconds (`--canary-interval`)" in text
    assert f"`--canary-timeout` ({usual['patience_s']} s)" in text
    assert f"1, 2, 4 ... {supervise.LONGEST_PAUSE_S} seconds" in text
    assert f"{('', 'One', 'Two', 'Three', 'Four', 'Five')[supervise.MAX_STARTS]} failed starts in a row" in text
    paths = set(re.findall(r'"(/\w+)"', inspect.getsource(supervise)))
    assert paths == {
        quoted(path)[0] for path, _ in table(section(PAGE, "Crashes, probes, signals"), "probe, port 8003")
    }


@pytest.mark.parametrize(
    ("head", "families"),
    [("counter on port 8002", counts.FAMILIES), ("metric on port 8003", service_metrics.FAMILIES)],
)
def test_the_metrics_are_those_of_the_service(head, families):
    text = section(PAGE, "Metrics")
    names = [quoted(cell) for cell, *_ in table(text[text.index(f"| {head} |") :], head)]
    told = [
        full if full.startswith("medimageparse") else row[0].rpartition("_")[0] + full for row in names for full in row
    ]
    assert sorted(told) == sorted(families)


def test_the_outcomes_are_those_that_are_counted():
    [told] = re.findall(r"`outcome` is (.*?)\. ", " ".join(section(PAGE, "Metrics").split()))
    assert tuple(quoted(told)) == counts.OUTCOMES


def test_the_rate_of_traces_is_that_of_the_launcher():
    [told] = re.findall(r"`--trace-rate N` takes each N-th request \((\d+)\)", section(PAGE, "Traces"))
    assert int(told) == parse_arguments(["--runtime", "cpu"])["trace_rate"]
