"""CI fails where a test skips for want of a package, and lets the other skips pass."""

import pytest
from helpers.places import ROOT

MODULE = """
import pytest

def test_skips_itself(): pytest.skip({reason!r})

@pytest.mark.skipif(True, reason={reason!r})
def test_is_skipped(): pass

@pytest.fixture
def nothing(): pytest.skip({reason!r})

def test_gets_nothing(nothing): pass

@pytest.mark.xfail
def test_is_expected_to_fail(): assert False
"""
IMPORTS = 'import pytest\npytest.importorskip("no_such_package", reason={reason!r})\n'
# the second collects garbage five times at the end of each run, which takes seconds in a large process
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:unraisableexception")


@pytest.fixture
def run(pytester, monkeypatch):
    """run(source, CI's value) -> what pytest says of a module."""

    def run(source, ci):
        pytester.makepyfile(source)
        monkeypatch.setenv("CI", ci)
        return pytester.runpytest_inprocess("-p", "helpers.skips", *WITHOUT)

    return run


@pytest.mark.parametrize("source", [MODULE, IMPORTS], ids=["tests", "a module"])
@pytest.mark.parametrize(
    "reason", ["there is no nginx here: apt-get install nginx", "no_such_package is not installed"]
)
def test_a_missing_package_is_a_failure_under_ci_alone(run, source, reason):
    refused = run(source.format(reason=reason), ci="true")
    assert refused.ret in (1, 2)
    assert f"skipped, which CI takes for a failure (install what is missing in .ci/run): {reason}" in str(
        refused.stdout
    )
    assert "skipped" not in refused.parseoutcomes()
    assert set(run(source.format(reason=reason), ci="").parseoutcomes()) <= {"skipped", "xfailed"}


@pytest.mark.parametrize("reason", ["the files lie in ../shared", "this machine gives no PID namespace to be PID 1 of"])
def test_what_ci_cannot_have_may_be_missing(run, reason):
    assert run(MODULE.format(reason=reason), ci="true").parseoutcomes() == {"skipped": 3, "xfailed": 1}


def test_ci_runs_under_ci():
    assert "\nexport CI=true\n" in (ROOT / ".ci" / "run").read_text()
