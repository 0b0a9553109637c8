"""`npstyle._runtime.locks`: one process at a time has a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from npstyle._runtime.locks import lock

pytest.importorskip("fcntl")


def test_a_lock_ends_with_its_file(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("ab") as first, (tmp_path / "lock").open("ab") as second:
        assert lock(first.fileno())
        assert not lock(second.fileno())
        first.close()
        assert lock(second.fileno(), wait=True)
