"""What `npstyle batch` and `npstyle sheet` share: their pictures, filters, jobs, and how far they are.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from npstyle.architecture import deepest
from npstyle.cli.arguments import nonnegative
from npstyle.cli.paint import add_picture, recorded_options, request_arguments
from npstyle.cli.progress import shows_bars
from npstyle.cli.recipe import add_recipe, by_option, settings_from, without_effect
from npstyle.cli.session import count_of, load_weights, warn_if_slow
from npstyle.cli.terminal import print_err, print_out
from npstyle.cli.workers import Demand, Share
from npstyle.errors import UserError
from npstyle.settings import Settings

if TYPE_CHECKING:
    from npstyle.images import PictureFile
    from npstyle.jobs.filters import Filters
    from npstyle.jobs.picture import PictureJob
    from npstyle.jobs.workers import Outcome, Workers
    from npstyle.run import Progress, Request
    from npstyle.weights import Weights


class Planned(NamedTuple):
    """A picture to paint: its options, as those of the main job, and the path of the result."""

    options: argparse.Namespace
    output: Path


# ------------------------------------------------------------------------------------------------
# Options
# ------------------------------------------------------------------------------------------------


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add CONTENTS and --styles."""
    text = "photographs: files, folders, and patterns in quotation marks"
    parser.add_argument("contents", metavar="CONTENTS", nargs="*", help=text)
    parser.add_argument(
        "--styles", metavar="STYLES", nargs="+", default=[], help="paintings, in the same way"
    )


def add_shared(parser: argparse.ArgumentParser, size: int = 512) -> None:
    """Add the options that hold for all pictures; those of the main job that are for one are unset."""
    add_picture(parser, size)
    text = "size of the styles relative to the picture's (1); above their own only with --enlarge"
    parser.add_argument("--style-scale", type=nonnegative, metavar="X", help=text)
    add_recipe(parser)
    parser.set_defaults(blend=None, content_mask=[], style_mask=[], keep_mask=None)


# ------------------------------------------------------------------------------------------------
# Pictures
# ------------------------------------------------------------------------------------------------


def find_all(options: argparse.Namespace, own: Container[Path] = ()) -> tuple[list[Path], list[Path]]:
    """The pictures that CONTENTS and --styles name; a batch's `own` results are left out, which is said.

    Raises
    ------
    UserError
        A file is missing, or there is no picture.
    """
    from npstyle.jobs.plan import find_pictures

    found = []
    for names, what in ((options.contents, "content"), (options.styles, "style")):
        pictures, others = find_pictures(names, what)
        if others:
            print_err(f"npstyle: {what}: left out {_listed(others)}, no picture by the name")
        results = [path for path in pictures if path.resolve() in own]
        if results:
            print_err(f"npstyle: {what}: left out {_listed(results)}, painted into this folder before")
        remaining = [path for path in pictures if path not in set(results)]
        if not remaining:
            raise UserError(what, "nothing but this folder's results", "at least one picture", "name another")
        found.append(remaining)
    contents, styles = found
    return contents, styles


def _listed(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3])
    return names if len(paths) <= 3 else f"{names} and {len(paths) - 3} more"


# ------------------------------------------------------------------------------------------------
# Jobs
# ------------------------------------------------------------------------------------------------


class Prepared(NamedTuple):
    """Jobs in the order of what was planned, and the filters of the first."""

    jobs: list[PictureJob]
    weights: Weights


def prepare(planned: Sequence[Planned], judge: bool, checkpoint: Path | None) -> Prepared:
    """The jobs of pictures, with filters that are loaded once to see which they are.

    Raises
    ------
    UserError
        Options contradict each other, or filters are missing.
    """
    from npstyle.jobs.picture import PictureJob

    settings = [_settings(one.options) for one in planned]
    without = (
        line for one, its in zip(planned, settings, strict=True) for line in without_effect(one.options, its)
    )
    for line in dict.fromkeys(without):
        print_err(f"npstyle: {line}")
    filters = _filters(planned, settings, judge)
    jobs = []
    for one, of_picture in zip(planned, settings, strict=True):
        options = one.options
        weights, found = filters[_source(options)]
        if weights.random:
            of_picture = settings_from(options, random=True)
        jobs.append(
            PictureJob(
                content=options.content,
                styles=tuple(options.style),
                output=one.output,
                request=request_arguments(options, of_picture),
                filters=found,
                recorded=recorded_options(options, of_picture, weights.random),
                convolution=options.convolution,
                depth=options.depth,
                alpha=options.alpha,
                judge=judge and len(options.style) == 1,
                checkpoint=checkpoint,
            )
        )
    return Prepared(jobs, filters[_source(planned[0].options)][0])


def _settings(options: argparse.Namespace) -> Settings:
    try:
        return settings_from(options)
    except UserError as error:
        raise by_option(error) from None


Source = tuple[str, int, str | None]


def _source(options: argparse.Namespace) -> Source:
    """What tells the filters of two pictures apart; the seed only where they may be random."""
    seed = options.seed if options.weights in ("auto", "random") else 0
    return options.weights, seed, options.preprocessing


def _filters(
    planned: Sequence[Planned], settings: Sequence[Settings], judge: bool
) -> dict[Source, tuple[Weights, Filters]]:
    """The filters of all pictures, each loaded once, to the deepest layer that any of them needs."""
    from npstyle.jobs.filters import Filters, keep
    from npstyle.study.judging import LAYERS, trained_weights

    layers: dict[Source, set[str]] = {}
    first: dict[Source, argparse.Namespace] = {}
    for one, of_picture in zip(planned, settings, strict=True):
        source = _source(one.options)
        layers.setdefault(source, set(LAYERS if judge else ())).update(of_picture.layers)
        first.setdefault(source, one.options)
    found = {}
    for source, needed in layers.items():
        weights = load_weights(first[source], deepest(needed))
        if judge:
            trained_weights(weights)
        filters = Filters.of(weights, deepest(needed), source[1], first[source].preprocessing)
        keep(filters, weights)
        found[source] = weights, filters
    return found


# ------------------------------------------------------------------------------------------------
# Workers
# ------------------------------------------------------------------------------------------------


def memory_of(jobs: Iterable[PictureJob], threads: int | None) -> tuple[float, PictureJob | None]:
    """Bytes that the largest job needs at least, and which it is; what can't be read counts nothing."""
    from npstyle import images

    largest: tuple[float, PictureJob | None] = (0.0, None)
    known: dict[str, float] = {}
    read_size = cache(images.read_size)
    for job in jobs:
        try:
            request = _blank_request(job, read_size)
        except UserError:  # of its own, when its turn comes
            continue
        shapes = [picture.shape for picture in (request.content, *request.styles)]
        key = repr((shapes, {**job.request, "settings": request.settings}))
        if key not in known:
            known[key] = _least_memory(request, job, threads)
        if known[key] > largest[0]:
            largest = known[key], job
    return largest


def _blank_request(job: PictureJob, read_size: Callable[..., tuple[int, int]]) -> Request:
    """The request of a job for pictures of the same sizes, which take no memory."""
    import numpy as np

    from npstyle.run import Request

    def blank(file: PictureFile) -> Any:
        width, height = read_size(file)
        return np.broadcast_to(np.uint8(0), (height, width, 3))

    names = ("settings", "size", "style_scale", "enlarge", "width", "height")
    arguments = {name: job.request[name] for name in names}
    return Request.read(blank(job.content), [blank(style) for style in job.styles], **arguments)


def _least_memory(request: Request, job: PictureJob, threads: int | None) -> float:
    import numpy as np

    from npstyle.run.memory import least_memory

    masks = (np.ones((1, 1)),) if job.request["content_masks"] else ()
    return least_memory(replace(request, content_masks=masks), job.convolution, threads)


def demand_of(jobs: Sequence[PictureJob]) -> Demand:
    """What the pictures need of workers."""
    needed, job = memory_of(jobs, 1)
    return Demand(len(jobs), "picture", needed, "" if job is None else job.output.name)


def announce_batch(options: argparse.Namespace, weights: Weights) -> None:
    """Print the filters, and, also with --quiet, what makes all pictures slow."""
    warn_if_slow(options.threads)
    if not options.quiet:
        print_err(f"filters: {weights.source}")


def paint_all(
    workers: Workers, share: Share, jobs: Iterable[PictureJob], bar: BatchBar, send: bool
) -> Iterator[Outcome]:
    """Have all pictures painted, and yield the outcomes as they come; the bar shows the present one."""
    from npstyle.jobs.picture import paint_picture, sent
    from npstyle.jobs.workers import ThisProcess

    here = isinstance(workers, ThisProcess)
    function = partial(paint_picture, callback=bar.part) if here else paint_picture
    jobs = [replace(job, **share._asdict()) for job in jobs]
    if send:
        workers.send({job.filters.source for job in jobs})
    yield from workers.run(function, (sent(job) if send else job for job in jobs))


# ------------------------------------------------------------------------------------------------
# Progress
# ------------------------------------------------------------------------------------------------


class BatchBar:
    """A bar over all pictures, on a terminal; lines are printed above it.

    Parameters
    ----------
    total : int
        Pictures.
    quiet : bool
        Show no bar.
    """

    def __init__(self, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.total, self.done = total, 0
        self._began = time.monotonic()
        form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}{postfix}]"
        self._bar = tqdm(total=total, disable=not shows_bars(quiet), bar_format=form, dynamic_ncols=True)
        self._show(0.0)
        self._bar.refresh()

    def advance(self) -> None:
        """One more picture is done, or has failed."""
        self.done += 1
        self._show(0.0)

    def part(self, progress: Progress) -> None:
        """Show an iteration of the next picture; the callback of `npstyle.run.paint`."""
        self._show(progress.iteration / max(1, progress.iterations))

    def line(self, text: str, print_line: Callable[[str], None] = print_out) -> None:
        """Print a line above the bar."""
        stream = sys.stdout if print_line is print_out else sys.stderr
        with self._bar.external_write_mode(file=stream):
            print_line(text)

    def _show(self, part: float) -> None:
        at = min(float(self.total), self.done + part)
        seconds = time.monotonic() - self._began
        if at and seconds > 2:
            left = seconds * (self.total - at) / at
            text = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
            self._bar.set_postfix_str(f"about {text} left", refresh=False)
        self._bar.set_description_str(f"{self.done} of {count_of(self.total, 'picture')}", refresh=False)
        self._bar.update(at - self._bar.n)

    def __enter__(self) -> BatchBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
