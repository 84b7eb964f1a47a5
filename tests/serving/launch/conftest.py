import pytest
from helpers.repositories import make_repository
from medimageparse_serving.launch.serve import PUBLIC_MODELS


@pytest.fixture
def both(tmp_path):
    """A repository of both public models, each of which calls one network."""
    called = 'key: "one_model" value {{ string_value: "{}_network" }}'
    networks = [f"{model}_network" for model in PUBLIC_MODELS]
    configs = {model: called.format(model) for model in PUBLIC_MODELS} | dict.fromkeys(networks, "")
    return make_repository(tmp_path, configs, networks)
