"""The main job, `npstyle CONTENT STYLE`: pictures in, a run, a picture out. No mathematics.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle._runtime.paths import as_path
from npstyle._version import __version__
from npstyle.architecture import CONVOLUTION_METHODS, deepest
from npstyle.cli.arguments import (
    add_log_every,
    add_output,
    add_run,
    input_file,
    integer,
    nonnegative,
    numbers,
    size_in_bytes,
)
from npstyle.cli.interrupts import Signals, exit_status
from npstyle.cli.progress import ProgressBar
from npstyle.cli.recipe import (
    RECIPE,
    add_recipe,
    by_option,
    field_of,
    settings_from,
    without_effect,
)
from npstyle.cli.run_files import (
    check_log_file,
    check_no_input,
    check_save_every,
    checkpoint_every,
    checkpoint_place,
    describe_checkpoint,
    inputs,
    intermediate,
    tidy_checkpoint,
)
from npstyle.cli.run_log import RunLog
from npstyle.cli.run_views import (
    Views,
    add_views,
    check_judge,
    check_report_file,
    check_views,
    judged,
    layers_needed,
)
from npstyle.cli.session import (
    WRITE_ERRORS,
    announce,
    check_memory,
    count_of,
    filter_options,
    format_bytes,
    load_weights,
    read_init,
    report,
    save_or_refuge,
    session,
    write_error,
)
from npstyle.cli.standard_streams import (
    add_format,
    check_streams,
    checked_output,
    is_standard,
    read_standard_input,
    write_standard_output,
)
from npstyle.cli.terminal import Parser, print_err, print_out
from npstyle.errors import UserError
from npstyle.presets import PRESETS
from npstyle.settings import LARGE, STARTS, Settings, format_field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from npstyle.divided import Workers
    from npstyle.images import PictureFile
    from npstyle.run import Progress, Request, StyleResult
    from npstyle.vgg import VGG19
    from npstyle.weights import Weights

EPILOG = """\
examples:
  npstyle photo.jpg painting.jpg                     photo-painting.png, at most 512 pixels wide or high
  npstyle photo.jpg painting.jpg -o out.jpg --size 800 --iterations 100
  npstyle photo.jpg painting.jpg --style-weight 50   more of the style
  npstyle photo.jpg painting.jpg --preset paper      the formula of the paper, starting from noise
  npstyle photo.jpg painting.jpg --color match       in the colors of the photograph
  npstyle photo.jpg painting.jpg --resume            continue the same command after Ctrl-C

  npstyle - painting.jpg -o - <photo.jpg >out.png    from standard input to standard output

other commands, each with --help:
  studio                              a page in the browser, where one sees it being painted
  batch, sheet                        many pictures, and a contact sheet to choose from
  video                               a film, or a folder of frames that hold together
  presets, info, show, weights        recipes by name; this installation; how a picture was made; filters
  cache                               what interrupted runs left, and how to remove it
  reconstruct, texture, figure,       what layers and Gram matrices contain, as pictures
  inspect, gradcheck                  and whether every derivative is right
  judge                               how much style a result lacks, and how much drawing it lost
"""


def main(argv: list[str]) -> int:
    """Make a picture from a photograph and a painting, and return the exit status."""
    parser = painting_parser()
    options = parser.parse_args(argv)
    _gather_pictures(parser, options)
    if options.resume and options.no_checkpoint:
        parser.error("--resume: found --no-checkpoint, too; expected a checkpoint to continue from")
    exact = [f"--{side}" for side in ("width", "height") if getattr(options, side)]
    if options.size and exact:
        found = f"{' and '.join(exact)}, too"
        parser.error(f"--size: found {found}; expected the one or the other; leave --size out")
    check_streams(parser, options)
    check_views(parser, options)
    try:
        settings = settings_from(options)
    except UserError as error:
        parser.error(str(by_option(error)))
    for line in without_effect(options, settings):
        print_err(f"npstyle: {line}")
    with session() as signals, workers_at(options) as workers:
        return _paint(options, settings, signals, workers)


@contextmanager
def workers_at(options: argparse.Namespace) -> Iterator[Callable[[VGG19], Workers] | None]:
    """Who computes bands of large pictures, given the network: those of --scheduler, if there is one."""
    if not options.scheduler:
        yield None
        return
    from npstyle.jobs import cluster

    cluster.require_dask("--scheduler")
    with cluster.connected_cluster(options.scheduler) as connected:
        from npstyle.jobs.band_workers import BandWorkers

        def of_network(network: VGG19) -> Workers:
            workers = BandWorkers(connected, network)
            if not options.quiet:
                print_err(f"{count_of(workers.count, 'worker')} at {options.scheduler}")
            return workers

        yield of_network


def _paint(
    options: argparse.Namespace,
    settings: Settings,
    signals: Signals,
    workers: Callable[[VGG19], Workers] | None,
) -> int:
    """All that comes after the options, to the exit status."""
    from npstyle import images
    from npstyle.images.metadata import as_text
    from npstyle.run import memory as run_memory
    from npstyle.run import paint
    from npstyle.run.pyramid import level_sizes

    output = _check_files(options)
    seconds_between_checkpoints = checkpoint_every()
    content, *styles = read_standard_input([options.content, *options.style])
    request, change = _read(options, settings, content, styles)
    check_save_every(options, output, request)
    checkpoint = checkpoint_place(options, output)
    W, H = request.result_size
    images.check_dimensions(output, W, H)
    alpha = _read_alpha(content, request) if options.alpha else None  # now, while the file is there
    free = run_memory.available_memory(options.threads) if options.memory is None else options.memory
    request, memory, note = check_run_memory(options, request, free)
    weights = load_weights(options, deepest(layers_needed(options, settings.layers)))
    check_judge(options, request, weights, free)
    if weights.random:
        request = replace(request, settings=settings_from(options, random=True))
        request, memory, note = check_run_memory(options, request, free)
        check_save_every(options, output, request)
    if note:  # also with --quiet
        print_err(f"npstyle: {note}")
    memory += describe_checkpoint(checkpoint, request)
    announce(options, f"{W} x {H} pixels{change}, {describe_run(request)}", memory, weights)
    recorded = recorded_options(options, request.settings, weights.random)
    with (
        RunLog(options.log, options.overwrite, bool(options.resume)) as log,
        Views(options, output, request, as_text(recorded), memory) as views,
    ):
        log.start(request, level_sizes(request), **_facts(options, output, weights, checkpoint))
        with ProgressBar(options.quiet, log_every=options.log_every) as bar:
            result = paint(
                request,
                weights,
                convolution=options.convolution,
                threads=options.threads,
                memory=free or None,  # what the plan was chosen by that is announced
                callback=_callback(options, output, bar, log, views),
                checkpoint=checkpoint,
                checkpoint_every=seconds_between_checkpoints,
                resume=options.resume,
                workers=workers,
            )
            signals.ignore()
        seconds = bar.seconds
        metadata = as_text(recorded, note=result.message, filters=result.weights)
        _save(output, result, options, metadata, alpha)
        log.end(result, output)
        judgment = judged(options, request, weights, result)
        _print_result(options, output, result, seconds, judgment)
        tidy_checkpoint(options, output, result)
        views.finish(result, metadata, seconds, judgment)
    return exit_status(signals, result.interrupted, result.diverged)


def _gather_pictures(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Put the pictures of --content and --style where the positional ones are."""
    given = [options.content_option, options.content, *options.style]
    content, *styles = [path for path in given if path is not None] or [None]
    styles += options.style_option or []
    found = {"CONTENT": content, "STYLE": styles}
    missing = [metavar for metavar, pictures in found.items() if not pictures]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    options.content, options.style = content, styles


def default_output(options: argparse.Namespace) -> Path:
    """photo.jpg and painting.jpg make photo-painting.png in the current folder."""
    content, style = (
        "stdin" if is_standard(path) else path.stem for path in (options.content, options.style[0])
    )
    return Path(f"{content}-{style}.png")


def _check_files(options: argparse.Namespace) -> Path:
    """Make sure, before the run, that picture, log and report can be written; return the picture's path."""
    from npstyle import images

    output = checked_output(options.output or default_output(options), options.overwrite, options.format)
    check_no_input(f"output: {output}", output, inputs(options), "choose another")
    images.check_depth(output, options.depth)
    if options.alpha:
        images.check_alpha(output)
    check_log_file(options, output)
    check_report_file(options, output)
    return output


def _read_alpha(content: PictureFile, request: Request) -> NDArray[np.uint8] | None:
    """The photograph's transparency, in the size of the result; None if it has none."""
    from npstyle import images

    alpha = images.read_alpha(content)
    if alpha is None:
        return None
    W, H = request.result_size
    return images.resize(images.crop(alpha, W, H) if request.crops else alpha, W, H)


def _read(
    options: argparse.Namespace, settings: Settings, source: PictureFile, styles: Sequence[PictureFile]
) -> tuple[Request, str]:
    """Read and check all pictures and masks, before anything takes time.

    Returned are also words about a photograph that is cropped or enlarged.
    """
    from npstyle import images
    from npstyle.run import Request

    content = images.read(source)
    init = read_init(options.init, STARTS)
    request = Request.read(content, styles, **{**request_arguments(options, settings), "init": init})
    (H, W, _), (h, w, _), result = content.shape, request.content.shape, request.result_size
    change = ["cropped"] if (w, h) != (W, H) else []
    change += ["enlarged"] if result[0] > w or result[1] > h else []
    return request, f" ({' and '.join(change)} from {W} x {H})" if change else ""


def request_arguments(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What `Request.read` is given beside the pictures; masks, and the picture to start from, as paths."""
    return {
        "settings": settings,
        "size": options.size,
        "blend": options.blend,
        "style_scale": options.style_scale,
        "content_masks": options.content_mask,
        "style_masks": options.style_mask,
        "keep": options.keep_mask,
        "init": None if options.init in (None, *STARTS) else options.init,
        "seed": options.seed,
        "enlarge": options.enlarge,
        "width": options.width,
        "height": options.height,
    }


def check_run_memory(
    options: argparse.Namespace, request: Request, free: float | None
) -> tuple[Request, str, str]:
    """The request, and the memory that it takes in words; a UserError if there is too little.

    `free` is how much there is, or is allowed; None if that is not known.

    Where there is too little for SciPy's L-BFGS, even with blocks of the network in strips, the request
    returned is one with L-BFGS in float32, if need be with fewer pairs, unless an optimizer is asked for.
    What is returned last says so.
    """
    from npstyle.run.memory import choose_plan, fit_optimizer, least_memory, plan_in_words, run_memory

    how = options.convolution, options.threads
    needed = least_memory(request, *how)
    chosen = options.optimizer is not None or request.settings.optimizer != "lbfgs" or options.force
    too_little = not chosen and free is not None and needed > free
    pairs_asked = request.settings.maxcor
    if too_little:
        request = fit_optimizer(request, free, *how)
    settings = request.settings
    plan = choose_plan(lambda plan: run_memory(request, *how, plan), free, settings.layers)

    def bytes_at(size: int) -> float:
        at_size = request.at_size(size)
        return run_memory(at_size, *how, plan) if size == request.size else least_memory(at_size, *how)

    def option(size: int) -> str:
        width, height = request.size_at(size)
        exact = (f"--width {width}" * bool(options.width), f"--height {height}" * bool(options.height))
        return " ".join(filter(None, exact)) or f"--size {size}"

    longest = max(request.result_size)
    memory = check_memory(options, bytes_at, request.size, longest, option, options.memory)
    in_words = plan_in_words(plan, settings.padding, request.result_size[1])
    memory = ", ".join(filter(None, (memory, in_words)))
    if not too_little or free is None:
        return request, memory, ""
    whose = "free" if options.memory is None else "allowed by --memory"
    found, expected = f"{format_bytes(free)} {whose}", f"about {format_bytes(needed)} for lbfgs"
    pairs = "" if settings.maxcor == pairs_asked else f" with {settings.maxcor} pairs"
    note = f"optimizer: found {found}; expected {expected}; lbfgs32{pairs} runs in its place"
    return request, memory, note


def describe_run(request: Request) -> str:
    """As "16 iterations at each of 7 levels from 64 pixels up, without a style loss"."""
    settings = request.settings
    losses = {"content": settings.effective_content_weights, "style": settings.effective_style_weights}
    missing = [f", without a {name} loss" for name, weights in losses.items() if not weights]
    return _describe_iterations(request) + "".join(missing)


def _describe_iterations(request: Request) -> str:
    from npstyle.run.pyramid import level_sizes

    sizes = level_sizes(request)
    numbers = request.settings.level_iterations(sizes)
    if len(sizes) == 1:
        return count_of(numbers[0], "iteration")
    levels = f"{len(sizes)} levels from {max(sizes[0])} pixels up"
    if len(set(numbers)) == 1:
        return f"{count_of(numbers[0], 'iteration')} at each of {levels}"
    few = ""
    if isinstance(request.settings.iterations, int):
        few = f" (fewer above {LARGE}; --iterations-falloff 1 does as many)"
    return f"{', '.join(map(str, numbers))} iterations at {levels}{few}"


def _facts(
    options: argparse.Namespace, output: Path, weights: Weights, checkpoint: Path | None
) -> dict[str, Any]:
    """What the log says of a run beside the request: its files, as they were named, and its filters."""
    names = ("content", "style", "init", "content_mask", "style_mask", "keep_mask", "resume")
    files = {"output": output, "checkpoint": checkpoint}
    filters = {"weights": weights.label, "preprocessing": options.preprocessing or weights.preprocessing}
    return {**{name: getattr(options, name) for name in names}, **files, **filters}


def _callback(
    options: argparse.Namespace, output: Path, bar: ProgressBar, log: RunLog, views: Views
) -> Callable[[Progress], None]:
    """Log and show each iteration, and with --save-every write a picture beside the output: out-00050.png."""
    from npstyle import images

    every = options.save_every

    def after_iteration(progress: Progress) -> None:
        nonlocal every
        log.iteration(progress)
        bar.update(progress)
        if every is not None and not progress.iteration % every:
            path = intermediate(output, progress.iteration)
            try:
                images.write(path, progress.image, options.overwrite)
            except WRITE_ERRORS as error:
                print_err(f"npstyle: {write_error(error, path)}; continuing without intermediate pictures")
                every = None
        views.after_iteration(progress)  # last, as it may end the run

    return after_iteration


# ------------------------------------------------------------------------------------------------
# The picture that is written
# ------------------------------------------------------------------------------------------------


def _save(
    output: Path,
    result: StyleResult,
    options: argparse.Namespace,
    metadata: dict[str, str],
    alpha: NDArray[Any] | None,
) -> None:
    from npstyle import images

    picture = result.pixels if options.depth == 16 else result.image

    def write(path: Path, overwrite: bool) -> None:
        if is_standard(path):
            write_standard_output(
                images.encode(path, picture, alpha=alpha, depth=options.depth, text=metadata)
            )
        else:
            images.write(path, picture, overwrite, alpha=alpha, depth=options.depth, text=metadata)

    save_or_refuge(output, write, options.overwrite)


def recorded_options(options: argparse.Namespace, settings: Settings, random: bool) -> dict[str, Any]:
    """The options of a run with these settings, as they are kept in the picture's file for `npstyle show`."""
    from npstyle.run.inputs import SIZE

    values = {"content": options.content, "style": options.style, "size": options.size or SIZE}
    if options.width or options.height:
        values |= {"size": None, "width": options.width, "height": options.height}
    names = ("seed", "weights", "preprocessing", "convolution", "style_scale")
    values |= {name: getattr(options, name) for name in names}
    values |= filter_options(options, random)
    values |= recipe_text(settings)
    if options.init not in (None, *STARTS):
        values["init"] = options.init
    masks = {name: getattr(options, name) for name in ("content_mask", "style_mask", "keep_mask")}
    blend = None if options.blend is None else ",".join(map(repr, options.blend))
    more = {"blend": blend, "alpha": options.alpha or None, "depth": options.depth}
    more["enlarge"] = options.enlarge or None
    return {**values, **masks, **more}


def _print_result(
    options: argparse.Namespace,
    output: Path,
    result: StyleResult,
    seconds: float,
    judgment: Mapping[str, float],
) -> None:
    """The line about a picture that was saved, or its JSON; and E and C, if it was judged."""
    if options.json:
        print_out(json.dumps({**_as_json(options, output, result, seconds), **judgment}))
        return
    print_line = print_err if is_standard(output) else print_out
    report(output, result, seconds, options.quiet, print_line)
    if judgment:  # it was asked for
        print_line("{E:.3f} of the style missing (E), {C:.3f} of the drawing lost (C)".format(**judgment))


def _as_json(
    options: argparse.Namespace, output: Path, result: StyleResult, seconds: float
) -> dict[str, Any]:
    """What --json prints of a picture."""
    from npstyle.jobs.picture import facts_of

    files = {
        "output": str(output),
        "content": str(options.content),
        "styles": list(map(str, options.style)),
    }
    outcome = "diverged" if result.diverged else "interrupted" if result.interrupted else "done"
    return {**files, "outcome": outcome, **facts_of(result), "seconds": round(seconds, 3)}


def recipe_text(settings: Settings) -> dict[str, Any]:
    """The options of the recipe, for `images.metadata.as_text`."""
    fields = [field for field in map(field_of, RECIPE) if hasattr(settings, field)]
    values = {field: getattr(settings, field) for field in fields}
    return {
        field: value if isinstance(value, bool) else format_field(settings, field)
        for field, value in values.items()
    }


# ------------------------------------------------------------------------------------------------
# Options
# ------------------------------------------------------------------------------------------------


def painting_parser(kind: type[Parser] = Parser) -> Parser:
    """All options of the main job."""
    parser = kind(
        prog="npstyle",
        description="Paint a photograph in the style of a painting (neural style transfer).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("content", metavar="CONTENT", type=input_file, nargs="?", help="the photograph")
    text = "the painting; several can be blended"
    add("style", metavar="STYLE", type=input_file, nargs="*", help=text)
    text = "the photograph, instead of CONTENT"
    add("--content", dest="content_option", metavar="PICTURE", type=input_file, help=text)
    text = "a painting, after those among STYLE; repeat for more"
    add("-s", "--style", dest="style_option", metavar="PICTURE", type=input_file, action="append", help=text)
    add_output(parser, "CONTENT-STYLE.png")
    add_format(parser)
    text = "print the result as one JSON object"
    add("--json", action="store_true", help=text)
    add_picture(parser)
    add("--version", action="version", version=f"npstyle {__version__}")
    _add_long_runs(parser)
    add_views(parser)
    _add_regions(parser)
    add_recipe(parser)
    return parser


def add_picture(parser: argparse.ArgumentParser, size: int = 512) -> None:
    """Add the options that any number of pictures may share, but for the recipe's; `size` is the default."""
    add = parser.add_argument
    add("--preset", choices=list(PRESETS), help="a recipe by name, see npstyle presets; options change it")
    add_run(parser, size)
    parser.set_defaults(size=None)  # that, unless another option says how large
    add("--enlarge", action="store_true", help="let the picture become larger than the photograph")
    text = "exact {} in pixels, instead of --size; with both, the photograph is cropped, around its center"
    for side in ("width", "height"):
        add(f"--{side}", type=integer(16), metavar="N", help=text.format(side))
    methods = CONVOLUTION_METHODS
    add("--convolution", choices=methods, default="auto", help="how convolutions are computed (auto)")
    text = "what the run may take, such as 8GB; where that is little, it takes longer (what is free)"
    add("--memory", type=size_in_bytes, metavar="SIZE", help=text)
    add("--depth", type=int, choices=(8, 16), default=8, help="bits per channel; 16 for PNG and TIFF (8)")
    add("--alpha", action="store_true", help="keep the photograph's transparency")


def _add_long_runs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("long runs")
    text = "write a picture after every N iterations"
    group.add_argument("--save-every", type=integer(1), metavar="N", help=text)
    add_log_every(group)
    text = "write losses, their terms and all settings to a file, a line of JSON for each iteration"
    group.add_argument("--log", type=as_path, metavar="FILE", help=text)
    text = "let the workers of a Dask scheduler, as tcp://HOST:8786, compute levels of more than 960 rows"
    group.add_argument("--scheduler", metavar="ADDRESS", help=text)
    checkpoint = group.add_mutually_exclusive_group()
    text = "where the state of the run is saved every minute (a file in the user's cache)"
    checkpoint.add_argument("--checkpoint", type=as_path, metavar="FILE", help=text)
    text = "do not save the state of the run"
    checkpoint.add_argument("--no-checkpoint", action="store_true", help=text)
    text = "continue where the same command was interrupted, if it was (--checkpoint names its state)"
    group.add_argument("--resume", action="store_true", help=text)
    # An option string of its own, so that --resume takes no value and never swallows the photograph.
    text = "the same; an error if there is nothing to continue"
    group.add_argument("--resume=must", action="store_const", const="must", dest="resume", help=text)


def _add_regions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("several styles, and regions").add_argument
    add("--blend", type=numbers, metavar="X,X", help="weight of each style (equal weights)")
    text = "size of the styles relative to the picture's (1); above their own only with --enlarge"
    add("--style-scale", type=nonnegative, metavar="X", help=text)
    for option, text in (
        ("content", "white where the n-th style mask applies; repeat for more regions"),
        ("style", "white in the part of the style picture that is for that region"),
    ):
        add(f"--{option}-mask", action="append", default=[], type=input_file, metavar="MASK", help=text)
    add("--keep-mask", type=input_file, metavar="MASK", help="white where the photograph stays as it is")
