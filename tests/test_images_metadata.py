"""Settings in a picture: stored as text in every format, and back to the command line they were."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import error_line
from npstyle import __version__, images
from npstyle.cli.paint import painting_parser
from npstyle.images.metadata import as_text, command_line
from pictures import PICTURE, SMOOTH, png_chunks, write_png_chunks

TEXTS: list[dict[str, str]] = [
    {"version": "0.1.0", "seed": "7"},
    {"content": "Ä 'quoted' \"name\" \\ 写真.jpg", "note": "two\nlines\t\x1b[0m", "empty": ""},
    {"long": "x" * 5000},
]


FORMATS_AND_DEPTHS = [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8), (".webp", 8)]


@pytest.mark.parametrize("text", TEXTS, ids=["plain", "odd", "long"])
@pytest.mark.parametrize(("extension", "depth"), FORMATS_AND_DEPTHS)
def test_text_round_trip(extension: str, depth: int, text: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / f"x{extension}"
    images.write(path, PICTURE, depth=depth, text=text)
    assert images.read_text(path) == text
    assert list(images.read_text(path)) == list(text)
    images.write(path, PICTURE, overwrite=True, depth=depth)
    assert images.read_text(path) == {}
    images.write(path, PICTURE, overwrite=True, depth=depth, text={})
    assert images.read_text(path) == {}


def test_text_does_not_change_pixels(tmp_path: Path) -> None:
    for extension, depth in FORMATS_AND_DEPTHS:
        path = tmp_path / f"{depth}{extension}"
        images.write(path, SMOOTH, depth=depth)
        plain = images.read(path)
        images.write(path, SMOOTH, overwrite=True, depth=depth, text=TEXTS[1])
        np.testing.assert_array_equal(images.read(path), plain)


def test_text_too_long_for_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    line = error_line(lambda: images.write(path, PICTURE, text={"a": "x" * 70000}), f"output: {path}")
    assert "on writing; expected" in line
    assert list(tmp_path.iterdir()) == []


def test_comments_of_other_programs_are_ignored(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "x.jpg", comment=b'a photograph {"npstyle": 1}')
    Image.fromarray(PICTURE).save(tmp_path / "x.tif", tiffinfo={270: '{"other": {}}'})
    for name in ("x.jpg", "x.tif"):
        assert images.read_text(tmp_path / name) == {}


DAMAGED_TEXTS = [
    '{"npstyle": {"a": "b"',
    '{"npstyle": []}',
    '{"npstyle": {"a": 1}}',
    '{"npstyle": "a"}',
    '{"npstyle":',
]


@pytest.mark.parametrize("comment", DAMAGED_TEXTS)
def test_damaged_text(comment: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(PICTURE).save(path, comment=comment.encode())
    line = error_line(lambda: images.read_text(path), f"picture: {path}")
    assert line == "found damaged settings in it; expected settings written by npstyle; take another copy"
    Image.fromarray(PICTURE).save(tmp_path / "plain.jpg")
    np.testing.assert_array_equal(images.read(path), images.read(tmp_path / "plain.jpg"))


def test_png_text_after_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    images.write(path, PICTURE, text={"a": "b"})
    chunks = dict(png_chunks(path))
    write_png_chunks(path, {kind: chunks[kind] for kind in (b"IHDR", b"IDAT", b"tEXt", b"IEND")})
    assert images.read_text(path) == {"a": "b"}


def test_text_is_json_in_the_file(tmp_path: Path) -> None:
    """So that anyone can read it without npstyle."""
    text, stored = TEXTS[1], []
    for name in ("x.png", "x.jpg", "x.tif", "x.webp"):
        images.write(tmp_path / name, PICTURE, text=text)
        with Image.open(tmp_path / name) as image:
            info = image.info
            stored.append(info.get("npstyle") or info.get("comment") or image.getexif()[270])
    assert [json.loads(line) for line in stored] == [{"npstyle": text}] * 4


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"content": "a.jpg", "style": "b.jpg"}, "npstyle a.jpg b.jpg"),
    ({"content": "a.jpg", "style": ["b.jpg", "c d.jpg"]}, "npstyle a.jpg b.jpg 'c d.jpg'"),
    ({"content": "a.jpg", "style": ["-b.jpg"]}, "npstyle a.jpg ./-b.jpg"),
    ({"size": 800, "content": "a", "style": "b"}, "npstyle a b --size 800"),
    ({"normalize_layer_weights": True}, "npstyle --normalize-layer-weights"),
    ({"normalize_layer_weights": False}, "npstyle --no-normalize-layer-weights"),
    ({"content_mask": ["m 1.png", "m2.png"]}, "npstyle --content-mask 'm 1.png' --content-mask m2.png"),
    ({"preset": None, "content_mask": [], "style_mask": ()}, "npstyle"),
    ({"weights": "-odd"}, "npstyle --weights=-odd"),
    ({"weights": ""}, "npstyle --weights ''"),
    ({"weights": "it's"}, """npstyle --weights 'it'"'"'s'"""),
    ({"style_weight": 100.0, "tv_weight": 1e-4}, "npstyle --style-weight 100 --tv-weight 0.0001"),
    ({"learning_rate": 0.1 + 0.2}, "npstyle --learning-rate 0.30000000000000004"),
    ({"content_layers": "conv4_2:2,conv5_2:1"}, "npstyle --content-layers conv4_2:2,conv5_2:1"),
    ({"size": 9, "content": "a", "command": ["figure", "ratio"]}, "npstyle figure ratio a --size 9"),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_to_command_line(options: dict[str, Any], expected: str) -> None:
    assert command_line(as_text(options)) == expected


def test_command_line_parses_to_the_same_options() -> None:
    options: dict[str, Any] = {
        "content": Path("my photo.jpg"),
        "style": [Path("it's.jpg"), Path("-two.jpg")],
        "size": 300,
        "seed": 5,
        "style_weight": 12.5,
        "normalize_layer_weights": False,
        "style_as_content": True,
        "content_mask": [Path("a.png"), Path("b c.png")],
        "keep_mask": Path("face.png"),
        "color": "luma",
        "style_layers": "conv1_1:2,conv2_1",
    }
    words = shlex.split(command_line(as_text(options)))
    assert words[0] == "npstyle"
    parsed = vars(painting_parser().parse_args(words[1:]))
    parsed["style"] = [Path(path.name) for path in parsed["style"]]  # ./-two.jpg
    assert {name: parsed[name] for name in options} == options
    defaults = vars(painting_parser().parse_args(["a", "b"]))
    assert all(parsed[name] == defaults[name] for name in defaults if name not in options)


@pytest.mark.parametrize(
    "path",
    [Path("/home/someone/x y.jpg"), "/home/someone/x y.jpg", "C:\\Users\\someone\\x y.jpg", "../x y.jpg/"],
)
def test_as_text_drops_folders(path: Any) -> None:
    text = as_text({"content": path, "style": [path], "weights": path})
    assert text == {
        "version": __version__,
        "content": "'x y.jpg'",
        "style": "'x y.jpg'",
        "weights": "'x y.jpg'",
    }


@pytest.mark.parametrize(
    "text", [{"Size": "1"}, {"x y": "1"}, {"-x": ""}, {"size;rm": "1"}, {"size": "'unclosed"}, {"": "1"}]
)
def test_command_line_of_foreign_settings(text: dict[str, str]) -> None:
    (value,) = (name if value != "'unclosed" else value for name, value in text.items())
    line = error_line(lambda: command_line(text), "settings")
    assert (
        line == f"found {value!r} among the settings; expected settings written by npstyle; take another copy"
    )


@pytest.mark.parametrize("word", ["-o", "rm;", "../x", "Figure", "a=b"])
def test_command_of_foreign_settings(word: str) -> None:
    line = error_line(lambda: command_line({"command": f"figure {word}", "content": "a.jpg"}), "settings")
    assert line.startswith(f"found {word!r} among the settings; ")


def test_printable_escapes_control_characters() -> None:
    assert images.printable("Ä 写真 'x'") == "Ä 写真 'x'"
    assert images.printable("\x1b[31m\r\n\t\u202e\x00") == "\\x1b[31m\\r\\n\\t\\u202e\\x00"
