"""The error that the commands of this package report as a sentence; anything else is a bug with a traceback."""


class ExportError(RuntimeError):
    """A checkpoint, graph or engine cannot be had or is not what it should be; the message says which and why."""
