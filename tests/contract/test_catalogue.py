"""The catalogue of structures: its rows are whole, its prompts can be sent, and its sets can be asked together."""

import json
import re
from collections import Counter
from dataclasses import fields

import pytest
from medimageparse_contract.catalogue import Code, catalogue, presets, rows_of_presets, structures
from medimageparse_serving.image.recognition import TARGET_DIST
from medimageparse_serving.prompts.clip_tokenizer import tokenize

SCHEMES = {"SCT", "DCM", "NCIt"}


def test_every_row_has_a_key_of_its_own():
    keys = Counter((row.id, row.model, row.modalities, row.sequence, row.region) for row in catalogue())
    assert len(keys) == len(catalogue()) == 367
    assert max(keys.values()) == 1


def test_rows_of_one_id_share_name_and_codes():
    first = {}
    for row in catalogue():
        codes = (row.name, row.category, row.type, row.type_modifier, row.anatomic_region, row.laterality)
        assert first.setdefault(row.id, codes) == codes


def test_every_code_is_whole_and_fits_into_dicom():
    codes = [
        getattr(row, field.name)
        for row in catalogue()
        for field in fields(row)
        if isinstance(getattr(row, field.name), Code)
    ]
    assert len(codes) > 367
    for code in codes:
        assert code.scheme in SCHEMES
        assert 0 < len(code.value) <= 16
        assert 0 < len(code.meaning) <= 64
        assert code.scheme != "SCT" or code.value.isdigit()


def test_what_has_no_code_has_a_private_one_that_fits():
    for row in catalogue():
        assert bool(row.private_code) == (row.type is None)
        assert len(row.private_code) <= 16


@pytest.mark.parametrize(
    ("structure", "code"),
    [
        ("liver", Code("10200004", "SCT", "Liver")),
        ("aorta", Code("15825003", "SCT", "Aorta")),
        ("gluteus_minimus", Code("75297007", "SCT", "Gluteus minimus muscle")),
    ],
)
def test_codes_that_other_tables_have_wrong_or_everybody_knows(structure, code):
    types = {(row.type.value, row.type.scheme) for row in catalogue() if row.id.removeprefix("left_") == structure}
    assert types == {(code.value, code.scheme)}


def test_a_side_stands_in_name_and_code():
    for row in catalogue():
        if row.laterality is not None:
            assert row.laterality.meaning.casefold() in row.name.casefold()


def test_ids_are_fit_for_file_names():
    assert all(re.fullmatch(r"[a-z0-9_]+", row.id) for row in catalogue())


def test_every_prompt_is_one_prompt_and_is_not_cut_by_the_tokenizer():
    prompts = [row.prompt for row in catalogue()]
    assert all(prompts)
    assert not any("&" in prompt or "[SEP]" in prompt for prompt in prompts)
    *_, truncated = tokenize(prompts)
    assert not truncated.any()


def test_colours_are_bytes_and_cielab_values_are_of_16_bits():
    for row in catalogue():
        assert all(0 <= value <= 255 for value in row.rgb)
        assert all(0 <= value <= 65535 for value in row.cielab)


def test_rows_are_chosen_by_model_modality_and_preset_in_any_case():
    chosen = structures("3d", "ct", "CT-Abdomen")
    assert {row.id for row in chosen} >= {"liver", "spleen", "left_kidney", "urinary_bladder"}
    assert {(row.model, row.modalities) for row in chosen} == {("3d", "CT")}
    assert structures("3d", "CT", "no such set") == ()
    assert structures() == catalogue()
    assert len(structures("2d")) + len(structures("3d")) == len(catalogue())


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_the_structures_of_a_set_fit_into_one_request_and_are_asked_once(model):
    assert "ct-abdomen" in presets(model)
    for preset in presets(model):
        prompts = [row.prompt for row in structures(model, preset=preset)]
        assert 0 < len(prompts) <= 64
        assert len(set(prompts)) == len(prompts)
        assert len({row.rgb for row in structures(model, preset=preset)}) == len(prompts)


def test_all_sets_together_fit_into_a_label_map_and_no_sentence_is_asked_twice():
    rows = rows_of_presets(" & ".join(presets("3d")), "3d")
    assert len(rows) <= 255
    assert len({row.prompt for row in rows}) == len(rows)


def test_several_sets_are_read_in_their_order_and_an_unknown_one_spoils_them():
    rows = rows_of_presets("CT-Thorax&ct-abdomen ", "3d")
    thorax = structures("3d", preset="ct-thorax")
    assert rows[: len(thorax)] == thorax
    assert {row.id for row in rows} >= {"liver", "heart"}
    assert [row.id for row in rows].count("aorta") == 1
    for names in ("", "&", "ct-thorax &", "ct-thorax & none", "2d/ct-abdomen"):
        assert rows_of_presets(names, "3d") == ()


def test_p_value_targets_are_those_that_the_server_knows():
    table = json.loads(TARGET_DIST.read_text())
    known = {f"{image_type}/{target}" for image_type, targets in table.items() for target in targets}
    keys = {row.target_key for row in structures("2d") if row.target_key}
    assert len(keys) > 20
    assert keys <= known
