"""What the supervisor tells Prometheus of itself."""

import json

import pytest
from medimageparse_contract.version import VERSION
from medimageparse_serving.launch.service_metrics import FAMILIES, ServiceMetrics, checkpoints
from prometheus_client.parser import text_string_to_metric_families

MODEL = "medimageparse"


@pytest.fixture
def metrics():
    return ServiceMetrics("cpu", {MODEL: "0123456789ab"})


def samples(metrics, is_ready=True):
    families = list(text_string_to_metric_families(metrics.text(is_ready)))
    return {sample.name: sample for family in families for sample in family.samples}


def test_all_families_are_told_once_a_canary_was_right(metrics):
    assert set(samples(metrics)) < set(FAMILIES)
    metrics.canary_is_right(MODEL, 0.25)
    found = samples(metrics)
    assert set(found) == set(FAMILIES)
    assert found["medimageparse_canary_seconds"].value == 0.25
    assert 0 < found["medimageparse_shm_free_bytes"].value <= found["medimageparse_shm_size_bytes"].value


def test_counts_grow(metrics):
    for _ in range(3):
        metrics.count_restart()
    metrics.canary_is_wrong(MODEL)
    found = samples(metrics)
    assert found["medimageparse_restarts_total"].value == 3
    assert found["medimageparse_canary_wrong_total"].value == 1


def test_ready_is_one_or_zero(metrics):
    assert [samples(metrics, is_ready)["medimageparse_ready"].value for is_ready in (True, False)] == [1, 0]


def test_what_is_served_is_a_label(metrics):
    labels = samples(metrics)["medimageparse_model_info"].labels
    assert labels == {"model": MODEL, "runtime": "cpu", "version": VERSION, "checkpoint": "0123456789ab"}


def test_a_checkpoint_is_known_by_the_beginning_of_its_hash(tmp_path):
    for model, networks in (("one", {"checkpoint_sha256": "ab" * 32}), ("two", {})):
        (tmp_path / model / "1").mkdir(parents=True)
        (tmp_path / model / "1" / "networks.json").write_text(json.dumps(networks))
    assert checkpoints(tmp_path, ["one", "two"]) == {"one": "abababababab", "two": ""}
