"""Arguments of the command line: their order, paths and addresses among them, and options in errors."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npstyle.cli import paint
from npstyle.cli.main import main
from npstyle.cli.terminal import Parser
from npstyle.cli.weights import _parser as weights_parser
from pictures import Patch

Capture = pytest.CaptureFixture[str]
ADDRESS = "https://example.org//a.jpg?size=1&b=2"
QUICK = "--weights random --iterations 1 --threads 1 --quiet"
SHALLOW = "--style-layers conv1_1 --content-layers conv1_1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current and the home folder, with a photograph, a painting and a long, narrow picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    rng = np.random.default_rng(0)
    for name, shape in (
        ("photo.png", (32, 48, 3)),
        ("painting.png", (40, 40, 3)),
        ("long.png", (30, 4000, 3)),
    ):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch: Patch) -> Callable[[str], argparse.Namespace]:
    """The options that a run of the main job would have."""
    seen: list[argparse.Namespace] = []

    def record(options: argparse.Namespace, *_: object) -> int:
        seen.append(options)
        return 0

    def parse(line: str) -> argparse.Namespace:
        assert main(shlex.split(line)) == 0
        return seen[-1]

    monkeypatch.setattr(paint, "_paint", record)
    return parse


def error(line: str, status: int, capsys: Capture) -> str:
    """The one line that a command line ends in."""
    try:
        actual: object = main(shlex.split(line))
    except SystemExit as caught:
        actual = caught.code
    output, errors = capsys.readouterr()
    assert (actual, output) == (status, "")
    (message,) = errors.splitlines()
    assert isinstance(message, str)
    return message.removeprefix("npstyle: ")


# ------------------------------------------------------------------------------------------------
# Pictures
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "styles"),
    [
        ("photo.jpg one.jpg two.jpg --blend 3,1", ["one.jpg", "two.jpg"]),
        ("photo.jpg one.jpg --blend 3,1 two.jpg", ["one.jpg", "two.jpg"]),
        ("--blend 3,1 photo.jpg --size=64 one.jpg -oout.png two.jpg", ["one.jpg", "two.jpg"]),
        ("photo.jpg --blend 3,1 -- one.jpg -two.jpg", ["one.jpg", "-two.jpg"]),
        ("photo.jpg --style one.jpg", ["one.jpg"]),
        ("photo.jpg --style two.jpg one.jpg -s three.jpg", ["one.jpg", "two.jpg", "three.jpg"]),
        ("one.jpg two.jpg --content photo.jpg", ["one.jpg", "two.jpg"]),
        ("--content photo.jpg -sone.jpg", ["one.jpg"]),
        ("photo.jpg --resume one.jpg", ["one.jpg"]),
        ("photo.jpg one.jpg --size 64 --size 32", ["one.jpg"]),
    ],
)
def test_pictures_on_both_sides_of_options(
    line: str, styles: list[str], parsed: Callable[[str], argparse.Namespace]
) -> None:
    options = parsed(line)
    assert options.content == Path("photo.jpg")
    assert options.style == [Path(style) for style in styles]
    assert options.blend in (None, [3.0, 1.0])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "the following arguments are required: CONTENT, STYLE;"),
        ("photo.jpg --size 64", "the following arguments are required: STYLE;"),
        ("--style one.jpg --style two.jpg", "the following arguments are required: CONTENT;"),
        ("photo.jpg one.jpg --color", "argument --color: expected one argument;"),
        ("photo.jpg one.jpg --colour luma two.jpg", "unrecognized arguments: --colour;"),
        ("photo.jpg one.jpg --blend -1 two.jpg", "argument --blend: found '-1';"),
        (
            "photo.jpg one.jpg -o a.png --size 64 -ob.png",
            "argument -o/--output: found a.png and b.png; expected one file; leave one out;",
        ),
        ("a.jpg b.jpg --keep-mask a.png --keep-mask=a.png", "argument --keep-mask: found a.png and a.png;"),
    ],
)
def test_what_is_missing_or_unknown_is_named_as_before(line: str, words: str, capsys: Capture) -> None:
    assert error(line, 2, capsys).startswith(f"wrong usage: {words}")


def test_positional_arguments_on_both_sides_of_options_of_other_commands() -> None:
    options = weights_parser().parse_args(["normalize", "w.npz", "one.png", "-o", "out.npz", "two.png"])
    assert options.pictures == [Path("one.png"), Path("two.png")]
    options = weights_parser().parse_args(["convert", "a.npz", "--overwrite", "b.npz"])
    assert (options.source, options.target) == (Path("a.npz"), Path("b.npz"))


# ------------------------------------------------------------------------------------------------
# Paths and addresses
# ------------------------------------------------------------------------------------------------


def test_tilde_is_the_home_folder_in_every_option(here: Path, monkeypatch: Patch, capsys: Capture) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    Image.fromarray(np.eye(32, 48, dtype=np.uint8) * 255).save(here / "mask.png")
    pictures = "'~/photo.png' '--style=~/painting.png' '--keep-mask=~/mask.png' '--init=~/painting.png'"
    outputs = "'--output=~/out.png' '--checkpoint=~/run.npz'"
    assert main(shlex.split(f"{pictures} {outputs} {QUICK} {SHALLOW}")) == 0, capsys.readouterr().err
    assert (here / "out.png").is_file()
    assert main(shlex.split(f"reconstruct '~/photo.png' --layer conv1_1 {QUICK} -o '~/back.png'")) == 0
    assert main(shlex.split("show '~/back.png'")) == 0
    capsys.readouterr()
    message = error("inspect '~/photo.png' -o '~/out.png'", 1, capsys)
    assert message == f"output: {here / 'out.png'}: found a file; expected a folder; choose another name"
    assert sorted(here.glob("**/*~*")) == []
    assert list((here / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        (f"'{ADDRESS}' painting.png", "CONTENT"),
        (f"photo.png '{ADDRESS}'", "STYLE"),
        (f"photo.png -s '{ADDRESS}'", "-s/--style"),
        (f"photo.png painting.png --content-mask '{ADDRESS}'", "--content-mask"),
        (f"photo.png painting.png --keep-mask '{ADDRESS}'", "--keep-mask"),
        (f"reconstruct '{ADDRESS}' --layer conv1_1", "PICTURE"),
        (f"texture '{ADDRESS}'", "PICTURE"),
        (f"figure layers photo.png '{ADDRESS}'", "STYLE"),
        (f"inspect photo.png --at '{ADDRESS}'", "--at"),
        (f"show '{ADDRESS}'", "FILE"),
        (f"weights verify '{ADDRESS}'", "FILE"),
        (f"weights convert '{ADDRESS}' out.npz", "IN"),
        (f"weights normalize auto '{ADDRESS}' -o out.npz", "PICTURE"),
    ],
)
def test_address_instead_of_a_file_is_shown_whole_with_a_cure(
    line: str, argument: str, capsys: Capture
) -> None:
    cure = f"found the address {ADDRESS}; expected a file; fetch it first: curl -LO '{ADDRESS}';"
    assert error(line, 2, capsys).startswith(f"wrong usage: argument {argument}: {cure}")


@pytest.mark.parametrize(
    ("option", "name"),
    [("--init", "--init"), ("--weights", "weights"), ("NPSTYLE_WEIGHTS", "NPSTYLE_WEIGHTS")],
)
def test_address_where_a_word_is_possible_too(
    option: str, name: str, here: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("NPSTYLE_WEIGHTS", ADDRESS)
    more = "" if option == "NPSTYLE_WEIGHTS" else f" {option} '{ADDRESS}'"
    message = error(f"photo.png painting.png --quiet{more}", 1, capsys)
    assert message.startswith(f"{name}: found the address {ADDRESS}; expected ")
    assert message.endswith(f"; fetch it first: curl -LO '{ADDRESS}'")


# ------------------------------------------------------------------------------------------------
# Sizes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "cure"),
    [
        ("long.png painting.png", "content", "--size 2067"),
        ("photo.png painting.png --size 16", "content", "--size 24"),
        ("photo.png long.png", "style", "--style-scale 4.04"),
        ("photo.png painting.png --size 32 --style-scale 0.1", "style", "--style-scale 0.5"),
        ("reconstruct long.png --layer conv5_1", "picture: long.png", "--size 2067"),
        ("texture photo.png --layers conv5_1 --size 16", "picture: photo.png", "--size 24"),
        ("figure content photo.png --size 16", "picture: photo.png", "--size 24"),
        ("inspect photo.png --size 16", "picture: photo.png", "--size 24"),
    ],
)
def test_size_that_would_do_is_named(line: str, name: str, cure: str, here: Path, capsys: Capture) -> None:
    message = error(f"{line} --weights random", 1, capsys)
    assert message.startswith(f"{name}: found ")
    assert message.endswith(f"; expected at least 16 x 16; give {cure}")


# ------------------------------------------------------------------------------------------------
# Options in errors
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("--content-layers conv9_1", 2, "wrong usage: --content-layers: found 'conv9_1'; "),
        ("--style-layers conv1_1:x", 2, "wrong usage: --style-layers: conv1_1: found 'x'; "),
        ("--learning-rate 0", 2, "wrong usage: --learning-rate: found 0; "),
        (
            "--resume=yes",
            2,
            "wrong usage: argument --resume: found 'yes'; expected no value or --resume=must; ",
        ),
        ("--overwrite=yes", 2, "wrong usage: argument --overwrite: found 'yes'; expected no value; "),
        ("--style-scale 0", 1, "--style-scale: found 0; "),
        ("--blend 1,2", 1, "--blend: found 2; "),
        ("--keep-mask painting.png", 1, "--keep-mask: found 40 x 40 pixels; "),
        ("--content-mask photo.png", 1, "--content-mask, --style-mask: found 1 for the content and 0 "),
        ("--weights random --preprocessing torchvision", 1, "--preprocessing: found 'torchvision'; "),
        ("--weights ''", 1, "weights: found an empty name; expected a file; "),
    ],
)
def test_errors_name_the_option_once(
    options: str, status: int, words: str, here: Path, capsys: Capture
) -> None:
    assert error(f"photo.png painting.png --quiet {options}", status, capsys).startswith(words)


def test_words_for_weights_are_named_where_they_are_possible(here: Path, capsys: Capture) -> None:
    found = "weights: no.h5: found no such file; expected a weights file"
    for line in ("photo.png painting.png --weights no.h5", "weights normalize no.h5 photo.png -o a.npz"):
        assert error(line, 1, capsys) == f"{found}, 'auto', 'imagenet', '8bit' or 'random'; check the name"
    for line in ("weights verify no.h5", "weights convert no.h5 a.npz"):
        assert error(line, 1, capsys) == f"{found}; check the name"


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            "--optimizer adam --maxcor 5",
            ["--maxcor: no effect with --optimizer adam, only with lbfgs or lbfgs32"],
        ),
        (
            "--preset udacity --maxcor 5",
            ["--maxcor: no effect with --optimizer adam, only with lbfgs or lbfgs32"],
        ),
        (
            "--moments-weight 3",
            ["--moments-weight: no effect with --statistics wasserstein, only with gram+moments"],
        ),
        ("--learning-rate 3", ["--learning-rate: no effect with --optimizer lbfgs, only with adam"]),
        ("--init-noise 0.3", ["--init-noise: no effect with --init content, only with noisy-content"]),
        ("--noise-std 1", ["--noise-std: no effect with --init content, only with noise or noisy-content"]),
        # What `npstyle show` prints, the values of a preset among it, can be given without a word.
        ("--optimizer adam --maxcor 10 --learning-rate 3 --init-noise 0.5", []),
        ("--maxcor 5 --init noise --noise-std 1", []),
    ],
)
def test_option_without_effect_is_said(
    options: str, lines: list[str], parsed: Callable[[str], argparse.Namespace], capsys: Capture
) -> None:
    parsed(f"photo.png painting.png {options}")
    assert capsys.readouterr().err.splitlines() == [f"npstyle: {line}" for line in lines]


@pytest.mark.parametrize(
    "line",
    [
        "a b --some x y --one 1",
        "--some x y --one 1 a b",
        "a --one 1 b --some x y",
        "a --some x y --flag b --one 1",
        "--some x y --one=1 -- a b",
        "a b --one 1 --some x y --",
    ],
)
def test_an_option_with_several_values_takes_the_words_up_to_the_next_option(line: str) -> None:
    parser = Parser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--some", nargs="+")
    parser.add_argument("--one")
    parser.add_argument("--flag", action="store_true")
    options = parser.parse_args(shlex.split(line))
    assert (options.names, options.some, options.one) == (["a", "b"], ["x", "y"], "1")
