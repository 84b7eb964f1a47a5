"""What is installed is what was written down: every package with one version and the hashes of its files."""

import re
import tomllib

import pytest
from helpers.places import ROOT

LOCKS = ("requirements.lock", "serving/requirements.lock")
OPENVINO = "serving/requirements-openvino.lock"


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file):
    """Package -> version, hashes."""
    found = {}
    for entry in re.split(r"\n(?=[\w])", (ROOT / file).read_text()):
        if entry.startswith("#"):
            continue
        name, version = re.match(r"([\w.-]+)==(\S+) \\\n", entry).groups()
        assert plain(name) not in found
        found[plain(name)] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
    return found


def project(folder):
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


def required(folder, extra=""):
    """Name -> the versions that a distribution asks for, of others than ours."""
    table = project(folder)["project"]
    wanted = [*table["dependencies"], *(table["optional-dependencies"][extra] if extra else [])]
    split = [re.match(r"([\w-]+)(?:\[[\w,]+\])?(.*)", requirement).groups() for requirement in wanted]
    return {plain(name): versions for name, versions in split if not name.startswith("medimageparse-")}


@pytest.mark.parametrize("file", LOCKS)
def test_every_package_has_hashes(file):
    packages = locked(file)
    assert len(packages) >= 20
    assert all(hashes for _, hashes in packages.values())


@pytest.mark.parametrize("file", LOCKS)
def test_the_pins_of_the_python_steps_are_kept(file):
    packages = locked(file)
    pins = required("serving")
    assert len(pins) >= 7
    for name, version in pins.items():
        assert f"=={packages[name][0]}" == version, f"{name}: make lock"


def test_the_container_gets_what_is_tested():
    full, steps = (locked(file) for file in LOCKS)
    assert steps.items() <= full.items()


def test_openvino_comes_alone():
    """Its telemetry package is not wanted; of its other dependency, numpy, the steps have their own."""
    assert list(locked(OPENVINO)) == ["openvino"]


def test_the_client_and_the_demo_are_locked_too():
    names = {*required("client"), *required(".", "demo"), *project(".")["build-system"]["requires"], "nvidia-pytriton"}
    assert len(names) >= 8
    assert {plain(re.match(r"[\w-]+", name)[0]) for name in names} <= set(locked("requirements.lock")), "make lock"


def test_what_installs_insists_on_the_hashes():
    installs = [("Makefile", "requirements.lock"), ("Dockerfile", "serving/requirements.lock")]
    for file, lock in (*installs, ("Makefile", OPENVINO)):
        assert f"--no-deps --require-hashes -r {lock}\n" in (ROOT / file).read_text()
