"""Two regions, each in a style of its own, in two_styles_with_masks.png.

The sky is painted like the cool parts of the painting, the lake like its warm parts. The styles may also
be two paintings: give both, and one style mask for each.

python examples/two_styles_with_masks.py
"""

from __future__ import annotations

from pathlib import Path

import npstyle
from npstyle import images

HERE = Path(__file__).parent


def main(size: int = 256, weights: str = "auto", iterations: int | None = None) -> None:
    """Paint at a longer side of `size` pixels; `weights` may be "random", or the path of a weights file."""
    result = npstyle.stylize(
        HERE / "content.jpg",
        HERE / "style.jpg",
        content_masks=[HERE / "content-above.png", HERE / "content-below.png"],  # white inside the region
        style_masks=[HERE / "style-cool.png", HERE / "style-warm.png"],  # in the same order
        size=size,
        weights=weights,
        iterations=iterations,
    )
    images.write("two_styles_with_masks.png", result.image, overwrite=True)
    print(result.message)


if __name__ == "__main__":
    main()
