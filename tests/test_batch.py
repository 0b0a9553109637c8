"""`npstyle batch` by one process: what is painted, named, skipped and refused, and what the manifest says."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers import error_line, structured_picture
from npstyle.cli import job_file, many, workers
from npstyle.cli import main as cli
from npstyle.errors import UserError
from npstyle.images import FileContents, metadata
from npstyle.jobs import cluster, manifest, picture, plan
from npstyle.jobs.filters import Filters, kept
from npstyle.jobs.manifest import Manifest
from npstyle.run import memory
from npstyle.weights import random_weights, write_weights

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
PAINT = ["--iterations", "1", "--style-layers", "conv1_1", "--content-layers", "conv1_2", "--threads", "1"]
FAST = [*PAINT, "--weights", "random"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with two photographs and a note in a folder, and two paintings."""
    (tmp_path / "photos").mkdir()
    for n, name in enumerate(("photos/a", "photos/b", "x", "y")):
        Image.fromarray(structured_picture(24, 32, n)).save(tmp_path / f"{name}.png")
    (tmp_path / "photos/notes.txt").write_text("precious")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(folder: Path, capsys: Captured) -> Callable[..., tuple[int, str, str]]:
    """`npstyle batch` in this process: its exit status, and what it printed to the two streams."""

    def run(*words: str, options: list[str] = FAST) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status: Any = cli.main(["batch", *options, *words, "--workers", "1"])
        except SystemExit as end:
            status = end.code
        return (status, *capsys.readouterr())

    return run


Batch = Callable[..., tuple[int, str, str]]


def names_in(place: str) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in Path(place).rglob("*") if path.is_file())


def lines_in(place: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(place) / manifest.NAME).read_text().splitlines()]


def never(*_: object, **__: object) -> None:
    raise AssertionError("painted again")


# ------------------------------------------------------------------------------------------------
# What is painted
# ------------------------------------------------------------------------------------------------


def test_every_content_with_every_style_has_the_bytes_of_single_commands(batch: Batch) -> None:
    status, out, err = batch("photos", "--styles", "x.png", "y.png", "-o", "out")
    assert status == 0
    assert names_in("out") == ["a_x.png", "a_y.png", "b_x.png", "b_y.png", manifest.NAME]
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        os.path.join("out", name) for name in ("a_x.png", "b_x.png", "a_y.png", "b_y.png")
    ]
    left_out, filters, summary = err.splitlines()
    assert left_out == "npstyle: content: left out notes.txt, no picture by the name"
    assert filters == "filters: random filters (seed 0)"
    assert summary.startswith("4 pictures: 4 painted, in ")
    for content, style in (("a", "y"), ("b", "x")):
        assert cli.main([f"photos/{content}.png", f"{style}.png", "-o", "single.png", "--quiet", *FAST]) == 0
        assert Path("single.png").read_bytes() == Path(f"out/{content}_{style}.png").read_bytes()
        os.unlink("single.png")


def test_the_manifest_says_how_each_picture_was_made(batch: Batch) -> None:
    assert batch("photos/a.png", "--styles", "x.png", "-o", "out")[0] == 0
    (line,) = lines_in("out")
    assert (line["output"], line["content"], line["styles"]) == ("a_x.png", "photos/a.png", ["x.png"])
    assert list(line["inputs"]) == ["photos/a.png", "x.png"]
    assert all(len(digest) == 64 for digest in line["inputs"].values())
    assert line["settings"]["style-layers"] == "conv1_1"
    assert (line["width"], line["height"], line["iterations"]) == (32, 24, 1)
    assert line["loss"] < line["first_loss"]
    assert line["seconds"] > 0
    assert "error" not in line


def test_pairs(batch: Batch) -> None:
    status, out, _ = batch("photos/*.png", "--styles", "x.png", "y.png", "-o", "out", "--pairs", "--json")
    assert status == 0
    assert [json.loads(line)["output"] for line in out.splitlines()] == ["a_x.png", "b_y.png"]
    status, _, err = batch("photos/a.png", "--styles", "x.png", "y.png", "-o", "other", "--pairs")
    assert status == 1
    assert "--pairs: found 1 content and 2 style pictures; expected as many of both" in err
    assert not Path("other").exists()


def test_names_by_a_pattern(batch: Batch) -> None:
    pattern = "{style_folder}/{number:02}-{content_folder}-{content}.jpg"
    os.mkdir("styles")
    os.rename("x.png", "styles/x.png")
    assert batch("photos", "--styles", "styles", "-o", "out", "--name", pattern)[0] == 0
    assert names_in("out") == [manifest.NAME, "styles/01-photos-a.jpg", "styles/02-photos-b.jpg"]
    with Image.open("out/styles/01-photos-a.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{content}.png", "found the same for photos"),
        ("{nothing}.png", "found 'nothing'"),
        ("{content.stem}_{style}.png", "found 'str' object has no attribute 'stem'"),
        ("{content.__class__}_{style}.png", "found the field 'content.__class__'"),
        ("{content", "found expected '}' before end of string"),
        ("../{content}_{style}.png", "found a path that leads out of the folder"),
        ("{content}_{style}", "found no extension"),
        ("{content}_{style}.bmp", "found the extension '.bmp'"),
    ],
)
def test_names_that_can_not_be_are_refused_before_anything_is_made(
    batch: Batch, pattern: str, found: str
) -> None:
    status, out, err = batch("photos/a.png", "--styles", "x.png", "y.png", "-o", "out", "--name", pattern)
    assert status == 1
    assert found in err
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists()


def test_a_pictures_name_is_no_folder(batch: Batch) -> None:
    status, _, err = batch("photos", "--styles", "x.png", "-o", "out.png")
    assert status == 1
    assert "output: out.png: found a picture's name; expected a folder" in err
    assert not Path("out.png").exists()


def test_names_that_differ_in_case_alone_collide() -> None:
    pairs = [plan.Pair(Path("a"), (Path("x"),), Path("out") / name) for name in ("A.png", "a.png")]
    with pytest.raises(UserError, match="found the same for a with x and for a with x"):
        plan.check_collisions(pairs)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("nowhere", "content: nowhere: found no such file; expected a picture, a folder or a pattern"),
        ("empty", "content: empty: found no file; expected at least one picture"),
        ("texts", "content: texts: found files, but no picture (notes.txt, ...); expected at least one"),
        ("photos/*.gif", "content: photos/*.gif: found no file"),
        ("https://example.org/a.jpg", "content: found the address https://example.org/a.jpg"),
    ],
)
def test_contents_that_are_none(batch: Batch, contents: str, message: str) -> None:
    os.mkdir("empty")
    os.mkdir("texts")
    os.rename("photos/notes.txt", "texts/notes.txt")
    status, _, err = batch(contents, "--styles", "x.png", "-o", "out")
    assert status == 1
    assert err.startswith(f"npstyle: {message}")
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_another_version_paints_nothing_again(batch: Batch, monkeypatch: Patch) -> None:
    command = ("photos/a.png", "--styles", "x.png", "-o", "out")
    assert batch(*command)[0] == 0
    monkeypatch.setattr(metadata, "__version__", "99.0")
    _, _, err = batch(*command)
    assert err.splitlines()[-1].startswith("1 picture: 0 painted, 1 there before")


def test_hidden_pictures_of_a_folder_are_left_out(batch: Batch) -> None:
    """Such as ._a.png, which macOS puts beside a.png, and which is no picture."""
    for name in ("._a.png", ".b.png"):
        Path("photos", name).touch()
    found = plan.find_pictures(["photos"], "content")
    assert [path.name for path in found.pictures] == ["a.png", "b.png"]
    assert [path.name for path in found.others] == ["notes.txt"]


def test_folder_that_can_not_be_read(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    status, _, err = batch("photos", "--styles", "x.png", "-o", "out")
    assert status == 1
    assert err == (
        "npstyle: content: photos: found a folder that can't be read (Permission denied); "
        "expected a picture, a folder or a pattern; check its permissions\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos"], "required: CONTENTS and --styles, or --jobs"),
        (["photos", "--styles", "x.png", "--jobs", "jobs.toml"], "--jobs: found other pictures, too"),
        (["photos", "--styles", "x.png", "--scheduler", "tcp://h"], "--workers: found --scheduler, too"),
        (["photos", "--styles", "x.png", "--send"], "--send: found no --scheduler"),
        (["photos", "--styles", "x.png", "--style-layers", "conv9_9"], "conv9_9"),
    ],
)
def test_wrong_usage(batch: Batch, words: list[str], message: str) -> None:
    status, _, err = batch(*words, "-o", "out", options=[])
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_results_in_the_same_folder_are_no_contents(batch: Batch) -> None:
    command = ("photos/*.png", "--styles", "x.png", "-o", "photos")
    assert batch(*command)[0] == 0
    status, _, err = batch(*command)
    assert status == 0
    assert "content: left out a_x.png, b_x.png, painted into this folder before" in err
    assert err.splitlines()[-1].startswith("2 pictures: 0 painted, 2 there before")


# ------------------------------------------------------------------------------------------------
# What is there already
# ------------------------------------------------------------------------------------------------


def test_the_same_command_paints_what_is_missing(batch: Batch, monkeypatch: Patch) -> None:
    command = ("photos", "--styles", "x.png", "-o", "out")
    assert batch(*command)[0] == 0
    before = Path("out/b_x.png").read_bytes()
    os.unlink("out/b_x.png")
    status, out, err = batch(*command)
    assert status == 0
    assert out.startswith(f"{os.path.join('out', 'b_x.png')}: ")
    assert err.splitlines()[-1].startswith("2 pictures: 1 painted, 1 there before, in ")
    assert Path("out/b_x.png").read_bytes() == before
    monkeypatch.setattr(picture, "paint", never)
    status, out, _ = batch(*command, "--json")
    assert status == 0
    assert [json.loads(line)["skipped"] for line in out.splitlines()] == [True, True]


def test_other_settings_replace_only_with_overwrite(batch: Batch) -> None:
    command = ("photos", "--styles", "x.png", "-o", "out")
    assert batch(*command)[0] == 0
    before = Path("out/a_x.png").read_bytes()
    status, _, err = batch(*command, "--style-weight", "3")
    assert status == 1
    first = os.path.join("out", "a_x.png")
    assert f"output: {first}: found a file (one of 2) painted with other settings or from other files" in err
    assert Path("out/a_x.png").read_bytes() == before
    assert batch(*command, "--style-weight", "3", "--overwrite")[0] == 0
    assert Path("out/a_x.png").read_bytes() != before
    assert batch(*command, "--overwrite")[0] == 0
    assert Path("out/a_x.png").read_bytes() == before


def test_other_inputs_by_the_same_name_are_seen(batch: Batch) -> None:
    command = ("photos/a.png", "--styles", "x.png", "-o", "out")
    assert batch(*command)[0] == 0
    os.replace("photos/b.png", "photos/a.png")
    assert "painted with other settings or from other files" in batch(*command)[2]
    assert batch(*command, "--overwrite")[0] == 0


@pytest.mark.parametrize("change", ["foreign", "retouched", "folder", "link"])
def test_what_no_batch_painted_is_never_replaced(batch: Batch, change: str) -> None:
    command = ("photos", "--styles", "x.png", "-o", "out")
    if change == "retouched":
        assert batch(*command)[0] == 0
        Image.new("RGB", (32, 24)).save("out/b_x.png")
    else:
        os.mkdir("out")
    target = Path("out/b_x.png")
    if change == "foreign":
        target.write_bytes(b"precious")
    elif change == "folder":
        target.mkdir()
    elif change == "link":
        os.symlink("nowhere", target)
    before = target.read_bytes() if target.is_file() else b""
    status, _, err = batch(*command, "--overwrite", "--iterations", "2")
    assert status == 1
    assert "found a file that this batch did not paint, or that was changed since" in err
    assert (target.read_bytes() if target.is_file() else b"") == before
    assert (change == "retouched") == (Path("out") / manifest.NAME).exists()


def test_a_file_that_appears_meanwhile_is_not_replaced(batch: Batch, monkeypatch: Patch) -> None:
    paint = picture.paint

    def paint_meanwhile(*words: Any, **options: Any) -> Any:
        Path("out/a_x.png").write_bytes(b"precious")
        return paint(*words, **options)

    monkeypatch.setattr(picture, "paint", paint_meanwhile)
    status, _, err = batch("photos/a.png", "--styles", "x.png", "-o", "out")
    assert status == 1
    assert "a_x.png: found a file of that name; expected a new name" in err
    assert Path("out/a_x.png").read_bytes() == b"precious"


def test_a_manifest_that_was_cut_costs_no_other_line(batch: Batch) -> None:
    command = ("photos", "--styles", "x.png", "-o", "out")
    assert batch(*command)[0] == 0
    path = Path("out") / manifest.NAME
    path.write_bytes(path.read_bytes()[:-30])
    os.unlink("out/b_x.png")
    assert batch(*command)[2].splitlines()[-1].startswith("2 pictures: 1 painted, 1 there before")
    whole, cut, again = path.read_text().splitlines()
    assert json.loads(whole)["output"] == "a_x.png"
    assert json.loads(again)["output"] == "b_x.png"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(cut)
    assert batch(*command)[2].splitlines()[-1].startswith("2 pictures: 0 painted, 2 there before")


def test_a_file_of_the_manifests_name_is_kept(batch: Batch) -> None:
    os.mkdir("out")
    Path("out", manifest.NAME).write_text('{"precious": 1}\n')
    status, _, err = batch("photos", "--styles", "x.png", "-o", "out")
    assert status == 1
    assert "found a file that no batch wrote; expected a manifest, or none" in err
    assert names_in("out") == [manifest.NAME]
    assert Path("out", manifest.NAME).read_text() == '{"precious": 1}\n'


@pytest.mark.skipif(os.name == "nt", reason="no locks there")
def test_one_batch_at_a_time_in_a_folder(batch: Batch) -> None:
    with Manifest(Path("out")):
        status, _, err = batch("photos", "--styles", "x.png", "-o", "out")
        assert status == 1
        assert "found another batch at work in its folder" in err
    assert batch("photos", "--styles", "x.png", "-o", "out")[0] == 0


# ------------------------------------------------------------------------------------------------
# What goes wrong
# ------------------------------------------------------------------------------------------------


def test_a_failure_costs_one_picture(batch: Batch) -> None:
    whole = Path("photos/a.png").read_bytes()
    Path("photos/a.png").write_bytes(whole[:100])
    Path("photos/c.jpg").write_text("no picture")
    status, out, err = batch("photos", "--styles", "x.png", "-o", "out", "--json")
    assert status == 1
    assert names_in("out") == ["b_x.png", manifest.NAME]
    failed = {line["output"]: line["error"] for line in lines_in("out") if "error" in line}
    assert failed["c_x.png"].startswith(
        f"picture: {os.path.join('photos', 'c.jpg')}: found a file that is not"
    )
    assert failed["a_x.png"].startswith(f"picture: {os.path.join('photos', 'a.png')}: found a damaged file")
    assert len(out.splitlines()) == 3
    assert err.splitlines()[-1].startswith("3 pictures: 1 painted, 2 failed, in ")
    assert f"npstyle: {os.path.join('out', 'c_x.png')}: picture: " in err
    Path("photos/a.png").write_bytes(whole)
    assert (
        batch("photos", "--styles", "x.png", "-o", "out")[2]
        .splitlines()[-1]
        .startswith("3 pictures: 1 painted, 1 there before, 1 failed")
    )


def test_a_file_that_can_not_be_read_costs_one_picture(batch: Batch, monkeypatch: Patch) -> None:
    from npstyle.jobs import keys

    digest = keys.file_digest

    def refuse(path: Path, algorithm: str) -> str:
        if path.name == "a.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return digest(path, algorithm)

    monkeypatch.setattr(keys, "file_digest", refuse)
    status, _, err = batch("photos", "--styles", "x.png", "-o", "out")
    assert status == 1
    assert "a.png: found Permission denied; expected a picture file; check its permissions" in err
    assert names_in("out") == ["b_x.png", manifest.NAME]


def test_a_full_disk_ends_the_batch_which_continues_later(batch: Batch, monkeypatch: Patch) -> None:
    command = ("photos", "--styles", "x.png", "-o", "out")
    write = manifest.open_replacing

    def full(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest, "open_replacing", full)
    status, out, err = batch(*command)
    assert status == 1
    path = os.path.join("out", "a_x.png")
    assert err.splitlines()[-1] == (
        f"npstyle: output: {path}: found No space left on device on writing; expected a folder with room; "
        "make some, and the same command continues"
    )
    assert out == ""
    monkeypatch.setattr(manifest, "open_replacing", write)
    assert batch(*command)[2].splitlines()[-1].startswith("2 pictures: 2 painted")


def test_a_folder_that_can_not_be_written_to_is_refused(batch: Batch) -> None:
    Path("file").write_text("precious")
    status, _, err = batch("photos", "--styles", "x.png", "-o", "file/out")
    assert status == 1
    assert "on writing there; expected a folder that can be written to" in err
    status, _, err = batch("photos", "--styles", "x.png", "-o", "file")
    assert status == 1
    assert Path("file").read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_continues_in_the_middle_of_a_picture(
    batch: Batch, monkeypatch: Patch, number: int
) -> None:
    """The picture that was being painted continues from its checkpoint, to the same bytes."""
    command = ("photos", "--styles", "x.png", "-o", "out", "--iterations", "6")
    assert batch(*command)[0] == 0
    whole = Path("out/b_x.png").read_bytes()
    os.rename("out", "undisturbed")
    iterations: list[int] = []
    part = many.BatchBar.part

    def interrupt(self: Any, progress: Any) -> None:
        iterations.append(progress.iteration)
        part(self, progress)
        if len(iterations) == 9:
            signal.raise_signal(number)

    monkeypatch.setattr(many.BatchBar, "part", interrupt)
    status, out, err = batch(*command)
    assert status == 128 + number
    assert err.splitlines()[-1] == (
        "npstyle: interrupted; 1 of 2 pictures is there, and the same command continues"
    )
    assert len(out.splitlines()) == 1
    assert batch(*command)[0] == 0
    assert iterations == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    assert Path("out/b_x.png").read_bytes() == whole
    assert not list((Path(os.environ["NPSTYLE_CACHE"]) / "checkpoints").glob("*"))


def test_bar_over_all_pictures(monkeypatch: Patch, capsys: Captured) -> None:
    class Step:
        iteration, iterations = 1, 2

    monkeypatch.setattr(many, "shows_bars", lambda quiet: True)
    with many.BatchBar(4, quiet=False) as bar:
        bar._began -= 30
        bar.advance()
        bar.part(Step())  # type: ignore[arg-type]
        bar.line("out/a_x.png: painted")
    out, err = capsys.readouterr()
    assert out == "out/a_x.png: painted\n"
    assert "1 of 4 pictures" in err
    assert " 38%|" in err
    assert "about 50 s left" in err


# ------------------------------------------------------------------------------------------------
# --jobs
# ------------------------------------------------------------------------------------------------

JOBS = """
weights = "random"
iterations = 1
style-layers = ["conv1_1"]
content-layers = "conv1_2"

[[job]]
content = "photos/a.png"
style = ["x.png", "y.png"]
blend = [1, 3]
output = "blends/a.png"

[[job]]
content = "photos/b.png"
style = "x.png"
style-weight = 5
normalize-layer-weights = false
keep-mask = "y.png"
"""


def test_jobs_of_a_file_are_single_commands(batch: Batch, tmp_path: Path) -> None:
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    Path("../jobs.toml").write_text(JOBS)
    status, _, err = batch("--jobs", "../jobs.toml", "-o", "out", "--threads", "1", options=[])
    assert status == 0, err
    assert names_in("out") == ["b_x.png", "blends/a.png", manifest.NAME]
    os.chdir("..")
    first = ["photos/a.png", "x.png", "y.png", "--blend", "1,3"]
    second = ["photos/b.png", "x.png", "--style-weight", "5", "--no-normalize-layer-weights"]
    for words, name in ((first, "blends/a.png"), ([*second, "--keep-mask", "y.png"], "b_x.png")):
        assert cli.main([*words, "-o", "single.png", "--overwrite", "--quiet", *FAST]) == 0
        assert Path("single.png").read_bytes() == Path("elsewhere/out", name).read_bytes()


def test_options_of_the_command_line_come_before_the_files(batch: Batch) -> None:
    Path("jobs.toml").write_text(JOBS)
    command = (
        "--jobs",
        "jobs.toml",
        "-o",
        "out",
        "--style-weight",
        "7",
        "--size",
        "24",
        "--name",
        "{number}.png",
    )
    assert batch(*command, options=["--threads", "1"])[0] == 0
    lines = lines_in("out")
    assert [line["settings"]["style-weight"] for line in lines] == ["7", "7"]
    assert [(line["width"], line["output"]) for line in lines] == [(24, "blends/a.png"), (24, "2.png")]


JOB = '[[job]]\ncontent = "photos/a.png"\nstyle = "x.png"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--jobs: jobs.toml: found no table [[job]]"),
        ("size = ", "--jobs: jobs.toml: found Invalid value"),
        ("job = 3", "--jobs: jobs.toml: found no table [[job]]"),
        ('[[job]]\ncontent = "photos/a.png"', "--jobs: jobs.toml, job 1: found no pair of pictures"),
        (JOB + JOB.replace("a.png", "z.png"), "job 2: photos/z.png: found no such file"),
        (JOB + "sise = 3", "job 1: found sise, which is no option of a picture"),
        (JOB + "size = 3", "job 1: size: found 3; expected an integer from 16; give one such as 16\n"),
        (JOB + 'size = "big"', "job 1: size: found 'big'; expected an integer"),
        (JOB + 'color = "red"', "job 1: found argument --color: invalid choice: 'red'"),
        (JOB + "overwrite = true", "which is no option of a picture"),
        (JOB + "output = 3", "job 1: output: found 3; expected a name"),
        (JOB + "content-mask = 3", "job 1: found 3; expected the name of a picture"),
        (JOB + 'weights = "nowhere.h5"', "job 1: nowhere.h5: found no such file"),
        (JOB + 'output = "/tmp/x.png"', "found a path that leads out of the folder"),
        (JOB + JOB, "found the same for photos/a.png with x.png and for photos/a.png with x.png"),
    ],
)
def test_a_file_of_jobs_that_is_wrong(batch: Batch, text: str, message: str) -> None:
    Path("jobs.toml").write_text(text)
    status, _, err = batch("--jobs", "jobs.toml", "-o", "out")
    assert status == 1
    assert message.replace("/", os.sep) in err.replace("/", os.sep)
    assert err.count("\n") == 1
    assert not Path("out").exists()


# ------------------------------------------------------------------------------------------------
# Judged, and how much each worker may take
# ------------------------------------------------------------------------------------------------


def test_judged_pictures(batch: Batch, eight_bit_weights: Path, capsys: Captured) -> None:
    for name in ("photos/a", "x"):
        Image.fromarray(structured_picture(48, 64, len(name))).save(f"{name}.png")
    weights = ["--weights", str(eight_bit_weights), "--iterations", "1", "--threads", "1", "--min-size", "0"]
    status, out, _ = batch("photos/a.png", "--styles", "x.png", "-o", "out", "--judge", options=weights)
    assert status == 0
    (line,) = lines_in("out")
    assert cli.main(["judge", "photos/a.png", "x.png", "out/a_x.png", "--json", *weights[:2], "--quiet"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert (line["E"], line["C"]) == (judged["missing_style"], judged["lost_content"])
    assert f", E {line['E']:.3f}, C {line['C']:.3f}" in out


def test_random_filters_can_not_judge(batch: Batch) -> None:
    status, _, err = batch("photos", "--styles", "x.png", "-o", "out", "--judge")
    assert status == 1
    assert "weights: found random filters; expected trained ones" in err


def test_too_little_memory_is_refused_before_anything_is_painted(batch: Batch) -> None:
    status, _, err = batch("photos", "--styles", "x.png", "-o", "out", "--memory", "10MB")
    assert status == 1
    assert "memory for a_x.png: found 10 MB allowed by --memory; expected about " in err
    assert not Path("out").exists()


def shares(jobs: Any, number: int | None, **given: Any) -> tuple[int, Any, Any]:
    """How many workers there are, and the threads and bytes of each, with these options."""
    options = argparse.Namespace(**{"threads": None, "memory": None, "force": False, **given})
    number, share = workers._shares(options, many.demand_of(jobs), number)
    return number, share.threads, share.memory


@pytest.fixture
def jobs(folder: Path) -> list[picture.PictureJob]:
    """Six jobs of the default recipe."""
    filters = Filters("random", "random", "conv1_2")
    content, styles = Path("photos/a.png"), (Path("x.png"),)
    request = dict.fromkeys(("size", "style_scale", "width", "height"))
    request |= {"settings": "default", "enlarge": False, "content_masks": []}
    job = picture.PictureJob(content, styles, Path("out/a_x.png"), request, filters)
    return [job] * 6


def test_threads_and_memory_are_divided(jobs: Any, monkeypatch: Patch) -> None:
    monkeypatch.setattr("npstyle._runtime.threads.available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(memory, "available_memory", lambda threads: 8e9)
    assert shares(jobs, None) == (4, 1, 2e9 - workers.WORKER_BYTES)
    assert shares(jobs, 2) == (2, 2, 4e9 - workers.WORKER_BYTES)
    assert shares(jobs, 2, memory=2e9) == (2, 2, 1e9 - workers.WORKER_BYTES)
    assert shares(jobs, 2, threads=3)[:2] == (2, 3)
    assert shares(jobs[:2], None)[0] == 2
    assert shares(jobs, 1, memory=6e9, threads=3) == (1, 3, 6e9)


def test_as_many_workers_as_memory_permits(jobs: Any, monkeypatch: Patch) -> None:
    monkeypatch.setattr("npstyle._runtime.threads.available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    needed, _ = many.memory_of(jobs, 1)
    free = 2.5 * (needed + workers.WORKER_BYTES)
    monkeypatch.setattr(memory, "available_memory", lambda threads: free)
    number, threads, _ = shares(jobs, None)
    assert (number, threads) == (2, 2)
    line = error_line(lambda: shares(jobs, 3), "--workers")
    assert line.startswith("found 3, for which ")
    assert shares(jobs, 3, force=True)[0] == 3


def test_without_dask_one_at_a_time_which_is_said(jobs: Any, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(cluster, "is_installed", lambda: False)
    monkeypatch.setattr("npstyle._runtime.threads.available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert shares(jobs, None)[0] == 1
    assert capsys.readouterr().err == (
        f"npstyle: one picture at a time: 4 workers would need {cluster.HOW_TO_INSTALL}\n"
    )
    assert shares(jobs, 1)[0] == 1


def test_what_is_sent_are_contents_in_place_of_paths(jobs: Any) -> None:
    request = {**jobs[0].request, "keep": Path("y.png"), "init": Path("nowhere.png")}
    job = picture.sent(picture.replace(jobs[0], request=request))
    assert job.content == FileContents("photos/a.png", Path("photos/a.png").read_bytes())
    assert job.styles == (FileContents("x.png", Path("x.png").read_bytes()),)
    assert job.request["keep"].data == Path("y.png").read_bytes()
    assert job.request["init"] == Path("nowhere.png")


def test_pictures_painted_at_a_time_share_what_memory_is_free(jobs: Any, monkeypatch: Patch) -> None:
    seen: list[Any] = []

    def paint(*_: object, **options: Any) -> None:
        seen.append(options["memory"])
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "paint", paint)
    monkeypatch.setattr(picture, "available_memory", lambda threads: 6e9)
    job = picture.replace(jobs[0], filters=Filters("random", "random filters (seed 0)", "conv1_2"))
    for changes in ({}, {"at_a_time": 3}, {"at_a_time": 3, "memory": 1e9}):
        with pytest.raises(KeyboardInterrupt):
            picture.paint_picture(picture.replace(job, **changes))
    assert seen == [6e9, 2e9, 1e9]


def test_filters_by_another_checksum_are_refused(folder: Path) -> None:
    write_weights(Path("w.npz"), random_weights(0, "conv1_2"))
    filters = Filters("w.npz", "w.npz (sha256 00000000)", "conv1_2")
    line = error_line(lambda: kept(filters), "weights: w.npz")
    assert line.startswith("found w.npz (sha256 ")
    assert line.endswith(
        "expected w.npz (sha256 00000000); put the same file there, or have it sent (--send)"
    )


# ------------------------------------------------------------------------------------------------
# docs/batch.md
# ------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "batch.md").read_text(encoding="utf-8")


def test_the_page_names_all_that_a_manifest_says(batch: Batch) -> None:
    Path("photos/b.png").write_text("no picture")
    assert batch("photos", "--styles", "x.png", "-o", "out")[0] == 1
    table = PAGE.partition("## Continuing")[2].partition("\n\n|")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {key for line in lines_in("out") for key in line} - {"npstyle"} == named - {"E", "C"}


def test_the_jobs_of_the_page(folder: Path) -> None:
    example = PAGE.partition("```toml\n")[2].partition("```")[0]
    for name in ("harbor.jpg", "portrait.jpg", "wave.jpg", "night.jpg", "face.png"):
        Path(name).touch()
    Path("jobs.toml").write_text(example)
    blend, portrait = job_file.read_jobs(Path("jobs.toml"), {"size": 200})
    assert (blend.options.blend, blend.output) == ([3.0, 1.0], None)
    assert (portrait.options.style_weight, portrait.output) == (12.0, "portraits/anna.png")
    assert {one.options.size for one in (blend, portrait)} == {200}
    assert {one.options.preset for one in (blend, portrait)} == {"gram"}
