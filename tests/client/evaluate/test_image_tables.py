"""Tables of 2D cases: tasks and modalities are grouped as the published ones, and p-values are the original's."""

import json

import numpy as np
import pytest
from helpers.places import SHARED
from medimageparse_client.evaluate.image_tables import image_modalities, image_tasks, modality_of_task
from medimageparse_client.evaluate.numbers import Resampling
from medimageparse_client.evaluate.records import Record, Row
from medimageparse_client.evaluate.statistics import macro_bootstrap
from medimageparse_serving.image.recognition import TARGET_DIST, existence_p_value

GOLDEN = SHARED / "golden" / "metrics.json"
DRAW = Resampling(resamples=20)


def record(name, data_set, *masks):
    """A case with masks (task, Dice), each of 100 true and 100 found pixels."""
    rows = tuple(
        Row(k, task, task, True, True, True, 100, 100, round(100 * dice)) for k, (task, dice) in enumerate(masks)
    )
    return Record(name, "image", "any", data_set, "done", rows=rows)


RECORDS = [
    record("a", "one", ("MRI-FLAIR_brain_edema", 0.8), ("MRI-T1-Gd_brain_tumor", 0.6)),
    record("b", "one", ("MRI-FLAIR_brain_edema", 0.4), ("CT_abdomen_kidney", 0.9)),
    record("c", "two", ("CT_abdomen_kidney", 0.5), ("CT_abdomen_kidney", 0.7)),
]


def test_the_kinds_of_mri_are_one_modality():
    assert {modality_of_task(task) for task in ("MRI_abdomen_liver", "MRI-ADC_prostate_x", "MRI-T2_prostate_x")} == {
        "MRI"
    }
    table = image_modalities(RECORDS, DRAW)
    assert table["MRI"]["mean of task means"].value == pytest.approx((0.6 + 0.6) / 2)
    assert table["MRI"]["mean over masks"].n == 3
    assert table["All"]["median of task medians"].value == pytest.approx(0.6)


def test_a_task_of_several_data_sets_is_told_for_each_and_pooled():
    table = image_tasks(RECORDS, DRAW)
    means = {name: line["mean Dice"].value for name, line in table.items() if "kidney" in name}
    assert means == {
        "CT_abdomen_kidney (one)": pytest.approx(0.9),
        "CT_abdomen_kidney (pooled)": pytest.approx(0.7),
        "CT_abdomen_kidney (two)": pytest.approx(0.6),
    }
    assert "MRI-T1-Gd_brain_tumor (pooled)" not in table


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared is not there")
def test_golden_p_values():
    distributions = json.loads(TARGET_DIST.read_text())
    for case in json.loads(GOLDEN.read_text())["p_values"]:
        distribution = distributions[case["image_type"]][case["target"]]
        assert existence_p_value(np.array(case["stats"]), distribution) == pytest.approx(case["p"], abs=1e-6)


def test_cases_are_drawn_once_for_all_organs():
    values = np.array([[1.0, 0.0], [0.0, 1.0]] * 5)  # what one organ gains the other loses
    assert macro_bootstrap(values) == pytest.approx((0.5, 0.5))
    values[:, 1] = np.nan
    low, high = macro_bootstrap(values)
    assert low < 0.5 < high
    assert macro_bootstrap(values[:4]) is None
