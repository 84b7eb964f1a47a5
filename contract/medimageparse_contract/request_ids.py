"""What an id of a request is: a caller's own word, by which its lines in logs and its report are found again.

An id of any other form is as good as none: it is never logged and never told, since it could be a patient's name.
"""

import re
import secrets

FORM = re.compile(r"[A-Za-z0-9._:-]{1,64}")
WAY_OUT = "a request id has 1 to 64 letters (A-Z, a-z), digits, '.', '_', ':' or '-'"


def is_request_id(text: str) -> bool:
    return FORM.fullmatch(text) is not None


def valid_or_none(text: str) -> str:
    """The id; nothing in place of one of another form."""
    return text if is_request_id(text) else ""


def new_request_id() -> str:
    """A random one: 16 hexadecimal digits."""
    return secrets.token_hex(8)
