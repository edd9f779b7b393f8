"""Types of command-line values, whose errors say what is allowed."""

import argparse
import math
from collections.abc import Callable


def integer(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"must be an integer of at least {minimum}, got {text!r}"
            )
        return value

    return parse


def number(rule: str, allowed: Callable[[float], bool]) -> Callable[[str], float]:
    """rule: how `allowed` reads in a message, as "above 0"."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not allowed(value):
            raise argparse.ArgumentTypeError(f"must be a number {rule}, got {text!r}")
        return value

    return parse


positive = number("above 0", lambda value: value > 0)
probability = number("in (0, 1]", lambda value: 0 < value <= 1)
share = number("in [0, 1]", lambda value: 0 <= value <= 1)
