"""How steady films are: warping error, E, C and time by method, beside frames that are painted one by one.

    python benchmarks/film.py --pictures photo.jpg,other.jpg --style painting.jpg --size 160 --frames 8 \\
        --method "flow=" --method "difference=--method difference" --weights FILE -o FOLDER

Sequences with known flow are made of the two pictures (npstyle/film/sequences.py): pan, zoom, a disc that
turns before a background, and a cut between two pans. A method is a name and options of `npstyle video`;
"one by one" is always there, and what the others are relative to. The warping error is that of neighboring
frames and of frames four apart, where the true flow says that both show a pixel. Judged are all frames but
the first. Times are processor seconds of all frames but the first. A table is printed in Markdown; in FOLDER
are all frames, results.jsonl, and for each sequence a strip: the sequence, and for each method its frames and
how far each is from the warped one before (gray is no difference). What is in results.jsonl is not painted
again.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from quality import Results, Row

import npstyle
from npstyle import images
from npstyle.cli.recipe import settings_from
from npstyle.cli.video import film_settings, video_parser
from npstyle.film.flow import warp
from npstyle.film.frames import survey
from npstyle.film.judging import mean_warping_error
from npstyle.film.painting import Film, paint_shot, plan_shots
from npstyle.film.sequences import KnownSequence, make_sequences
from npstyle.film.shots import Frame
from npstyle.run import Progress
from npstyle.study import Judge
from npstyle.study.judging import trained_weights
from npstyle.vgg import Filters

ONE_BY_ONE = "one by one"
FAR = 4  # frames
LARGER = 1.6  # than the frames are the pictures that they show parts of
ASPECT = 0.7  # height of the frames, as a part of their width
CONTRAST = 2.0  # of difference pictures
GAP = 4  # pixels, between the pictures of a strip


def main() -> None:
    options = parser().parse_args()
    folder = options.output
    folder.mkdir(exist_ok=True)
    results = Results(folder / "results.jsonl")
    weights = trained_weights(npstyle.load_weights(options.weights, deepest="conv5_1"))
    width, height = options.size, round(options.size * ASPECT)
    pictures = [
        images.resize(
            images.crop(images.read(path), width, height), *(round(LARGER * n) for n in (width, height))
        )
        for path in options.pictures.split(",")
    ]
    names = options.sequences.split(",")
    sequences = [s for s in make_sequences(pictures, width, height, options.frames) if s.name in names]
    methods = {
        ONE_BY_ONE: f"--method none {options.recipe}",
        **dict(method.split("=", 1) for method in options.method),
    }
    for sequence in sequences:
        paths = written(sequence, folder / sequence.name)
        style = images.read(options.style)
        judges = [Judge(frame, style, weights, options.threads) for frame in sequence.frames[1:]]
        for method, words in methods.items():
            key = {"sequence": sequence.name, "method": method, "words": words, "size": width}
            key |= {"frames": options.frames, "style": Path(options.style).name}
            if results.find(key) is None:
                out = folder / f"{sequence.name} {method}"
                results.add({**key, **judged(paths, out, sequence, words, judges, weights, options)})
        images.write(folder / f"strip-{sequence.name}.png", strip(sequence, folder, list(methods)), True)
    print(table([row for row in results.rows if row["sequence"] in names and row["method"] in methods]))


def written(sequence: KnownSequence, folder: Path) -> list[Path]:
    """The sequence as pictures in a folder."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"frame_{n:04d}.png" for n in range(1, len(sequence.frames) + 1)]
    for path, frame in zip(paths, sequence.frames, strict=True):
        images.write(path, frame, True)
    return paths


def judged(
    paths: list[Path],
    folder: Path,
    sequence: KnownSequence,
    words: str,
    judges: list[Judge],
    weights: Mapping[str, Filters],
    options: argparse.Namespace,
) -> Row:
    """Paint the frames, and measure them."""
    parsed = video_parser().parse_args(["IN", "STYLE", "-o", "OUT", *shlex.split(words)])
    film = Film((judges[0].style,), settings_from(parsed), film_settings(parsed), *paths_size(paths))
    folder.mkdir(exist_ok=True)
    outputs = [folder / path.name for path in paths]
    seconds, last = [], time.process_time()

    def after(frame: Frame, progress: Progress | None) -> None:
        nonlocal last
        if progress is None:
            now = time.process_time()
            seconds.append(now - last)
            last = now

    shots = plan_shots(survey(paths).frames, outputs, film, weights)
    for shot in shots:
        paint_shot(film, shot, weights, overwrite=True, threads=options.threads, callback=after)
    painted = [images.read(path) for path in outputs]
    judgments = [judge(picture) for judge, picture in zip(judges, painted[1:], strict=True)]
    E, C = np.mean([(found.missing_style, found.lost_content) for found in judgments], axis=0)
    return {
        "near": error_of(painted, sequence, 1),
        "far": error_of(painted, sequence, FAR),
        "E": float(E),
        "C": float(C),
        "seconds": float(np.mean(seconds[1:])) if seconds[1:] else 0.0,
        "shots": len(shots),
    }


def paths_size(paths: list[Path]) -> tuple[int, int]:
    found = images.describe(paths[0])
    return found.width, found.height


def error_of(frames: list[Any], sequence: KnownSequence, step: int) -> float:
    """The warping error of frames so far apart; 0 where no pair of them has a pixel in common."""
    flows = [sequence.backward(n + step, n) for n in range(len(frames) - step)]
    return mean_warping_error(frames, flows, step) if any(known.any() for _, known in flows) else 0.0


def strip(sequence: KnownSequence, folder: Path, methods: list[str]) -> Any:
    """The sequence, and for each method its frames and their differences, in rows."""
    rows = [sequence.frames]
    for method in methods:
        frames = [images.read(path) for path in sorted((folder / f"{sequence.name} {method}").glob("*.png"))]
        rows += [frames, [differences(frames, sequence, n) for n in range(len(frames))]]
    H, W, _ = sequence.frames[0].shape
    sheet = np.full((len(rows) * (H + GAP) - GAP, len(rows[0]) * (W + GAP) - GAP, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet[y * (H + GAP) : y * (H + GAP) + H, x * (W + GAP) : x * (W + GAP) + W] = picture
    return sheet


def differences(frames: list[Any], sequence: KnownSequence, n: int) -> Any:
    """A frame less the warped one before, around gray; gray where they have nothing in common."""
    if n == 0:
        return np.full_like(frames[0], 128)
    flow, known = sequence.backward(n, n - 1)
    difference = frames[n] - warp(frames[n - 1].astype(np.float32), flow)
    return images.to_uint8(128 + CONTRAST * difference * known[:, :, None])


def table(rows: list[Row]) -> str:
    """Each method relative to frames painted one by one."""
    lines = ["| sequence | method | warping error | over four frames | E | C | seconds a frame |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        [unit] = [
            other
            for other in rows
            if other["method"] == ONE_BY_ONE
            and all(other[name] == row[name] for name in ("sequence", "size", "frames", "style"))
        ]

        def part(name: str, row: Row = row, unit: Row = unit) -> str:
            return f"{row[name] / unit[name]:.1%}" if unit[name] else "-"

        errors = f"{row['near']:.0f} ({part('near')}) | {row['far']:.0f} ({part('far')})"
        quality = f"{row['E']:.3f} ({part('E')}) | {row['C']:.3f}"
        seconds = f"{row['seconds']:.2f} ({part('seconds')})"
        lines.append(f"| {row['sequence']} | {row['method']} | {errors} | {quality} | {seconds} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pictures", required=True, metavar="A,B", help="what the sequences show")
    add("--style", required=True, help="the painting")
    add("--method", action="append", default=[], metavar="NAME=OPTIONS", help="options of npstyle video")
    add("--recipe", default="", help="options of frames painted one by one")
    add("--sequences", default="pan,zoom,disc,cut", help="which of them")
    add("--size", type=int, default=160, help="width of the frames")
    add("--frames", type=int, default=8)
    add("--weights", default="imagenet", help="filters up to conv5_1, which paint and judge")
    add("--threads", type=int)
    add("-o", "--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
