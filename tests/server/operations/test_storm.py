"""The short form of `benchmarks/storm.py`: processes are killed and stopped under clients that try again."""

import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from helpers.running_server import PATIENCE_S
from storm import MODELS, NOTHING, Stormed, left_over, storm

HITS = [("step", signal.SIGKILL), ("step", signal.SIGSTOP), ("tritonserver", signal.SIGKILL)]


@pytest.fixture(scope="module")
def stormed():
    return storm(n_clients=3, hits=HITS, hit_every_s=1.0, seed=1, settle_s=PATIENCE_S)


def test_callers_get_right_answers_and_no_errors(stormed):
    assert stormed.wrong == []
    assert stormed.errors == []
    assert {model for model, _ in stormed.right} >= set(MODELS)
    assert [what for what, _ in stormed.hits] == [NOTHING, *(f"{what} {number.name}" for what, number in HITS)]


def test_nothing_is_left(stormed):
    assert stormed.left == []


def test_the_time_away_is_the_longest_between_two_answers():
    right = [("image", 1.0), ("volume", 2.0), ("image", 8.0), ("wrong:", 9.0), ("image", 11.0), ("volume", 14.0)]
    found = Stormed(right=right, hits=[(NOTHING, 0.0), ("step SIGKILL", 10.0)], ended=15.0)
    assert list(found.away()) == [(NOTHING, [7.0, 8.0]), ("step SIGKILL", [4.0, 4.0])]


def test_what_is_left_would_be_seen(monkeypatch):
    monkeypatch.setattr("storm.ENDING_S", 0.1)
    with (
        tempfile.NamedTemporaryFile(prefix="medimageparse-", dir="/dev/shm") as file,
        subprocess.Popen(["sleep", "60"]) as program,
    ):
        name, seen = Path(file.name).name, {psutil.Process(program.pid)}
        assert left_over(seen, {name}) == ["sleep", name]
        program.kill()
    assert left_over(seen, {name}) == []
