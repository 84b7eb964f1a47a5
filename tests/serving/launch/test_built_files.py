"""What is served: what is built, what is asked for, and with which runtime."""

import importlib.util

import pytest
from helpers.repositories import ENSEMBLE, build, make_repository
from medimageparse_serving.launch import built_files
from medimageparse_serving.launch.built_files import BUILT_FILES, check_built_files, find_built_models
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.serve import PUBLIC_MODELS
from medimageparse_serving.launch.triton_server import TritonServer


@pytest.mark.parametrize("runtime", BUILT_FILES)
def test_a_missing_built_file_is_named_with_what_makes_it(tmp_path, runtime):
    make_repository(tmp_path, {"encoder": "", "step": ""}, networks=["encoder"])
    for file in BUILT_FILES[runtime]:
        target = "make engines" if file == "model.plan" else "make export"
        with pytest.raises(ServeError, match=f"^encoder/1/{file} is missing .*{target}"):
            check_built_files(tmp_path, ["step", "encoder"], runtime)
        (tmp_path / "encoder" / "1" / file).touch()
    check_built_files(tmp_path, ["step", "encoder"], runtime)


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
