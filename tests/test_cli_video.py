"""npstyle video: a folder of frames to another one, what is continued, what is refused, what is kept."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import structured_picture
from npstyle import images
from npstyle.cli import progress
from npstyle.cli.main import main
from npstyle.film import painting

FAST = ["--weights", "random", "--iterations", "1", "--frame-iterations", "1", "--threads", "1"]
FAST += ["--workers", "1"]
FAST += ["--style-layers", "conv1_1", "--content-layers", "conv1_2"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with three frames and a painting."""
    monkeypatch.chdir(tmp_path)
    scene = structured_picture(40, 48)
    (tmp_path / "frames").mkdir()
    for n in range(3):
        images.write(tmp_path / f"frames/shot_{n + 9}.png", scene[4:28, n : n + 32])
    images.write(tmp_path / "painting.png", structured_picture(32, 32, 1))
    return tmp_path


def video(*words: str, film: str = "frames", method: str = "difference") -> int:
    return main(["video", film, "painting.png", *FAST, "--method", method, *words])


def refusal(capsys: Captured, *words: str, **options: Any) -> str:
    """The one line that the command ends with, before anything is painted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "paint_shot", None)
        assert video(*words, **options) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def written(folder: Path, name: str = "out") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


@pytest.mark.parametrize("method", ["difference", "none"])
def test_folder_is_painted_to_a_folder(folder: Path, capsys: Captured, method: str) -> None:
    assert video("-o", "out", method=method) == 0
    output = capsys.readouterr()
    assert output.out.startswith("out: 3 frames, in ")
    assert (
        f"3 frames of 32 x 24 pixels{', each by itself' if method == 'none' else ' in 1 shot'}" in output.err
    )
    assert list(written(folder)) == ["shot_10.png", "shot_11.png", "shot_9.png"]
    assert images.read(folder / "out/shot_9.png").shape == (24, 32, 3)


@pytest.mark.skipif(find_spec("cv2") is None, reason="no opencv-python-headless")
def test_flow_is_the_default(folder: Path, capsys: Captured) -> None:
    assert main(["video", "frames", "painting.png", "-o", "out", *FAST]) == 0
    assert "in 1 shot, flow: 1 iteration, then 1 a frame" in capsys.readouterr().err


def test_size_and_a_film_of_one_frame(folder: Path) -> None:
    for n in (10, 11):
        (folder / f"frames/shot_{n}.png").unlink()
    assert video("-o", "out", "--size", "24", "--quiet") == 0
    assert images.read(folder / "out/shot_9.png").shape == (18, 24, 3)


def test_same_command_paints_what_is_missing(folder: Path, capsys: Captured) -> None:
    assert video("-o", "out") == 0
    whole = written(folder)
    (folder / "out/shot_11.png").unlink()
    capsys.readouterr()
    assert video("-o", "out") == 0
    assert capsys.readouterr().out.startswith("out: 3 frames, 2 of them finished before, in ")
    assert written(folder) == whole


def test_ctrl_c_costs_one_frame(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert video("-o", "whole") == 0
    write, count = painting.write_frame, 0

    def interrupted(*arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        write(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "write_frame", interrupted)
        capsys.readouterr()
        assert video("-o", "out") == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "npstyle: interrupted; 2 of 3 frames are finished; the same command continues"
    assert video("-o", "out") == 0
    whole, continued = (images.read(folder / name / "shot_11.png") for name in ("whole", "out"))
    np.testing.assert_array_equal(whole, continued)


def test_full_disk_is_one_line_and_loses_nothing(folder: Path, capsys: Captured) -> None:
    replacing, count = painting.open_replacing, 0

    def full(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        return replacing(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "open_replacing", full)
        assert video("-o", "out", "--quiet") == 1
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert "shot_10.png: found No space left on device on writing" in line
    assert list(written(folder)) == ["shot_9.png"]
    assert video("-o", "out", "--quiet") == 0


def test_frames_of_other_settings_are_not_replaced(folder: Path, capsys: Captured) -> None:
    assert video("-o", "out", "--quiet") == 0
    before = written(folder)
    capsys.readouterr()
    line = refusal(capsys, "-o", "out", "--quiet", "--seed", "1", "--weights", "random")
    assert "RANDOM" not in line
    assert line.startswith("npstyle: frame: out/shot_9.png: found a file that is not of this film")
    assert written(folder) == before
    assert video("-o", "out", "--quiet", "--seed", "1", "--overwrite") == 0
    assert written(folder) != before


def test_other_files_in_the_folder_stay(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/notes.txt").write_text("mine")
    assert video("-o", "out", "--quiet") == 0
    assert written(folder)["notes.txt"] == b"mine"


def test_broken_frame_is_one_line(folder: Path, capsys: Captured) -> None:
    path = folder / "frames/shot_10.png"
    path.write_bytes(path.read_bytes()[:50])
    assert refusal(capsys, "-o", "out").startswith(
        "npstyle: picture: frames/shot_10.png: found a damaged file"
    )
    assert not (folder / "out").exists()


def test_frame_of_another_size_is_one_line(folder: Path, capsys: Captured) -> None:
    images.write(folder / "frames/shot_10.png", structured_picture(20, 30), overwrite=True)
    line = refusal(capsys, "-o", "out")
    assert line.startswith("npstyle: frame: frames/shot_10.png: found 30 x 20 pixels; expected 32 x 24")


@pytest.mark.parametrize(
    ("words", "film", "start"),
    [
        (("-o", "frames"), "frames", "output: frames: found the folder of the frames that are read"),
        (("-o", "nowhere/out"), "frames", "output: nowhere/out: found No such file or directory"),
        (
            ("-o", "out.avi"),
            "frames",
            "output: out.avi: found a film that can't be written (.avi); expected .mp4",
        ),
        (("-o", "out"), "nowhere", "film: nowhere: found no such file"),
        (("-o", "out", "--init", "painting.png"), "frames", "--init: found 'painting.png'"),
        (("-o", "out", "--color", "luma"), "frames", "--color: found luma"),
        (("-o", "out", "--method", "flow", "--flow", "x"), "frames", "--flow: found 'x'"),
        (("-o", "out", "--method", "flow", "--long-term", "2"), "frames", "--long-term: found (2,)"),
    ],
)
def test_refused_in_one_line(
    folder: Path, capsys: Captured, words: tuple[str, ...], film: str, start: str
) -> None:
    assert refusal(capsys, *words, film=film).startswith(f"npstyle: {start}")


def test_options_without_effect_are_named(folder: Path, capsys: Captured) -> None:
    assert video("-o", "out", "--long-term", "1,2", "--quiet") == 0
    line = "npstyle: --long-term: no effect with --method difference, only with flow"
    assert line in capsys.readouterr().err.splitlines()
    assert video("-o", "other", "--quiet", method="none") == 0
    line = "npstyle: --frame-iterations: no effect with --method none, only with flow or difference"
    assert line in capsys.readouterr().err.splitlines()


def test_show_prints_the_command(folder: Path, capsys: Captured) -> None:
    assert video("-o", "out", "--quiet", "--temporal-weight", "30") == 0
    capsys.readouterr()
    assert main(["show", "out/shot_9.png"]) == 0
    output = capsys.readouterr().out
    assert "settings: npstyle video frames painting.png" in output
    assert "--method difference --temporal-weight 30 --frame-iterations 1" in output
    key = next(line.split()[1] for line in output.splitlines() if "key:" in line)
    assert f"--key {key}" not in output


def test_lines_tell_how_far_it_is(folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", 1e-9)
    assert video("-o", "out") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("3 of 3 frames looked through") for line in lines)
    assert any(line.startswith("2 of 3 frames, about ") for line in lines)
    assert lines[-1].startswith("3 of 3 frames")
