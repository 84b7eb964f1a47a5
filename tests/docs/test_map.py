"""model_repository/README.md and docs/architecture.md show the models, tensors, modules and parameters of the code."""

import re

import pytest
from google.protobuf import text_format
from helpers.pages import quoted, section, spans, table
from helpers.places import ROOT
from medimageparse_contract.models import PUBLIC_MODELS
from medimageparse_serving.launch.built_files import BUILT_FILES
from medimageparse_serving.launch.model_calls import called_models
from tritonclient.grpc.model_config_pb2 import ModelConfig

MAP, REASONS = "model_repository/README.md", "docs/architecture.md"
REPOSITORY = ROOT / "model_repository"


def config_text(model):
    return (REPOSITORY / model / "config.pbtxt").read_text()


def config(model):
    return text_format.Parse(config_text(model), ModelConfig())


def rows(model):
    return [
        (name.startswith("-"), quoted(name)[0], quoted(makes), module)
        for name, makes, module in table(section(MAP, "The model repository: a map"), f"`{model}` calls")
    ]


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_the_map_lists_the_steps_in_the_order_of_the_calls(model):
    assert [step for is_inner, step, *_ in rows(model) if not is_inner] == called_models(config_text(model))
    [ensemble] = (step for _, step, *_ in rows(model) if config(step).platform == "ensemble")
    inner = [step for is_inner, step, *_ in rows(model) if is_inner]
    assert inner == [step.model_name for step in config(ensemble).ensemble_scheduling.step]


@pytest.mark.parametrize(("model", "step"), [(model, row) for model in PUBLIC_MODELS for row in rows(model)])
def test_a_step_makes_what_the_map_says_in_the_module_that_it_names(model, step):
    _, name, makes, module = step
    assert set(makes) <= {tensor.name for tensor in config(name).output}
    for file in quoted(module):
        assert (ROOT / "serving" / "medimageparse_serving" / file).is_file()
    if not quoted(module):
        kind = "an ensemble" if config(name).platform == "ensemble" else "a network"
        assert module == kind
        assert (kind == "a network") == (REPOSITORY / name / "configs").is_dir()


def test_the_map_is_short():
    assert len((ROOT / MAP).read_text().splitlines()) <= 30


def test_the_runtimes_are_those_of_the_launcher():
    told = [quoted(name)[0] for name, *_ in table(section(REASONS, "Runtimes"), "`RUNTIME`")]
    assert sorted(told) == sorted(BUILT_FILES)


def test_the_parameters_are_in_the_configurations():
    texts = {
        "networks, `configs/cpu.pbtxt`": (REPOSITORY / "image_encoder_3d/configs/cpu.pbtxt").read_text(),
        "image encoders, `configs/cpu-bf16.pbtxt`": (REPOSITORY / "image_encoder/configs/cpu-bf16.pbtxt").read_text(),
        "image encoders on a CPU": (REPOSITORY / "image_encoder/configs/cpu.pbtxt").read_text(),
        "Python steps": config_text("decode_image").replace("instance_group [ { count", "instance_group.count"),
        "public models": config_text("medimageparse"),
    }
    told = table(section(REASONS, "Parameters"), "model")
    assert told
    for model, parameters, _ in told:
        text = texts.get(model) or config_text(quoted(model)[0])
        assert all(re.search(rf"\b{name}\b", text) for name in quoted(parameters)), model


def test_the_readme_says_how_the_deployment_is_composed():
    ensembles = [path.parent.name for path in REPOSITORY.glob("*/config.pbtxt") if "ensemble" in path.read_text()]
    named = spans("README.md")
    assert {*PUBLIC_MODELS, *(name for name in ensembles if config(name).platform == "ensemble")} <= set(named)


def test_the_rooms_are_the_folders():
    told = {name for cell, *_ in table(section(REASONS, "The rooms"), "folder") for name in quoted(cell)}
    rooms = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert told == {room for room in rooms if not room.startswith((".", "build"))}
