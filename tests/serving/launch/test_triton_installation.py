"""Where a tritonserver is found: on PATH, or inside the wheel with this interpreter."""

import importlib.metadata
import os
import platform
import sys
import sysconfig

import pytest
from medimageparse_serving.launch import triton_installation
from medimageparse_serving.launch.launch_errors import ServeError
from medimageparse_serving.launch.triton_installation import Installation, find_installation, find_libpython


@pytest.fixture
def no_tritonserver(monkeypatch):
    monkeypatch.setattr(triton_installation.shutil, "which", lambda name: None)


def test_tritonserver_from_path_is_preferred(monkeypatch, tmp_path):
    monkeypatch.setattr(triton_installation.shutil, "which", lambda name: f"/opt/bin/{name}")
    assert find_installation("tensorrt", tmp_path) == Installation("/opt/bin/tritonserver")


@pytest.mark.parametrize("found", [("Darwin", "arm64", ""), ("Linux", "aarch64", "glibc"), ("Linux", "x86_64", "")])
@pytest.mark.usefixtures("no_tritonserver")
def test_other_machines_are_told_to_use_the_container(monkeypatch, tmp_path, found):
    monkeypatch.setattr(platform, "system", lambda: found[0])
    monkeypatch.setattr(platform, "machine", lambda: found[1])
    monkeypatch.setattr(platform, "libc_ver", lambda: (found[2], ""))
    with pytest.raises(ServeError, match="use the container"):
        find_installation("cpu", tmp_path)


@pytest.mark.usefixtures("no_tritonserver")
def test_the_wheels_server_runs_only_the_cpu_runtime(tmp_path):
    with pytest.raises(ServeError, match="RUNTIME=tensorrt needs the tritonserver of the container"):
        find_installation("tensorrt", tmp_path)


@pytest.mark.usefixtures("no_tritonserver")
def test_numpy_2_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1.0")
    with pytest.raises(ServeError, match="needs numpy < 2: make install"):
        find_installation("cpu", tmp_path)


@pytest.mark.usefixtures("no_tritonserver")
def test_the_wheels_server_gets_this_interpreter(tmp_path):
    installation = find_installation("cpu", tmp_path)
    environment = dict(installation.environment)
    assert os.path.samefile(environment["PATH"].split(":")[0], sys.prefix + "/bin")
    assert os.path.samefile(environment["LD_LIBRARY_PATH"].split(":")[0], find_libpython())
    assert (tmp_path / "backends" / "python" / "triton_python_backend_stub").exists()


def test_a_python_without_shared_library_is_refused(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "libpython3.11.a" if name == "INSTSONAME" else None)
    with pytest.raises(ServeError, match="no shared libpython"):
        find_libpython()
