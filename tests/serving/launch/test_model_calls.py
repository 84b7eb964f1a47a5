"""Which models call which, read from their configurations."""

import pytest
from helpers.repositories import CALLER, ENSEMBLE, make_repository
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.model_calls import called_models, reachable_models
from medimageparse_serving.launch.serve import PUBLIC_MODELS, REPOSITORY


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


def test_a_model_brings_its_stream_where_the_repository_has_it(tmp_path):
    make_repository(tmp_path, {"medimageparse_3d": ""})
    assert reachable_models(tmp_path, ["medimageparse_3d"]) == ["medimageparse_3d"]
    make_repository(tmp_path, {"medimageparse_3d_stream": CALLER, "inner": ""})
    expected = ["medimageparse_3d", "medimageparse_3d_stream", "inner"]
    assert reachable_models(tmp_path, ["medimageparse_3d"]) == expected
    assert reachable_models(tmp_path, ["medimageparse_3d", "medimageparse_3d_stream"]) == expected
