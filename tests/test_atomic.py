"""Files that appear completely or not at all."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from npstyle._runtime import atomic
from npstyle._runtime.atomic import TEMPORARY, check_writable, open_replacing, replacing
from npstyle.errors import UserError

Patch = pytest.MonkeyPatch

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

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
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


def overwrite(path: Path, data: bytes = NEW) -> None:
    """What a command does: the check before the run, then the file."""
    check_writable(path, overwrite=True)
    with open_replacing(path) as file:
        file.write(data)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_overwriting_keeps_the_mode_and_is_private_meanwhile(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(OLD)
    path.chmod(mode)
    check_writable(path, overwrite=True)
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(NEW)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert names(tmp_path) == ["x"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        overwrite(tmp_path / "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_overwriting_keeps_the_owner_where_it_may_be_set(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "x"
    path.write_bytes(OLD)
    number = path.stat().st_ino
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(atomic, "_owner", lambda status: (1, 2) if status.st_ino == number else (0, 0))
    monkeypatch.setattr(os, "chown", lambda _, *owner: given.append(owner), raising=False)
    overwrite(path)
    assert given == [(1, 2), (1, 2)]  # of the probe and of the file
    assert path.read_bytes() == NEW
    assert path.stat().st_ino != number


def another_owner(path: Path, patch: Patch) -> None:
    number = path.stat().st_ino
    patch.setattr(atomic, "_owner", lambda status: (1, 2) if status.st_ino == number else (0, 0))
    patch.setattr(os, "chown", failing(errno.EPERM), raising=False)


def several_hard_links(path: Path, patch: Patch) -> None:
    os.link(path, path.with_name("other"))


def rename_fails(number: int) -> Callable[[Path, Patch], None]:
    return lambda path, patch: patch.setattr(os, "replace", failing(number))


def folder_takes_no_files(path: Path, patch: Patch) -> None:
    access = os.access
    patch.setattr(os, "access", lambda place, mode: Path(place) != path.parent and access(place, mode))
    patch.setattr(os, "replace", failing(errno.EXDEV))


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


IN_PLACE = {
    "another owner": another_owner,
    "hard links": several_hard_links,
    "mount point": rename_fails(errno.EBUSY),
    "sticky folder": rename_fails(errno.EPERM),
    "folder without permission": folder_takes_no_files,
}


@pytest.mark.parametrize("reason", IN_PLACE)
@pytest.mark.parametrize("data", [NEW, b"", NEW * 100_000], ids=["same length", "empty", "longer"])
def test_a_file_that_no_rename_can_replace_is_overwritten_in_place(
    reason: str, data: bytes, tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(OLD)
    IN_PLACE[reason](path, monkeypatch)
    before = path.stat()
    overwrite(path, data)
    assert path.read_bytes() == data
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, before.st_nlink)
    assert names(tmp_path) == (["other", "x"] if reason == "hard links" else ["x"])


def mounted(path: Path, patch: Patch) -> None:
    """As Linux reports a file that is mounted there."""
    escaped = os.fspath(path).replace(" ", "\\040")
    mounts = path.with_name("mountinfo")
    mounts.write_text(f"22 1 0:21 / / rw - ext4 disk rw\n23 22 0:21 /y {escaped} rw - ext4 disk rw\n")
    patch.setattr(atomic, "MOUNTS", mounts)


@pytest.mark.parametrize(
    "reason", ["another owner", "hard links", "mount point", "folder without permission"]
)
def test_a_file_that_can_not_be_overwritten_in_place_is_refused_before_the_run(
    reason: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "a picture"
    path.write_bytes(OLD)
    (mounted if reason == "mount point" else IN_PLACE[reason])(path, monkeypatch)
    check_writable(path, overwrite=True)
    opened = Path.open

    def denied(self: Path, mode: str = "r", *arguments: object) -> object:
        if self == path and "+" in mode:
            failing(errno.EACCES)()
        return opened(self, mode)

    monkeypatch.setattr(Path, "open", denied)
    assert "found Permission denied on writing there" in refusal(path, overwrite=True)
    assert path.read_bytes() == OLD


def test_an_immutable_file_is_refused_before_the_run(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "x").write_bytes(OLD)
    monkeypatch.setattr(Path, "open", failing(errno.EPERM))
    assert "found Operation not permitted on writing there" in refusal(tmp_path / "x", overwrite=True)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a system that can't reserve room")
def test_a_full_disk_leaves_the_old_file_whole_where_it_is_overwritten_in_place(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(OLD)
    several_hard_links(path, monkeypatch)
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        overwrite(path, OLD + NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["other", "x"]


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(path))


def link_to_device(path: Path) -> None:
    path.symlink_to(os.devnull)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("overwriting", [True, False])
@pytest.mark.parametrize("make", [make_fifo, make_socket, link_to_device])
def test_what_is_no_file_is_refused_and_stays(
    make: Callable[[Path], None], overwriting: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    path = Path("x")
    make(path)
    found = make.__name__.split("_")[-1].replace("fifo", "FIFO")
    line = refusal(path, overwriting)
    assert line.endswith(f"found a {found}; expected a file; choose another name")
    with pytest.raises(UserError, match=f"found a {found}"), open_replacing(path, overwriting):
        pass
    assert names(tmp_path) == ["x"]
    assert not path.is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder")
def test_a_current_folder_that_is_gone_is_reported(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for overwriting in (True, False):
        with pytest.raises(UserError, match="output: x: found No such file or directory on writing there"):
            check_writable(Path("x"), overwriting)
