"""structures, --preset and --by-name."""

import json

import pytest
from medimageparse_client.cli import main
from medimageparse_contract.catalogue import presets, structures
from PIL import Image


def refused(capsys, *command):
    """What a wrong command line is told."""
    with pytest.raises(SystemExit) as stop:
        main([*command])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_structures_are_listed_as_a_table_and_as_json(capsys):
    wanted = structures("3d", "CT", "ct-abdomen")
    asked = ["structures", "--model", "3d", "--modality", "ct", "--preset", "CT-Abdomen"]
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["id", *(row.id for row in wanted)]
    assert all(line.endswith(row.prompt) for line, row in zip(lines[1:], wanted, strict=True))
    assert main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["id"], tuple(row["rgb"])) for row in rows] == [(row.id, row.rgb) for row in wanted]


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        (["--modality", "XX"], "there are CT, MR"),
        (["--preset", "nothing", "--model", "2d"], "there are ct-abdomen, ct-chest"),
        (["--preset", "CT-Abdomen", "--modality", "MR"], "leave one of the two out"),
    ],
)
def test_structures_that_nobody_knows_are_a_wrong_command_line(options, way_out, capsys):
    assert way_out in refused(capsys, "structures", *options)


@pytest.mark.parametrize("model", ["3d", "2d"])
def test_no_prompt_of_a_set_stands_for_two_structures_and_all_fit_into_one_request(model):
    for name in presets(model):
        prompts = [row.prompt for row in structures(model, preset=name)]
        assert len(prompts) == len(set(prompts)) <= 64
        assert not any("&" in prompt for prompt in prompts)


def test_a_preset_sends_its_sentences_and_the_report_has_their_ids(triton, volume_file, tmp_path):
    output = tmp_path / "all.nii.gz"
    assert main(["segment", str(volume_file), "--preset", "CT-Abdomen", "-o", str(output)]) == 0
    wanted = structures("3d", preset="ct-abdomen")
    assert triton.requests[0]["preset"] == "CT-Abdomen"
    assert "text" not in triton.requests[0]
    described = json.loads((tmp_path / "all.json").read_bytes())["prompts"]
    assert [(entry["text"], entry["asked"]) for entry in described] == [(row.prompt, row.id) for row in wanted]


def test_names_become_sentences_only_where_asked(triton, volume_file, tmp_path):
    command = ["segment", str(volume_file), "LIVER", "a thing", "--force", "-o", str(tmp_path / "masks.nii.gz")]
    [sentence] = {row.prompt for row in structures("3d", "CT") if row.id == "liver"}
    assert main(command) == 0
    assert "asked" not in (tmp_path / "masks.json").read_text()
    assert main([*command, "--by-name", "--modality", "ct"]) == 0
    assert [request["text"] for request in triton.requests] == ["LIVER & a thing", f"{sentence} & a thing"]
    first, second = json.loads((tmp_path / "masks.json").read_bytes())["prompts"]
    assert (first["text"], first["asked"]) == (sentence, "LIVER")
    assert "asked" not in second


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["--preset", "nothing"], "there are ct-abdomen"),
        (["--preset", "ct-chest"], "there are ct-abdomen"),  # one of images
        (["liver", "--preset", "CT-Abdomen"], "'liver' is neither"),
        (["--prompt", "liver", "--preset", "CT-Abdomen"], "leave out --prompt"),
        (["liver", "--by-name"], "name a --modality"),
        (["liver", "--by-name", "--modality", "OCT"], "--modality is one of"),
        (["liver", "Liver", "--by-name", "--modality", "CT"], "leave one of them out"),
        (["liver", "--modality", "CT"], "give --by-name too"),
    ],
)
def test_names_that_say_nothing_certain_are_a_wrong_command_line(triton, volume_file, capsys, arguments, way_out):
    assert way_out in refused(capsys, "segment", str(volume_file), *arguments, "-o", "masks.nii.gz")
    assert triton.requests == []


def test_previews_of_outlines_leave_the_inside_as_it_is(triton, volume_file, tmp_path):
    pictures = []
    for style in ("filled", "outline"):
        path = tmp_path / f"{style}.png"
        assert main(["segment", str(volume_file), "liver", "--preview", str(path), "--preview-style", style]) == 0
        pictures.append(Image.open(path).tobytes())
    assert pictures[0] != pictures[1]
