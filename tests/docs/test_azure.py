"""docs/azure.md says what the gateway's /score takes and answers."""

import sys
from types import ModuleType

from helpers.azure_requests import table_of
from helpers.azure_toolkit import Toolkit
from helpers.gateway import running_gateway
from helpers.image_answers import image_file
from helpers.pages import BLOCKS, quoted, section, spans, table
from medimageparse_contract.models import MODEL_2D, MODEL_3D
from medimageparse_gateway import azure_forms, azure_headers, azure_models, azure_rows
from medimageparse_gateway.app import build_app
from medimageparse_gateway.settings import Settings
from PIL import Image

PAGE = "docs/azure.md"
TEXT = " ".join(section(PAGE, "What a request may hold").split())


def test_the_addresses_are_routes_of_the_gateway():
    told = {name.split()[1] for cell, _ in table(section(PAGE, "Azure clients: how do I point mine here?"), "address")
            for name in quoted(cell)}  # fmt: skip
    assert told <= {getattr(route, "path", "") for route in build_app(Settings(port=0)).routes}


def test_the_options_are_those_that_params_may_hold():
    options = [f"`{name}`" for model in (MODEL_2D, MODEL_3D) for name in azure_models.MODELS[model].options]
    assert "its keys {}, {}, {} and {}, or {}, {} and {}, are options".format(*options) in TEXT


def test_the_numbers_are_those_of_the_gateway():
    answer = " ".join(section(PAGE, "What an answer holds").split())
    assert f"A request has {azure_forms.MAX_ROWS} rows at most" in TEXT
    assert f"{('No', 'One', 'Two')[azure_rows.ROWS_AT_ONCE]} are computed at a time" in TEXT
    assert f"longer than {azure_models.FILE_BUFFER // 1024} KiB" in answer
    assert f"over {azure_headers.MAX_ID} characters" in answer


def test_the_keys_of_a_request_are_those_that_are_read():
    assert {*azure_forms.SCORE_KEYS, azure_headers.ID, azure_headers.CLIENT_ID, azure_headers.AZURE_ID} <= set(
        spans(PAGE)
    )


def test_the_toolkit_is_led_here_by_the_class_that_the_page_shows(monkeypatch):
    """With modules of the toolkit's names, and the one thing in them that the class replaces."""
    for name in ("healthcareai_toolkit", "healthcareai_toolkit.util", "healthcareai_toolkit.util.azureml_managers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        parent, _, last = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], last, sys.modules[name], raising=False)
    [block] = [block for block in BLOCKS if block.page == PAGE and block.mark.startswith("skip")]
    with running_gateway() as gateway:
        names = {}
        exec(block.code.replace("http://localhost:8080", gateway.url), names)
        client = sys.modules["healthcareai_toolkit.util.azureml_managers"].MLClient(object(), "s", "g", "w")
        endpoint = client.online_endpoints.get(name=names["endpoint"].rpartition("/")[2])
        assert endpoint.auth_mode == "key"
        toolkit = Toolkit(endpoint.scoring_uri, client.online_endpoints.get_keys(name="e").primary_key)
        assert toolkit.post(table_of(image_file(Image.new("RGB", (8, 6)))))
