"""The distributions of this checkout: one version for all, and where the client runs."""

import tomllib

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
