"""The distributions of this checkout: one version for all, and where the client runs."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from helpers.places import ROOT

FOLDERS = [".", *sorted(path.parent.name for path in ROOT.glob("*/pyproject.toml"))]


def project(folder):
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def test_all_distributions_have_one_version_and_ask_for_each_other_in_it():
    projects = [project(folder) for folder in FOLDERS]
    assert len(projects) >= 4
    (version,) = {each["version"] for each in projects}
    names = {each["name"] for each in projects}
    asked = [
        wanted for each in projects for wanted in each.get("dependencies", []) if wanted.startswith("medimageparse")
    ]
    assert asked
    assert {tuple(wanted.split("==")) for wanted in asked} <= {(name, version) for name in names}


def test_make_installs_every_distribution():
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("DISTRIBUTIONS := ")]
    assert sorted(line.split()[2:]) == FOLDERS[1:]


@pytest.mark.parametrize("folder", ["contract", "client"])
def test_what_callers_install_takes_every_python_from_3_10_on(folder):
    assert project(folder)["requires-python"] == ">=3.10"


FOUND_THROUGH = {  # module -> what brings it, where that is no distribution that is asked for by its name
    "gevent": "tritonclient[http]",
    "google": "tritonclient[grpc]",  # protobuf
    "grpc": "tritonclient[grpc]",
    "onnx_ir": "onnxscript",
    "openvino": "serving/requirements-openvino.lock",
    "triton_python_backend_utils": "tritonserver",
}
BELOW = {"gateway": ["client"], ".": ["client", "serving"]}  # they ask for it, so its packages are there


def plain(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def asked_for(folder):
    """The packages that a distribution asks for, also in its extras, and those of what it stands on."""
    own = project(folder)
    wanted = [*own.get("dependencies", []), *sum(own.get("optional-dependencies", {}).values(), [])]
    return {plain(name) for name in wanted}.union(*map(asked_for, BELOW.get(folder, [])))


bringers = cache(packages_distributions)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_package_is_found_by_luck(folder):
    imported = set()
    for room in ["export", "demo"] if folder == "." else [folder]:
        for file in (ROOT / room).glob("medimageparse*/**/*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {name.name.split(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(node.module.split(".")[0])
    brought_by, asked = bringers(), asked_for(folder)
    others = imported - set(sys.stdlib_module_names) - set(FOUND_THROUGH)
    assert imported
    for module in others:
        if not module.startswith("medimageparse"):
            assert {plain(name) for name in brought_by.get(module, [module])} & asked, module
