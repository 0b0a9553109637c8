"""Settings stored in a picture as text: from options to text, into and out of a file, and back to a command.

The text is a mapping of str to str. In a file it is JSON in ASCII, `{"npstyle": {...}}`, so that no format's
encoding matters and anyone can read it without npstyle.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from PIL import Image, PngImagePlugin

from npstyle._version import __version__
from npstyle.errors import UserError
from npstyle.images.icc import srgb_profile

TEXT_KEY = "npstyle"  # of the JSON object, and the keyword of the PNG chunk
IMAGE_DESCRIPTION = 270  # the tag, in TIFF and in EXIF

# Entries of the text that are no options: npstyle's version, the filters, a remark about the run, and what
# tells the frame of a film (npstyle.film.painting).
FACTS = ("version", "filters", "note", "key")


def as_text(options: Mapping[str, Any], note: str = "", filters: str = "") -> dict[str, str]:
    """The options of a run as text to store in its picture: see `npstyle.images.write`.

    Parameters
    ----------
    options : mapping of str to anything
        By their names on the command line, with "content" and "style" for the positional arguments, and
        "command" for the words of another command than the main job, such as "texture". True is
        an option without a value, False its --no- form; None and an empty list are left out; a list is the
        option repeated. Of a path, and of any string with slashes, only the last part is kept: the names of
        folders are private.
    note : str
        What no option says, such as that the run was interrupted.
    filters : str
        Those that were used, in words: an option may leave open which.

    Examples
    --------
    >>> text = as_text({"content": "holidays/photo.jpg", "style": ["a.jpg", "b c.jpg"], "tv_weight": 0.1})
    >>> text["content"], text["style"], text["tv-weight"]
    ('photo.jpg', "a.jpg 'b c.jpg'", '0.1')
    """
    facts = {"version": __version__, "filters": filters, "note": note}
    text = {name: fact for name, fact in facts.items() if fact}
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            text[option if value else f"no-{option}"] = ""
        elif value is not None and value != [] and value != ():
            values = value if isinstance(value, (list, tuple)) else [value]
            text[option] = shlex.join(map(_argument, values))
    return text


def command_line(text: Mapping[str, str]) -> str:
    """What `as_text` returned, as a command for a shell.

    Raises
    ------
    UserError
        It is not from `as_text`.

    Examples
    --------
    >>> command_line({"content": "photo.jpg", "style": "a.jpg 'b c.jpg'", "size": "512", "overwrite": ""})
    "npstyle photo.jpg a.jpg 'b c.jpg' --size 512 --overwrite"
    """
    words = ["npstyle", *_split(text.get("command", ""))]
    for word in words[1:]:
        if not re.fullmatch("[a-z][a-z-]*", word):
            raise _invalid_settings(word)
    for name in ("content", "style"):
        # A file name that begins with a dash must not be taken for an option; "-" alone is none.
        names = _split(text.get(name, ""))
        words += [f"./{word}" if word.startswith("-") and word != "-" else word for word in names]
    for name, value in text.items():
        if name in ("command", "content", "style", *FACTS):
            continue
        if not re.fullmatch("[a-z][a-z0-9-]*", name):
            raise _invalid_settings(name)
        words += [f"--{name}"] if value == "" else []
        for word in _split(value):
            words += [f"--{name}={word}"] if word.startswith("-") else [f"--{name}", word]
    return shlex.join(words)


def picture_names(text: Mapping[str, str]) -> list[str]:
    """The names of the pictures that `as_text` has put into a text, the photograph first.

    Examples
    --------
    >>> picture_names(as_text({"content": "holidays/my photo.jpg", "style": ["a.jpg", "b.jpg"]}))
    ['my photo.jpg', 'a.jpg', 'b.jpg']
    """
    return [word for name in ("content", "style") for word in _split(text.get(name, ""))]


def encoded(text: Mapping[str, str]) -> str:
    """The text as JSON in ASCII."""
    return json.dumps({TEXT_KEY: dict(text)})


def save_options(form: str, text: Mapping[str, str] | None) -> dict[str, Any]:
    """Options for Pillow's `Image.save` that label the colors as sRGB and store the text.

    Parameters
    ----------
    form : {"PNG", "JPEG", "WEBP", "TIFF"}
    text : mapping of str to str, or None
    """
    if form == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\0")  # 0: perceptual, as for photographs
        if text:
            chunks.add_text(TEXT_KEY, encoded(text))
        return {"pnginfo": chunks}
    options: dict[str, Any] = {"icc_profile": srgb_profile()}
    if text and form == "JPEG":
        options["comment"] = encoded(text).encode("ascii")
    elif text and form == "TIFF":
        options["tiffinfo"] = {IMAGE_DESCRIPTION: encoded(text)}
    elif text:
        options["exif"] = Image.Exif()
        options["exif"][IMAGE_DESCRIPTION] = encoded(text)
    return options


def stored_text(image: Image.Image, name: str) -> dict[str, str]:
    """The text that `write` stored in a file, empty if it stored none. The image must have been loaded.

    Raises
    ------
    UserError
        About `name`: the text is damaged.
    """
    stored = image.info.get(TEXT_KEY)
    if stored is None:
        for comment in (image.info.get("comment"), image.getexif().get(IMAGE_DESCRIPTION)):
            decoded = comment.decode("latin-1") if isinstance(comment, bytes) else str(comment)
            if decoded.startswith(f'{{"{TEXT_KEY}":'):  # other programs' comments are not ours to judge
                stored = decoded
    if stored is None:
        return {}
    try:
        text = json.loads(stored)[TEXT_KEY]
        if isinstance(text, dict) and all(isinstance(value, str) for value in text.values()):
            return text
    except (TypeError, ValueError, LookupError):
        pass
    raise UserError(name, "damaged settings in it", "settings written by npstyle", "take another copy")


def printable(text: str) -> str:
    """The text on one line, with escapes for all characters that a terminal might interpret."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _argument(value: Any) -> str:
    """An option's value as one word of a command line, without the names of folders."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def _split(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:  # a quotation mark without its counterpart
        raise _invalid_settings(value) from None


def _invalid_settings(culprit: str) -> UserError:
    found = f"{culprit!r} among the settings"
    return UserError("settings", found, "settings written by npstyle", "take another copy")
