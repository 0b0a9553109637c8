"""The message of a UserError: one line, whatever is quoted in it."""

from __future__ import annotations

import pytest

from npstyle.errors import MAX_LENGTH, UserError


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ("two\nlines\tand  spaces", "two lines and spaces"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),  # would clear the terminal, and ring its bell
        ("写真.jpg, Ä", "写真.jpg, Ä"),
    ],
)
def test_message_is_one_line_without_control_characters(found: str, shown: str) -> None:
    assert str(UserError("x", found, "y", "do z")) == f"x: found {shown}; expected y; do z"


def test_long_message_keeps_its_beginning_and_its_end() -> None:
    """Libraries quote damaged files at length."""
    message = str(UserError("x", 10 * MAX_LENGTH * "a", "y", "do z"))
    assert len(message) < MAX_LENGTH + 10
    assert message.startswith("x: found aaa")
    assert message.endswith("aaa; expected y; do z")
