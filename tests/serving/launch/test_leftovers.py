"""What a server leaves in /tmp and /dev/shm, and who may remove it."""

import fcntl

import pytest
from medimageparse_serving.launch import leftovers


def test_only_what_belongs_to_nobody_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "temporary_folder", lambda: tmp_path)
    shm = tmp_path / "shm"
    shm.mkdir()
    names = ["medimageparse-alive", "medimageparse-killed"]
    locks = [leftovers.claim(name, shm) for name in names]
    for name in names:
        (shm / f"{name}-region").touch()
        (tmp_path / name).mkdir()
    assert leftovers.sweep(shm) == []
    locks[1].close()  # as the system does when a process ends, however it ends
    assert leftovers.sweep(shm) == names[1:]
    assert {path.name for path in shm.iterdir()} == {"medimageparse-alive-lock", "medimageparse-alive-region"}
    assert {path.name for path in tmp_path.iterdir()} == {"shm", "medimageparse-alive"}
    with pytest.raises(BlockingIOError), (shm / "medimageparse-alive-lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    locks[0].close()
