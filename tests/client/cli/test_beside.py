"""What lies beside a label map: the report by default, names and colours, a mask a prompt."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client.cli import main
from medimageparse_client.results.colours import colour


@pytest.fixture(autouse=True)
def here(tmp_path, volume_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    for name in ("a", "b"):
        Path(f"scans/{name}.nii.gz").write_bytes(volume_file.read_bytes())


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(
    ("source", "output", "report"),
    [
        ("ct.nii.gz", "masks.nii.gz", "masks.json"),
        ("ct.nii.gz", "MASKS.NII", "MASKS.json"),
        ("ct.nii.gz", "new/", "new/ct.json"),
        ("scans", "new", "new/a.json"),
    ],
)
def test_the_report_lies_beside_the_label_map(source, output, report):
    assert main(["segment", source, "liver", "left kidney", "-o", output]) == 0
    told = json.loads(Path(report).read_text("utf-8"))["prompts"]
    assert [prompt["text"] for prompt in told] == ["liver", "left kidney"]
    assert main(["segment", source, "liver", "-o", output, "--force"]) == 0  # its own report is replaced
    assert len(json.loads(Path(report).read_text("utf-8"))["prompts"]) == 1


@pytest.mark.usefixtures("triton")
def test_no_report_lies_beside_what_is_no_file_or_where_it_is_not_wanted():
    assert main(["segment", "ct.nii.gz", "liver", "-o", "masks.nii.gz", "--report", "/dev/null"]) == 0
    assert main(["segment", "ct.nii.gz", "liver", "-o", "/dev/null"]) == 0
    assert main(["segment", "ct.nii.gz", "liver", "-o", "other.nii.gz", "--report", "new/"]) == 0
    assert {path.name for path in Path().iterdir()} == {"ct.nii.gz", "scans", "masks.nii.gz", "other.nii.gz", "new"}


@pytest.mark.parametrize("content", ['{"EchoTime": 0.1}', "[]", "text"])
def test_a_sidecar_is_not_overwritten_unasked(content, triton, capsys):
    Path("masks.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main(["segment", "ct.nii.gz", "liver", "-o", "masks.nii.gz"])
    assert stop.value.code == 2
    assert "name one with --report" in capsys.readouterr().err
    assert Path("masks.json").read_text() == content
    assert triton.requests == []


@pytest.mark.usefixtures("triton")
def test_label_tables_are_those_of_itk_snap_and_slicer():
    for name in ("labels.txt", "labels.label", "labels.ctbl"):
        assert main(["segment", "scans", "liver", 'the "left" kidney', "--json", "--label-table", name]) == 0
    red, green, blue = colour(2)
    assert Path("labels.txt").read_bytes() == Path("labels.label").read_bytes()
    assert f"2 {red} {green} {blue} 1 1 1 \"the 'left' kidney\"" in Path("labels.txt").read_text().splitlines()
    assert f'2 the_"left"_kidney {red} {green} {blue} 255' in Path("labels.ctbl").read_text().splitlines()


@pytest.mark.usefixtures("triton")
def test_masks_of_each_prompt(volume, affine):
    command = ["segment", "ct.nii.gz", "liver", "left kidney", "Liver", "??", "--masks-dir", "masks"]
    assert main(command) == 0
    assert {path.name for path in Path("masks").iterdir()} == {
        *("liver.nii.gz", "left_kidney.nii.gz", "3_Liver.nii.gz", "label_4.nii.gz")
    }
    image = nib.load("masks/left_kidney.nii.gz")
    np.testing.assert_array_equal(image.dataobj, volume == 2)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.get_data_dtype() == np.uint8


def test_masks_of_several_volumes_have_a_folder_each(triton):
    command = ["segment", "scans", "liver", "left kidney", "--masks-dir", "masks", "--skip-existing"]
    assert main(command) == 0
    assert {str(path) for path in Path("masks").rglob("*.gz")} == {
        f"masks/{name}/{mask}.nii.gz" for name in "ab" for mask in ("liver", "left_kidney")
    }
    Path("masks/a/liver.nii.gz").unlink()
    triton.requests.clear()
    assert main(command) == 0
    assert len(triton.requests) == 1
