"""What a server leaves in /tmp and /dev/shm, and who may remove it."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.running_server import PATIENCE_S, wait_until
from medimageparse_serving.launch import leftovers


def test_only_what_belongs_to_nobody_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "temporary_folder", lambda: tmp_path)
    shm = tmp_path / "shm"
    shm.mkdir()
    names = ["medimageparse-running1", "medimageparse-killed_1"]
    locks = [leftovers.claim(name, shm) for name in names]
    for name in names:
        (shm / f"{name}-region").touch()
        (tmp_path / name).mkdir()
    assert leftovers.sweep(shm) == []
    locks[1].close()  # as the system does when a process ends, however it ends
    assert leftovers.sweep(shm) == names[1:]
    assert {path.name for path in shm.iterdir()} == {"medimageparse-running1-lock", "medimageparse-running1-region"}
    assert {path.name for path in tmp_path.iterdir()} == {"shm", "medimageparse-running1"}
    with pytest.raises(BlockingIOError), (shm / "medimageparse-running1-lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    locks[0].close()


def test_steps_of_a_server_that_was_killed_are_ended_and_no_others(tmp_path, monkeypatch):
    """Such as one that it was starting, which waits for its first word for ever."""
    monkeypatch.setattr(leftovers, "temporary_folder", lambda: tmp_path)
    shm = tmp_path / "shm"
    shm.mkdir()
    killed, running = "medimageparse-killed_1", "medimageparse-running1"
    locks = [leftovers.claim(name, shm) for name in (killed, running)]
    locks[0].close()
    commands = [
        ("/x/triton_python_backend_stub", f"{killed}-region"),
        ("/x/triton_python_backend_stub", f"{running}-region"),
        ("/x/another_program", f"{killed}-region"),
    ]
    sleep = ["-c", "import time; time.sleep(600)", "model.py"]
    steps = [subprocess.Popen([name, *sleep, region], executable=sys.executable) for name, region in commands]
    try:
        wait_until(lambda: all(b"model.py" in Path(f"/proc/{step.pid}/cmdline").read_bytes() for step in steps))
        assert leftovers.sweep(shm) == [killed]
        assert steps[0].wait(PATIENCE_S) == -signal.SIGKILL
        assert [step.poll() for step in steps[1:]] == [None, None]
    finally:
        for step in steps:
            step.kill()
            step.wait()
        locks[1].close()


@pytest.fixture
def shm(tmp_path, monkeypatch):
    """A folder like /dev/shm in which a server of ours runs, with its lock held."""
    monkeypatch.setattr(leftovers, "temporary_folder", lambda: tmp_path / "tmp")
    folder = tmp_path / "shm"
    folder.mkdir()
    with leftovers.claim("medimageparse-running1", folder):
        (folder / "medimageparse-running1-region").touch()
        yield folder


RUNNING = {"medimageparse-running1-lock", "medimageparse-running1-region"}


@pytest.mark.parametrize(
    "name",
    [
        "medimageparse-*",
        "medimageparse-",
        "medimageparse-????????",
        "medimageparse-[a-z]unning1",
        "medimageparse-running",
    ]
    + ["medimageparse-running1-x", "other-running1"],
)
def test_a_lock_that_is_not_called_like_ours_is_left_alone(shm, name):
    (shm / f"{name}-lock").touch()
    assert leftovers.sweep(shm) == []
    assert {path.name for path in shm.iterdir()} == RUNNING | {f"{name}-lock"}


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "another user's"])
def test_what_is_no_lock_file_of_this_user_is_left_alone(shm, kind, monkeypatch):
    lock = shm / "medimageparse-foreign1-lock"
    {
        "link": lambda: lock.symlink_to(shm / "medimageparse-running1-region"),
        "fifo": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
        "another user's": lock.touch,
    }[kind]()
    if kind == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert leftovers.sweep(shm) == []
    assert {path.name for path in shm.iterdir()} == RUNNING | {lock.name}


def test_a_file_that_cannot_be_removed_stops_nothing(shm):
    """As another user's, who calls it like one of ours."""
    (shm / "medimageparse-running1-foreign").mkdir()  # which unlink refuses, as it does those
    leftovers.remove("medimageparse-running1", shm)
    assert [path.name for path in shm.iterdir()] == ["medimageparse-running1-foreign"]


def test_regions_lose_their_names_and_the_lock_keeps_its_own(shm):
    (shm / "medimageparse-running2-region").touch()
    leftovers.hide("medimageparse-running1", shm)
    assert {path.name for path in shm.iterdir()} == {"medimageparse-running1-lock", "medimageparse-running2-region"}


def test_only_the_services_user_reads_its_folder_and_its_lock():
    with leftovers.Scratch() as scratch:
        lock = leftovers.SHM / f"{scratch.name}-lock"
        assert [path.stat().st_mode & 0o777 for path in (scratch.folder, lock)] == [0o700, 0o600]
