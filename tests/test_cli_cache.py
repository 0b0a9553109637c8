"""`npstyle cache`, and the limit of what interrupted runs may take in the user's cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from npstyle.cli.main import main
from npstyle.run import CheckpointWarning, checkpoint_writer, saved

Output = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
HOUR = 3600


@pytest.fixture
def folder(alone: Path) -> Path:
    """The folder of checkpoints in a cache, with a user's own file in it."""
    folder = alone / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "mine.npz").write_bytes(b"mine")
    return folder


def save(folder: Path, number: int, megabytes: float, hours: float, temporary: bool = False) -> Path:
    """A file as a run leaves it, so many hours old."""
    path = folder / (f".npstyle-{number:08x}.tmp" if temporary else f"{number:024x}.npz")
    with path.open("wb") as file:
        file.truncate(int(megabytes * 1e6))  # takes no room on most disks
    os.utime(path, (time.time() - hours * HOUR,) * 2)
    return path


def test_clear_removes_interrupted_runs_and_nothing_else(folder: Path, alone: Path, capsys: Output) -> None:
    weights = alone / "vgg19.h5"
    weights.write_bytes(b"filters")
    save(folder, 1, 186, 2)
    save(folder, 2, 2.8, 0)
    save(folder, 3, 1, 2, temporary=True)
    being_written = save(folder, 4, 1, 0, temporary=True)
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"{folder}: removed 3 interrupted runs, 190 MB\n"
    assert set(folder.iterdir()) == {folder / "mine.npz", being_written}
    assert weights.read_bytes() == b"filters"


def test_clear_without_anything_to_remove(alone: Path, capsys: Output) -> None:
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"{alone / 'checkpoints'}: removed 0 interrupted runs, 0 MB\n"
    assert not alone.exists()


def test_clear_reports_what_it_cannot_remove(folder: Path, monkeypatch: Patch, capsys: Output) -> None:
    path = save(folder, 1, 1, 2)

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["cache", "clear"]) == 1
    out, err = capsys.readouterr()
    assert "removed 0 interrupted runs" in out
    assert err.startswith(f"npstyle: cache: found {path}, which can't be removed")
    assert err.count("\n") == 1


def test_list_prints_size_and_age(folder: Path, capsys: Output) -> None:
    old, new = save(folder, 1, 2800, 36), save(folder, 2, 186, 0)
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"  186 MB,  0.0 days old, {new.name}",
        f"  2.8 GB,  1.5 days old, {old.name}",
        f"{folder}: 2 interrupted runs, 3.0 GB",
    ]


def test_info_says_how_many_runs_and_how_large(folder: Path, capsys: Output) -> None:
    assert main(["info"]) == 0
    assert "saved:      0 interrupted runs, 0 MB\n" in capsys.readouterr().out
    save(folder, 1, 186, 2)
    assert main(["info"]) == 0
    text = "saved:      1 interrupted run, 186 MB (npstyle cache clear removes them)\n"
    assert text in capsys.readouterr().out


def test_oldest_runs_beyond_the_limit_are_removed_with_a_warning(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(saved, "MAX_BYTES", 1_500_000)
    newest, second, third, oldest = (save(folder, n, 0.7, hours) for n, hours in enumerate((2, 3, 4, 5)))
    checkpoint_writer.folder(tidy=False)
    assert oldest.exists()  # it may be the one to resume
    with pytest.warns(CheckpointWarning, match=r"interrupted runs in .+: removed the oldest, 2$"):
        checkpoint_writer.folder()
    assert set(folder.iterdir()) == {newest, second, folder / "mine.npz"}
    assert not third.exists()
    checkpoint_writer.folder()  # without a warning


def test_limit_spares_recent_runs_and_the_newest(folder: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(saved, "MAX_BYTES", 0)
    newest = save(folder, 1, 0.7, 2)
    checkpoint_writer.folder()
    recent = [save(folder, n, 0.7, 0.5) for n in (2, 3)]
    with pytest.warns(CheckpointWarning, match="removed the oldest, 1$"):
        checkpoint_writer.folder()
    assert set(folder.iterdir()) == {*recent, folder / "mine.npz"}
    assert not newest.exists()


def test_wrong_usage_is_one_line(capsys: Output) -> None:
    for words in ([], ["burn"], ["clear", "all"]):
        with pytest.raises(SystemExit) as caught:
            main(["cache", *words])
        assert caught.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("npstyle: wrong usage: ")
        assert err.count("\n") == 1
