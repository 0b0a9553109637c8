"""`npstyle weights`: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npstyle.weights
from helpers import FailingStream
from npstyle import images
from npstyle._runtime import threads
from npstyle._typing import Pooling
from npstyle.cli import weights as weights_command
from npstyle.cli.main import main
from npstyle.errors import UserError
from npstyle.initialize import FLOOR, mean_activations, normalize_network
from npstyle.weights import (
    ConvWeights,
    Weights,
    download,
    random_weights,
    read_weights,
    registry,
    write_weights,
)

Patch = pytest.MonkeyPatch
Output = pytest.CaptureFixture[str]
Run = Callable[..., list[str]]


@pytest.fixture
def run(capsys: Output) -> Run:
    """Function that runs `npstyle weights`, checks its exit status, and returns the lines it prints."""

    def main(*words: Any, status: int = 0) -> list[str]:
        assert weights_command.main([str(word) for word in words]) == status
        return capsys.readouterr().out.splitlines()

    return main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of filters up to conv2_1 with a bias that is not zero."""
    layers = {
        name: ConvWeights(kernel, np.linspace(-1, 3, bias.size, dtype=np.float32))
        for name, (kernel, bias) in random_weights(4, "conv2_1").items()
    }
    return write_weights(tmp_path / "filters.npz", Weights(layers, "here", preprocessing="torchvision"))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(2)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, shape in zip(paths, ((40, 60, 3), (90, 30, 3)), strict=True):
        images.write(path, rng.integers(0, 256, shape, dtype=np.uint8))
    return paths


@pytest.fixture
def register(alone: Path) -> Callable[..., None]:
    """Function that makes a registry of files: name, content, size in megabytes."""

    def write(*files: tuple[str, bytes, int | None], addresses: tuple[str, ...] = ()) -> None:
        entries: list[dict[str, Any]] = []
        for name, content, megabytes in files:
            checksum = "sha256:" + hashlib.sha256(content).hexdigest()
            entries.append({"name": name, "checksum": checksum, "addresses": addresses})
            if megabytes:
                entries[-1]["megabytes"] = megabytes
        (alone.parent / "registry.json").write_text(json.dumps({"files": entries}))

    return write


SUMMARY = "conv1_1 ... conv2_1 (3 of 16), torchvision"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: COMMAND; see npstyle weights --help"),
        ("burn", "argument COMMAND: invalid choice: 'burn'"),
        ("convert a.npz", "the following arguments are required: OUT; see npstyle weights convert --help"),
        ("convert a.npz b.npz --preprocessing rgb", "argument --preprocessing: invalid choice: 'rgb'"),
        ("convert a.npz b.npz --over", "unrecognized arguments: --over"),
        ("normalize a.npz b.png", "the following arguments are required: -o/--output"),
        ("normalize a.npz -o b.npz", "the following arguments are required: PICTURE"),
        ("normalize a.npz b.png -o c.npz --floor -1", "--floor: found '-1'; expected a finite number from 0"),
        ("normalize a.npz b.png -o c.npz --floor x", "--floor: found 'x'; expected a finite number from 0"),
        ("normalize a.npz b.png -o c.npz --floor 2", "--floor: found '2'; expected a number from 0 to 1"),
        ("normalize a.npz b.png -o c.npz --size 8", "--size: found 8; expected an integer from 16"),
        ("normalize a.npz b.png -o c.npz --size x", "--size: found 'x'; expected an integer from 16"),
        ("normalize a.npz b.png -o c.npz --pooling median", "argument --pooling: invalid choice: 'median'"),
        ("fetch one two", "unrecognized arguments: two"),
        ("list all", "unrecognized arguments: all"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words: str, message: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        weights_command.main(words.split())
    assert caught.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("npstyle: wrong usage: ")
    assert message in line


@pytest.mark.parametrize("command", ["", "list", "fetch", "convert", "verify", "normalize"])
def test_help_of_each_command(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        weights_command.main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: npstyle weights {command}".strip())


def test_help_has_the_default_floor(capsys: Output) -> None:
    """It stands there as a number, as npstyle.initialize is slow to import."""
    with pytest.raises(SystemExit):
        weights_command.main(["normalize", "--help"])
    assert f"median ({FLOOR})" in " ".join(capsys.readouterr().out.split())


def test_normalize_uses_the_default_floor(file: Path, pictures: list[Path], tmp_path: Path) -> None:
    words = ["normalize", str(file), str(pictures[0]), "--size", "48", "--quiet", "-o"]
    for name, options in (("default", []), ("explicit", ["--floor", str(FLOOR)])):
        assert weights_command.main([*words, str(tmp_path / f"{name}.npz"), *options]) == 0
    assert (tmp_path / "default.npz").read_bytes() == (tmp_path / "explicit.npz").read_bytes()


def test_quiet_normalize_prints_nothing(
    file: Path, pictures: list[Path], tmp_path: Path, capsys: Output
) -> None:
    words = ["normalize", str(file), str(pictures[0]), "--size", "48", "--quiet", "-o"]
    assert weights_command.main([*words, str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr() == ("", "")


def test_list_prints_places_and_states_of_files(
    run: Run, register: Any, alone: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    project = tmp_path / "project"
    for folder in (project, alone):
        folder.mkdir()
    monkeypatch.setattr(registry, "project_folder", lambda: project)
    good = b"good" * 500_000
    register(("one.h5", good, 80), ("two.h5", b"2", 575), ("three.h5", b"3", None))
    (project / "one.h5").write_bytes(good)
    (alone / "one.h5").write_bytes(b"half")
    assert run("list") == [
        "one.h5:",
        f"  intact, 2 MB, {project / 'one.h5'}",
        f"  damaged (sha256 is not the registered one), 0 MB, {alone / 'one.h5'}",
        "two.h5: absent, about 575 MB",
        "three.h5: absent, of unknown size",
        f"project folder: {project}",
        f"cache: {alone}",
        "NPSTYLE_WEIGHTS: not set",
    ]
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(project / "one.h5"))
    assert run("list")[-1] == f"NPSTYLE_WEIGHTS: {project / 'one.h5'}"
    monkeypatch.setenv("NPSTYLE_WEIGHTS", "gone.h5")
    assert run("list")[-1] == "NPSTYLE_WEIGHTS: gone.h5, no file of that name"


@pytest.mark.parametrize("fault", ["a file", "not searchable"])
def test_a_cache_that_cannot_be_used_is_named(
    fault: str, register: Any, alone: Path, monkeypatch: Patch, capsys: Output
) -> None:
    """Its files are not simply absent: nothing can be opened there."""
    register(("one.h5", b"1", 1))
    if fault == "a file":
        alone.write_text("precious")
        reason = os.strerror(errno.ENOTDIR)
    else:
        alone.mkdir()
        reason = os.strerror(errno.EACCES)
        stat = os.stat

        def denied(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
            if isinstance(path, (str, Path)) and alone in Path(path).parents:
                raise PermissionError(errno.EACCES, reason)
            return stat(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", denied)
    for command in ("weights list", "info", "cache list", "cache clear"):
        assert main(command.split()) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if str(alone) in line)
        assert line.endswith((f"{alone} ({reason})", f"{alone / 'checkpoints'}: {reason}")), command
    found, tried = npstyle.weights.find_weights()
    assert (found, tried[-1]) == (None, f"{alone} ({reason})")
    if fault == "a file":
        assert main(["weights", "fetch"]) == 1
        line = f"npstyle: cache: {alone}: found a file; expected a folder to write to; set NPSTYLE_CACHE to "
        assert capsys.readouterr().err.startswith(line)
        assert alone.read_text() == "precious"


def test_fetch_says_that_it_keeps_another_file(
    register: Any, alone: Path, monkeypatch: Patch, capsys: Output
) -> None:
    register(("one.h5", b"1", 1), addresses=("https://a.example/one.h5",))
    alone.mkdir()
    (alone / "one.h5").write_bytes(b"precious")
    monkeypatch.setattr("pooch.HTTPDownloader", lambda **_: lambda _, file, __: file.write(b"1"))
    assert main(["weights", "fetch"]) == 0
    output, errors = capsys.readouterr()
    assert output == f"{alone / 'one.h5'}\n"
    assert errors.startswith(f"npstyle: weights: {alone / 'one.h5'}: found another sha256 than is registered")
    assert (alone / "one.h5.old").read_bytes() == b"precious"


def test_sigterm_during_a_download_leaves_the_cache_as_it_was(
    register: Any, alone: Path, monkeypatch: Patch, capsys: Output
) -> None:
    register(("one.h5", b"1", 1), addresses=("https://a.example/one.h5",))
    alone.mkdir()
    (alone / "one.h5").write_bytes(b"precious")

    def terminated(_: str, file: Any, __: None) -> None:
        file.write(b"half")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("pooch.HTTPDownloader", lambda **_: terminated)
    assert main(["weights", "fetch"]) == 143
    assert {path.name: path.read_bytes() for path in alone.iterdir()} == {"one.h5": b"precious"}


def test_fetch_prints_the_intact_copy(run: Run, register: Any, alone: Path) -> None:
    register(("one.h5", b"1", 1), ("two.h5", b"2", 2))
    alone.mkdir()
    (alone / "one.h5").write_bytes(b"1")
    (alone / "two.h5").write_bytes(b"2")
    assert run("fetch") == [str(alone / "one.h5")]
    assert run("fetch", "two.h5") == [str(alone / "two.h5")]


def test_fetch_downloads_the_named_file(run: Run, register: Any, alone: Path, monkeypatch: Patch) -> None:
    register(("one.h5", b"1", 1), ("two.h5", b"2", 2))
    alone.mkdir()
    (alone / "two.h5").write_bytes(b"damaged")
    downloads: list[Any] = []

    def fetch_any(progress: bool, entries: list[Any]) -> tuple[Path, list[str]]:
        downloads.append((progress, [entry.name for entry in entries]))
        return alone / entries[0].name, []

    monkeypatch.setattr(download, "fetch_any", fetch_any)
    assert run("fetch") == [str(alone / "one.h5")]
    assert run("fetch", "two.h5") == [str(alone / "two.h5")]
    assert downloads == [(False, ["one.h5"]), (False, ["two.h5"])]


@pytest.mark.parametrize("command", ["fetch", "normalize"])
@pytest.mark.parametrize(
    ("terminal", "quiet", "bar"),
    [(True, False, True), (True, True, False), (False, False, False)],
    ids=["terminal", "terminal, --quiet", "no terminal"],
)
def test_downloads_show_a_bar_on_a_terminal_only(
    command: str,
    terminal: bool,
    quiet: bool,
    bar: bool,
    register: Any,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    register(("one.h5", b"1", 1))
    bars: list[bool] = []

    def fetch_any(progress: bool = False, entries: Any = None) -> tuple[None, list[str]]:
        bars.append(progress)
        return None, []

    monkeypatch.setattr(download, "fetch_any", fetch_any)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    words = ["fetch"]
    if command == "normalize":
        words = ["normalize", "auto", str(pictures[0]), "-o", str(tmp_path / "out.npz")]
    with pytest.raises(UserError):
        weights_command.main([*words, *(["--quiet"] if quiet else [])])
    assert bars == [bar]


def test_sigterm_leaves_no_half_written_file(file: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    def terminated(path: Path, weights: Weights) -> None:
        path.write_bytes(b"half")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setitem(npstyle.weights.WRITERS, ".npz", terminated)
    (tmp_path / "new").mkdir()
    assert main(["weights", "convert", str(file), str(tmp_path / "new" / "out.npz")]) == 143
    assert list((tmp_path / "new").iterdir()) == []


def test_failed_fetch_names_the_addresses_tried(register: Any, alone: Path, monkeypatch: Patch) -> None:
    register(("one.h5", b"1", 1))
    cure = f"expected a download; fetch it on another machine and put it into {alone}"
    with pytest.raises(UserError) as caught:
        weights_command.main(["fetch"])
    assert str(caught.value) == f"weights: one.h5: found no address; {cure}"
    failures = ["https://a.example/one.h5 (HTTP 404)", "https://b.example/one.h5 (timed out)"]
    monkeypatch.setattr(download, "fetch_any", lambda *_: (None, failures))
    with pytest.raises(UserError) as caught:
        weights_command.main(["fetch", "one.h5"])
    assert str(caught.value) == f"weights: one.h5: found {'; '.join(failures)}; {cure}"
    with pytest.raises(UserError, match=r"^name: found 'two.h5'; expected 'one.h5'; take one of these$"):
        weights_command.main(["fetch", "two.h5"])
    register()
    with pytest.raises(UserError, match=r"^registry: found no files"):
        weights_command.main(["fetch"])


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_convert_writes_the_same_filters(ending: str, run: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out{ending}"
    assert run("convert", file, out) == [f"{out}: {SUMMARY}, from {file}"]
    one, two = read_weights(file), read_weights(out)
    assert (list(one), one.preprocessing) == (list(two), two.preprocessing)
    for name in one:
        np.testing.assert_array_equal(one[name].kernel, two[name].kernel)
        np.testing.assert_array_equal(one[name].bias, two[name].bias)
    assert "caffe, from" in run("convert", file, out, "--preprocessing", "caffe", "--overwrite")[0]
    assert read_weights(out).preprocessing == "caffe"


def test_convert_refuses_before_it_reads(file: Path, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"the extension '.pth'; expected .npz or .h5"):
        weights_command.main(["convert", gone, str(tmp_path / "x.pth")])
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"a file of that name; .+ --overwrite"):
        weights_command.main(["convert", gone, str(file)])
    assert file.read_bytes() == before
    with pytest.raises(UserError, match="no such file"):
        weights_command.main(["convert", gone, str(tmp_path / "x.npz")])


def test_verify_prints_a_line_about_a_good_file(run: Run, file: Path, register: Any) -> None:
    assert run("verify", file) == [f"{file}: {SUMMARY}, not a registered name"]
    register((file.name, file.read_bytes(), 1))
    assert run("verify", file, "--preprocessing", "caffe") == [
        f"{file}: conv1_1 ... conv2_1 (3 of 16), caffe, sha256 as registered"
    ]


def test_verify_checks_all_files_and_fails_if_one_is_wrong(
    file: Path, register: Any, tmp_path: Path, capsys: Output
) -> None:
    register(("damaged.npz", b"something else", 1))
    layers = dict(read_weights(file))
    paths: dict[str, Any] = {}
    for name in ("damaged", "gap", "nan"):
        paths[name] = tmp_path / f"{name}.npz"
    write_weights(paths["damaged"], Weights(layers, "", preprocessing="caffe"))
    write_weights(
        paths["gap"], Weights({n: layers[n] for n in ("conv1_1", "conv2_1")}, "", preprocessing="caffe")
    )
    layers["conv1_2"].kernel[1, 1, 7, 7] = np.nan
    write_weights(paths["nan"], Weights(layers, "", preprocessing="caffe"))
    gone = tmp_path / "gone.npz"
    names = [paths["damaged"], gone, file, paths["gap"], paths["nan"]]
    assert weights_command.main(["verify", *map(str, names)]) == 1
    output, errors = capsys.readouterr()
    assert output.splitlines() == [f"{file}: {SUMMARY}, not a registered name"]
    lines = errors.splitlines()
    assert lines[0].startswith(
        f"npstyle: weights: {paths['damaged']}: found another sha256 than is registered for that name; "
    )
    assert lines[1].startswith(f"npstyle: weights: {gone}: found no such file; expected")
    assert lines[2].startswith(
        f"npstyle: weights: {paths['gap']}: found no conv1_2; expected all layers up to"
    )
    assert lines[3].startswith(f"npstyle: weights: {paths['nan']}: found NaN or infinity in conv1_2; ")
    assert len(lines) == 4


def test_verify_without_names_checks_the_files_present(
    run: Run, file: Path, register: Any, alone: Path, monkeypatch: Patch
) -> None:
    with pytest.raises(UserError, match="no file to verify"):
        weights_command.main(["verify"])
    register((file.name, file.read_bytes(), 1))
    alone.mkdir()
    (alone / file.name).write_bytes(file.read_bytes())
    expected = [f"{alone / file.name}: {SUMMARY}, sha256 as registered"]
    assert run("verify") == expected
    other = file.rename(file.with_name("other.npz"))
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(other))
    assert run("verify") == [*expected, f"{other}: {SUMMARY}, not a registered name"]


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_normalize_writes_the_network_of_the_library(
    pooling: Pooling, run: Run, file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.h5"
    options = ["--size", 48, "--floor", 0.3, "--pooling", pooling]
    lines = run("normalize", file, *pictures, "-o", out, *options)
    small = [images.fit(images.read(path), 48) for path in pictures]
    weights = read_weights(file)
    expected, got = normalize_network(weights, small, 0.3, pooling), read_weights(out)
    assert got.preprocessing == "torchvision"
    before = mean_activations(weights, small, pooling)
    after = mean_activations(expected, small, pooling)
    for line, name in zip(lines[2:5], expected, strict=True):
        np.testing.assert_array_equal(got[name].kernel, expected[name].kernel)
        np.testing.assert_array_equal(got[name].bias, expected[name].bias)
        words = line.split()
        assert words[0] == name
        numbers = [f(means[name]) for means in (before, after) for f in (np.min, np.median, np.max)]
        np.testing.assert_allclose([float(word) for word in words[1:7]], numbers, rtol=0.006)
        assert int(words[7]) == np.count_nonzero(abs(after[name] - 1) > 0.01)
    assert lines[5:] == [f"{out}: {SUMMARY}"]


def test_normalize_takes_the_threads_that_are_asked_for(
    file: Path, pictures: list[Path], tmp_path: Path, monkeypatch: Patch
) -> None:
    def default() -> int:
        raise AssertionError("not the number that was asked for")

    monkeypatch.setattr(threads, "default", default)
    words = ["normalize", str(file), str(pictures[0]), "--quiet", "-o", str(tmp_path / "out.npz")]
    assert weights_command.main([*words, "--threads", "1"]) == 0


def test_normalize_refuses_wrong_input(file: Path, pictures: list[Path], tmp_path: Path) -> None:
    picture, out = str(pictures[0]), str(tmp_path / "out.npz")
    for words, message in (
        ([file, picture, "-o", tmp_path / "x.txt"], "the extension '.txt'"),
        ([file, picture, "-o", file], "a file of that name"),
        ([file, file, "-o", out], "a ZIP archive"),
        ([tmp_path / "gone.npz", picture, "-o", out], "no such file"),
        (["random", picture, "-o", out], "found random filters; expected trained ones"),
        (["auto", picture, "-o", out], "no ImageNet filters"),
        (
            [file, picture, "-o", out, "--size", "16"],
            "found 16 x 11 pixels; expected at least 16 x 16; give --size 24",
        ),
    ):
        with pytest.raises(UserError, match=message):
            weights_command.main(["normalize", *map(str, words)])
    assert not Path(out).exists()


def test_normalize_names_too_small_picture(file: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^picture: {pictures[1]}: found"):
        weights_command.main(
            ["normalize", str(file), *map(str, pictures), "-o", str(tmp_path / "x.npz"), "--size", "30"]
        )


def test_closed_pipe_is_no_error_but_a_full_disk_is(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdout", FailingStream(BrokenPipeError(32, "Broken pipe")))
    assert weights_command.main(["list"]) == 0
    sys.stdout.close()
    monkeypatch.setattr(sys, "stdout", FailingStream(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="standard output: found No space left on device"):
        weights_command.main(["list"])
    sys.stdout.close()
