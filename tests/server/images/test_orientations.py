"""What lies in a corner of an image is found in that corner: tall, wide, and turned by EXIF.

The networks here are made by hand: the first prompt's mask is where the image is red, the second's where it is green,
the third's where it is blue.
"""

import json

import numpy as np
import onnx
import onnx.parser
import pytest
from helpers.image_answers import image_file, maps_of, report_of
from helpers.inference import IMAGE_OUTPUTS, inferring
from helpers.running_server import triton_server
from helpers.served_repository import unbuilt_repository
from PIL import Image

SIZE = 128
FEATURES = ("features_stride4", "memory_stride32", "memory_stride16", "memory_stride8")
FEATURE_TYPES = ", ".join(f"float[1, 3, {name}_side, {name}_side] {name}" for name in FEATURES)
GRAPHS = {
    "text_encoder": """(int64[P, T] input_ids, int64[P, T] attention_mask)
        => (float[P, T, 1] token_features, float[P, 1] prompt_features) {
            ones = Cast <to = 1> (attention_mask)
            token_features = Unsqueeze <axes = [2]> (ones)
            prompt_features = ReduceMax <axes = [1]> (ones)
        }""",
    "image_encoder": f"""(uint8[1, S, S, 3] pixels) => ({FEATURE_TYPES}) {{
            floats = Cast <to = 1> (pixels)
            planes = Transpose <perm = [0, 3, 1, 2]> (floats)
            features_stride4 = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (planes)
            memory_stride8 = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (features_stride4)
            memory_stride16 = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (memory_stride8)
            memory_stride32 = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (memory_stride16)
        }}""",
    "mask_decoder": f"""({FEATURE_TYPES}, float[P, T, 1] token_features, int64[P, T] attention_mask,
            float[P, 1] prompt_features, int64[G, N] prompt_groups)
        => (float[3, h, w] mask_logits, float[P] similarities, int64[P] matched_queries,
            float[P, 17] category_logits) {{
            grey = Constant <value_float = 127.5> ()
            bright = Sub (features_stride4, grey)
            mask_logits = Squeeze <axes = [0]> (bright)
            similarities = Squeeze <axes = [1]> (prompt_features)
            matched_queries = Cast <to = 7> (similarities)
            columns = Constant <value_ints = [1, 17]> ()
            category_logits = Expand (prompt_features, columns)
        }}""",
}
MARK = (12, 20)  # rows, columns


def colours_in_corners(height, width):
    """A red mark top left, a green one top right, a blue one bottom left; and the three masks."""
    masks = np.zeros((3, height, width), bool)
    rows, columns = MARK
    masks[0, :rows, :columns] = masks[1, :rows, -columns:] = masks[2, -rows:, :columns] = True
    return np.moveaxis(masks * np.uint8(255), 0, -1), masks


@pytest.fixture(scope="module")
def infer_colours(tmp_path_factory):
    repository = unbuilt_repository(tmp_path_factory.mktemp("colours") / "model_repository")
    for name, graph in GRAPHS.items():
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 12]> {name} {graph}')
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, repository / name / "1" / "model.onnx")
    networks = {"variant": "COLOURS", "image_size": SIZE}
    (repository / "medimageparse" / "1" / "networks.json").write_text(json.dumps(networks))
    log = tmp_path_factory.mktemp("log_colours") / "triton.log"
    with (
        log.open("w") as lines,
        triton_server(repository, models=("medimageparse",), log=lines, verbose=True) as server,
        inferring(server, "medimageparse", IMAGE_OUTPUTS) as infer,
    ):
        yield lambda file: infer({"image": file, "text": b"red & green & blue"})


def assert_found(answer, masks):
    """Each colour's mask to within the grid of the masks, a quarter of the networks' image."""
    found, (_, height, width) = maps_of(answer) > 127.5, masks.shape
    cell = 4 * max(height, width, SIZE) / SIZE
    assert found.shape == masks.shape
    for entry, one, expected in zip(report_of(answer)["prompts"], found, masks, strict=True):
        there, wanted = np.argwhere(one), np.argwhere(expected)
        assert np.abs(there.min(0) - wanted.min(0)).max() <= cell
        assert np.abs(there.max(0) - wanted.max(0)).max() <= cell
        assert np.abs(there.mean(0) - wanted.mean(0)).max() <= cell / 2
        assert entry["box_pixels"] == [there.min(0).tolist(), there.max(0).tolist()]


@pytest.mark.parametrize(
    "shape", [(128, 128), (128, 48), (48, 128), (97, 60), (60, 97), (256, 90), (301, 300), (33, 90)], ids=str
)
def test_marks_are_found_in_their_corners(infer_colours, shape):
    picture, masks = colours_in_corners(*shape)
    assert_found(infer_colours(image_file(picture)), masks)


@pytest.mark.parametrize("shape", [(128, 48), (48, 128)], ids=["tall", "wide"])
def test_no_mark_leaks_into_the_padding_or_out_of_it(infer_colours, shape):
    """The padding is black: an image that is white to its edge is found whole."""
    answer = infer_colours(image_file(np.full((*shape, 3), 255, np.uint8)))
    assert (maps_of(answer) > 127.5).all()
    assert not (maps_of(infer_colours(image_file(np.zeros(shape, np.uint8)))) > 127.5).any()


STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # undone by a quarter clockwise, which is what 6 stands for
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_masks_are_those_of_the_upright_image(infer_colours, orientation, kind):
    picture, masks = colours_in_corners(110, 70)
    stored, exif = Image.fromarray(picture), Image.Exif()
    if STORED_AS[orientation] is not None:
        stored = stored.transpose(STORED_AS[orientation])
    exif[0x0112] = orientation
    answer = infer_colours(image_file(stored, kind, exif=exif))
    assert_found(answer, masks)
    image = report_of(answer)["image"]
    assert (image["exif_orientation"], image["height"], image["width"]) == (orientation, 110, 70)
