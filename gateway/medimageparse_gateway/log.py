"""JSON lines on stderr: one for each request, and what libraries have to say. Never content, never a key."""

import json
import logging
import sys
import time
from pathlib import Path
from traceback import extract_tb

LOG = logging.getLogger("medimageparse_gateway")
PACKAGE = Path(__file__).parent


class JsonLines(logging.Formatter):
    """A record as one line. Of an exception it says the kind and the place: its words may be a patient's."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": now(), "level": record.levelname.lower()}
        line |= record.msg if isinstance(record.msg, dict) else {"message": f"{record.name}: {record.getMessage()}"}
        if record.exc_info and record.exc_info[1]:
            line["error"] = place_of(record.exc_info[1])
        return json.dumps(line)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def place_of(error: BaseException) -> str:
    """The kind of an error and where in our own code it happened."""
    places = [(Path(place.filename), place.lineno) for place in extract_tb(error.__traceback__)]
    ours = [place for place in places if PACKAGE in place[0].parents]
    file, line = (ours or places or [(Path("?"), 0)])[-1]
    return f"{type(error).__name__} in line {line} of {file.name}"


def set_up() -> None:
    """For the whole process; called once, by the program."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(logging.INFO)
    logging.raiseExceptions = False  # nobody reads the log: no reason to fail
