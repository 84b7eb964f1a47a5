"""The caller's mistake."""


class Refused(ValueError):
    """A request that is refused: INVALID_ARGUMENT, and this sentence, which says what to send instead.

    Only our own checks raise it. What a library raises never reaches a caller as words.
    """

    step = ""  # the inner model that refused, where a public one has read its refusal
