import errno
import os
import socket
import stat
from io import BytesIO
from pathlib import Path

import pytest
from medimageparse_client import files
from medimageparse_client.files import check_place, identity, is_stream, picture_bytes, write_file
from PIL import Image


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_user_gives_to_files(tmp_path, umask, mask, mode):
    umask(mask)
    write_file(tmp_path / "new" / "masks.nii", b"labels")
    assert stat.S_IMODE((tmp_path / "new" / "masks.nii").stat().st_mode) == mode


def test_a_replaced_file_keeps_its_mode(tmp_path, umask):
    path = tmp_path / "masks.nii"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, is_there):
    target, link = tmp_path / "disk" / "masks.nii", tmp_path / "masks.nii"
    target.parent.mkdir()
    if is_there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["n" * 251 + ".nii", "é" * 125 + ".nii", "-masks.nii", "100%s.nii", "a b\n.nii"])
def test_any_name_that_a_file_can_have(tmp_path, name):
    write_file(tmp_path / name, b"labels")
    assert [path.name for path in tmp_path.iterdir()] == [name]


FULL, QUOTA, READ_ONLY = (
    OSError(code, os.strerror(code)) for code in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS)
)


@pytest.mark.parametrize("failure", [FULL, QUOTA, READ_ONLY, KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", [(Path, "open"), (os, "fsync"), (Path, "chmod"), (Path, "replace")], ids=str)
def test_whatever_fails_the_old_file_is_whole_and_nothing_lies_beside_it(tmp_path, monkeypatch, step, failure):
    path = tmp_path / "masks.nii"
    path.write_bytes(b"old")

    def fail(*arguments, **options):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(*step, fail)
        with pytest.raises(type(failure)) as caught:
            write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(failure, OSError):
        assert (caught.value.errno, caught.value.filename) == (failure.errno, str(path))


def test_a_disk_that_is_full_amid_the_bytes_leaves_nothing(tmp_path, monkeypatch):
    real = Path.open

    def open_small(path, *arguments, **options):
        file = real(path, *arguments, **options)

        class Small:
            def __enter__(self):
                return self

            def __exit__(self, *exception):
                file.close()

            def write(self, data):
                file.write(data[: len(data) // 2])
                raise FULL

        return Small()

    monkeypatch.setattr(Path, "open", open_small)
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(tmp_path / "masks.nii", b"labels")
    assert caught.value.filename == str(tmp_path / "masks.nii")
    assert list(tmp_path.iterdir()) == []


def test_pipes_get_the_bytes_directly(tmp_path):
    pipe = tmp_path / "pipe.nii"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not check_place(pipe)
        write_file(pipe, b"labels")
        assert os.read(reader, 100) == b"labels"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_is_open_already_is_written_behind_what_is_in_it(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before ")
        file.flush()
        write_file(f"/dev/fd/{file.fileno()}", b"labels")
    assert (tmp_path / "log").read_bytes() == b"before labels"


def test_devices():
    write_file(os.devnull, b"labels")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    with pytest.raises(OSError, match="No space left") as caught:
        write_file("/dev/full", b"labels")
    assert caught.value.filename == "/dev/full"


@pytest.mark.parametrize("name", ["masks.nii", "new/masks.nii", "new/and/deep/masks.nii", "there.nii"])
def test_a_good_place_is_tried_and_nothing_stays(tmp_path, name):
    (tmp_path / "there.nii").write_bytes(b"old")
    check_place(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there.nii"]
    assert (tmp_path / "there.nii").read_bytes() == b"old"


@pytest.fixture
def bad_places(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket.nii")
        yield tmp_path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("file/masks.nii", "file is a file and no folder"),
        ("file/new/masks.nii", "file is a file and no folder"),
        ("folder.nii", "this is a folder"),
        ("socket.nii", "a device or a socket"),
        ("loop.nii", "symbolic links"),
        ("n" * 300 + ".nii", "name too long"),
        ("new/" + "n" * 300 + ".nii", "name too long"),
        ("n" * 300 + "/masks.nii", "name too long"),
        ("new/" + "n" * 300 + "/masks.nii", "name too long"),
    ],
)
def test_a_bad_place_is_told_before_anything_is_computed(bad_places, name, sentence):
    before = sorted(bad_places.rglob("*"))
    with pytest.raises(OSError, match=f"(?i){sentence}") as caught:
        check_place(Path(name))
    assert caught.value.filename == name
    assert sorted(bad_places.rglob("*")) == before


def test_a_folder_in_which_nothing_can_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for failure in (READ_ONLY, PermissionError(errno.EACCES, "Permission denied")):

        def touch(path, exist_ok, failure=failure):
            raise failure

        monkeypatch.setattr(Path, "touch", touch)
        with pytest.raises(OSError, match=f"no file can be made in {tmp_path}: {failure.strerror}") as caught:
            check_place(Path("new/masks.nii"))
        assert caught.value.filename == "new/masks.nii"


def test_a_file_that_is_write_protected_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "masks.nii"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the superuser may write everything
    with pytest.raises(PermissionError, match="write-protected"):
        check_place(path)


def test_one_file_has_one_identity_whatever_it_is_called(tmp_path):
    path = tmp_path / "ct.nii"
    path.write_bytes(b"volume")
    os.link(path, tmp_path / "hard.nii")
    (tmp_path / "soft.nii").symlink_to("ct.nii")
    (tmp_path / "link").symlink_to(tmp_path)
    names = ("hard.nii", "soft.nii", "link/ct.nii", "../" + tmp_path.name + "/ct.nii")
    assert {identity(tmp_path / name) for name in names} == {identity(path)}
    assert identity(tmp_path) != identity(path)


def test_a_file_that_is_still_to_be_made_has_that_of_its_folder_and_name(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling.nii").symlink_to("new/masks.nii")
    new = identity(tmp_path / "new" / "masks.nii")
    assert identity(tmp_path / "link" / "new" / "masks.nii") == new
    assert identity(tmp_path / "dangling.nii") == new
    assert identity(tmp_path / "new" / "MASKS.nii") != new
    upper, composed, decomposed = (
        identity(tmp_path / name, folds_case=True)
        for name in ("RÉSULTAT.nii", "r\u00e9sultat.nii", "re\u0301sultat.nii")
    )
    assert upper == composed == decomposed


@pytest.mark.parametrize("folds", [True, False])
def test_whether_upper_and_lower_case_are_one_is_tried(tmp_path, monkeypatch, folds):
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: real(path) or folds and real(path.with_name(path.name.lower())))
    assert check_place(tmp_path / "masks.nii") == folds


@pytest.mark.parametrize(("name", "expected"), [("/dev/stdout", True), ("/dev/fd/3", True), ("/dev/shm/x", False)])
def test_what_is_a_stream(name, expected):
    assert is_stream(Path(name)) == expected


@pytest.mark.parametrize(("ending", "kind"), [(".png", "PNG"), (".PNG", "PNG"), (".jpg", "JPEG"), (".tif", "TIFF")])
def test_a_picture_is_encoded_as_its_name_ends(ending, kind):
    data = picture_bytes(Image.new("RGB", (4, 4), "red"), ending)
    with Image.open(BytesIO(data)) as picture:
        assert picture.format == kind


@pytest.mark.parametrize("ending", ["", ".nii", ".png.tmp"])
def test_a_picture_without_a_known_ending_is_refused(ending):
    with pytest.raises(ValueError, match="pictures are not saved as"):
        picture_bytes(Image.new("RGB", (4, 4)), ending)


def test_temporary_names_are_hidden_and_never_the_same(tmp_path):
    names = {files.temporary_name(tmp_path).name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(".") for name in names)
