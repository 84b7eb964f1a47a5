"""What tritonserver's log says of a start that failed."""

from medimageparse_serving.launch.server_log import find_reason


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
