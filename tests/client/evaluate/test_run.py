"""A run over cases: right scores, whatever the layout; what is done is not done again; one bad case is not the end."""

import itertools
import json
import re

import numpy as np
import pytest
from helpers.evaluated_cases import (
    SENTENCES,
    SHAPE,
    SPACING,
    Oracle,
    picture,
    truth,
    write_biomedparse,
    write_challenge,
    write_nifti,
)
from medimageparse_client.errors import InvalidRequest, ServerUnavailable
from medimageparse_client.evaluate.answers import PredictedFiles
from medimageparse_client.evaluate.cases import CaseError, Sentences
from medimageparse_client.evaluate.layouts import cases_in, chosen, recognised
from medimageparse_client.evaluate.numbers import Resampling
from medimageparse_client.evaluate.records import Journal, OtherSettings, Record
from medimageparse_client.evaluate.report import cases_csv, labels_csv, report
from medimageparse_client.evaluate.run import Run, Settings
from medimageparse_client.evaluate.summary import summarise

LAYOUTS = {"challenge": write_challenge, "nifti": write_nifti, "biomedparse": write_biomedparse}


def amos_truth(seed):
    labels = truth(seed)
    return np.where(labels == 2, 6, labels).astype(np.uint8)  # spleen, liver


def write_amos(folder):
    return write_nifti(folder, ("amos_0004", "amos_0600"), "imagesVa", "labelsVa", amos_truth)


def run(folder, out, answers=None, layout=None, sentences=None, **options):
    layout = layout or recognised(folder)
    sentences = sentences or Sentences("standard" if layout == "biomedparse" else "first")
    settings = Settings(layout, sentences, options.pop("negatives", 0), options.pop("surface", True))
    answers = answers or Oracle()
    out.mkdir(exist_ok=True)
    with Journal(out / "cases.jsonl", settings.as_json(answers)).open(restart=options.pop("restart", False)) as journal:
        return Run(cases_in(folder, None, layout), answers, settings, **options).into(journal)


def summary_of(records, layout="challenge"):
    return summarise(records, layout, {}, {}, Resampling(resamples=50), p_value=0.05)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_the_truth_scores_1(tmp_path, layout):
    folder = LAYOUTS[layout](tmp_path / "data")
    assert recognised(folder) == layout
    records = run(folder, tmp_path / "out")
    assert [record.state for record in records] == ["done"] * len(records)
    metrics = [value for record in records for value in record.metrics.values()]
    assert metrics
    assert np.allclose(metrics, 1, atol=1e-6)


def test_amos_is_asked_by_the_catalogues_sentences_and_ct_and_mri_apart(tmp_path):
    folder = write_amos(tmp_path / "amos22")
    assert recognised(folder) == "amos22"
    oracle = Oracle()
    records = run(folder, tmp_path / "out", oracle)
    assert [record.modality for record in records] == ["CT", "MR"]
    assert all(len(prompts) == 15 for _, prompts in oracle.asked)
    (_, ct), (_, mri) = sorted(oracle.asked)
    assert ct[5] == "Visualization of the liver in abdominal CT imaging"
    assert mri[5] != ct[5]
    organs = summary_of(records, "amos22").tables["Organs, Dice in percent"]
    assert organs["CT"]["liver"].value == 100
    assert organs["CT"]["liver"].card == 97.71
    assert organs["CT"]["average of the card's organs"].n == 2
    assert organs["MR"]["average of all pairs"].value == 100


def test_a_challenge_case_is_asked_in_its_own_axes(tmp_path):
    folder = write_challenge(tmp_path / "data", ["CT_one_1"])
    [case] = cases_in(folder, None, "challenge")
    question = case.load(Sentences())
    assert question.volume.shape == SHAPE[::-1]
    assert np.array_equal(question.volume.transpose(2, 1, 0), picture())
    assert np.array_equal(np.diag(question.affine), [*SPACING, 1])
    assert question.options == {"orientation": "stored", "intensity": "none", "slice_axis": "auto"}
    assert list(question.prompts.values()) == list(SENTENCES.values())


def test_a_label_that_is_missed_or_invented_is_seen_in_scores_and_existence(tmp_path):
    def spoil(case, labels):
        return np.where(labels == 2, 3, labels)  # the spleen is called pancreas

    records = run(write_challenge(tmp_path / "data"), tmp_path / "out", Oracle(spoil))
    assert [record.metrics["DSC"] for record in records] == [0.5] * 3
    assert [record.metrics["DSC_all"] for record in records] == [pytest.approx(1 / 3)] * 3
    existence = summary_of(records).tables["Existence"]
    assert existence["CT, volumes"]["sensitivity"].value == 0.5
    assert existence["CT, volumes"]["rejection rate"].value == 0
    slices = existence["CT, slices"]
    assert slices["fn"].value == slices["fp"].value == pytest.approx(4 / (3 * SHAPE[0]))


def test_instances_are_scored_in_three_ways(tmp_path):
    folder = write_challenge(tmp_path / "data", ["Microscopy_cells_1"], {"1": "cells"}, instance_label=1)
    [record] = run(folder, tmp_path / "out", Oracle(lambda case, labels: (labels > 0).astype(np.uint8)))
    assert record.kind == "instance"
    assert record.metrics == {f"{name}{way}": 1 for name in ("F1", "DSC_TP") for way in ("", "_no_wrap", "_copy")}
    assert summary_of([record]).tables["Modalities"]["Microscopy"]["F1"].card == 0.1939


def test_negatives_are_asked_apart_and_change_no_score(tmp_path):
    folder = write_challenge(tmp_path / "data", ["CT_one_1"])
    write_challenge(tmp_path / "data", ["CT_two_1"], {"1": "left kidney", "2": "right kidney"})
    oracle = Oracle()
    without = run(folder, tmp_path / "without", oracle)
    asked = len(oracle.asked)
    records = run(folder, tmp_path / "with", oracle, negatives=2)
    assert len(oracle.asked) - asked == 4
    assert [record.metrics for record in records] == [record.metrics for record in without]
    absent = [row for record in records for row in record.rows if row.label == 0]
    assert {row.prompt for row in absent if row.prompt in SENTENCES.values()} < set(SENTENCES.values())
    assert len(absent) == 4
    assert not any(row.is_present or row.is_scored for row in absent)


@pytest.mark.parametrize("choice", ["standard", "target", "first", "random"])
def test_images_are_asked_by_the_chosen_sentences(tmp_path, choice):
    oracle = Oracle()
    run(write_biomedparse(tmp_path / "data"), tmp_path / "out", oracle, sentences=Sentences(choice))
    prompts = {name.rsplit("/", 1)[1]: (prompts, kind) for name, prompts, kind in oracle.asked}
    two, kind = prompts["p0_CT_abdomen.png"]
    assert kind == "CT-Abdomen"
    expected = {
        "standard": [("liver in abdomen CT", "spleen in abdomen CT")],
        "target": [("liver", "spleen")],
        "first": [("the ct_abdomen_liver", "the ct_abdomen_spleen")],
        "random": list(
            itertools.product(("the ct_abdomen_liver", "other words"), ("the ct_abdomen_spleen", "other words"))
        ),
    }
    assert two in expected[choice]
    one, _ = prompts["p1_CT_abdomen.png"]
    assert one[1] == ("spleen" if choice == "target" else "spleen in abdomen CT")  # what is not there is asked too
    assert prompts["p2_X-Ray_chest.png"][1] == "X-Ray-Chest"


def test_images_have_tables_of_tasks_modalities_and_absence(tmp_path):
    records = run(write_biomedparse(tmp_path / "data"), tmp_path / "out")
    tables = summary_of(records, "biomedparse").tables
    assert tables["Modalities, Dice"]["All"]["mean over masks"].n == 4
    assert tables["Modalities, Dice"]["CT"]["median of task medians"].card == 0.9042
    assert tables["Tasks"]["CT_abdomen_liver (sets/one)"]["mean Dice"].n == 2
    assert tables["Totals by data set, in percent"]["sets/one"]["precision@0.9"].value == 100
    absence = tables["Absence"]["all images"]
    assert (absence["empty masks of absent"].value, absence["empty masks of present"].value) == (1, 0)
    assert absence["right category"].n == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_that_was_stopped_after_any_case_ends_with_the_same_results(tmp_path, layout):
    folder = LAYOUTS[layout](tmp_path / "data")
    whole = run(folder, tmp_path / "whole", workers=3)

    class Stopped(Oracle):
        """Ends the run, as Ctrl-C does, before a case."""

        def __init__(self, after):
            super().__init__()
            self.left = after

        def count(self):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

        def of_volume(self, *args):
            self.count()
            return super().of_volume(*args)

        def of_image(self, *args):
            self.count()
            return super().of_image(*args)

    for n_done in range(len(whole)):
        out = tmp_path / f"stopped_{n_done}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, out, Stopped(n_done), workers=1)
        kept = (out / "cases.jsonl").read_text().splitlines()
        assert len(kept) == 1 + n_done
        oracle = Oracle()
        records = run(folder, out, oracle, workers=2)
        assert len(oracle.asked) == len(whole) - n_done
        assert json.dumps(summary_of(records, layout).as_json()) == json.dumps(summary_of(whole, layout).as_json())


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    folder = write_challenge(tmp_path / "data")
    run(folder, tmp_path / "out")
    path = tmp_path / "out" / "cases.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    oracle = Oracle()
    records = run(folder, tmp_path / "out", oracle)
    assert len(oracle.asked) == 1
    assert len(records) == 3
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_case_whose_files_have_changed_is_asked_again(tmp_path):
    folder = write_challenge(tmp_path / "data")
    run(folder, tmp_path / "out")
    labels = truth(0)
    labels[0, 0, 0] = 1
    np.savez(tmp_path / "data" / "gts" / "CT_one_1.npz", gts=labels)
    oracle = Oracle()
    run(folder, tmp_path / "out", oracle)
    assert [name for name, _ in oracle.asked] == ["CT_one_1"]


@pytest.mark.parametrize("other", [{"answers": Oracle(networks={"variant": "OTHER"})}, {"surface": False}])
def test_other_networks_and_other_settings_are_refused_unless_the_run_begins_anew(tmp_path, other):
    folder = write_challenge(tmp_path / "data")
    run(folder, tmp_path / "out")
    with pytest.raises(OtherSettings, match="--restart"):
        run(folder, tmp_path / "out", **other)
    assert len(run(folder, tmp_path / "out", restart=True, **other)) == 3


BREAKAGES = {
    "no ground truth of this name": lambda images, truths: (truths / "CT_one_1.npz").unlink(),
    "no text_prompts": lambda images, truths: np.savez(
        images / "CT_one_1.npz", imgs=picture(), spacing=np.array(SPACING)
    ),
    r"not a whole \.npz": lambda images, truths: (images / "CT_one_1.npz").write_bytes(b"PK\x03\x04 broken"),
    "cannot be read": lambda images, truths: (truths / "CT_one_1.npz").write_bytes(b"PK\x03\x04 broken"),
    "imgs has": lambda images, truths: np.savez(truths / "CT_one_1.npz", gts=truth()[:-1]),
    "no gts": lambda images, truths: np.savez(truths / "CT_one_1.npz", other=truth()),
    "must be uint8": lambda images, truths: np.savez(
        images / "CT_one_1.npz",
        imgs=picture().astype(np.float32),
        spacing=np.array(SPACING),
        text_prompts=np.array({**SENTENCES, "instance_label": 0}, dtype=object),
    ),
    "three lengths above 0": lambda images, truths: np.savez(
        images / "CT_one_1.npz",
        imgs=picture(),
        spacing=np.array([0.8, 0.8, np.nan]),
        text_prompts=np.array({**SENTENCES, "instance_label": 0}, dtype=object),
    ),
}


@pytest.mark.parametrize(("words", "damage"), BREAKAGES.items(), ids=BREAKAGES)
def test_a_broken_case_is_told_in_a_sentence_and_the_others_go_on(tmp_path, words, damage):
    folder = write_challenge(tmp_path / "data")
    damage(folder, tmp_path / "data" / "gts")
    records = run(folder, tmp_path / "out")
    by_state = {record.name: record.state for record in records}
    assert by_state == {"CT_one_1": "failed", "CT_two_2": "done", "MR_three_3": "done"}
    summary = summary_of(records)
    [sentence] = summary.failures.values()
    assert re.search(words, sentence)
    assert "\n" not in sentence
    ours, as_0 = (
        summary.tables[title]["CT"]["DSC"] for title in ("Modalities", "Modalities, a failed case counted as 0")
    )
    assert (ours.value, ours.n) == (1, 1)
    assert (as_0.value, as_0.n) == (0.5, 2)
    assert "CT_one_1" in report(summary)


def test_a_case_that_the_server_refuses_fails_alone_and_is_tried_again(tmp_path):
    class Refusing(Oracle):
        def of_volume(self, case, question, prompts):
            if case.name == "CT_one_1":
                raise InvalidRequest("text has too many prompts; send fewer")
            return super().of_volume(case, question, prompts)

    folder = write_challenge(tmp_path / "data")
    records = run(folder, tmp_path / "out", Refusing())
    assert [record.error for record in records if record.state == "failed"] == ["text has too many prompts; send fewer"]
    assert [record.state for record in run(folder, tmp_path / "out")] == ["done"] * 3


def test_a_server_that_stays_away_ends_the_run_and_what_is_done_is_kept(tmp_path):
    class Gone(Oracle):
        def of_volume(self, case, question, prompts):
            if len(self.asked) == 1:
                raise ServerUnavailable("the server is not available")
            return super().of_volume(case, question, prompts)

    folder = write_challenge(tmp_path / "data")
    with pytest.raises(ServerUnavailable):
        run(folder, tmp_path / "out", Gone(), workers=1)
    oracle = Oracle()
    run(folder, tmp_path / "out", oracle)
    assert len(oracle.asked) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_predictions_score_as_the_answers_did(tmp_path, layout):
    folder, saved = LAYOUTS[layout](tmp_path / "data"), tmp_path / "saved"
    saved.mkdir()

    def spoil(case, labels):
        return np.roll(labels, 1, 1)

    asked = run(folder, tmp_path / "asked", Oracle(spoil), save=saved)
    scored = run(folder, tmp_path / "scored", PredictedFiles(saved, {"predictions": "files"}))
    assert [record.metrics for record in scored] == [record.metrics for record in asked]
    assert layout == "biomedparse" or scored[0].metrics["DSC"] < 1


def test_cases_are_chosen_by_name_and_number(tmp_path):
    cases = cases_in(write_challenge(tmp_path / "data"), None, "challenge")
    assert [case.name for case in chosen(cases, "CT_*", None)] == ["CT_one_1", "CT_two_2"]
    assert [case.name for case in chosen(cases, None, 1)] == ["CT_one_1"]


def test_a_folder_without_cases_says_what_it_might_have(tmp_path):
    with pytest.raises(CaseError, match=r"neither \.npz nor NIfTI"):
        recognised(tmp_path)


def test_a_list_that_leads_out_of_its_folder_is_refused(tmp_path):
    folder = write_biomedparse(tmp_path / "data")
    path = folder / "sets" / "one" / "test.json"
    path.write_text(path.read_text().replace("p0_CT_abdomen_liver.png", "../../p0_CT_abdomen_liver.png"))
    with pytest.raises(CaseError, match="not in its folder"):
        cases_in(folder, None, "biomedparse")


def test_each_case_may_have_prompts_of_its_own_with_names(tmp_path):
    folder = write_nifti(tmp_path / "data")
    own = tmp_path / "data" / "prompts"
    own.mkdir()
    (own / "CT_a.json").write_text(json.dumps({"2": "milt", "instance_label": 0, "names": {"2": "spleen"}}))
    oracle = Oracle()
    records = run(folder, tmp_path / "out", oracle)
    assert dict(oracle.asked) == {"CT_a": ("milt",), "CT_b": tuple(SENTENCES.values())}
    structures = summary_of(records, "nifti").tables["Structures"]
    assert structures["spleen"]["mean Dice"].n == 2
    assert structures["all"]["mean Dice"].n == 3


def test_the_official_columns_come_first_rounded_and_empty_for_nan(tmp_path):
    records = run(write_challenge(tmp_path / "data"), tmp_path / "out", surface=False)
    header, first, *_ = cases_csv(records).splitlines()
    assert header.startswith("CaseName,RunningTime,DSC,NSD,F1,DSC_TP,")
    assert first.startswith("CT_one_1,1.5000,1.0000,,,,")
    assert len(labels_csv(records).splitlines()) == 1 + 9


def test_a_record_is_read_as_it_was_written(tmp_path):
    for folder in (write_challenge(tmp_path / "volumes"), write_biomedparse(tmp_path / "images")):
        for record in run(folder, tmp_path / f"out_{folder.name}"):
            again = Record.from_json(record.to_json())
            assert again.to_json() == record.to_json()
            assert "NaN" not in record.to_json()
            assert again.rows[0].slices == record.rows[0].slices


def test_the_report_puts_the_cards_numbers_beside_ours(tmp_path):
    text = report(summary_of(run(write_challenge(tmp_path / "data"), tmp_path / "out")))
    assert "| CT | DSC | 2 | 1.0000 | - | 0.8512 | +0.1488 | differs |" in text
    assert "## Existence by prompt" in text
