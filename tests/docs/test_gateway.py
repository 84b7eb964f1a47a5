"""docs/gateway.md names the routes, answers, settings, errors and metrics of the gateway."""

import re
import tomllib
from dataclasses import MISSING, fields

from helpers.pages import BLOCKS, quoted, section, table
from medimageparse_gateway.answers import EVENT_STREAM, IMAGE_ANSWERS, VOLUME_ANSWERS
from medimageparse_gateway.app import build_app
from medimageparse_gateway.errors import STATUS_OF_KIND
from medimageparse_gateway.metrics import Metrics
from medimageparse_gateway.rest import IMAGE_OPTIONS, VOLUME_OPTIONS
from medimageparse_gateway.settings import Key, Settings, read_settings

PAGE = "docs/gateway.md"
UNITS = {"MiB": 2**20, "GiB": 2**30}


def test_the_addresses_are_routes_of_the_gateway():
    told = set(re.findall(r"^\| `(?:GET|POST) (/[\w/]*)` \|", section(PAGE, "Ask it"), re.MULTILINE))
    routes = {route.path for route in build_app(Settings(port=0)).routes}
    assert told <= routes
    assert {route for route in routes if route.startswith("/v1/")} <= told


def test_the_fields_of_the_forms_are_those_that_are_read():
    told = {}
    for request, cell in table(section(PAGE, "Ask it"), "request"):
        told.setdefault(quoted(request)[0], []).extend(quoted(cell))
    assert sorted(told["POST /v1/volumes"]) == sorted(["image", "prompt", *VOLUME_OPTIONS])
    assert sorted(told["POST /v1/images"]) == sorted(["image", "prompt", *IMAGE_OPTIONS])


def test_the_media_types_are_those_of_the_answers():
    usual, *rows = table(section(PAGE, "Ask it"), "`Accept`")
    assert [quoted(cell)[0] for cell in usual[1:]] == [next(iter(VOLUME_ANSWERS)), next(iter(IMAGE_ANSWERS))]
    told = {quoted(media)[0]: (volumes != "-", images != "-") for media, volumes, images in rows}
    volumes, images = {*VOLUME_ANSWERS, EVENT_STREAM}, {*IMAGE_ANSWERS, EVENT_STREAM}
    assert told == {media: (media in volumes, media in images) for media in volumes | images}


def test_the_settings_have_the_defaults_of_the_gateway():
    defaults = {field.name: field.default for field in fields(Settings)}
    told = {}
    for names, _, cell in table(section(PAGE, "Settings"), "setting"):
        told |= dict(zip(quoted(names), cell.split(", ") * 2, strict=False))
    assert sorted(told) == sorted(defaults)
    for name, shown in told.items():
        number, _, unit = shown.partition(" ")
        usual = defaults[name]
        expected = usual if not isinstance(usual, int | float) else float(number) * UNITS.get(unit, 1)
        assert expected == usual
        assert shown == (str(usual) or "none") or not isinstance(usual, str)


def test_the_example_of_the_settings_is_read(tmp_path):
    [block] = (block for block in BLOCKS if block.page == PAGE and block.language == "toml")
    file = tmp_path / "gateway.toml"
    file.write_text(block.code.replace("64 hexadecimal digits", "0" * 64))
    settings = read_settings(file)
    [key] = tomllib.loads(block.code)["keys"]
    assert settings.keys[0].name == key["name"]
    assert {field.name for field in fields(Key)} == set(key)
    assert all(field.default is not MISSING for field in fields(Settings))


def test_the_statuses_of_the_models_errors_are_named():
    told = {int(code) for cell, _ in table(section(PAGE, "Errors"), "status") for code in cell.split(", ")}
    assert set(STATUS_OF_KIND.values()) <= told


def test_the_metrics_are_those_of_the_gateway():
    told = {quoted(name)[0] for name, _ in table(section(PAGE, "Watch it"), "metric")}
    families = Metrics().registry.collect()
    assert told == {family.name + "_total" * (family.type == "counter") for family in families}
