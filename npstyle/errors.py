"""The exception for everything a user can put right, the one form of its message, and common checks."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

MAX_LENGTH = 1500  # characters of a message; libraries quote damaged files at length


class UserError(ValueError):
    """An argument, option or file can't be used: one line with name, found, expected and cure.

    Parameters
    ----------
    name : str
        What it is about: a parameter, an option, a file.
    found, expected, cure : str
        What was given, what would have been right, what to do about it.

    Examples
    --------
    >>> print(UserError("size", "8", "16 or more", "give --size 16"))
    size: found 8; expected 16 or more; give --size 16
    """

    def __init__(self, name: str, found: str, expected: str, cure: str) -> None:
        super().__init__(name, found, expected, cure)
        self.name, self.found, self.expected, self.cure = name, found, expected, cure

    def __str__(self) -> str:
        line = f"{self.name}: found {self.found}; expected {self.expected}; {self.cure}"
        line = " ".join(line.split())
        # The message may quote a file, and some characters are commands to a terminal.
        line = "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in line)
        half = MAX_LENGTH // 2
        return line if len(line) <= MAX_LENGTH else f"{line[:half]} ... {line[-half:]}"


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Return the value as an int if it is an integer not below `minimum`; 2.0 is one, True and "2" are not.

    Examples
    --------
    >>> check_integer("seed", 2.0, 0)
    2
    """
    try:
        valid = not isinstance(value, (bool, str)) and int(value) == value and value >= minimum
    except (TypeError, ValueError, OverflowError):  # not a number, NaN, infinity
        valid = False
    if not valid:
        raise UserError(name, repr(value), f"an integer from {minimum}", f"give one such as {minimum}")
    return int(value)


def check_nonnegative(name: str, value: Any) -> float:
    """Return the value as a float if it is finite and not negative.

    Examples
    --------
    >>> check_nonnegative("style_weight", "1e3")
    1000.0
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise UserError(name, repr(value), "a finite number from 0", "give it as 0.5 or 1e3")
    return number


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise a UserError if the value is not one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise UserError(name, repr(value), " or ".join(map(repr, choices)), "take one of these")
