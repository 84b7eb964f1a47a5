"""The prompts of challenge files are read without unpickling anything."""

import contextlib
import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.places import SHARED
from medimageparse_client.evaluate.text_prompts import MEMBER, UnreadablePrompts, read_text_prompts

USUAL = {"1": "liver in abdominal CT", "2": "spleen", "instance_label": 0}
HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }"
HEADER += b" " * (127 - len(HEADER)) + b"\n"


def written(path, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, data)
    return path


def pickled(value, protocol=4, module="numpy._core.multiarray"):
    """The member as numpy writes it, by this numpy's pickle of its array, with the module of another numpy."""
    array = np.array(value, dtype=object)
    data = pickle.dumps(array, protocol)
    here = np.array(0).__reduce__()[0].__module__
    if here == module:
        return HEADER + data
    if protocol == 3:
        return HEADER + data.replace(f"c{here}\n".encode(), f"c{module}\n".encode())
    old, new = here.encode(), module.encode()
    changed = data.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
    if data[2:3] == b"\x95":  # the frame's length follows
        length = int.from_bytes(data[3:11], "little") + len(changed) - len(data)
        changed = changed[:3] + length.to_bytes(8, "little") + changed[11:]
    return HEADER + changed


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize(
    "value",
    [
        USUAL,
        {"10": "b", "2": "a", "instance_label": 1},
        {"1": ["liver", "hepatic parenchyma"], "2": ["spleen"], "instance_label": 0},
        {"1": "x" * 300, "2": "é" * 512, "instance_label": 0},
        {str(k): f"structure {k}" for k in range(1, 300)} | {"instance_label": 0},
        {"1": "the same", "2": "the same", "instance_label": 0},
    ],
    ids=["usual", "gaps", "lists", "long", "many", "shared"],
)
def test_what_was_written_is_read(tmp_path, value, protocol, module):
    prompts = read_text_prompts(written(tmp_path / "case.npz", pickled(value, protocol, module)))
    wanted = {int(k): tuple([v] if isinstance(v, str) else v) for k, v in value.items() if k != "instance_label"}
    assert prompts.sentences == wanted
    assert list(prompts.sentences) == sorted(wanted)
    assert prompts.is_instance == bool(value["instance_label"])


def test_a_file_of_numpy_itself_is_read(tmp_path):
    np.savez_compressed(tmp_path / "case.npz", imgs=np.zeros(3, np.uint8), text_prompts=np.array(USUAL, dtype=object))
    assert read_text_prompts(tmp_path / "case.npz").sentences == {1: ("liver in abdominal CT",), 2: ("spleen",)}


@pytest.mark.parametrize("name", ["CT_AMOS_amos_0018.npz", "MR_BraTS-T1c_bratsgli_0017.npz"])
def test_real_files_are_read(name):
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip("../shared is not there")
    prompts = read_text_prompts(path)
    assert len(prompts.sentences) in (4, 15)
    assert not prompts.is_instance


class Calls:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def memo_of_a_list():
    """A dict that holds one list twice, by the memo."""
    shared = ["liver"]
    return pickled({"1": shared, "2": shared, "instance_label": 0})


BROKEN = {
    "calls something": pickled({"1": Calls(), "instance_label": 0}),
    "calls something, in protocol 3": pickled({"1": Calls(), "instance_label": 0}, 3),
    "is not an array": HEADER + pickle.dumps(USUAL, 4),
    "an unknown global": pickled(USUAL, 3).replace(b"cnumpy\nndarray", b"cnumpy\nmatrix"),
    "an unknown opcode": HEADER + b"\x80\x04\xff.",
    "an opcode of no challenge file": HEADER + pickle.dumps({1.5}, 4),
    "a memo that refers to a list": memo_of_a_list(),
    "a member of 2 MiB": pickled({"1": "x" * (2 << 20), "instance_label": 0}),
    "too many operations": HEADER + b"\x80\x04" + b"N0" * 60_000 + b".",
    "a truncated stream": pickled(USUAL)[:-20],
    "nothing on the stack": HEADER + b"\x80\x04.",
    "a mark left over": HEADER + b"\x80\x04(.",
    "an unknown memo": HEADER + b"\x80\x04h\x07.",
    "an array of two": HEADER.replace(b"()", b"(2,)") + pickle.dumps(USUAL, 4),
    "an array of numbers": HEADER.replace(b"'|O'", b"'<i8'") + bytes(8),
    "no numpy file": b"hello",
    "an empty member": b"",
    "instance_label 2": pickled({"1": "liver", "instance_label": 2}),
    "instance_label true": pickled({"1": "liver", "instance_label": True}),
    "no instance_label": pickled({"1": "liver"}),
    "a key that is no number": pickled({"x": "liver", "instance_label": 0}),
    "a key of four digits": pickled({"1000": "liver", "instance_label": 0}),
    "a key twice": pickled({"1": "liver", "01": "spleen", "instance_label": 0}),
    "a number for a key": pickled({1: "liver", "instance_label": 0}),
    "a number for a sentence": pickled({"1": 7, "instance_label": 0}),
    "an empty sentence": pickled({"1": "", "instance_label": 0}),
    "a sentence of 513 characters": pickled({"1": "x" * 513, "instance_label": 0}),
    "an empty list": pickled({"1": [], "instance_label": 0}),
    "no label": pickled({"instance_label": 0}),
    "a list in place of the dict": pickled(None).replace(b"N", b"]"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_anything_else_is_refused_in_one_sentence_without_any_effect(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadablePrompts) as refusal:
        read_text_prompts(written(tmp_path / "case.npz", data))
    assert "\n" not in str(refusal.value)
    assert "liver" not in str(refusal.value)
    assert not Path("touched").exists()


@pytest.mark.parametrize("cut", [0, 1, 10, 100])
def test_a_truncated_archive_is_refused(tmp_path, cut):
    path = written(tmp_path / "case.npz", pickled(USUAL))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadablePrompts, match=r"whole \.npz"):
        read_text_prompts(path)


def test_every_truncation_and_every_changed_byte_is_read_or_refused(tmp_path):
    whole = pickled(USUAL)
    rng = np.random.default_rng(1)
    for place in range(len(HEADER), len(whole)):
        changed = bytearray(whole)
        changed[place] = rng.integers(256)
        for data in (bytes(changed), whole[:place]):
            with contextlib.suppress(UnreadablePrompts):  # any other exception fails
                read_text_prompts(written(tmp_path / "case.npz", data))


def test_the_stream_that_is_written_here_is_one_that_pickle_reads():
    for protocol in (3, 4):
        stream = io.BytesIO(pickled(USUAL, protocol)[len(HEADER) :])
        assert [op.name for op, _, _ in pickletools.genops(stream)][-1] == "STOP"
