"""How server and gateway write what happened: one line, as JSON or as name=value."""

import json
import re
import time
from collections.abc import Mapping

ACCESS_LOGS = OFF, TEXT, JSON = "off", "text", "json"  # the choices of --access-log
BEGIN = ("time=2", '{"time": "2')  # of a line with `now` as its first value
PLAIN = re.compile(r"[\w.:/+-]+", re.ASCII)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def encode_line(values: Mapping[str, object], form: str) -> str:
    """The values as JSON; as text "name=value", with quotes and escapes of JSON where a value needs them."""
    if form == JSON:
        return json.dumps(values)
    return " ".join(f"{name}={encode_word(str(value))}" for name, value in values.items())


def encode_word(word: str) -> str:
    return word if PLAIN.fullmatch(word) else json.dumps(word)
