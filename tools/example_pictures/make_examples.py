"""Paint the two example pictures of the project: a content photograph and a style painting.

Style transfer needs a picture whose drawing is kept and one whose manner is borrowed.  Both are made
here from nothing but numbers, so they carry no one's copyright and anybody can make them again:

* ``content.jpg``: a lighthouse on a mountain lake in late afternoon light.  It is a small renderer:
  a height map seen in perspective, a distance-field lighthouse, point-cloud conifers, a reflecting lake.
  ``photograph.py`` puts it together.
* ``style.jpg``: an abstract in oil, thousands of shaded brush strokes laid along a whirling flow field.
  ``painting.py`` is all of it.

Four masks divide them, to try regions with: what is above the waterline and below it, what is cool in
the painting and what is warm.

Run it with::

    python tools/example_pictures/make_examples.py [FOLDER]

The pictures go to FOLDER, or beside this file.  Every run gives the same ones, up to the rounding of a
processor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from painting import paint_style
from photograph import paint_content
from shared import Array


def save(picture: Array, path: Path) -> None:
    """Write a picture with values from 0 to 1 as JPEG."""
    pixels = (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90, optimize=True)


def save_masks(content: Array, style: Array, folder: Path) -> None:
    """Write white where a region is, as PNG: halves of the photograph, colors of the painting."""
    above = np.arange(content.shape[0])[:, None] < 0.595 * content.shape[0]
    masks = {"content-above": np.broadcast_to(above, content.shape[:2])}
    masks["content-below"] = ~masks["content-above"]
    warmth = Image.fromarray((np.clip(style[:, :, 0] - style[:, :, 2], 0, 1) * 255).astype(np.uint8))
    masks["style-warm"] = np.asarray(warmth.filter(ImageFilter.GaussianBlur(9))) > 51
    masks["style-cool"] = ~masks["style-warm"]
    for name, mask in masks.items():
        Image.fromarray(np.ascontiguousarray(mask)).save(folder / f"{name}.png", optimize=True)


def main() -> None:
    """Paint both pictures and save them, and the masks."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    content, style = paint_content(), paint_style()
    save(content, folder / "content.jpg")
    save(style, folder / "style.jpg")
    save_masks(content, style, folder)


if __name__ == "__main__":
    main()
