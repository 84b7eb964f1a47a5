"""Folders of killed servers go with the next start, and nothing else does."""

import os
import subprocess
import time

import pytest
from medimageparse_serving.launch import environments

LONG_AGO = 1_500_000_000


@pytest.fixture
def running():
    """A process that /proc shows as tritonserver, and when it was begun."""
    began = time.time()
    process = subprocess.Popen(["tritonserver", "600"], executable="/bin/sleep")
    yield process, began
    process.kill()
    process.wait()


def folder(path, when=LONG_AGO):
    path.mkdir()
    os.utime(path, (when, when))
    return path


def test_what_killed_servers_left_is_removed(tmp_path):
    left = [folder(tmp_path / name) for name in ("python_env_a1B2c3", "python_env_zzzzzz")]
    environments.sweep_environments(tmp_path)
    assert not any(path.exists() for path in left)


def test_what_a_running_server_may_have_made_stays(tmp_path, running):
    process, began = running
    latest = time.time() + environments.SLACK_S
    assert any(began - environments.SLACK_S < start_s < latest for start_s in environments.server_starts())
    made = folder(tmp_path / "python_env_a1B2c3", time.time())
    earlier = folder(tmp_path / "python_env_a1B2c4", LONG_AGO)
    environments.sweep_environments(tmp_path)
    assert made.exists()
    assert not earlier.exists()
    assert process.poll() is None


@pytest.mark.parametrize(
    "name", ["python_env_", "python_env_a1B2c3d", "python_env_a/B2c3", "xpython_env_a1B2c3", "other"]
)
def test_other_names_stay(tmp_path, name):
    path = tmp_path / name
    path.mkdir(parents=True)
    os.utime(path, (LONG_AGO, LONG_AGO))
    environments.sweep_environments(tmp_path)
    assert path.exists()


def test_what_is_no_empty_folder_stays(tmp_path):
    full = tmp_path / "python_env_a1B2c3"
    folder(full)
    (full / "bin").touch()
    os.utime(full, (LONG_AGO, LONG_AGO))
    link = tmp_path / "python_env_a1B2c4"
    link.symlink_to(folder(tmp_path / "elsewhere"))
    file = tmp_path / "python_env_a1B2c5"
    file.touch()
    environments.sweep_environments(tmp_path)
    assert full.exists()
    assert link.is_symlink()
    assert file.exists()
    assert (tmp_path / "elsewhere").exists()


def test_another_users_folder_stays(tmp_path, monkeypatch):
    left = folder(tmp_path / "python_env_a1B2c3")
    monkeypatch.setattr(environments.os, "geteuid", lambda: os.getuid() + 1)
    environments.sweep_environments(tmp_path)
    assert left.exists()
