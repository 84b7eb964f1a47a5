"""Lines on stderr, as JSON or text: one for each request, and what else there is to say. Never content, never a key."""

import logging
import sys
from pathlib import Path
from traceback import extract_tb

from medimageparse_contract.access_lines import JSON, OFF, encode_line, now

LOG = logging.getLogger("medimageparse_gateway")
ACCESS = LOG.getChild("access")  # one line for each request
PACKAGE = Path(__file__).parent


class Lines(logging.Formatter):
    """A record as one line. Of an exception it says the kind and the place: its words may be a patient's."""

    def __init__(self, form: str = JSON) -> None:
        super().__init__()
        self.form = form

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": now(), "level": record.levelname.lower()}
        line |= record.msg if isinstance(record.msg, dict) else {"message": f"{record.name}: {record.getMessage()}"}
        if record.exc_info and record.exc_info[1]:
            line["error"] = place_of(record.exc_info[1])
        return encode_line(line, self.form)


def place_of(error: BaseException) -> str:
    """The kind of an error and where in our own code it happened."""
    places = [(Path(place.filename), place.lineno) for place in extract_tb(error.__traceback__)]
    ours = [place for place in places if PACKAGE in place[0].parents]
    file, line = (ours or places or [(Path("?"), 0)])[-1]
    return f"{type(error).__name__} in line {line} of {file.name}"


def set_up(access_log: str) -> None:
    """For the whole process; called once, by the program. access_log: off, text or json; text is for all lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(JSON if access_log == OFF else access_log))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(logging.INFO)
    ACCESS.setLevel(logging.WARNING if access_log == OFF else logging.INFO)
    logging.raiseExceptions = False  # nobody reads the log: no reason to fail
