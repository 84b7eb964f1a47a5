"""The parity command on files recorded from the original, on odd sizes of our own making and on wrong tensors."""

import numpy as np
import pytest
from helpers import golden_2d, golden_3d
from helpers.places import DATA, SHARED
from parity.__main__ import main

pytestmark = pytest.mark.slow
IN_BOTH = pytest.mark.parametrize("options", [[], ["--onnx"]], ids=["pytorch", "onnx"])
CASES_2D = {
    f"{case}/{name}" for case in golden_2d.CASES for name in ("prob", "matched_id", "pred_logits", "similarity")
}
COMPARED = {
    "3d": {"pred_gmasks", "labels", "grounding_tokens", "processed_int", "mask_features_first_last", "edge_labels"},
    "2d": CASES_2D | {"one/mask_features", "one/multi_scale_2"},
}
MAY_BE_WRONG = {
    "3d": ["pred_gmasks", "labels", "grounding_tokens", "processed_int"],
    "2d": ["image_resized", "class_text_embeddings", "class_template_ids"]
    + ["several/prob", "one/matched_id", "one/pred_class"],
}


@IN_BOTH
@pytest.mark.parametrize("name", ["v2_tiny.npz", "v2_post.npz", "v1_tiny.npz", "v1_post.npz"])
def test_recorded_from_the_original(name, options, capsys):
    path = SHARED / "golden" / name
    if not path.exists():
        pytest.skip("the recorded files lie in ../shared/golden where the project is developed")
    assert main([str(path), *options]) == 0
    assert "within the tolerance" in capsys.readouterr().out


def test_recorded_cases_of_this_repository():
    assert main([str(DATA / "v2_post_small.npz")]) == 0


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Files of networks whose sizes are multiples of nothing: one slice and one prompt in 3D, two requests in 2D."""
    folder = tmp_path_factory.mktemp("odd")
    return {
        "3d": golden_3d.record(folder / "3d.npz", golden_3d.ODD, n_slices=1, n_prompts=1),
        "2d": golden_2d.record(folder / "2d.npz", golden_2d.ODD, height=45, width=61),
    }


@IN_BOTH
@pytest.mark.parametrize("model", ["3d", "2d"])
def test_odd_sizes(odd, model, options, capsys):
    assert main([str(odd[model]), *options]) == 0
    assert COMPARED[model] <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def test_windows_of_two_slices_are_what_one_window_is(tmp_path):
    assert main([str(golden_3d.record(tmp_path / "odd.npz", golden_3d.ODD, n_slices=5, n_prompts=3))]) == 0


@pytest.mark.parametrize("shape", [(70, 70), (170, 33)])
def test_a_square_that_is_not_resized_and_a_tall_image(shape, tmp_path):
    assert main([str(golden_2d.record(tmp_path / "odd.npz", golden_2d.ODD, *shape))]) == 0


@pytest.mark.parametrize(("model", "name"), [(model, name) for model, names in MAY_BE_WRONG.items() for name in names])
def test_a_wrong_tensor_fails(odd, model, name, tmp_path, capsys):
    golden = dict(np.load(odd[model]))
    golden[name] = golden[name] + (1 if golden[name].dtype.kind in "iu" else np.float32(2e-4))
    path = tmp_path / "wrong.npz"
    np.savez(path, **golden)
    assert main([str(path)]) == 1
    failed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("FAILED")]
    assert name in failed
    assert failed == [name] or name == "processed_int"  # the networks see it, so more is wrong
