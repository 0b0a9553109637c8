"""Paint the two example pictures of the project: a content photograph and a style painting.

Style transfer needs a picture that provides the content and one that provides the style.  Both are
computed here, so that they use nobody's work and anyone can make them again:

* ``content.jpg``: a lighthouse on a mountain lake in late afternoon light.  It is a small renderer:
  a height map seen in perspective, a distance-field lighthouse, point-cloud conifers, a reflecting lake.
  ``photograph.py`` puts it together.
* ``style.jpg``: an abstract oil painting, thousands of shaded brush strokes laid along a whirling flow field.
  ``painting.py`` is all of it.

Four masks divide them into regions: above and below the waterline, cool and warm colors of the
painting.

Run it with::

    python tools/example_pictures/make_examples.py [FOLDER]

The pictures go to FOLDER, or beside this file.  Every run gives the same ones, up to rounding,
which depends on the processor.
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
