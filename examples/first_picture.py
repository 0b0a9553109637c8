"""A first picture: the lighthouse painted in the style of the whirls, in first_picture.png.

python examples/first_picture.py
"""

from __future__ import annotations

from pathlib import Path

import npstyle
from npstyle import images

HERE = Path(__file__).parent


def main(size: int = 256, weights: str = "auto", iterations: int | None = None) -> None:
    """Paint at a longer side of `size` pixels; `weights` may be "random", or the path of a weights file."""
    result = npstyle.stylize(
        HERE / "content.jpg", HERE / "style.jpg", size=size, weights=weights, iterations=iterations
    )
    images.write("first_picture.png", result.image, overwrite=True)
    print(f"{result.message}; the loss went from {result.losses[0]:.3g} to {result.loss:.3g}")


if __name__ == "__main__":
    main()
