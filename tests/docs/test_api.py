"""docs/api.md says what callers may send and get, as configurations, contract and the client's signatures do."""

import inspect
import re
from typing import get_args

import pytest
from google.protobuf import text_format
from helpers.pages import quoted, section, table
from helpers.places import ROOT
from medimageparse_client import Client
from medimageparse_contract.categories import CATEGORIES
from medimageparse_contract.image_types import ImageType
from medimageparse_contract.models import MODEL_2D, MODEL_3D, PUBLIC_MODELS, STREAMS
from medimageparse_contract.options import INTENSITIES, ORIENTATIONS, OUTPUTS_2D, OUTPUTS_3D, SLICE_AXES
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

PAGE = "docs/api.md"
VALUES = {
    MODEL_3D: {
        "intensity": INTENSITIES,
        "orientation": ORIENTATIONS,
        "slice_axis": SLICE_AXES,
        "output": OUTPUTS_3D,
    },
    MODEL_2D: {"image_type": get_args(ImageType), "output": OUTPUTS_2D},
}
METHODS = {MODEL_3D: Client.segment, MODEL_2D: Client.segment_image}
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def config(model):
    return text_format.Parse((ROOT / "model_repository" / model / "config.pbtxt").read_text(), ModelConfig())


def type_name(tensor):
    name = DataType.Name(tensor.data_type).removeprefix("TYPE_").replace("STRING", "BYTES")
    return name, len(tensor.dims), list(tensor.dims) == [1]


def inputs(model):
    return table(section(PAGE, f"Inputs of `{model}`"), "input")


def values(model):
    """The second table of the section: its rows without a name go on with the one before."""
    _, _, rest = section(PAGE, f"Inputs of `{model}`").partition("| input | values |")
    allowed, name = {}, ""
    for first, cell in table(f"| input | values |{rest}", "input"):
        name = quoted(first)[0] if first else name
        allowed.setdefault(name, []).extend(quoted(cell))
    return allowed


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_the_inputs_are_those_of_the_configuration(model):
    tensors = {tensor.name: tensor for tensor in config(model).input}
    assert [quoted(row[0])[0] for row in inputs(model)] == list(tensors)
    for name, type_, left_out, _ in inputs(model):
        tensor = tensors[quoted(name)[0]]
        kind, _, is_one = type_name(tensor)
        assert (type_, is_one) == (f"{kind}[1]", True)
        assert (left_out == "required") == (not tensor.optional)


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_the_outputs_are_those_of_the_configuration(model):
    tensors = {tensor.name: tensor for tensor in config(model).output}
    rows = table(section(PAGE, f"Outputs of `{model}`"), "output")
    assert [quoted(row[0])[0] for row in rows] == list(tensors)
    for name, type_, _ in rows:
        kind, n_axes, is_one = type_name(tensors[quoted(name)[0]])
        shape = type_.removeprefix(kind).strip("[]").split(",")
        assert type_.startswith(kind)
        assert len(shape) == n_axes
        assert (shape == ["1"]) == is_one


@pytest.mark.parametrize(("model", "stream"), STREAMS.items())
def test_a_stream_has_the_tensors_of_its_model_and_what_its_section_says(model, stream):
    of_model, of_stream = config(model), config(stream)
    assert list(of_stream.input) == list(of_model.input)
    told = [quoted(name)[0] for name, *_ in table(section(PAGE, f"`{stream}`"), "output")]
    assert [tensor.name for tensor in of_stream.output] == [*(tensor.name for tensor in of_model.output), *told]
    assert of_stream.model_transaction_policy.decoupled
    assert dict(of_stream.parameters) == dict(of_model.parameters)


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_the_values_of_an_option_are_those_of_the_contract(model):
    assert values(model) == {name: list(allowed) for name, allowed in VALUES[model].items()}


@pytest.mark.parametrize("model", PUBLIC_MODELS)
def test_the_client_has_every_option_but_output_with_the_same_default(model):
    parameters = inspect.signature(METHODS[model]).parameters
    for name, _, left_out, _ in inputs(model)[2:]:
        [option] = quoted(name)
        if option != "output":
            usual = parameters[option].default
            told = [value for value in quoted(left_out) if value != "text"]  # what the default hangs on
            usual = str(usual).lower() if isinstance(usual, bool) else usual
            assert told == ([] if usual is None else [str(usual)])


def test_the_categories_are_those_of_the_contract():
    text = " ".join(section(PAGE, f"Outputs of `{MODEL_2D}`").split())
    assert f"The {len(CATEGORIES)} categories: {', '.join(CATEGORIES)}." in text


def number(text):
    """ "1 GiB", "16,384" or "600 s" as a number."""
    digits, unit = re.match(r"([\d,]+) ?(\w*)", text).groups()
    return int(digits.replace(",", "")) * UNITS.get(unit, 1)


def test_the_limits_are_those_of_the_configurations():
    rows = table(section(PAGE, "Limits"), "limit of")
    told = {(quoted(step)[0], quoted(parameter)[0]): number(value) for _, step, parameter, value in rows}
    steps = {quoted(row[1])[0] for row in rows}
    limits = {
        (step, name): int(parameter.string_value)
        for step in steps
        for name, parameter in config(step).parameters.items()
    }
    assert told == limits


def test_every_step_that_has_limits_is_in_the_table():
    """Those of the public models stand in the table of their queues."""
    public = {*PUBLIC_MODELS, *STREAMS.values()}
    having = {
        path.parent.name
        for path in ROOT.glob("model_repository/*/config.pbtxt")
        if path.parent.name not in public
        and any(name.startswith("max_") for name in config(path.parent.name).parameters)
    }
    assert having == {quoted(row[1])[0] for row in table(section(PAGE, "Limits"), "limit of")}


def test_the_queues_are_those_of_the_configurations():
    rows = table(section(PAGE, "Limits"), "public model")
    assert [quoted(row[0])[0] for row in rows] == list(PUBLIC_MODELS)
    for model, under_way, waiting, longest, work in rows:
        read = config(quoted(model)[0])
        policy = read.dynamic_batching.default_queue_policy
        assert int(under_way) == read.instance_group[0].count
        assert int(waiting) == policy.max_queue_size
        assert number(longest) * 1_000_000 == policy.default_timeout_microseconds
        assert work == f"{read.parameters['max_seconds'].string_value} s"
    most = int(config(MODEL_3D).parameters["max_slice_prompts"].string_value)
    text = " ".join(section(PAGE, "Limits").split())
    assert f"at most {most:,} slices x prompts" in text
    for parameter, words in (("max_map_bytes", "bytes"), ("max_draw_prompts", "")):
        assert f"at most {int(config(MODEL_3D).parameters[parameter].string_value):,} {words}" in text
