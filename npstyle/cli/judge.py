"""`npstyle judge`: how much of the style results lack, and how much of the drawing they have lost.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from npstyle.architecture import deepest
from npstyle.cli.arguments import add_run, command_parser, input_file
from npstyle.cli.session import announce, check_memory, count_of, load_weights, session
from npstyle.cli.terminal import DONE, print_out

if TYPE_CHECKING:
    from npstyle.study.judging import Judgment

LEGEND = (
    "E: style that is missing, from 0 (the painting's) to 1 (the photograph's)",
    "C: drawing that is lost, from 0 (none) to 1 (as unlike the photograph as the painting)",
    "style distance, by layer: sum (G - A)^2 / sum A^2 of the Gram matrices",
    "correlation: of conv4_2 with the photograph's",
)
MAX_SIZE = 1024  # JUDGED_SIZE of npstyle.study.judging, which is slow to import


def main(argv: list[str]) -> int:
    """Print a line of measurements for each result, and return the exit status."""
    options = _parser().parse_args(argv)
    with session():
        return _judge(options)


def _parser() -> argparse.ArgumentParser:
    text = "Measure how much of the style results still lack (E), and how much of the drawing they lost (C)."
    parser = command_parser("judge", text)
    add = parser.add_argument
    add("content", metavar="CONTENT", type=input_file, help="the photograph")
    add("style", metavar="STYLE", type=input_file, help="the painting")
    add("results", metavar="RESULT", type=input_file, nargs="+", help="pictures painted from these two")
    add("--json", action="store_true", help="print one JSON object for each result")
    add_run(parser, size=MAX_SIZE)
    return parser


def _judge(options: argparse.Namespace) -> int:
    from npstyle import images
    from npstyle.study.judging import LAYERS, Judge, check_judged, trained_weights

    content, style = images.read(options.content), images.read(options.style)
    results = [images.read(path) for path in options.results]
    for path, result in zip(options.results, results, strict=True):
        check_judged(content.shape, images.fit(result, options.size).shape, str(path))
    if options.weights == "auto":
        options.weights = "imagenet"  # random filters can't judge
    weights = load_weights(options, deepest(LAYERS))
    trained_weights(weights)

    def bytes_at(size: int) -> float:
        return judging_memory([picture.shape[:2] for picture in (*results, style)], size)

    memory = check_memory(options, bytes_at, options.size, max(max(result.shape) for result in results))
    announce(options, count_of(len(results), "result"), memory, weights)
    judge = Judge(content, style, weights, options.threads)
    if not (options.json or options.quiet):
        print_out("\n".join([*LEGEND, "", _heading(options.results)]))
    for path, result in zip(options.results, results, strict=True):
        judgment = judge(images.fit(result, options.size), str(path))
        print_out(_json(path, judgment) if options.json else _line(path, judgment, options.results))
    return DONE


def judging_memory(shapes: Sequence[tuple[int, ...]], size: int) -> float:
    """Bytes that it takes to judge pictures of these heights and widths, reduced to `size`."""
    from npstyle import images
    from npstyle.run.memory import LIBRARY_BYTES, SAFETY_FACTOR, evaluation_memory
    from npstyle.study.judging import LAYERS

    sizes = [images.fitted_size(W, H, size) for H, W in shapes]
    most = max(evaluation_memory(H, W, set(LAYERS), "auto", 1) for W, H in sizes)
    return SAFETY_FACTOR * (LIBRARY_BYTES + most)


def _json(path: Path, judgment: Judgment) -> str:
    return json.dumps({"result": str(path), **asdict(judgment)})


def _heading(paths: Sequence[Path]) -> str:
    from npstyle.settings import PAPER_STYLE_LAYERS

    columns = [f"{name:>9}" for name in ("E", "C", *PAPER_STYLE_LAYERS)]
    return "".join([f"{'':{_width(paths)}}", *columns, f"{'correlation':>13}"])


def _line(path: Path, judgment: Judgment, paths: Sequence[Path]) -> str:
    found = (judgment.missing_style, judgment.lost_content, *judgment.style_distances.values())
    columns = [f"{value:9.3f}" for value in found]
    return "".join([f"{path!s:{_width(paths)}}", *columns, f"{judgment.content_correlation:13.3f}"])


def _width(paths: Sequence[Path]) -> int:
    return max(len(str(path)) for path in paths)
