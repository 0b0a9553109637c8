"""Paint the pictures in docs/images again, with the trained filters of all sixteen layers.

    python tools/example_pictures/make_docs_images.py --weights FILE --paintings FOLDER [NAME ...]

Without names, all of them. Each picture is one command of npstyle, listed below, or what a cell of
docs/backprop.ipynb displays. It is painted as PNG in the folder of ``--paintings``, where a finished one is
not painted again, and copied to docs/images as JPEG. Run it at the top of a checkout.

The picture of docs/presets.md, whose photograph and painting are not in ``examples/``, is made by
``benchmarks/quality.py``, as that page says.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from npstyle.cli.main import main as npstyle

IMAGES = Path("docs/images")
QUALITY = 85  # of the JPEG files

PAIR = "examples/content.jpg examples/style.jpg"
REGIONS = (
    "--content-mask examples/content-above.png --style-mask examples/style-cool.png "
    "--content-mask examples/content-below.png --style-mask examples/style-warm.png"
)
COMMANDS = {
    # README.md
    "real": f"{PAIR} --size 320",
    "random": f"{PAIR} --size 320 --weights random",
    "hint": f"{PAIR} --size 320 --style-weight 2",
    "painting": f"{PAIR} --size 320 --style-weight 100",
    "luma": f"{PAIR} --size 256 --color luma",
    "match": f"{PAIR} --size 256 --color match",
    "luminance": f"{PAIR} --size 256 --color luminance",
    "regions": f"{PAIR} --size 256 {REGIONS}",
    "keep": f"{PAIR} --size 256 --keep-mask examples/content-below.png",
    # docs/figures.md
    "figure-content": "figure content examples/content.jpg --size 128",
    "figure-style": "figure style examples/style.jpg --size 128",
    "figure-content-layer": f"figure content-layer {PAIR} --size 160",
    "figure-ratio": f"figure ratio {PAIR} --size 128",
    "figure-layers": f"figure layers {PAIR} --size 128",
    "figure-starts": f"figure starts {PAIR} --size 128",
    "inspect-gradients": f"inspect {PAIR} --layers conv1_1,conv2_1,conv3_1,conv4_1,conv5_1 --size 192",
}


# Cells of docs/backprop.ipynb.
CELLS = {"notebook-feature-maps": "feature-maps", "notebook-transfer": "transfer"}


def paint(name: str, options: argparse.Namespace) -> Path:
    """Run a picture's command, unless it is painted already, and return the picture's path."""
    words = shlex.split(COMMANDS[name])
    folder: Path = options.paintings
    output, picture = folder / f"{name}.png", folder / f"{name}.png"
    if words[0] == "inspect":  # writes several pictures into a folder
        output, picture = folder / name, folder / name / "gradients.png"
    if picture.exists():
        return picture
    if "--weights" not in words:
        words += ["--weights", options.weights]
    if options.threads:
        words += ["--threads", str(options.threads)]
    status = npstyle([*words, "--quiet", "-o", str(output)])
    if status:
        sys.exit(status)
    return picture


def run_notebook(options: argparse.Namespace) -> dict[str, Path]:
    """Run the notebook with the trained filters, and save what the cells in CELLS display."""
    os.environ["NPSTYLE_WEIGHTS"] = str(Path(options.weights).resolve())
    make = runpy.run_path("docs/make_backprop.py")
    notebook = make["read"]()
    cells = [cell["id"] for cell in make["code_cells"](notebook)]
    outputs = dict(zip(cells, make["run"](notebook, {}), strict=True))
    paths = {name: options.paintings / f"{name}.png" for name in CELLS}
    for name, path in paths.items():
        stacked(outputs[CELLS[name]]).save(path)
    return paths


def stacked(outputs: list[dict[str, Any]]) -> Image.Image:
    """The pictures among the outputs of a cell, at the size they have on the page, below each other."""
    pictures = []
    for output in outputs:
        if output["output_type"] == "display_data":
            picture = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("RGB")
            width = output["metadata"]["image/png"]["width"]
            pictures.append(picture.resize((width, round(width * picture.height / picture.width))))
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height
    return sheet


def main() -> None:
    """Paint the named pictures, or all, and save them as JPEG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help=", ".join([*COMMANDS, *CELLS]))
    add("--weights", required=True, metavar="FILE", help="trained filters of all layers")
    add("--paintings", type=Path, required=True, metavar="FOLDER")
    add("--threads", type=int)
    options = parser.parse_args()
    unknown = set(options.names) - {*COMMANDS, *CELLS}
    if unknown:
        parser.error(f"no such picture: {', '.join(unknown)}")
    options.paintings.mkdir(parents=True, exist_ok=True)
    names = options.names or [*COMMANDS, *CELLS]
    from_notebook = run_notebook(options) if any(name in CELLS for name in names) else {}
    for name in names:
        painting = from_notebook[name] if name in CELLS else paint(name, options)
        target = IMAGES / f"{name}.jpg"
        Image.open(painting).convert("RGB").save(target, quality=QUALITY, optimize=True)
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
