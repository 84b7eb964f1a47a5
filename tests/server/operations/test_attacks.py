"""The attacks of SECURITY.md in their small form: a running service outlives them, and answers right after each."""

import re

import pytest
from attacks.__main__ import attack
from attacks.rows import ROWS
from attacks.target import Target
from helpers.running_server import serving


@pytest.fixture(scope="module")
def target(tmp_path_factory, both_demos):
    """Both demo models with the gateway, as `make serve-demo` starts them."""
    log = tmp_path_factory.mktemp("attacked") / "log"
    with serving(log, both_demos, "--gateway-port=0") as service:
        yield Target(service.grpc, service.gateway, service.probes.removeprefix("http://"))
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row.title))
def test_the_service_outlives_an_attack_and_answers_right(target, row):
    attack(row, target)
