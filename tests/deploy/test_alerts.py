"""deploy/prometheus: the alerts ring when they should and not when they should not; the runbook has each."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from helpers import fake_triton
from helpers.pages import quoted, section, table
from helpers.places import ROOT
from medimageparse_serving.launch import service_metrics

fake_triton.install()

from medimageparse_serving.triton import counts  # noqa: E402

FOLDER = ROOT / "deploy" / "prometheus"
[GROUP] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
CASES = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [*(rule["expr"] for rule in ALERTS.values()), *QUERIES]
OURS = {*counts.FAMILIES, *service_metrics.FAMILIES}


def promtool(*words):
    if not shutil.which("promtool"):
        pytest.skip("needs promtool, which Debian has in prometheus")
    found = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_prometheus_takes_the_configuration_and_the_rules():
    promtool("check", "config", "prometheus.yml")


def test_each_alert_rings_when_it_should():
    promtool("test", "rules", "alerts_test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tried_with_a_cause_and_without(alert):
    cases = [case for test in CASES for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert sorted(bool(case["exp_alerts"]) for case in cases) == [False, True]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_is_told_by_the_service(expression):
    names = re.findall(r"\b(?:medimageparse|nv)_\w+", expression)
    assert names or expression.startswith("up{")
    assert {name for name in names if name.startswith("medimageparse_")} <= OURS


def test_each_alert_has_a_row_in_the_runbook():
    rows = table(section("docs/operate.md", "Alerts"), "alert")
    told = [quoted(alert)[0] for alert, *_ in rows]
    assert told == list(ALERTS)
    assert all(cell.strip() for _, *cells in rows for cell in cells)


def test_jobs_of_the_rules_are_scraped():
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {job["job_name"]: job for job in jobs}
    asked = {job for expression in EXPRESSIONS for job in re.findall(r'job="([\w-]+)"', expression)}
    assert asked <= set(scraped)
    ports = {job["static_configs"][0]["targets"][0].rpartition(":")[2] for job in scraped.values()}
    defaults = dict(re.findall(r"^(\w+_PORT) \?= (\d+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert ports == {defaults["METRICS_PORT"], defaults["PROBE_PORT"]}
