"""The client installs into any environment of a caller, without server and torch."""

import os
import shutil
import subprocess
import sys
from zipfile import ZipFile

import pytest
from helpers.places import ROOT

pytestmark = pytest.mark.slow

# what callers may have besides the Python that runs the tests; those that are here are tried too
OTHER_PYTHONS = [f"python3.{minor}" for minor in range(10, 15) if minor != sys.version_info.minor]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_here(python):
    """Whether it runs, and can make an environment; a shim of pyenv may stand for one that is not installed."""
    path = shutil.which(python)
    return path is not None and not subprocess.run([path, "-c", "import venv"], capture_output=True).returncode


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Those of the contract and the client, built from copies: a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("contract", "client"):
        left_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        source = shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
        run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source)
    return sorted(folder.glob("*.whl"))


def test_the_wheels_hold_every_file_of_the_packages(wheels):
    names = {name for wheel in wheels for name in ZipFile(wheel).namelist()}
    for package in (ROOT / "contract" / "medimageparse_contract", ROOT / "client" / "medimageparse_client"):
        files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert len(files) > 5
        assert {str(path.relative_to(package.parent)) for path in files} <= names


@pytest.mark.parametrize("python", [sys.executable, *filter(is_here, OTHER_PYTHONS)])
def test_the_wheels_in_an_empty_environment_answer_help(wheels, tmp_path, python):
    environment = tmp_path / "environment"
    run(python, "-m", "venv", "--without-pip", environment)
    commands = environment / "bin"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", commands / "python")
    try:
        run(*pip, "install", "--quiet", "--no-compile", *wheels)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        help_text = run(commands / "medimageparse", "--help", env=clean, cwd=tmp_path)
        assert "segment-image" in help_text
        place = "import medimageparse_client; print(medimageparse_client.__file__)"
        assert str(environment) in run(commands / "python", "-c", place, env=clean, cwd=tmp_path)
        packages = run(*pip, "list", "--format", "freeze").lower()
        assert not [name for name in ("torch", "onnx", "medimageparse-serving", "pydicom") if f"{name}==" in packages]
    finally:
        shutil.rmtree(environment)
