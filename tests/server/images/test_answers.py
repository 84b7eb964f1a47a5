"""medimageparse over HTTP, gRPC and /generate: what it answers, by every way of asking."""

import base64
import io
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.image_answers import categories_of, image_file, maps_of, report_of
from helpers.inference import IMAGE_PROMPTS, inferring
from helpers.places import SHARED
from medimageparse.variants import TINY_2D
from medimageparse_contract.categories import CLASSES
from medimageparse_contract.image_types import TARGETS
from medimageparse_serving.prompts.clip_tokenizer import tokenize
from PIL import Image

PROMPTS = list(IMAGE_PROMPTS)
TEXT = " & ".join(PROMPTS).encode()
APART = {"joint": np.array([False])}
DATA = SHARED / "data" / "images"


@pytest.fixture(scope="module")
def answer(infer_image, image):
    answer = infer_image({"image": image, "text": TEXT})
    maps = maps_of(answer)
    assert all((one > 127).any() and (one <= 127).any() for one in maps)  # or equal maps would show little
    return answer


@pytest.fixture(scope="module")
def ask_networks(tiny_2d_networks):
    """The graphs, asked without a server: square, prompts, groups -> the mask decoder's outputs."""
    names = ("text_encoder", "image_encoder", "mask_decoder")
    sessions = {name: onnxruntime.InferenceSession(tiny_2d_networks / name / "1" / "model.onnx") for name in names}

    def run(name, tensors):
        wanted = {node.name: tensors[node.name] for node in sessions[name].get_inputs()}
        outputs = [node.name for node in sessions[name].get_outputs()]
        return tensors | dict(zip(outputs, sessions[name].run(outputs, wanted), strict=True))

    def ask(square, prompts, groups):
        size = TINY_2D.image_size
        pixels = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))[None]
        input_ids, attention_mask, _ = tokenize(prompts)
        tensors = {"pixels": pixels, "input_ids": input_ids, "attention_mask": attention_mask}
        tensors["prompt_groups"] = np.array(groups)
        for name in names:
            tensors = run(name, tensors)
        return tensors

    return ask


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_maps_come_as_a_tensor_where_image_features_is_not_asked_for(infer_image, image, answer, protocol):
    sent, outputs = {"image": image, "text": TEXT}, ("probabilities", "report")
    assert np.array_equal(infer_image(sent, protocol, outputs)["probabilities"], maps_of(answer))
    binary = infer_image(sent | {"output": b"masks"}, protocol, outputs)["probabilities"]
    assert np.array_equal(binary, maps_of(answer) > 127)
    nothing = {"image": image, "image_type": b"OCT", "p_value_threshold": np.array([1], np.float32)}
    assert infer_image(nothing, protocol, outputs)["probabilities"].shape == (0, 90, 120)
    assert infer_image(sent, protocol, ("image_features", "probabilities"))["probabilities"] is None


def expected_maps(mask_logits, square, rows, columns):
    logits = torch.nn.functional.interpolate(torch.tensor(mask_logits)[None], square.shape[:2], mode="bilinear")
    return torch.sigmoid(logits)[0, :, rows, columns].numpy()


def assert_maps(found, probabilities):
    """8-bit probabilities, on the right side of 127.5 wherever that is not a matter of rounding."""
    assert found.shape == probabilities.shape
    assert np.abs(found - 255 * probabilities).max() <= 0.51
    clear = np.abs(probabilities - 0.5) > 1e-4
    assert np.array_equal((found > 127.5)[clear], (probabilities > 0.5)[clear])


@pytest.mark.parametrize("joint", [True, False])
def test_the_answer_is_that_of_the_networks(infer_image, image, picture, ask_networks, joint):
    found = infer_image({"image": image, "text": TEXT, "joint": np.array([joint])})
    square = np.zeros((120, 120, 3), np.uint8)
    square[15:105] = picture
    tensors = ask_networks(square, PROMPTS, [[0, 1, 2]] if joint else [[0], [1], [2]])
    assert_maps(maps_of(found), expected_maps(tensors["mask_logits"], square, slice(15, 105), slice(0, 120)))
    best = tensors["category_logits"][:, :-1].argmax(1)
    assert categories_of(found) == [CLASSES[column] for column in best]
    described = report_of(found)["prompts"]
    assert [prompt["text"] for prompt in described] == PROMPTS
    assert [prompt["matched_query"] for prompt in described] == tensors["matched_queries"].tolist()
    assert np.allclose([prompt["similarity"] for prompt in described], tensors["similarities"], atol=1e-5)


def test_an_image_of_the_networks_size_passes_unchanged(infer_image, ask_networks):
    square = np.random.default_rng(0).integers(0, 256, (TINY_2D.image_size,) * 2 + (3,), dtype=np.uint8)
    tensors = ask_networks(square, PROMPTS[:1], [[0]])
    found = maps_of(infer_image({"image": image_file(square), "text": PROMPTS[0].encode()}))
    assert_maps(found, expected_maps(tensors["mask_logits"], square, slice(None), slice(None)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (300, 3), (64, 63), (1500, 1100)], ids=str)
def test_any_size_is_answered_in_its_size(infer_image, shape):
    grey = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    found = infer_image({"image": image_file(grey), "text": b"lesion"})
    assert maps_of(found).shape == (1, *shape)
    assert (report_of(found)["image"]["height"], report_of(found)["image"]["width"]) == shape


@pytest.mark.parametrize(
    "kind",
    ["grey", "alpha", "palette", "1 bit", "16 bit", "progressive JPEG", "CMYK JPEG", "bytes behind the end",
     "TIFF", "packed TIFF", "16-bit TIFF", "BMP", "WebP"],
    ids=str,
)  # fmt: skip
def test_other_kinds_of_file_show_what_their_rgb_shows(infer_image, picture, kind):
    grey = picture[:, :, 0]
    alpha = np.where(np.arange(120) < 50, 0, 255)[None].repeat(90, 0)
    palette = Image.fromarray(picture).quantize(32)
    sent, rgb = {
        "grey": lambda: (image_file(grey), grey),
        "alpha": lambda: (image_file(np.dstack([picture, alpha.astype(np.uint8)])), picture * (alpha > 0)[..., None]),
        "palette": lambda: (image_file(palette), np.asarray(palette.convert("RGB"))),
        "1 bit": lambda: (image_file(Image.fromarray(grey > 99)), (grey > 99) * 255),
        "16 bit": lambda: (image_file((grey > 99) * np.uint16(700)), (grey > 99) * 255),
        "progressive JPEG": lambda: as_read(image_file(picture, "JPEG", progressive=True)),
        "CMYK JPEG": lambda: as_read(image_file(Image.fromarray(picture).convert("CMYK"), "JPEG")),
        "TIFF": lambda: as_read(image_file(picture, "TIFF")),
        "packed TIFF": lambda: as_read(image_file(picture, "TIFF", compression="tiff_lzw")),
        "16-bit TIFF": lambda: (image_file((grey > 99) * np.uint16(700), "TIFF"), (grey > 99) * 255),
        "BMP": lambda: as_read(image_file(picture, "BMP")),
        "WebP": lambda: as_read(image_file(picture, "WEBP")),
        "bytes behind the end": lambda: as_read(image_file(picture, "JPEG") + b"\xff\xda" * 999),
    }[kind]()
    plain = Image.fromarray(rgb.astype(np.uint8)).convert("RGB")
    found, expected = (maps_of(infer_image({"image": file, "text": TEXT})) for file in (sent, image_file(plain)))
    assert np.array_equal(found, expected)


def as_read(file):
    with Image.open(io.BytesIO(file)) as opened:
        return file, np.asarray(opened.convert("RGB"))


def generate(server, sent):
    headers = {"Content-Type": "application/json"}
    url = f"http://{server.http_url}/v2/models/medimageparse/generate"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(sent).encode(), headers), timeout=300) as reply:
        return json.load(reply)


@pytest.mark.parametrize(("threshold", "n_found", "kind"), [(0.0, 1, str), (1.0, 0, list)])
def test_generate_prints_one_category_as_a_string(both_models, image, threshold, n_found, kind):
    asked = {"image_type": "OCT", "p_value_threshold": threshold}
    found = generate(both_models, {"image": base64.b64encode(image).decode(), **asked})
    assert json.loads(found["image_features"])["shape"] == [n_found, 90, 120]
    assert "probabilities" not in found
    assert isinstance(found["text_features"], kind)


def test_generate_takes_the_options_as_json_values(infer_image, both_models, image):
    options = {"image_type": "X-Ray-Chest", "joint": True, "p_value_threshold": 1.0, "output": "masks"}
    found = generate(both_models, {"image": base64.b64encode(image).decode(), **options})
    assert json.loads(found["image_features"])["shape"] == [0, 90, 120]
    report = json.loads(found["report"])
    assert (report["joint"], report["image_type"], report["p_value_threshold"]) == (True, "X-Ray-Chest", 1)
    assert report["image"]["output"] == "masks"


def test_masks_are_where_probabilities_are_over_a_half(infer_image, image, answer):
    masks = infer_image({"image": image, "text": TEXT, "output": b"masks"})
    assert np.array_equal(maps_of(masks), maps_of(answer) > 127.5)
    assert categories_of(masks) == categories_of(answer)
    assert report_of(masks)["prompts"] == report_of(answer)["prompts"]


def test_joint_is_the_usual_way_and_the_report_says_so(infer_image, image, answer):
    assert report_of(answer)["joint"] is True
    joint = infer_image({"image": image, "text": TEXT, "joint": np.array([True])})
    assert np.array_equal(maps_of(joint), maps_of(answer))


def test_prompts_decoded_apart_get_what_each_gets_alone(infer_image, image, answer):
    apart = infer_image({"image": image, "text": TEXT} | APART)
    assert report_of(apart)["joint"] is False
    for number, prompt in enumerate(PROMPTS):
        alone = infer_image({"image": image, "text": prompt.encode()})
        # token rows of padding and the batch of groups may change the last bits of a sum
        assert np.abs(maps_of(apart)[number].astype(int) - maps_of(alone)[0]).max() <= 1
        assert categories_of(alone) == categories_of(apart)[number : number + 1]
    assert np.abs(maps_of(apart).astype(int) - maps_of(answer)).max() > 10  # decoded together they see each other


def test_the_report_describes_what_the_maps_show(answer, picture, tiny_2d_networks):
    found = report_of(answer)
    for entry, category, mask in zip(found["prompts"], categories_of(answer), maps_of(answer) > 127.5, strict=True):
        at = np.argwhere(mask)
        assert (entry["present"], entry["area_pixels"]) == (bool(len(at)), len(at))
        assert entry["box_pixels"] == [at.min(0).tolist(), at.max(0).tolist()]
        assert entry["category"] == category
        assert 0 < entry["category_confidence"] < 1
        assert 0 < entry["background_confidence"] < 1
        assert (entry["p_value"], entry["truncated"]) == (None, False)
    image = {"format": "PNG", "mode": "RGB", "height": 90, "width": 120, "side": 120, "top": 15, "left": 0}
    assert image.items() <= found["image"].items()
    assert found["image"]["intensity"] == {"used": "none", "bounds": None, "padding": []}
    networks = tiny_2d_networks / "medimageparse" / "1" / "networks.json"
    assert found["networks"] == json.loads(networks.read_text()) | {"runtime": "cpu"}
    steps = {"decode_image", "tokenize_prompts", "text_encoder", "segment_pixels", "encode_probabilities"}
    assert set(found["milliseconds"]) == steps | {"total"}
    assert found["image_type"] is None
    assert found["warnings"] == []


DOUBTFUL = {
    "nearly black": (lambda picture: picture // 9, "hardly any contrast"),
    "mask": (lambda picture: (picture[:, :, 0] > 99) * np.uint8(255), "only 2 colours"),
    "one colour": (lambda picture: np.full_like(picture, 70), "of one colour"),
    "padded with 65535": (
        lambda picture: np.where(np.arange(120) < 9, 65535, picture[:, :, 0] * 9).astype(np.uint16),
        "the value 65535",
    ),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_the_report_of_a_doubtful_picture_has_a_warning(infer_image, picture, name):
    make, reason = DOUBTFUL[name]
    found = infer_image({"image": image_file(make(picture)), "text": TEXT})
    assert maps_of(found).shape == (3, 90, 120)
    (warning,) = report_of(found)["warnings"]
    assert reason in warning
    assert "warnings" not in report_of(found)["image"]


def test_an_image_type_adds_p_values_for_its_targets(infer_image, image, answer):
    named = infer_image({"image": image, "text": TEXT, "image_type": b"X-Ray-Chest"})
    assert np.array_equal(maps_of(named), maps_of(answer))
    assert report_of(named)["image_type"] == "X-Ray-Chest"
    p_values = [entry["p_value"] for entry in report_of(named)["prompts"]]
    assert all(0 <= p_value <= 1 for p_value in p_values[:2])
    assert p_values[2] is None


@pytest.mark.parametrize("image_type", TARGETS)
def test_recognition_sorts_the_targets_of_an_image_type(infer_image, image, image_type):
    targets = list(TARGETS[image_type])
    found = infer_image({"image": image, "image_type": image_type.encode()})
    report, masks = report_of(found), maps_of(found) > 127.5
    kept, rejected = ([entry["text"] for entry in report[name]] for name in ("prompts", "rejected"))
    assert sorted(kept + rejected) == sorted(targets)
    assert masks.shape == (len(kept), 90, 120)
    assert len(categories_of(found)) == len(kept)
    assert masks.sum(0).max() <= 1  # no pixel has two
    assert report["joint"] is False
    p_values = [1 if entry["p_value"] is None else entry["p_value"] for entry in report["prompts"]]
    assert p_values == sorted(p_values, reverse=True)
    apart = infer_image({"image": image, "text": " & ".join(targets).encode()} | APART)
    likely = {
        entry["text"]: mask for entry, mask in zip(report_of(apart)["prompts"], maps_of(apart) > 127, strict=True)
    }
    for target, mask in zip(kept, masks, strict=True):
        assert not (mask & ~likely[target]).any()


def test_recognition_may_keep_nothing(infer_image, image):
    found = infer_image({"image": image, "image_type": b"CT-Abdomen", "p_value_threshold": np.float32([1])})
    assert maps_of(found).shape == (0, 90, 120)
    assert len(found["text_features"]) == 0
    assert report_of(found)["prompts"] == []
    assert [entry["text"] for entry in report_of(found)["rejected"]] == list(TARGETS["CT-Abdomen"])


def test_recognition_decodes_together_if_asked(infer_image, image):
    found = infer_image({"image": image, "image_type": b"CT-Chest", "joint": np.array([True])})
    assert report_of(found)["joint"] is True


def test_both_models_share_a_server(both_models, infer, infer_image, request_of, image, answer):
    assert {"medimageparse", "medimageparse_3d"} <= set(both_models.models)
    asked = request_of(prompts=["liver", "spine"])
    alone = infer(asked)
    volumes = inferring(both_models, "medimageparse_3d", ("label_map", "scores"))
    with volumes as infer_volume, ThreadPoolExecutor(1) as thread:
        volume = thread.submit(infer_volume, asked)
        images = [infer_image({"image": image, "text": TEXT}) for _ in range(3)]
        found = volume.result()
    assert np.array_equal(found["label_map"], alone["label_map"])
    assert np.array_equal(found["scores"], alone["scores"])
    assert all(np.array_equal(maps_of(one), maps_of(answer)) for one in images)


@pytest.mark.parametrize(
    ("name", "prompts", "image_type"),
    [
        ("covid_1585.png", "left lung & right lung & COVID-19 infection", "X-Ray-Chest"),
        ("Part_1_516_pathology_breast.png", "neoplastic cells & inflammatory cells", "Pathology"),
    ],
)
def test_a_real_image_is_taken_whole(infer_image, name, prompts, image_type):
    if not (DATA / name).exists():
        pytest.skip("the real images are not part of the project: they lie in ../shared/data where it is developed")
    file = (DATA / name).read_bytes()
    with Image.open(DATA / name) as opened:
        width, height = opened.size
    for asked in ({"text": prompts.encode()}, {"image_type": image_type.encode()}):
        found = infer_image({"image": file} | asked)
        assert maps_of(found).shape[1:] == (height, width)
        assert len(categories_of(found)) == len(maps_of(found)) == len(report_of(found)["prompts"])
