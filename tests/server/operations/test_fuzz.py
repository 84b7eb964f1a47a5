"""Hundreds of requests that nobody should send: each gets a right answer or a sentence, the next good one its own."""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from helpers.fuzzed_input import BROKEN_BASE64, PACKED, SECRET, any_nifti, any_picture, any_text, draw_cases, nifti
from helpers.image_answers import image_file, maps_of
from helpers.nifti_answers import nifti_bytes
from helpers.running_server import step_processes, triton_server
from helpers.served_repository import demo_repository, pared
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

VOLUME = np.random.default_rng(3).integers(0, 120, (12, 10, 3)).astype(np.float32)
VOLUME[2, 3, 1] = 119.98642  # may stand in no sentence and no log line
PICTURE = np.random.default_rng(7).integers(0, 256, (15, 20, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
FILES = {"medimageparse_3d": nifti(VOLUME), "medimageparse": image_file(PICTURE)}
GOOD = {
    "medimageparse_3d": {"image": FILES["medimageparse_3d"], "text": b"liver & spine"},
    "medimageparse": {"image": FILES["medimageparse"], "text": b"left lung & heart"},
}
OUTPUTS = {
    "medimageparse_3d": ("nifti_file", "label_map", "scores", "report"),
    "medimageparse": ("image_features", "text_features", "report"),
}
TRANSPORTS = {"grpc": tritonclient.grpc, "http": tritonclient.http}
EXACT = {
    "medimageparse_3d": ("nifti_file", "label_map", "scores"),
    "medimageparse": ("image_features", "text_features"),
}
MODELS = tuple(GOOD)
REFUSED = {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}
UNWANTED = ("\n", "Traceback", 'File "', "/", ".py", "Error", "0x", "119.98", SECRET)

OPTIONS = {
    "medimageparse_3d": {
        "intensity": ("auto", "none", "percentile", "ct-lung", "CT-LUNG", "", "auto\0"),
        "orientation": ("LAS", "stored", "RAS", "las"),
        "slice_axis": ("auto", "0", "1", "2", "3", "-1", "0 ", "1e0"),
        "output": ("all", "nifti_file", "masks", "probabilities_file", SECRET, "x" * 10**6, "é" * 99),
    },
    "medimageparse": {
        "image_type": ("CT-Abdomen", "OCT", " OCT ", "oct", "", SECRET, "\0", "x" * 10**6),
        "output": ("probabilities", "masks", "all", "", SECRET),
    },
}
ARRAYS = (
    *(np.zeros(shape, np.object_) for shape in ((0,), (2,), (1, 1), (1, 0), ())),
    *(np.zeros(shape, dtype) for shape in ((1,), (2, 2)) for dtype in (np.uint8, np.int64, np.float32, np.bool_)),
    *(np.array([value], np.float32) for value in (0.05, -1, 2, np.nan, np.inf)),
    *(np.array([value], np.bool_) for value in (True, False)),
    *(np.array([value], np.int32) for value in (3, -(2**31))),
)
INPUTS = {model: ("image", "text", *OPTIONS[model]) for model in MODELS}
INPUTS["medimageparse"] += ("joint", "p_value_threshold")
INPUTS["medimageparse_3d"] += ("instances", "draws", "preset")
LONG_TEXTS = [
    b"liver" + b" & liver" * 9_999,
    b"liver" * 200_000,
    b"&" * 16_000,
    b" & " * 5_000,
    b"\0" * 1_000,
    b"liver\0",
    b"\xf0\x9f\xab\x80" * 5_000,
    b"&amp;" * 3_000,
    b"&#" + b"9" * 5_000 + b"; liver",
    b"\xed\xa0\x80",  # half of a surrogate pair
]


MIB = 2**20
MAX_DECOMPRESSED_BYTES = 64 * MIB  # of the server under test


def zeros_in_gzip(start, n_zeros):
    """gzip of `start` and of zeros, 16 MiB of them at a time: 16 KiB that unpack to a thousand times as much."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (n_zeros // (16 * MIB))


def header_of(shape, dtype=np.float32):
    """The first 352 bytes of a file that states a shape."""
    fields = {"dim": [3, *shape, 1, 1, 1, 1]}
    return nifti(np.zeros((1, 1, 1), dtype), fields=fields)[:352]


# each unpacks to more than the server may take; the sentence says which limit, or that the voxels are not there
BOMBS = {
    "10 KB, states 63 MiB": (zeros_in_gzip(header_of((256, 256, 252)), 0) + bytes(10_000), "is truncated"),
    "4 GiB of zeros, states 4 GiB": (zeros_in_gzip(header_of((1024, 1024, 1024)), 2**32), "larger than this server"),
    "4 GiB of zeros, states 65 MiB": (zeros_in_gzip(header_of((256, 256, 260)), 2**32), "bytes of voxels"),
    "4 GiB of zeros, voxels begin late": (
        zeros_in_gzip(nifti(np.zeros((1, 1, 1), np.float32), fields={"vox_offset": 2**25})[:352], 2**32),
        "begin nowhere",
    ),
    "48 MiB of zeros, states 63 MiB": (
        zeros_in_gzip(header_of((256, 256, 252)), 48 * MIB) + bytes(20_000),  # which is no gzip
        "is damaged",
    ),
}


def memory(process, peak):
    """Bytes that a process has, or had at most."""
    name = "VmHWM" if peak else "VmRSS"
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", (process / "status").read_text())[1])


def pictures_or_volumes(model):
    return any_nifti() if model == "medimageparse_3d" else any_picture()


def option_sets(model):
    """Some options, right or wrong, as text; image_type also without text."""
    chosen = st.fixed_dictionaries({}, optional={name: st.sampled_from(it) for name, it in OPTIONS[model].items()})
    without = st.sampled_from(({}, {}, {"text": None})) if model == "medimageparse" else st.just({})
    return st.tuples(chosen, without).map(lambda sets: {name: it.encode() for name, it in sets[0].items()} | sets[1])


def tensor_sets(model):
    """One or two inputs of another shape or type, misspelt or left out."""
    names = st.sampled_from((*INPUTS[model], "imag", "geometry", "volume_uint8"))
    return st.dictionaries(names, st.sampled_from(ARRAYS) | st.none(), min_size=1, max_size=2)


BATCHES = {
    "file": (60, lambda model: pictures_or_volumes(model).map(lambda image: {"image": image})),
    "text": (45, lambda model: any_text().map(lambda text: {"text": text})),
    "options": (25, option_sets),
    "tensors": (30, tensor_sets),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Both models on the demo checkpoints; at the end its log is read."""
    repository = pared(demo_repository(tmp_path_factory.mktemp("fuzz") / "model_repository"))
    config = repository / "decode_volume" / "config.pbtxt"
    limit = r'(key: "max_decompressed_bytes" value { string_value: ")\d+'
    changed, count = re.subn(limit, rf"\g<1>{MAX_DECOMPRESSED_BYTES}", config.read_text())
    assert count == 1
    config.write_text(changed)
    path = tmp_path_factory.mktemp("log_fuzz") / "triton.log"
    with path.open("w") as log, triton_server(repository, log=log) as server:
        start = path.stat().st_size
        yield server
        assert server.process.poll() is None
        logged = path.read_bytes()[start:].decode(errors="replace")
    for unwanted in ("Traceback", "Warning", ".py", "119.98", SECRET, str(repository)):
        assert unwanted not in logged


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return request.param


@pytest.fixture(scope="module")
def infer(server, model):
    """infer({"image": ..., "text": ...}, protocol) -> all outputs; a value is one BYTES element, or any array."""
    connections = {
        "grpc": tritonclient.grpc.InferenceServerClient(server.grpc_url),
        "http": tritonclient.http.InferenceServerClient(server.http_url, network_timeout=300),
    }

    def infer(inputs, protocol="grpc"):
        transport, tensors = TRANSPORTS[protocol], []
        for name, value in inputs.items():
            array = value if isinstance(value, np.ndarray) else np.array([value], np.object_)
            tensors.append(transport.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array)
        requested = [transport.InferRequestedOutput(name) for name in OUTPUTS[model]]
        answer = connections[protocol].infer(model, tensors, outputs=requested)
        return {name: answer.as_numpy(name) for name in OUTPUTS[model]}

    yield infer
    for connection in connections.values():
        connection.close()


@pytest.fixture(scope="module")
def good_answer(infer, model):
    return infer(GOOD[model])


def assert_good(model, answer, good_answer):
    for name in EXACT[model]:
        assert np.array_equal(answer[name], good_answer[name])


def assert_right_of_its_kind(model, answer):
    """What every answer has to be, whatever was asked: whole, and of one shape in all of its outputs."""
    report = json.loads(answer["report"].item(), parse_constant=pytest.fail)
    if model == "medimageparse":
        maps = maps_of(answer)
        assert len(maps) == len(answer["text_features"]) == len(report["prompts"])
        assert list(maps.shape[1:]) == [report["image"]["height"], report["image"]["width"]]
        return
    labels, prompts = answer["label_map"], report["prompts"]
    assert answer["scores"].shape[0] == len(prompts)
    assert np.isfinite(answer["scores"]).all()
    if labels is not None:
        assert list(labels.shape) == report["image"]["shape"]
        assert [np.count_nonzero(labels == prompt["label"]) for prompt in prompts] == [it["voxels"] for it in prompts]
        assert labels.max() <= len(prompts)
    if answer["nifti_file"] is not None and labels is not None:
        assert nifti_bytes(answer["nifti_file"])[-labels.size :] == labels.tobytes("F")


def answer_or_sentence(model, infer, inputs, protocol="grpc"):
    """The answer, or None after a refusal as it should be."""
    try:
        answer = infer({name: value for name, value in inputs.items() if value is not None}, protocol)
    except InferenceServerException as error:
        answer, refused = None, error
    if answer is None:
        assert refused.status() == REFUSED[protocol], refused.message()
        sentence = refused.message()
        assert 20 < len(sentence) < 300
        for unwanted in UNWANTED:
            assert unwanted not in sentence
    else:
        assert_right_of_its_kind(model, answer)
    return answer


@pytest.mark.parametrize("batch", BATCHES)
def test_a_right_answer_or_a_sentence(model, infer, good_answer, batch):
    count, strategy = BATCHES[batch]
    cases = draw_cases(strategy(model), count)
    assert len(cases) >= count
    answers = []
    for number, case in enumerate(cases):
        answers.append(answer_or_sentence(model, infer, GOOD[model] | case, "http" if number % 5 == 4 else "grpc"))
    assert any(answer is None for answer in answers)  # or nothing was wrong
    assert_good(model, infer(GOOD[model]), good_answer)


def test_there_are_enough_cases():
    assert sum(count for count, _ in BATCHES.values()) * len(MODELS) + len(LONG_TEXTS) * 2 >= 300


def test_long_texts(model, infer, good_answer):
    for text in LONG_TEXTS:
        answer_or_sentence(model, infer, GOOD[model] | {"text": text})
    assert_good(model, infer(GOOD[model]), good_answer)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_file_is_the_same_however_it_is_packed(model, infer, good_answer, protocol):
    for name, pack in PACKED.items():
        if model == "medimageparse_3d" or "gzip" not in name:
            assert_good(model, infer(GOOD[model] | {"image": pack(FILES[model])}, protocol), good_answer)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_broken_base64_is_refused(model, infer, good_answer, protocol):
    for pack in BROKEN_BASE64.values():
        assert answer_or_sentence(model, infer, GOOD[model] | {"image": pack(FILES[model])}, protocol) is None
    assert_good(model, infer(GOOD[model]), good_answer)


@pytest.mark.parametrize("model", ["medimageparse_3d"], indirect=True)
def test_the_same_volume_in_every_kind_of_nifti(infer, model, good_answer):
    """Bytes swapped, NIfTI-2, extensions: one answer."""
    for version in (1, 2):
        for order in "<>":
            for extension in (b"", SECRET.encode() * 100):
                image = nifti(VOLUME, version, order, extension)
                answer = infer(GOOD[model] | {"image": image})
                assert np.array_equal(answer["label_map"], good_answer["label_map"])
                assert SECRET.encode() not in nifti_bytes(answer["nifti_file"])


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("model", ["medimageparse_3d"], indirect=True)
def test_a_bomb_costs_no_more_than_the_limit(server, infer, model, good_answer, bomb):
    image, sentence = BOMBS[bomb]
    steps = [Path(f"/proc/{process}") for process in step_processes(server, "decode_volume")]
    for step in steps:
        (step / "clear_refs").write_text("5")  # forgets the peaks of earlier tests
    before = [memory(step, peak=False) for step in steps]
    with pytest.raises(InferenceServerException, match=sentence):
        infer(GOOD[model] | {"image": image})
    # the file as it arrives is there twice, as the server's tensor and as python's bytes
    growth = max(memory(step, peak=True) - bytes_before for step, bytes_before in zip(steps, before, strict=True))
    assert growth < MAX_DECOMPRESSED_BYTES + 2 * len(image) + 16 * MIB
    assert_good(model, infer(GOOD[model]), good_answer)


RAW = {
    "no bytes": b"",
    "half a length": b"\1",
    "longer than it is": struct.pack("<I", 10**6) + SECRET.encode(),
    "4 GiB": struct.pack("<I", 2**32 - 1) + SECRET.encode(),
    "shorter than it is": struct.pack("<I", 3) + SECRET.encode(),
    "two": 2 * (struct.pack("<I", len(SECRET)) + SECRET.encode()),
}


@pytest.mark.parametrize("name", ["image", "text"])
def test_bytes_that_are_no_string_tensor(server, infer, model, good_answer, name):
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as connection:
        for raw in RAW.values():
            tensors = []
            for input_name, value in GOOD[model].items():
                tensors.append(tritonclient.grpc.InferInput(input_name, [1], "BYTES"))
                tensors[-1].set_data_from_numpy(np.array([value], np.object_))
                if input_name == name:
                    tensors[-1]._raw_content = raw
            with pytest.raises(InferenceServerException, match="string") as refused:
                connection.infer(model, tensors)
            assert refused.value.status() == REFUSED["grpc"]
            assert SECRET not in refused.value.message()
    assert_good(model, infer(GOOD[model]), good_answer)
