"""What serve.py says, and what tritonserver's log says of a start that fails."""

import contextlib
import re
import sys
from collections.abc import Iterable

from medimageparse_contract import access_lines

# How it says why it does not start: its own words and the model's; ensembles fail because of others.
LOAD_FAILED = re.compile(
    r"(?:load failed for model|Poll failed for model directory|failed to load) '(\w+)'(?:: | version \d+: )"
    r"(?:version \d+ is at UNAVAILABLE state: )?(?!.*ensemble '\w+' depends)(.*)"
)
PORT_TAKEN = re.compile(r"failed to start .* service: .*:(\d+)' already in use")
# On a starved machine the wheel's server aborts when python steps that start together keep a lock for 10 s.
LOCK_GIVEN_UP = "boost::interprocess::lock_exception"
# What the server says about a missing GPU, and no news where none is used.
NO_GPU_NEWS = re.compile("CUDA|Cuda|DCGM|pinned")
# tritonserver's, at either --log-format: E1126 20:11:38.1 ..., or 2026-11-26T20:11:38Z E ...
WARNING_OR_ERROR = re.compile(r"(\d{4}-\d\d-\d\dT[\d:]+Z [EWF]|[EWF]\d{4}) ")
QUOTES = '";'  # what the log puts around its lines
NO_SHM = "/dev/shm is full or too small: make it larger (docker run --shm-size=4g) or free what others keep there"


def say(words: str) -> None:
    """A line of the log; a full disk, or a terminal that is gone, does not stop the service."""
    with contextlib.suppress(OSError):
        if sys.stderr:  # none if this program was started with it closed
            sys.stderr.write(f"serve.py: {words}\n")
            sys.stderr.flush()


def is_news(line: str, without_gpu: bool) -> bool:
    """Whether an operator wants to see a line of tritonserver's log, or of a public model about a request."""
    if line.startswith(access_lines.BEGIN):
        return True
    return bool(WARNING_OR_ERROR.match(line)) and not (without_gpu and NO_GPU_NEWS.search(line))


def tells_why(line: str) -> bool:
    return bool(LOAD_FAILED.search(line) or PORT_TAKEN.search(line))


def find_reason(lines: Iterable[str]) -> str:
    """Why the server did not start, in one sentence; nothing if it did not say."""
    lines = list(lines)
    for taken in filter(None, map(PORT_TAKEN.search, lines)):
        return f"port {taken[1]} was taken by another program at the same moment"
    found = [match for line in lines if (match := LOAD_FAILED.search(line))]
    if any("shared memory key" in match[2] for match in found):
        return NO_SHM
    if not found:
        return ""
    model, words = found[0].groups()
    return f"{model} does not load: {words.rstrip(QUOTES)}"
