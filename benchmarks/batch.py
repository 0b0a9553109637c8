"""Many small pictures: `npstyle batch` beside single commands, one after the other, to the same bytes.

    python benchmarks/batch.py [--pictures 24] [--size 128] [--workers 2] [--repeats 3] [-- OPTIONS]

The photographs are parts of one photograph, four with each painting, which are parts of one painting. The two
take turns; each ratio is of one turn. Processor seconds are those of all processes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from npstyle import images

EXAMPLES = Path(__file__).parents[1] / "examples"
EACH = 4  # photographs with each painting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photo", type=Path, default=EXAMPLES / "content.jpg")
    parser.add_argument("--painting", type=Path, default=EXAMPLES / "style.jpg")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of npstyle, after --")
    given = parser.parse_args()
    options = ["--size", str(given.size), "--quiet", *given.options]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        contents = parts(given.photo, folder, "photo", EACH)
        styles = parts(given.painting, folder, "painting", given.pictures // EACH)
        print(f"{len(contents) * len(styles)} pictures of {given.size} pixels, {given.workers} workers\n")
        print(f"{'':6}{'single commands':>24}{'batch':>24}{'ratio':>8}")
        ratios = []
        for turn in range(1, given.repeats + 1):
            single, batch = folder / f"single{turn}", folder / f"batch{turn}"
            alone = timed([["npstyle", *words] for words in commands(contents, styles, single, options)])
            words = ["npstyle", "batch", *map(str, contents), "--styles", *map(str, styles)]
            words += ["-o", str(batch), "--workers", str(given.workers), *options]
            together = timed([words])
            ratios.append(alone[0] / together[0])
            columns = [f"{wall:9.1f} s ({cpu:5.1f} cpu)" for wall, cpu in (alone, together)]
            same = same_bytes(single, batch)
            print(f"{turn:<6}{columns[0]:>24}{columns[1]:>24}{ratios[-1]:8.2f}  {same}", flush=True)
        print(f"\nmedian ratio {statistics.median(ratios):.2f}")


def parts(path: Path, folder: Path, name: str, number: int) -> list[Path]:
    """So many overlapping parts of a picture, three quarters as wide and high, as files."""
    picture = images.read(path)
    H, W, _ = picture.shape
    paths = []
    for n in range(number):
        top, left = (side // 4 * n // max(1, number - 1) for side in (H, W))
        part = picture[top : top + 3 * H // 4, left : left + 3 * W // 4]
        paths.append(folder / f"{name}{n}.png")
        images.write(paths[-1], part)
    return paths


def commands(
    contents: Sequence[Path], styles: Sequence[Path], output: Path, options: Sequence[str]
) -> list[list[str]]:
    """The arguments of a single command for each picture."""
    output.mkdir()
    return [
        [str(content), str(style), "-o", str(output / f"{content.stem}_{style.stem}.png"), *options]
        for style in styles
        for content in contents
    ]


def timed(lines: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Seconds that commands take, one after the other, and processor seconds of all their processes."""
    began, before = time.perf_counter(), processor_seconds()
    for line in lines:
        subprocess.run([sys.executable, "-m", *line], check=True)
    return time.perf_counter() - began, processor_seconds() - before


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def same_bytes(one: Path, other: Path) -> str:
    pictures = sorted(path.name for path in one.glob("*.png"))
    differing = [name for name in pictures if (one / name).read_bytes() != (other / name).read_bytes()]
    return f"{len(differing)} differ" if differing else "same bytes"


if __name__ == "__main__":
    main()
