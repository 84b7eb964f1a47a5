"""What tritonserver's log says of a start that failed."""

import pytest
from medimageparse_serving.launch.server_log import find_reason, is_news


def test_the_reason_is_the_models_own():
    lines = [
        "I0101 00:00:00 1 server.cc:1] all is well",
        "error: creating server: Invalid argument - load failed for model 'outer': ensemble 'outer' depends on 'inner'",
        "load failed for model 'inner': version 1 is at UNAVAILABLE state: Internal: the graph is bad",
    ]
    assert find_reason(lines) == "inner does not load: Internal: the graph is bad"
    assert find_reason(lines[:1]) == ""
    damaged = "E0101 Poll failed for model directory 'a': failed to read text proto from somewhere"
    assert find_reason([damaged]) == "a does not load: failed to read text proto from somewhere"
    full = "load failed for model 'a': Internal: Unable to initialize shared memory key 'x' to requested size"
    assert "--shm-size" in find_reason([*lines, full])


@pytest.mark.parametrize(
    ("line", "news"),
    [
        ('E1126 20:11:38.123456 30808 model.py:91] "decode_volume failed"', True),
        ('W1126 20:11:38.123456 30808 model.py:91] "decode_volume died"', True),
        ('I1126 20:11:38.123456 30808 server.cc:1] "all is well"', False),
        ('2026-11-26T20:11:38Z E 30808 model.py:91] "decode_volume failed"', True),
        ('2026-11-26T20:11:38Z F 30808 model.py:91] "the end"', True),
        ('2026-11-26T20:11:38Z I 30808 server.cc:1] "all is well"', False),
        ('{"time": "2026-11-26T20:11:38Z", "level": "info"}', True),
        ("time=2026-11-26T20:11:38Z level=info", True),
        ("anything else", False),
    ],
)
def test_errors_and_access_lines_are_shown_at_either_log_format(line, news):
    assert is_news(line, without_gpu=True) == news


@pytest.mark.parametrize("start", ["W1126 20:11:38.1 1", "2026-11-26T20:11:38Z W 1"])
def test_without_a_gpu_its_absence_is_no_news(start):
    line = f'{start} pinned_memory_manager.cc:273] "CUDA driver version is insufficient"'
    assert is_news(line, without_gpu=False)
    assert not is_news(line, without_gpu=True)
