"""`npstyle sheet`: a contact sheet of every photograph in every style, small and quick, to choose from.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.cli.arguments import add_output, command_parser
from npstyle.cli.interrupts import Signals
from npstyle.cli.many import (
    BatchBar,
    Planned,
    add_pictures,
    add_shared,
    announce_batch,
    demand_of,
    find_all,
    paint_all,
    prepare,
)
from npstyle.cli.recipe import by_option, settings_from
from npstyle.cli.run_files import check_no_input
from npstyle.cli.session import count_of, save_or_refuge, session
from npstyle.cli.terminal import DONE, FAILED, print_err, print_out
from npstyle.cli.workers import add_workers, check_workers, workers_for
from npstyle.errors import UserError

if TYPE_CHECKING:
    from npstyle.images import Picture

OUTPUT = Path("sheet.png")
SIZE = 160  # longer side of the pictures, in pixels
ITERATIONS = 8  # at each level of the default recipe


def main(argv: list[str]) -> int:
    """Paint a contact sheet, and return the exit status."""
    text = "Paint a contact sheet: every photograph in the style of every painting, small, to choose from."
    parser = command_parser("sheet", text)
    add_pictures(parser)
    add_output(parser, str(OUTPUT))
    add_workers(parser, "1")
    add_shared(parser, SIZE)
    parser.epilog = f"Unless a --preset is named, --iterations is {ITERATIONS}: rough, but quick."
    options = parser.parse_args(argv)
    if not (options.contents and options.styles):
        parser.error("the following arguments are required: CONTENTS and --styles")
    check_workers(parser, options)
    if not (options.width or options.height):
        options.size = options.size or SIZE
    if options.iterations is None and options.preset is None and options.weights != "random":
        options.iterations = ITERATIONS
    try:
        settings_from(options)
    except UserError as error:
        parser.error(str(by_option(error)))
    with session() as signals:
        return _sheet(options, signals)


def _sheet(options: argparse.Namespace, signals: Signals) -> int:
    from npstyle import images
    from npstyle.study.sheet import compose

    output = images.check_output(options.output or OUTPUT, options.overwrite)
    contents, styles = find_all(options)
    check_no_input(f"output: {output}", output, [*contents, *styles, options.weights], "choose another")
    planned = [
        Planned(_of_picture(options, content, style), Path(f"{content.name} with {style.name}.png"))
        for content in contents
        for style in styles
    ]
    jobs, weights = prepare(planned, judge=False, checkpoint=None)
    announce_batch(options, weights)
    painted: list[Picture | None] = [None] * len(jobs)
    with (
        workers_for(options, demand_of(jobs), options.workers or 1) as (workers, share),
        BatchBar(len(jobs), options.quiet) as bar,
    ):
        for outcome in paint_all(workers, share, jobs, bar, options.send):
            for warning in outcome.warnings:
                bar.line(f"npstyle: {warning}", print_err)
            if outcome.error:
                bar.line(f"npstyle: {jobs[outcome.number].output.stem}: {outcome.error}", print_err)
            else:
                file = images.FileContents(str(output), outcome.value.file)
                painted[outcome.number] = images.read(file)
            bar.advance()
    signals.ignore()
    done = sum(picture is not None for picture in painted)
    if not done:
        raise UserError(f"output: {output}", "no picture to put on it", "at least one", "nothing is written")
    sheet = compose(_rows(contents, styles, painted, max(options.size or 0, SIZE)))
    save_or_refuge(output, partial(_write, sheet), options.overwrite, result="the sheet is")
    if not options.quiet:
        print_out(
            f"{output}: {done} of {count_of(len(jobs), 'picture')}, {sheet.shape[1]} x {sheet.shape[0]}"
        )
    return DONE if done == len(jobs) else FAILED


def _of_picture(options: argparse.Namespace, content: Path, style: Path) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "content": content, "style": [style]})


def _rows(
    contents: Sequence[Path], styles: Sequence[Path], painted: Sequence[Picture | None], size: int
) -> list[list[Any]]:
    """The styles above, the contents to the left, each with its file's name, and what was painted of both."""
    import numpy as np

    from npstyle import images
    from npstyle.study.sheet import Tile

    blank = np.full((1, 1, 3), 255, np.uint8)

    def named(path: Path) -> Tile:
        try:
            return Tile(path.name, images.fit(images.read(path), size))
        except UserError:  # said before
            return Tile(f"{path.name}: can't be read", blank)

    def tile(picture: Picture | None) -> Tile:
        return Tile("failed", blank) if picture is None else Tile("", picture)

    rows = [[Tile("", blank), *map(named, styles)]]
    for n, content in enumerate(contents):
        of_content = painted[n * len(styles) : (n + 1) * len(styles)]
        rows.append([named(content), *map(tile, of_content)])
    return rows


def _write(sheet: Picture, path: Path, overwrite: bool) -> None:
    from npstyle import images

    images.write(path, sheet, overwrite)
