"""Types of command-line values, whose errors say what is allowed."""

import argparse
import math
from collections.abc import Callable

# More of anything that is counted here no machine has.
_MOST = 2**31 - 1


def integer(minimum: int, maximum: int = _MOST) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"must be an integer of at least {minimum}, got {text!r}"
            )
        if value > maximum:
            raise argparse.ArgumentTypeError(
                f"must be an integer of at most {maximum}, got {text!r}"
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


# What scores are divided by: further out they leave the range of fp32.
divisor = number("from 1e-6 to 1e6", lambda value: 1e-6 <= value <= 1e6)
probability = number("in (0, 1]", lambda value: 0 < value <= 1)
share = number("in [0, 1]", lambda value: 0 <= value <= 1)
