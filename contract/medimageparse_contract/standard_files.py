"""Standard input, output and error of a program that was started with some of them closed."""

import os


def open_closed() -> None:
    """Opens the closed ones on nothing: the next file or socket would take their numbers and get their text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number
