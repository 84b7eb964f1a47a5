"""Why the server cannot start."""


class ServeError(Exception):
    """The server cannot start; the message is one sentence that says what to do."""


class KilledError(ServeError):
    """The server started and ended before it had segmented the canary, perhaps by what a caller sent it."""


class StarvedError(ServeError):
    """The server gave up waiting for its own python steps; it may start when they start one by one."""
