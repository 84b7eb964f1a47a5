"""What the command does with everyday accidents; the server is there and well."""

import errno
import gzip
import io
import json
import os
import signal
import sys
import threading
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import Segmentation, client, files, retry
from medimageparse_client.cli import console, jobs, main
from medimageparse_client.results.segmentation import decode_answer
from PIL import Image


@pytest.fixture(autouse=True)
def here(tmp_path, volume_file, monkeypatch):
    """The working folder: a volume, an image, and a folder of three volumes."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8), 200).save("xray.png")
    (tmp_path / "scans").mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        (tmp_path / "scans" / name).write_bytes(volume_file.read_bytes())
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "key").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("d\u00e9bris".encode("cp1252"))
    return tmp_path


def names(folder):
    """Of all but the reports, which lie beside the label maps."""
    return sorted(path.name for path in Path(folder).iterdir() if path.suffix != ".json")


def segment(*words, options=("-o", "masks.nii.gz")):
    return main(["segment", *words, *options, "--force"])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("gone.nii.gz", "liver", "-o", "masks.nii.gz"), "gone.nii.gz"),
        (("ct.nii.gz", "liver", "-o", "file/masks.nii.gz"), "file/masks.nii.gz"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--preview", "file/masks.png"), "file/masks.png"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--report", "file/report.json"), "file/report.json"),
        (("ct.nii.gz", "liver", "-o", "n" * 300 + ".nii"), "n" * 300 + ".nii"),
        (("scans", "liver", "-o", "file"), "file/a.nii.gz"),
        (("ct.nii.gz", "--prompts-file", "gone.txt", "-o", "masks.nii.gz"), "gone.txt"),
        (("ct.nii.gz", "--prompts-file", "scans", "-o", "masks.nii.gz"), "scans"),
        (("ct.nii.gz", "--prompts-file", "latin.txt", "-o", "masks.nii.gz"), "latin.txt"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--api-key-file", "gone.key"), "gone.key"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--api-key-file", "key"), "key"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--api-key-file", "latin.txt"), "latin.txt"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--ca", "gone.pem"), "gone.pem"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--certificate", "gone.pem"), "gone.pem"),
        (("ct.nii.gz", "liver", "-o", "masks.nii.gz", "--certificate-key", "scans"), "scans"),
    ],
)
def test_a_message_begins_with_the_file_that_it_is_about_and_nothing_is_sent(triton, words, name, capsys):
    assert main(["segment", *words]) == 5
    err = capsys.readouterr().err
    assert err.startswith(f"medimageparse: {name}: ")
    assert err.count("\n") == 1
    assert triton.requests == []
    assert not Path("masks.nii.gz").exists()


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("failing", ["masks.nii.gz", "masks.png", "report.json"])
def test_a_result_that_cannot_be_written_is_named_and_the_others_are_there(
    triton, monkeypatch, failing, failure, capsys
):
    real = files.replace

    def replace(place, data):
        if place.name == failing:
            raise OSError(failure, os.strerror(failure))
        real(place, data)

    monkeypatch.setattr(files, "replace", replace)
    outputs = ("masks.nii.gz", "masks.png", "report.json")
    options = [word for pair in zip(("-o", "--preview", "--report"), outputs, strict=True) for word in pair]
    assert segment("ct.nii.gz", "liver", options=options) == 5
    assert [Path(name).exists() for name in outputs] == [name != failing for name in outputs]
    assert capsys.readouterr().err == f"medimageparse: {failing}: {os.strerror(failure)}\n"


def test_a_preview_that_cannot_be_drawn_costs_no_label_map(triton, monkeypatch, capsys):
    monkeypatch.setattr(Segmentation, "draw", lambda result, **options: {}["axis"])
    options = ("-o", "masks.nii.gz", "--preview", "masks.png")
    assert segment("ct.nii.gz", "liver", options=options) == 7
    assert not Path("masks.png").exists()
    assert Path("masks.nii.gz").exists()
    err = capsys.readouterr().err
    assert err.startswith("medimageparse: masks.png: a fault of this program")
    assert "KeyError 'axis'" in err
    assert err.count("\n") == 1
    assert segment("ct.nii.gz", "liver", "--debug", options=options) == 7
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "words"), [(KeyError("axis"), "KeyError 'axis'"), (MemoryError(), "not enough memory")]
)
def test_a_fault_of_this_program_in_one_file_is_told_and_the_others_go_on(triton, monkeypatch, capsys, fault, words):
    read = nib.Nifti1Image.from_bytes
    Path("scans/b.nii.gz").write_bytes(
        gzip.compress(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)).to_bytes())
    )

    def decode(prompts, volume, answer, maps):
        if read(gzip.decompress(volume)).shape == (3, 3, 3):
            raise fault
        return decode_answer(prompts, volume, answer)

    monkeypatch.setattr(client, "decode_answer", decode)
    assert segment("scans", "liver", options=("-o", "out")) == 1
    assert names("out") == ["a.nii.gz", "c.nii.gz"]
    out, err = capsys.readouterr()
    assert out == "2 of 3 volumes segmented\n"
    assert err.startswith("medimageparse: scans/b.nii.gz: ")
    assert words in err
    assert err.count("\n") == 1


def test_warnings_are_told_with_their_file(triton, capsys):
    triton.warnings = ("sides are unknown; set its sform", "nothing to see")
    assert segment("ct.nii.gz", "liver") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"medimageparse: ct.nii.gz: warning: {warning}" for warning in triton.warnings]
    assert segment("scans", "liver", options=("-o", "out")) == 0
    expected = [f"medimageparse: scans/{name}.nii.gz: warning: {text}" for name in "abc" for text in triton.warnings]
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(expected)
    assert main(["segment-image", "xray.png", "lung", "-o", "masks.png", "--force"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == f"medimageparse: xray.png: warning: {triton.warnings[0]}"


@pytest.mark.parametrize(
    ("image", "line"),
    [
        (
            {"intensity": {"used": "ct-soft-tissue", "bounds": [-160.0, 240.0]}, "stored_orientation": "RPI"},
            "used: intensity ct-soft-tissue -160..240 | stored as RPI, read as LAS | sliced along axis z",
        ),
        ({"slice_axis_stored": 0}, "used: intensity none | stored as LAS, read as LAS | sliced along axis x"),
        ({"sides_known": False}, "used: intensity none | which side is left is not known | sliced along axis z"),
    ],
)
def test_the_table_says_what_was_used(triton, monkeypatch, capsys, image, line):
    real = triton.report

    def report(*arguments):
        told = real(*arguments)
        return told | {"image": told["image"] | image}

    monkeypatch.setattr(triton, "report", report)
    assert segment("ct.nii.gz", "liver") == 0
    assert capsys.readouterr().out.splitlines()[-2] == line


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize(
    "words",
    [
        ("ct.nii.gz", "liver", "-o", "again.nii.gz"),
        ("again.nii.gz", "liver", "-o", "ct.nii.gz"),
        ("ct.nii.gz", "liver", "-o", "folder/ct.nii.gz"),
        ("scans/a.nii.gz", "ct.nii.gz", "--prompt", "liver", "-o", "folder"),
    ],
)
def test_no_result_overwrites_a_volume_under_another_name(triton, here, volume_file, words, link, capsys):
    link(volume_file, here / "again.nii.gz")
    (here / "folder").mkdir()
    link(volume_file, here / "folder" / "ct.nii.gz")
    before = volume_file.read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["segment", *words])
    assert stop.value.code == 2
    assert "would overwrite the volume" in capsys.readouterr().err
    assert triton.requests == []
    assert volume_file.read_bytes() == before


@pytest.mark.parametrize("option", ["--prompts-file", "--api-key-file", "--ca", "--certificate"])
def test_no_result_overwrites_another_file_that_is_read(triton, option, capsys):
    Path("words.json").write_text("liver")
    os.link("words.json", "again.json")
    with pytest.raises(SystemExit) as stop:
        segment("ct.nii.gz", "--prompt", "liver", option, "words.json", "--report", "again.json")
    assert stop.value.code == 2
    assert "again.json: the --report of ct.nii.gz would overwrite words.json" in capsys.readouterr().err
    assert Path("words.json").read_text() == "liver"


def test_two_results_that_are_one_file_by_a_link(triton, here, capsys):
    Image.new("L", (1, 1)).save("old.png")
    os.link("old.png", "also.png")
    with pytest.raises(SystemExit):
        main(["segment-image", "xray.png", "lung", "-o", "old.png", "--preview", "also.png"])
    assert "would have the same name" in capsys.readouterr().err


@pytest.mark.parametrize("folds", [True, False])
def test_names_that_differ_only_in_case_are_one_where_the_disk_says_so(triton, here, monkeypatch, folds):
    os.rename("scans/b.nii.gz", "scans/A.nii.gz")
    monkeypatch.setattr(jobs, "check_place", lambda place: folds)
    if folds:
        with pytest.raises(SystemExit):
            segment("scans", "liver", options=("-o", "out"))
        assert triton.requests == []
    else:
        assert segment("scans", "liver", options=("-o", "out")) == 0
        assert names("out") == ["A.nii.gz", "a.nii.gz", "c.nii.gz"]


@pytest.mark.parametrize(
    "words",
    [
        ("segment", "scans", "liver", "-o", "scans"),
        ("segment", "scans", "liver", "-o", "link"),
        ("segment-image", "pictures", "lung", "-o", "pictures"),
        ("segment-image", "pictures", "lung", "-o", "out", "--preview", "pictures"),
    ],
)
def test_results_do_not_go_where_a_second_run_would_take_them_for_inputs(triton, here, words, capsys):
    (here / "link").symlink_to("scans")
    (here / "pictures").mkdir()
    Image.new("L", (8, 8), 200).save("pictures/a.jpg")
    with pytest.raises(SystemExit) as stop:
        main([*words])
    assert stop.value.code == 2
    assert "a second run would take the results for" in capsys.readouterr().err
    assert triton.requests == []


def test_a_folder_below_the_one_that_is_searched_is_fine(triton):
    for _ in range(2):
        assert (
            segment("scans", "liver", options=("-o", "scans/results", "--preview", "scans", "--report", "scans")) == 0
        )
    assert names("scans/results") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_what_is_in_a_folder(triton, here, volume_file, capsys):
    """Hidden files are left out in silence; a volume is known by content or by name, and one that is none is told."""
    (here / "scans" / "._a.nii.gz").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (here / "scans" / ".hidden.nii.gz").write_bytes(volume_file.read_bytes())
    (here / "scans" / "without_ending").write_bytes(volume_file.read_bytes())
    (here / "scans" / "UPPER.NII.GZ").write_bytes(volume_file.read_bytes())
    (here / "scans" / "broken.nii.gz").write_bytes(b"hello")
    (here / "scans" / "gone.nii.gz").symlink_to("nowhere")
    (here / "scans" / "notes.txt").write_text("hello")
    (here / "scans" / "more.txt").write_text("hello")
    (here / "scans" / "folder.nii.gz").mkdir()
    os.mkfifo(here / "scans" / "pipe.nii.gz")
    assert segment("scans", "liver", options=("-o", "out")) == 1
    assert names("out") == ["UPPER.nii.gz", "a.nii.gz", "b.nii.gz", "c.nii.gz", "without_ending.nii.gz"]
    out, err = capsys.readouterr()
    assert out == "5 of 7 volumes segmented\n"
    told = err.splitlines()
    assert told[:2] == [
        "medimageparse: scans/more.txt and 1 more: no volume, left out",
        "medimageparse: scans/folder.nii.gz: folders are left out; --recursive searches them",
    ]
    assert sorted(line.split(": ")[1] for line in told[2:4]) == ["scans/broken.nii.gz", "scans/gone.nii.gz"]
    assert sorted(told[4:]) == [
        "medimageparse: failed: scans/broken.nii.gz: this is not a NIfTI file, nor .nrrd or .mha; send one of these",
        "medimageparse: failed: scans/gone.nii.gz: No such file or directory",
    ]


def test_a_folder_that_gives_nothing_does_not_stop_the_others(triton, here, monkeypatch, capsys):
    (here / "empty" / "deep").mkdir(parents=True)
    real = Path.iterdir

    def iterdir(folder):
        if folder.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    (here / "locked").mkdir()
    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert main(["segment", "locked", "empty", "scans", "--prompt", "liver", "-o", "out"]) == 1
    assert len(names("out")) == 3
    assert capsys.readouterr().err.splitlines() == [
        "medimageparse: locked: Permission denied",
        "medimageparse: empty: the folder holds no volume; folders in it are not searched",
    ]
    assert segment("locked", "liver", options=("-o", "out")) == 5


def test_a_file_that_vanishes_amid_the_run_is_told(triton, monkeypatch, capsys):
    real = triton.infer

    def infer(*arguments, **options):
        Path("scans/c.nii.gz").unlink(missing_ok=True)
        return real(*arguments, **options)

    monkeypatch.setattr(triton, "infer", infer)
    assert segment("scans", "liver", options=("-o", "out", "--in-flight", "1")) == 1
    out, err = capsys.readouterr()
    assert out == "2 of 3 volumes segmented\n"
    assert err == "medimageparse: scans/c.nii.gz: No such file or directory\n"


def test_a_file_that_is_named_twice_is_segmented_once(triton):
    assert (
        main(["segment", "scans", "scans/a.nii.gz", "./scans/../scans/b.nii.gz", "--prompt", "liver", "-o", "out"]) == 0
    )
    assert len(triton.requests) == 3


def test_skipping_goes_on_with_what_is_missing(triton, here, capsys):
    options = ("-o", "out", "--report", "out", "--skip-existing")
    assert segment("scans", "liver", options=options) == 0
    (here / "out" / "b.json").unlink()
    (here / "out" / "c.nii.gz").unlink()
    triton.requests.clear()
    capsys.readouterr()
    assert segment("scans", "liver", options=options) == 0
    assert len(triton.requests) == 2
    assert len(names("out")) == 3
    assert capsys.readouterr().out == "2 of 3 volumes segmented, 1 skipped, for their results are there\n"
    triton.is_loaded = False  # who has nothing to do needs no server
    assert segment("scans", "liver", options=options) == 0
    assert segment("ct.nii.gz", "liver", options=("-o", "out/a.nii.gz", "--skip-existing")) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 of 1 volumes segmented, 1 skipped")


@pytest.mark.parametrize("prompt", ["organs.txt", "./organs.txt", "scan_without_ending", "-", "b.NII.GZ"])
def test_a_prompt_that_is_a_file_is_no_prompt(triton, volume_file, prompt, capsys):
    Path("organs.txt").write_text("liver")
    Path("scan_without_ending").write_bytes(volume_file.read_bytes())
    with pytest.raises(SystemExit) as stop:
        segment("ct.nii.gz", "liver", prompt)
    assert stop.value.code == 2
    assert "looks like a file" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ["scans", "file", "vertebra L1.5", "liver " * 90, "50% of the left lung", "~/liver"])
def test_a_prompt_that_only_sounds_like_a_file_is_one(triton, prompt):
    assert segment("ct.nii.gz", prompt) == 0
    assert triton.requests[-1]["text"] == prompt.strip()


@pytest.mark.parametrize("name", ["100%s.nii.gz", "a b.nii.gz", "-a.nii.gz", "d\u00e9j\u00e0.nii.gz", "b\udce9.nii.gz"])
def test_any_name_that_a_file_can_have(triton, volume_file, name):
    try:
        volume_file.rename(name)
    except (UnicodeEncodeError, OSError):
        pytest.skip("the file system here has no such names")
    assert main(["segment", "-o", f"out/{name}", "--report", f"out/{name}.json", "--", name, "liver"]) == 0
    assert len([*Path("out").iterdir()]) == 2


def test_a_home_folder_in_an_option(triton, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    Path("words.txt").write_text("liver")
    assert main(["segment", "~/ct.nii.gz", "--prompts-file=~/words.txt", "--output=~/out/masks.nii.gz"]) == 0
    assert names("out") == ["masks.nii.gz"]


@pytest.mark.parametrize(
    "words",
    [("", "liver"), ("ct.nii.gz", ""), ("ct.nii.gz", "liver", "--report", ""), ("ct.nii.gz", "--prompts-file", "")],
)
def test_an_empty_name_as_an_unset_variable_gives_is_told(triton, words, capsys):
    with pytest.raises(SystemExit) as stop:
        segment(*words)
    assert stop.value.code == 2
    assert "empty" in capsys.readouterr().err


def test_more_prompts_than_a_label_map_can_hold_are_refused_before_the_computation(triton, capsys):
    Path("many.txt").write_text("\n".join(f"structure {k}" for k in range(256)))
    with pytest.raises(SystemExit) as stop:
        main(["segment-image", "xray.png", "--prompts-file", "many.txt", "-o", "masks.png"])
    assert stop.value.code == 2
    assert "a .png holds 255 labels at most, and there are 256 prompts" in capsys.readouterr().err
    assert triton.requests == []
    assert main(["segment-image", "xray.png", "--prompts-file", "many.txt", "-o", "masks.npz"]) == 0


@pytest.mark.parametrize("output", ["MASKS.NII.GZ", "Masks.Nii"])
def test_endings_in_capitals(triton, volume, output):
    assert segment("ct.nii.gz", "liver", options=("-o", output, "--report", "R.JSON", "--preview", "P.PNG")) == 0
    image = nib.Nifti1Image.from_bytes(
        gzip.decompress(Path(output).read_bytes()) if output.endswith("GZ") else Path(output).read_bytes()
    )
    np.testing.assert_array_equal(np.asarray(image.dataobj) == 1, volume == 1)


def standard_input(monkeypatch, data, is_terminal=False):
    stream = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stream)


def test_a_volume_through_standard_input_and_output(triton, volume_file, volume, monkeypatch, capfdbinary):
    standard_input(monkeypatch, volume_file.read_bytes())
    assert segment("-", "liver", "spine", options=("-o", "-")) == 0
    out, err = capfdbinary.readouterr()
    np.testing.assert_array_equal(nib.Nifti1Image.from_bytes(gzip.decompress(out)).dataobj, volume)
    assert err.startswith(b"label")


def test_an_image_through_standard_input_and_output(triton, monkeypatch, capfdbinary):
    standard_input(monkeypatch, Path("xray.png").read_bytes())
    assert main(["segment-image", "/dev/stdin", "lung", "-o", "/dev/stdout"]) == 0
    out, err = capfdbinary.readouterr()
    with Image.open(io.BytesIO(out)) as masks:
        assert (masks.format, masks.size, masks.getpixel((0, 0))) == ("PNG", (8, 8), 1)
    assert err.startswith(b"label")


def test_a_report_on_standard_output(triton, capsys):
    assert segment("ct.nii.gz", "liver", "--report", "-") == 0
    assert json.loads(capsys.readouterr().out)["prompts"][0]["text"] == "liver"


def test_standard_input_into_a_folder(triton, volume_file, here, monkeypatch):
    (here / "out").mkdir()
    standard_input(monkeypatch, volume_file.read_bytes())
    assert segment("-", "liver", options=("-o", "out")) == 0
    assert names("out") == ["stdin.nii.gz"]


@pytest.mark.parametrize(
    ("data", "is_terminal", "code", "sentence"),
    [
        (b"", False, 5, "standard input: nothing came from it"),
        (b"hello", False, 5, "standard input: this is not a NIfTI file"),
        (b"", True, 2, "standard input is a terminal; pipe a volume into it"),
    ],
)
def test_standard_input_that_is_no_use(triton, monkeypatch, capsys, data, is_terminal, code, sentence):
    standard_input(monkeypatch, data, is_terminal)
    try:
        got = segment("-", "liver")
    except SystemExit as stop:
        got = stop.code
    assert got == code
    assert sentence in capsys.readouterr().err
    assert triton.requests == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-", "ct.nii.gz", "--prompt", "liver", "-o", "out"), "- reads one volume"),
        (("scans", "liver", "-o", "-"), "--output - writes one result"),
        (("ct.nii.gz", "scans/a.nii.gz", "--prompt", "liver", "-o", "out", "--report", "-"), "--report - writes one"),
        (("ct.nii.gz", "liver", "-o", "-", "--report", "-"), "would have the same name"),
    ],
)
def test_where_a_stream_is_no_place(triton, words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["segment", *words])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert triton.requests == []


def test_no_label_map_on_a_terminal(triton, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        segment("ct.nii.gz", "liver", options=("-o", "-"))
    assert "standard output is a terminal" in capsys.readouterr().err
    assert triton.requests == []


def test_pipes_and_devices_take_results_of_any_name(triton, volume_file, volume):
    """As do <(zcat ct.nii.gz) and >(ssh ...) in a shell."""
    os.mkfifo("in")
    os.mkfifo("out")
    received = []
    threads = [
        threading.Thread(target=Path("in").write_bytes, args=(volume_file.read_bytes(),)),
        threading.Thread(target=lambda: received.append(Path("out").read_bytes())),
    ]
    for thread in threads:
        thread.start()
    assert segment("in", "liver", "spine", options=("-o", "out", "--preview", os.devnull, "--report", os.devnull)) == 0
    for thread in threads:
        thread.join(timeout=30)
    np.testing.assert_array_equal(nib.Nifti1Image.from_bytes(gzip.decompress(received[0])).dataobj, volume)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_in_a_word_and_leave_nothing(triton, here, monkeypatch, capsys, number):
    before = signal.getsignal(number)
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: signal.raise_signal(number))
    there = names(here)
    assert segment("ct.nii.gz", "liver") == 130
    assert capsys.readouterr().err == "medimageparse: stopped\n"
    assert names(here) == there
    assert signal.getsignal(number) == before


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0)


class Restarting:
    """A server that after `n_good` requests is away for `n_away` questions of any kind."""

    def __init__(self, triton, monkeypatch, n_good, n_away):
        self.n_good, self.n_away = n_good, n_away
        self.gone, self.infer, self.lock = triton.failures["gone"], triton.infer, threading.Lock()
        monkeypatch.setattr(triton, "infer", lambda server, *args, **options: self.ask(server, *args, **options))
        monkeypatch.setattr(triton, "is_live", lambda server: not self.is_away())

    def is_away(self):
        with self.lock:
            if self.n_good > 0:
                return False
            self.n_away -= 1
            return self.n_away >= 0

    def ask(self, server, *args, **options):
        if self.is_away():
            raise self.gone
        self.n_good -= 1
        return self.infer(server, *args, **options)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("n_good", "in_flight"), [(1, 1), (1, 3), (2, 2)])
def test_a_restart_of_the_server_amid_a_run_is_waited_for(triton, monkeypatch, n_good, in_flight, capsys):
    Restarting(triton, monkeypatch, n_good, n_away=20)
    assert segment("scans", "liver", options=("-o", "out", "--in-flight", str(in_flight))) == 0
    assert names("out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    out, err = capsys.readouterr()
    assert out == "3 of 3 volumes segmented\n"
    assert err == (
        "medimageparse: the server at localhost:8001 is not available: socket closed; trying again for up to 120 s\n"
    )


@pytest.mark.usefixtures("at_once")
def test_a_single_request_that_is_broken_off_is_asked_again(triton, monkeypatch):
    failures = [triton.failures["gone"]]
    real = triton.infer

    def infer(*arguments, **options):
        if failures:
            raise failures.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(triton, "infer", infer)
    assert segment("ct.nii.gz", "liver") == 0
    assert Path("masks.nii.gz").exists()


@pytest.mark.usefixtures("at_once")
def test_a_run_that_waits_no_longer_says_how_much_is_left(triton, monkeypatch, capsys):
    command = ("scans", "liver", "-o", "out", "--in-flight", "1", "--skip-existing")
    with monkeypatch.context() as patch:
        Restarting(triton, patch, n_good=1, n_away=10**6)
        assert segment(*command, options=("--retry-for", "0")) == 3
    out, err = capsys.readouterr()
    assert out == "1 of 3 volumes segmented\n"
    assert err.count("\n") == 1
    assert "2 volumes are left, and the same command with --skip-existing goes on with them" in err
    assert names("out") == ["a.nii.gz"]
    assert segment(*command, options=()) == 0
    assert names("out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


@pytest.mark.usefixtures("at_once")
def test_a_volume_that_brings_the_server_down_does_not_take_the_others_with_it(triton, monkeypatch, capsys):
    poison = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)).to_bytes()
    Path("scans/b.nii.gz").write_bytes(gzip.compress(poison, mtime=0))
    real = triton.answer_volume

    def answer(server, image, prompts):
        if image == gzip.compress(poison, mtime=0):
            raise triton.failures["gone"]
        return real(server, image, prompts)

    monkeypatch.setattr(triton, "answer_volume", answer)
    assert segment("scans", "liver", options=("-o", "out")) == 1
    assert names("out") == ["a.nii.gz", "c.nii.gz"]
    told = "scans/b.nii.gz: the server at localhost:8001 is not available: socket closed; that happened 3 times"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("source", "output"), [("ct.nii.gz", "masks.nii.gz"), ("scans", "out")])
def test_a_server_that_was_never_seen_is_not_waited_for(triton, source, output, capsys):
    assert segment(source, "liver", options=("-o", output, "--url", "nobody:1")) == 3
    assert capsys.readouterr().err == "medimageparse: the server at nobody:1 is not available: Connection refused\n"
    assert triton.requests == []


def test_the_version(capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"medimageparse {console.version()}\n"

    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(
        console, "metadata", SimpleNamespace(version=version, PackageNotFoundError=metadata.PackageNotFoundError)
    )
    assert console.version() == "from source, not installed"
