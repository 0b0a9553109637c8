"""The exception for whatever a user can put right, and the one form its message takes."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

LONGEST = 1500  # letters of a message; libraries quote damaged files at length


class UserError(ValueError):
    """Something the caller gave can't be used: one line with name, found, expected and cure.

    Parameters
    ----------
    name : str
        What it is about: a parameter, an option, a file.
    found, expected, cure : str
        What was there, what would have been right, what to do about it.

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
        # Parts of a file may be among the words, and some letters are commands to a terminal.
        line = "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in line)
        half = LONGEST // 2
        return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def check_integer(name: str, value: Any, least: int) -> int:
    """The value as an int, if it is a whole number from `least`; 2.0 is one, True and "2" are none.

    Examples
    --------
    >>> check_integer("seed", 2.0, 0)
    2
    """
    try:
        good = not isinstance(value, (bool, str)) and int(value) == value and value >= least
    except (TypeError, ValueError, OverflowError):  # no number, NaN, infinity
        good = False
    if not good:
        raise UserError(name, repr(value), f"a whole number from {least}", f"give one such as {least}")
    return int(value)


def check_nonnegative(name: str, value: Any) -> float:
    """The value as a float, if it is finite and not below 0.

    Examples
    --------
    >>> check_nonnegative("style_weight", "1e3")
    1000.0
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise UserError(name, repr(value), "a finite number from 0", "give it as 0.5 or 1e3")
    return found


def check_choice(name: str, value: Any, names: Iterable[Any]) -> None:
    """Refuse a value that is none of the names."""
    if value not in list(names):
        raise UserError(name, repr(value), " or ".join(map(repr, names)), "take one of these")
