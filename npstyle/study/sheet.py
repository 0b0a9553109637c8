"""Contact sheets: pictures in rows on white, each with a caption below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from npstyle.images import Picture

GAP = 8  # pixels between pictures, and around the sheet
CAPTION_GAP = 2  # pixels between a picture and its caption
MIN_FONT_SIZE, MAX_FONT_SIZE = 11, 16

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Tile(NamedTuple):
    """A picture (H, W, 3) and the caption below it."""

    caption: str
    image: Picture


def compose(rows: Sequence[Sequence[Tile]], heading: str = "") -> Picture:
    """Make one picture of several: row by row on white, each with its caption below.

    All columns are as wide as the widest picture. The font is the one that comes with Pillow.

    Parameters
    ----------
    rows : sequence of sequences of Tile
    heading : str
        A text above the first row.

    Examples
    --------
    >>> black = np.zeros((40, 60, 3), np.uint8)
    >>> compose([[Tile("one", black), Tile("two", black)], [Tile("three", black)]]).shape[1]
    144
    """
    column_width = max(tile.image.shape[1] for row in rows for tile in row)
    font = _font(max(MIN_FONT_SIZE, min(MAX_FONT_SIZE, column_width // 12)))
    line_height = _line_height(font)
    sheet_width = GAP + max(map(len, rows)) * (column_width + GAP)
    heading_lines = _wrap(heading, font, sheet_width - 2 * GAP)
    captions = [[_wrap(tile.caption, font, column_width) for tile in row] for row in rows]
    row_heights = [
        max(tile.image.shape[0] for tile in row) + CAPTION_GAP + line_height * max(map(len, row_captions))
        for row, row_captions in zip(rows, captions, strict=True)
    ]
    sheet_height = GAP + len(heading_lines) * line_height + sum(row_heights) + GAP * len(rows)
    sheet = Image.new("RGB", (sheet_width, sheet_height), "white")
    y = GAP
    _write(sheet, GAP, y, heading_lines, font)
    y += len(heading_lines) * line_height
    for row, row_captions, row_height in zip(rows, captions, row_heights, strict=True):
        for column, (tile, lines) in enumerate(zip(row, row_captions, strict=True)):
            x = GAP + column * (column_width + GAP)
            sheet.paste(Image.fromarray(tile.image), (x, y))
            _write(sheet, x, y + tile.image.shape[0] + CAPTION_GAP, lines, font)
        y += row_height + GAP
    return np.array(sheet)


def in_rows(tiles: Sequence[Tile], columns: int) -> list[list[Tile]]:
    """Split tiles into rows of `columns` tiles; the last row may have fewer."""
    return [list(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]


def _write(sheet: Image.Image, x: int, y: int, lines: Sequence[str], font: Font) -> None:
    pen = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        pen.text((x, y + n * _line_height(font)), line, "black", font)


def _font(size: int) -> Font:
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):  # Pillow built without FreeType has a single size
        return ImageFont.load_default()


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Agj|")
    return math.ceil(bottom - min(0, top)) + 2


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Break a text between words so that every line fits into a width in pixels, if its words do."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
