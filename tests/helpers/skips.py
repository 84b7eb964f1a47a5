"""Under CI=true a test that skips for want of a package fails: .ci/run is to install what tests need."""

import os

import pytest

# what a machine of CI may lack for good, as it stands in reasons for a skip
MAY_BE_MISSING = (
    "shared/",
    "../shared",
    "perf-analyzer",
    "this machine",
    "this processor",
    "the file system here",
    "MEDIMAGEPARSE_DEMO_WEIGHTS",
)


def refuse(report):
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not any(words in reason for words in MAY_BE_MISSING):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI takes for a failure (install what is missing in .ci/run): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    refuse(report)
    return report
