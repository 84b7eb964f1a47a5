"""How sentences of the models begin by which client and gateway tell what happened."""

import re

TOOK_TOO_LONG = "the request took longer than this server gives to one"
# what Triton says of a python step that was killed, also to the request that it worked on
STEP_DIED = re.compile(r"Stub process .*is not healthy")
# the same of one that is just loaded again, and of an ensemble that it belongs to
STEP_AWAY = re.compile(rf"{STEP_DIED.pattern}|Model '\w+' is not ready|has no available versions")
# Errors in a stream have words and no code, and the header that adds one (triton_grpc_error) ends tritonserver 2.51 now
# and then. So the stream's sentences begin with their code.
CODED = re.compile(r"(INVALID_ARGUMENT|CANCELLED|UNAVAILABLE|INTERNAL): (.*)", re.DOTALL)


def split_code(message: str) -> tuple[str, str]:
    """The code that a sentence of a stream begins with, "" if it has none, and the sentence."""
    found = CODED.match(message)
    return (found[1], found[2]) if found else ("", message)
