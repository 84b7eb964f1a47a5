"""What serve.py decides before it starts anything."""

import importlib.metadata
import importlib.util
import os
import platform
import socket
import sys
import sysconfig

import pytest
from medimageparse_serving.launch import built_files, triton_installation, triton_server
from medimageparse_serving.launch.built_files import BUILT_FILES, check_built_files, find_built_models
from medimageparse_serving.launch.model_calls import called_models, reachable_models
from medimageparse_serving.launch.serve import PUBLIC_MODELS, REPOSITORY, TritonServer, free_port
from medimageparse_serving.launch.triton_installation import Installation, ServeError, find_installation, find_libpython

ENSEMBLE = 'platform: "ensemble"\nstep [ { model_name: "first" model_version: -1 }, { model_name:"second" } ]'
CALLER = 'parameters { key: "window_model" value { string_value: "inner" } }\nparameters { key: "window_size" }'


def make_repository(folder, configs, networks=()):
    for name, config in configs.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config)
        if name in networks:
            (folder / name / "configs").mkdir()
    return folder


def test_a_config_names_the_models_it_calls():
    assert called_models(ENSEMBLE) == ["first", "second"]
    assert called_models(CALLER) == ["inner"]
    assert called_models('name: "alone"') == []


def test_models_reached_only_by_bls_are_found(tmp_path):
    make_repository(tmp_path, {"outer": ENSEMBLE, "first": "", "second": CALLER, "inner": ""})
    assert reachable_models(tmp_path, ["outer"]) == ["outer", "first", "second", "inner"]
    with pytest.raises(ServeError, match="no model outr"):
        reachable_models(tmp_path, ["outr"])


def test_our_public_models_reach_every_model():
    folders = {config.parent.name for config in REPOSITORY.glob("*/config.pbtxt")}
    assert set(reachable_models(REPOSITORY, list(PUBLIC_MODELS))) == folders


@pytest.mark.parametrize("runtime", BUILT_FILES)
def test_a_missing_built_file_is_named_with_what_makes_it(tmp_path, runtime):
    make_repository(tmp_path, {"encoder": "", "step": ""}, networks=["encoder"])
    for file in BUILT_FILES[runtime]:
        target = "make engines" if file == "model.plan" else "make export"
        with pytest.raises(ServeError, match=f"^encoder/1/{file} is missing .*{target}"):
            check_built_files(tmp_path, ["step", "encoder"], runtime)
        (tmp_path / "encoder" / "1" / file).touch()
    check_built_files(tmp_path, ["step", "encoder"], runtime)


@pytest.fixture
def both(tmp_path):
    """A repository of both public models, each of which calls one network."""
    called = 'key: "one_model" value {{ string_value: "{}_network" }}'
    networks = [f"{model}_network" for model in PUBLIC_MODELS]
    configs = {model: called.format(model) for model in PUBLIC_MODELS} | dict.fromkeys(networks, "")
    return make_repository(tmp_path, configs, networks)


def build(repository, model):
    for file in BUILT_FILES["cpu"]:
        (repository / f"{model}_network" / "1" / file).touch()
    (repository / model / "1" / "networks.json").touch()


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_what_is_built_is_served_and_the_rest_is_named(both, model):
    [other] = set(PUBLIC_MODELS) - {model}
    build(both, model)
    assert find_built_models(both, "cpu")[0] == [model]
    assert TritonServer(both).models == [model, f"{model}_network"]
    [(left_out, reason)] = TritonServer(both).left_out.items()
    assert left_out == other
    assert reason.startswith(f"{other}_network/1/model.onnx is missing")
    build(both, other)
    assert find_built_models(both, "cpu") == (list(PUBLIC_MODELS), {})
    assert TritonServer(both, models=(model,)).models == [model, f"{model}_network"]


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_a_model_that_is_asked_for_must_be_built(both, model):
    [other] = set(PUBLIC_MODELS) - {model}
    build(both, other)
    with pytest.raises(ServeError, match=f"^{model}_network/1/model.onnx is missing"):
        TritonServer(both, models=(model,))
    build(both, model)
    (both / model / "1" / "networks.json").unlink()
    with pytest.raises(ServeError, match=f"^{model}/1/networks.json is missing .*make export"):
        TritonServer(both, models=PUBLIC_MODELS)


def test_nothing_built_is_refused(both):
    with pytest.raises(ServeError, match="^medimageparse_3d_network/1/model.onnx is missing .*make export"):
        TritonServer(both)


def test_an_unknown_runtime_is_refused():
    with pytest.raises(ServeError, match="no runtime gpu; choose one of cpu, cpu-bf16, onnxruntime, tensorrt"):
        TritonServer(runtime="gpu")


def test_a_processor_without_bf16_runs_in_fp32_and_says_so(tmp_path, monkeypatch, capsys):
    make_repository(tmp_path, {"outer": ENSEMBLE, "first": "", "second": ""})
    monkeypatch.setattr(built_files, "has_bf16", lambda: False)
    assert TritonServer(tmp_path, "cpu-bf16", ("outer",)).runtime == "cpu"
    assert "no instructions for bf16" in capsys.readouterr().err


def test_bf16_without_openvino_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(built_files, "has_bf16", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServeError, match="make openvino"):
        TritonServer(tmp_path, "cpu-bf16")


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


@pytest.fixture
def no_tritonserver(monkeypatch):
    monkeypatch.setattr(triton_installation.shutil, "which", lambda name: None)


def test_tritonserver_from_path_is_preferred(monkeypatch, tmp_path):
    monkeypatch.setattr(triton_installation.shutil, "which", lambda name: f"/opt/bin/{name}")
    assert find_installation("tensorrt", tmp_path) == Installation("/opt/bin/tritonserver")


@pytest.mark.parametrize("found", [("Darwin", "arm64", ""), ("Linux", "aarch64", "glibc"), ("Linux", "x86_64", "")])
@pytest.mark.usefixtures("no_tritonserver")
def test_other_machines_are_told_to_use_the_container(monkeypatch, tmp_path, found):
    monkeypatch.setattr(platform, "system", lambda: found[0])
    monkeypatch.setattr(platform, "machine", lambda: found[1])
    monkeypatch.setattr(platform, "libc_ver", lambda: (found[2], ""))
    with pytest.raises(ServeError, match="use the container"):
        find_installation("cpu", tmp_path)


@pytest.mark.usefixtures("no_tritonserver")
def test_the_wheels_server_runs_only_the_cpu_runtime(tmp_path):
    with pytest.raises(ServeError, match="RUNTIME=tensorrt needs the tritonserver of the container"):
        find_installation("tensorrt", tmp_path)


@pytest.mark.usefixtures("no_tritonserver")
def test_numpy_2_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1.0")
    with pytest.raises(ServeError, match="needs numpy < 2: make install"):
        find_installation("cpu", tmp_path)


@pytest.mark.usefixtures("no_tritonserver")
def test_the_wheels_server_gets_this_interpreter(tmp_path):
    installation = find_installation("cpu", tmp_path)
    environment = dict(installation.environment)
    assert os.path.samefile(environment["PATH"].split(":")[0], sys.prefix + "/bin")
    assert os.path.samefile(environment["LD_LIBRARY_PATH"].split(":")[0], find_libpython())
    assert (tmp_path / "backends" / "python" / "triton_python_backend_stub").exists()


def test_a_python_without_shared_library_is_refused(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "libpython3.11.a" if name == "INSTSONAME" else None)
    with pytest.raises(ServeError, match="no shared libpython"):
        find_libpython()
