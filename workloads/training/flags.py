"""Values of the training workloads' flags."""

import argparse

from workloads.command import positive


def counts(text: str) -> tuple[int, ...]:
    """Read "1,2,4".

    Raises:
        argparse.ArgumentTypeError: a part is not a whole number of at least 1.
    """
    return tuple(positive(part) for part in text.split(","))


def rate(text: str) -> float:
    """A learning rate between 0 and 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate between 0 and 1: write for example 3e-4")
    return value
