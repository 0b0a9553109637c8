"""A first picture: paint the lighthouse in the manner of the whirls.

python examples/first_picture.py
"""

from __future__ import annotations

from pathlib import Path

import npstyle
from npstyle import images

here = Path(__file__).parent
result = npstyle.stylize(here / "content.jpg", here / "style.jpg", size=256)
images.write("first_picture.png", result.image, overwrite=True)
print(result.message)
