"""The configurations agree with each other, with the wiring and with the graphs. No server is started."""

import json
from graphlib import TopologicalSorter
from pathlib import Path

import onnxruntime
import pytest
from google.protobuf import text_format
from medimageparse.served_tensors import Dimension, networks
from medimageparse.variants import MAX_GROUPS, MAX_PROMPTS, PUBLISHED, PUBLISHED_2D, TINY_2D
from medimageparse_contract.models import STREAMS
from medimageparse_contract.options import MAPS_3D
from medimageparse_demo.repository import WEIGHTS
from medimageparse_serving.launch.model_calls import called_models
from medimageparse_serving.launch.serve import REPOSITORY
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import np_to_triton_dtype

RUNTIMES = ("config.pbtxt", "configs/onnxruntime.pbtxt", "configs/cpu.pbtxt", "configs/cpu-bf16.pbtxt")
IN_BF16 = ("image_encoder", "image_encoder_3d")
ONNX_TYPES = {
    "tensor(float)": DataType.TYPE_FP32,
    "tensor(int64)": DataType.TYPE_INT64,
    "tensor(uint8)": DataType.TYPE_UINT8,
}


def read(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


MODELS = {path.parent.name: read(path) for path in sorted(REPOSITORY.glob("*/config.pbtxt"))}
NETWORKS = [name for name in MODELS if (REPOSITORY / name / "configs").is_dir()]
ENSEMBLES = [name for name, config in MODELS.items() if config.platform == "ensemble"]
TABLE = networks(PUBLISHED) | networks(PUBLISHED_2D)


def tensors(entries):
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in entries}


def fits(dims, others):
    """Equal, where neither leaves the size open."""
    return len(dims) == len(others) and all(
        -1 in pair or len(set(pair)) == 1 for pair in zip(dims, others, strict=True)
    )


def assert_fit(name, one, other):
    assert one[0] == other[0], name
    assert fits(one[1], other[1]), name


def test_there_is_something_to_test():
    assert ENSEMBLES == ["segment_pixels", "segment_window_3d"]
    assert sorted(TABLE) == NETWORKS


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_named_as_its_folder_and_takes_whole_requests(model):
    assert MODELS[model].name == model
    assert MODELS[model].max_batch_size == 0
    assert (REPOSITORY / model / "1").is_dir()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_runtimes_of_a_network_agree(network):
    tensorrt, onnx, cpu, cpu_bf16 = (read(REPOSITORY / network / path) for path in RUNTIMES)
    assert {tensorrt.name, onnx.name, cpu.name, cpu_bf16.name} == {network}
    assert (tensorrt.platform, onnx.platform, cpu.backend) == ("tensorrt_plan", "onnxruntime_onnx", "python")
    assert cpu.default_model_filename == "onnxruntime_model.py"
    assert (tensors(cpu_bf16.input), tensors(cpu_bf16.output)) == (tensors(cpu.input), tensors(cpu.output))
    runner = "openvino_model.py" if network in IN_BF16 else "onnxruntime_model.py"
    assert cpu_bf16.default_model_filename == runner
    for published, other, open_ in zip(
        (tensorrt.input, tensorrt.output), (onnx.input, onnx.output), (cpu.input, cpu.output), strict=True
    ):
        assert tensors(published) == tensors(other)
        assert tensors(published).keys() == tensors(open_).keys()
        for name, tensor in tensors(published).items():
            assert_fit(name, tensor, tensors(open_)[name])
        assert all(set(dims) == {-1} for _, dims in tensors(open_).values())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_published_sizes_are_those_of_the_table(network):
    table = TABLE[network]
    for entries, specs in ((MODELS[network].input, table.inputs), (MODELS[network].output, table.outputs)):
        expected = {
            spec.name: (
                DataType.Value(f"TYPE_{np_to_triton_dtype(spec.dtype)}"),
                [-1 if isinstance(d, Dimension) else d for d in spec.shape],
            )
            for spec in specs
        }
        assert tensors(entries) == expected


def test_what_the_steps_send_is_within_what_engines_serve():
    window, *_ = TABLE["image_encoder_3d"].inputs
    window_size = int(MODELS["medimageparse_3d"].parameters["window_size"].string_value)
    assert window.shape[1].smallest <= window_size + 2 <= window.shape[1].largest
    limits = {name: parameter.string_value for name, parameter in MODELS["tokenize_prompts"].parameters.items()}
    assert (int(limits["max_prompts"]), int(limits["max_groups"])) == (MAX_PROMPTS, MAX_GROUPS)
    assert int(MODELS["medimageparse_3d"].parameters["max_draw_prompts"].string_value) == MAX_PROMPTS
    *_, groups = TABLE["mask_decoder"].inputs
    assert [(d.smallest, d.largest) for d in groups.shape] == [(1, MAX_GROUPS), (1, MAX_PROMPTS)]


@pytest.mark.parametrize("network", networks(TINY_2D))
def test_other_sizes_fit_the_cpu_configuration(network):
    cpu, table = read(REPOSITORY / network / "configs" / "cpu.pbtxt"), networks(TINY_2D)[network]
    for entries, specs in ((cpu.input, table.inputs), (cpu.output, table.outputs)):
        assert [tensor.name for tensor in entries] == [spec.name for spec in specs]
        assert [len(tensor.dims) for tensor in entries] == [len(spec.shape) for spec in specs]


@pytest.mark.parametrize("network", [name for name in NETWORKS if (WEIGHTS / name).is_dir()])
def test_the_demos_graph_fits_its_configuration(network):
    path = WEIGHTS / network / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    cpu = read(REPOSITORY / network / "configs" / "cpu.pbtxt")
    for entries, nodes in ((cpu.input, session.get_inputs()), (cpu.output, session.get_outputs())):
        graph = {
            node.name: (ONNX_TYPES[node.type], [d if isinstance(d, int) else -1 for d in node.shape]) for node in nodes
        }
        assert graph.keys() == tensors(entries).keys()
        for name, tensor in tensors(entries).items():
            assert_fit(name, tensor, graph[name])


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_every_input_of_a_step_is_made_before(ensemble):
    config = MODELS[ensemble]
    known = tensors(config.input)
    optional = {tensor.name for tensor in config.input if tensor.optional}
    for step in config.ensemble_scheduling.step:
        model = MODELS[step.model_name]
        inputs, outputs = tensors(model.input), tensors(model.output)
        required = {tensor.name for tensor in model.input if not tensor.optional}
        assert required <= set(step.input_map) <= set(inputs)
        assert set(step.output_map) <= set(outputs)
        for name, source in step.input_map.items():
            assert name == source  # a tensor has one name everywhere
            assert_fit(f"{step.model_name}: {name}", inputs[name], known[source])
        may_be_left_out = {tensor.name for tensor in model.input if tensor.optional}
        assert optional & set(step.input_map) <= may_be_left_out
        for name, target in step.output_map.items():
            assert name == target
            assert target not in known
            known[target] = outputs[name]
    for name, tensor in tensors(config.output).items():
        assert_fit(name, tensor, known[name])


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_steps_of_an_ensemble_never_run_side_by_side(ensemble):
    """tritonserver 2.51 deadlocks or dies when one of two running steps refuses its input: see the README there."""
    config = MODELS[ensemble]
    made = {tensor.name for tensor in config.input}
    waiting = list(config.ensemble_scheduling.step)
    while waiting:
        ready = [step for step in waiting if set(step.input_map.values()) <= made]
        assert len(ready) == 1
        waiting.remove(ready[0])
        made |= set(ready[0].output_map.values())


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_an_output_of_an_ensemble_is_no_steps_input(ensemble):
    """Triton would leave out the step that makes it, when the step that takes it is left out."""
    config = MODELS[ensemble]
    taken = {name for step in config.ensemble_scheduling.step for name in step.input_map.values()}
    assert not taken & set(tensors(config.output))


def called(model):
    """The models that a model calls, in their order."""
    return called_models((REPOSITORY / model / "config.pbtxt").read_text())


@pytest.mark.parametrize("model", [*STREAMS, *STREAMS.values()])
def test_every_input_of_a_called_model_is_made_before(model):
    known = tensors(MODELS[model].input)
    made = {"window", "digit_values", "noise_fields", "pixels", "segment_report"}
    for own in ("progress", "image_features"):  # the public model makes them itself
        known[own] = (DataType.TYPE_STRING, [1])
    optional = {tensor.name for tensor in MODELS[model].input if tensor.optional}
    for step in called(model):
        for tensor in MODELS[step].input:
            if tensor.name in known:
                assert_fit(f"{step}: {tensor.name}", (tensor.data_type, list(tensor.dims)), known[tensor.name])
            else:
                assert tensor.optional or tensor.name in made, f"{step}: {tensor.name}"
            assert tensor.optional or tensor.name not in optional, f"{step}: {tensor.name}"
        known |= tensors(MODELS[step].output)
    for name, tensor in tensors(MODELS[model].output).items():
        if name.removesuffix("_file") not in OWN_MAPS:
            assert_fit(name, tensor, known[name])


def test_no_model_waits_for_itself():
    """A model that calls others keeps its instance meanwhile: calls in a circle would wait for ever."""
    order = TopologicalSorter({model: called(model) for model in MODELS}).static_order()  # raises on a circle
    assert set(order) == set(MODELS)


def test_what_waits_is_bounded_at_the_door():
    """A bounded queue where requests come in; behind it there are never more than the instances let through."""
    for model, config in MODELS.items():
        assert config.HasField("dynamic_batching") == (model in CONTRACT)
        assert not config.ensemble_scheduling.max_inflight_requests  # tritonserver 2.51 does not know it
    for model in CONTRACT:
        policy = MODELS[model].dynamic_batching.default_queue_policy
        assert 1 <= policy.max_queue_size <= 64
        assert policy.timeout_action == policy.REJECT
        assert policy.default_timeout_microseconds > 0
        assert policy.allow_timeout_override
        assert not MODELS[model].dynamic_batching.preferred_batch_size


OWN_MAPS = (*MAPS_3D, "uncertainty", "instances")  # that medimageparse_3d makes itself
LABELS = ["nifti_file", "label_map"]
MAPS = [output for kind in OWN_MAPS for output in (kind, f"{kind}_file")]
CONTRACT = {
    "medimageparse_3d": (["image"], [*LABELS, *MAPS, "scores", "report"]),
    "medimageparse_3d_stream": (["image"], [*LABELS, *MAPS, "scores", "report", "progress"]),
    "medimageparse": (["image"], ["image_features", "probabilities", "text_features", "report"]),
    "medimageparse_stream": (
        ["image"],
        ["image_features", "probabilities", "text_features", "report", "progress"],
    ),
}
NOT_TEXT = {
    "joint": (DataType.TYPE_BOOL, [1]),
    "tile": (DataType.TYPE_BOOL, [1]),
    "p_value_threshold": (DataType.TYPE_FP32, [1]),
    "instances": (DataType.TYPE_BOOL, [1]),
    "draws": (DataType.TYPE_INT32, [1]),
}


@pytest.mark.parametrize("model", CONTRACT)
def test_the_contract(model):
    config, (required, outputs) = MODELS[model], CONTRACT[model]
    assert [tensor.name for tensor in config.input if not tensor.optional] == required
    assert list(tensors(config.output)) == outputs
    for name, tensor in tensors(config.input).items():
        assert tensor == NOT_TEXT.get(name, (DataType.TYPE_STRING, [1]))


@pytest.mark.parametrize(("model", "stream"), STREAMS.items())
def test_a_stream_differs_from_its_model_by_progress_alone(model, stream):
    config, twin = MODELS[model], MODELS[stream]
    decoupled = {name for name, config in MODELS.items() if config.model_transaction_policy.decoupled}
    assert decoupled == set(STREAMS.values())
    twin = ModelConfig.FromString(twin.SerializeToString())
    assert twin.output.pop().name == "progress"
    twin.name = model
    twin.ClearField("model_transaction_policy")
    assert twin == config


@pytest.mark.parametrize("model", MODELS)
def test_python_steps_state_where_they_run_and_whole_parameters(model):
    config = MODELS[model]
    if config.backend == "python":
        assert config.instance_group[0].kind == ModelConfig().instance_group.add().KIND_CPU
        assert config.instance_group[0].count >= 1
        for name, parameter in config.parameters.items():
            least = 0 if name == "windows_in_flight" else 1
            assert name.endswith("_model") or json.loads(parameter.string_value) >= least
