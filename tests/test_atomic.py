"""Files that appear completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from npstyle._runtime.atomic import TEMPORARY, check_writable, open_replacing, replacing
from npstyle.errors import UserError

OLD, NEW = b"the old file", b"the new file"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path, overwrite: bool = False) -> str:
    """The message of check_writable, which leaves nothing behind."""
    before = names(path.parent) if path.parent.is_dir() else []
    with pytest.raises(UserError) as caught:
        check_writable(path, overwrite)
    assert (names(path.parent) if path.parent.is_dir() else []) == before
    assert caught.value.name == f"output: {path}"
    return str(caught.value)


@pytest.mark.parametrize("overwrite", [True, False])
def test_check_writable_accepts_new_name_and_leaves_nothing(overwrite: bool, tmp_path: Path) -> None:
    check_writable(tmp_path / "x", overwrite)
    assert names(tmp_path) == []


def test_check_writable_accepts_existing_file_only_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(OLD)
    expected = "found a file of that name; expected a new name; choose another or add --overwrite"
    assert refusal(tmp_path / "x").endswith(expected)
    check_writable(tmp_path / "x", overwrite=True)
    assert (tmp_path / "x").read_bytes() == OLD


@pytest.mark.parametrize("overwrite", [True, False])
def test_check_writable_refuses_folder(overwrite: bool, tmp_path: Path) -> None:
    assert refusal(tmp_path, overwrite).endswith("found a folder; expected a file name; add a name to it")


@pytest.mark.parametrize("name", ["missing/x", "a" * 300, "file/x"])
def test_check_writable_refuses_impossible_places(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    expected = " on writing there; expected a name in a folder that can be written to; choose another"
    assert refusal(tmp_path / name, overwrite=True).endswith(expected)


def test_check_writable_reports_missing_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", denied)
    assert "found Permission denied on writing there" in refusal(tmp_path / "x")


@pytest.mark.parametrize("overwrite", [True, False])
def test_replacing_shows_file_only_when_complete(overwrite: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if overwrite:
        path.write_bytes(OLD)
    with replacing(path, overwrite) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.match(TEMPORARY)
        temporary.write_bytes(NEW)
        assert path.read_bytes() == OLD if overwrite else not path.exists()
    assert path.read_bytes() == NEW
    assert names(tmp_path) == ["x"]


def test_replacing_syncs_before_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        events.append(f"sync {os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def record_replace(old: Path, new: Path) -> None:
        events.append(f"rename to {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    with replacing(tmp_path / "x", overwrite=True) as temporary:
        temporary.write_bytes(NEW)
    assert events == [f"sync {len(NEW)} bytes", "rename to x"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_replacing_keeps_old_file_after_exception(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(OLD)

    def write() -> None:
        with replacing(tmp_path / "x", overwrite=True) as temporary:
            temporary.write_bytes(NEW[:3])
            raise error

    with pytest.raises(type(error)):
        write()
    assert (tmp_path / "x").read_bytes() == OLD
    assert names(tmp_path) == ["x"]


def test_replacing_reports_unwritten_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x", overwrite=True):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("name_taken", [True, False])
def test_replacing_without_overwrite_keeps_file_created_meanwhile(
    hard_links: bool, name_taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    def write() -> None:
        with replacing(path, overwrite=False) as temporary:
            temporary.write_bytes(NEW)
            if name_taken:
                path.write_bytes(OLD)

    if not hard_links:
        monkeypatch.setattr(os, "link", unsupported)
    if name_taken:
        with pytest.raises(UserError, match=r"found a file of that name; expected a new name"):
            write()
    else:
        write()
    assert path.read_bytes() == (OLD if name_taken else NEW)
    assert names(tmp_path) == ["x"]


def test_replacing_follows_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "x"
    try:
        link.symlink_to(tmp_path / "folder" / "y")
    except OSError:
        pytest.skip("no symbolic links here")
    check_writable(link, overwrite=True)
    with replacing(link, overwrite=True) as temporary:
        temporary.write_bytes(NEW)
    assert link.is_symlink()
    assert (tmp_path / "folder" / "y").read_bytes() == NEW
    assert names(tmp_path / "folder") == ["y"]


def test_open_replacing_writes_through_one_handle(tmp_path: Path) -> None:
    with open_replacing(tmp_path / "x") as file:
        file.write(NEW[:4])
        file.write(NEW[4:])
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_bytes() == NEW
    with pytest.raises(UserError, match="found a file of that name"), open_replacing(tmp_path / "x", False):
        pass
    assert names(tmp_path) == ["x"]
