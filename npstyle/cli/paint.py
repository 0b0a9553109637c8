"""The main job, `npstyle CONTENT STYLE`: pictures in, a run, a picture out. No mathematics.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle._version import __version__
from npstyle.architecture import CONVOLUTION_METHODS, deepest
from npstyle.cli.arguments import add_output, add_run, integer, nonnegative, numbers
from npstyle.cli.interrupts import HOW_TO_RESUME, Signals, exit_status
from npstyle.cli.progress import ProgressBar
from npstyle.cli.recipe import RECIPE, add_recipe, field_of, format_field, settings_from
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
from npstyle.cli.terminal import Parser, print_err
from npstyle.errors import UserError, check_nonnegative
from npstyle.presets import PRESETS
from npstyle.settings import STARTS, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from npstyle.run import Progress, Request, StyleResult

EPILOG = """\
examples:
  npstyle photo.jpg painting.jpg                     photo-painting.png, at most 512 pixels wide or high
  npstyle photo.jpg painting.jpg -o out.jpg --size 800 --iterations 100
  npstyle photo.jpg painting.jpg --style-weight 1000 more of the style
  npstyle photo.jpg painting.jpg --preset paper      the formula of the paper, starting from noise
  npstyle photo.jpg painting.jpg --color match       in the colors of the photograph
  npstyle photo.jpg painting.jpg --resume            continue the same command after Ctrl-C

other commands, each with --help:
  presets, info, show, weights        recipes by name; this installation; how a picture was made; filters
  cache                               what interrupted runs left, and how to remove it
  reconstruct, texture, figure,       what layers and Gram matrices contain, as pictures
  inspect, gradcheck                  and whether every derivative is right
"""


def main(argv: list[str]) -> int:
    """Make a picture from a photograph and a painting, and return the exit status."""
    parser = painting_parser()
    options = parser.parse_args(argv)
    if options.resume and options.no_checkpoint:
        parser.error("--resume: found --no-checkpoint, too; expected a checkpoint to continue from")
    exact = [f"--{side}" for side in ("width", "height") if getattr(options, side)]
    if options.size and exact:
        found = f"{' and '.join(exact)}, too"
        parser.error(f"--size: found {found}; expected the one or the other; leave --size out")
    try:
        settings = settings_from(options)
    except UserError as error:
        option = f"--{error.name.replace('_', '-')}: " if hasattr(options, error.name) else ""
        parser.error(option + str(error))
    with session() as signals:
        return _paint(options, settings, signals)


def _paint(options: argparse.Namespace, settings: Settings, signals: Signals) -> int:
    """All that comes after the options, to the exit status."""
    from npstyle import images
    from npstyle.run import paint

    output = images.check_output(options.output or default_output(options), options.overwrite)
    images.check_depth(output, options.depth)
    if options.alpha:
        images.check_alpha(output)
    seconds_between_checkpoints = _checkpoint_every()
    request, change = _read(options, settings)
    _check_save_every(options, output, request)
    checkpoint = _checkpoint(options, output)
    W, H = request.result_size
    images.check_dimensions(output, W, H)
    alpha = images.read_alpha(options.content) if options.alpha else None  # now, while the file is there
    if alpha is not None:
        alpha = images.resize(images.crop(alpha, W, H) if request.crops else alpha, W, H)
    memory = _check_memory(options, request)
    weights = load_weights(options, deepest(settings.layers))
    if weights.random:
        request = replace(request, settings=settings_from(options, default_preset="random"))
        memory = _check_memory(options, request)
        _check_save_every(options, output, request)
    announce(options, f"{W} x {H} pixels{change}, {_describe_iterations(request)}", memory)
    with ProgressBar(options.quiet) as bar:
        result = paint(
            request,
            weights,
            convolution=options.convolution,
            threads=options.threads,
            callback=_callback(options, output, bar),
            checkpoint=checkpoint,
            checkpoint_every=seconds_between_checkpoints,
            resume=options.resume,
        )
        signals.ignore()
    _save(output, result, options, _metadata(options, request, result, weights.random), alpha)
    report(output, result, bar.seconds, options.quiet)
    _tidy_checkpoint(options, output, result)
    return exit_status(signals, result.interrupted, result.diverged)


def default_output(options: argparse.Namespace) -> Path:
    """photo.jpg and painting.jpg make photo-painting.png in the current folder."""
    return Path(f"{options.content.stem}-{options.style[0].stem}.png")


def _read(options: argparse.Namespace, settings: Settings) -> tuple[Request, str]:
    """Read and check all pictures and masks, before anything takes time.

    Returned are also words about a photograph that is cropped or enlarged.
    """
    from npstyle import images
    from npstyle.run import Request

    content = images.read(options.content)
    request = Request.read(
        content,
        options.style,
        settings=settings,
        size=options.size,
        blend=options.blend,
        style_scale=options.style_scale,
        content_masks=options.content_mask,
        style_masks=options.style_mask,
        keep=options.keep_mask,
        init=read_init(options.init, STARTS),
        seed=options.seed,
        enlarge=options.enlarge,
        width=options.width,
        height=options.height,
    )
    (H, W, _), (h, w, _), result = content.shape, request.content.shape, request.result_size
    change = ["cropped"] if (w, h) != (W, H) else []
    change += ["enlarged"] if result[0] > w or result[1] > h else []
    return request, f" ({' and '.join(change)} from {W} x {H})" if change else ""


def _check_memory(options: argparse.Namespace, request: Request) -> str:
    """The memory that the run takes, in words; a UserError if there is too little."""
    from npstyle.run.memory import run_memory

    def bytes_at(size: int) -> float:
        return run_memory(request.at_size(size), options.convolution, options.threads)

    def option(size: int) -> str:
        width, height = request.size_at(size)
        exact = (f"--width {width}" * bool(options.width), f"--height {height}" * bool(options.height))
        return " ".join(filter(None, exact)) or f"--size {size}"

    return check_memory(options, bytes_at, request.size, max(request.result_size), option)


def _count_iterations(request: Request) -> int:
    """Iterations over all levels, at most."""
    from npstyle.run.pyramid import level_sizes

    return len(level_sizes(request)) * request.settings.iterations


def _describe_iterations(request: Request) -> str:
    from npstyle.run.pyramid import level_sizes

    sizes = level_sizes(request)
    text = count_of(request.settings.iterations, "iteration")
    return (
        text if len(sizes) == 1 else f"{text} at each of {len(sizes)} levels from {max(sizes[0])} pixels up"
    )


# ------------------------------------------------------------------------------------------------
# While the run lasts: pictures in between, and checkpoints
# ------------------------------------------------------------------------------------------------


def _callback(options: argparse.Namespace, output: Path, bar: ProgressBar) -> Callable[[Progress], None]:
    """Show each iteration, and with --save-every write a picture beside the output: out-00050.png."""
    from npstyle import images

    every = options.save_every

    def after_iteration(progress: Progress) -> None:
        nonlocal every
        bar.update(progress)
        if every is None or progress.iteration % every:
            return
        path = _intermediate(output, progress.iteration)
        try:
            images.write(path, progress.image, options.overwrite)
        except WRITE_ERRORS as error:
            print_err(f"npstyle: {write_error(error, path)}; continuing without intermediate pictures")
            every = None

    return after_iteration


def _intermediate(output: Path, iteration: int) -> Path:
    """The name of the picture after an iteration: out-00050.png."""
    return output.with_stem(f"{output.stem}-{iteration:05d}")


def _check_save_every(options: argparse.Namespace, output: Path, request: Request) -> None:
    """Make sure, before the run, that the pictures of --save-every replace nothing that they may not."""
    from npstyle import images

    every, total = options.save_every, _count_iterations(request)
    if every is None or every > total:
        return
    *paths, last = (_intermediate(output, n) for n in range(every, total + 1, every))
    checkpoint = Path(options.checkpoint or "").name
    inputs = _inputs(options)
    for path in [*(path for path in paths if path.name == checkpoint or os.path.lexists(path)), last]:
        name = f"--save-every: {path}"
        if any(_same_file(path, file) for file in inputs):
            found = "a file that this run reads or continues from"
            raise UserError(name, found, "a new name", "choose another name for the output")
        try:
            images.check_output(path, options.overwrite)
        except UserError as error:
            raise UserError(name, error.found, error.expected, error.cure) from None


def _inputs(options: argparse.Namespace) -> list[Path]:
    """Every file that the options name and the run reads."""
    masks = [*options.content_mask, *options.style_mask, options.keep_mask]
    weights = [options.weights, os.environ.get("NPSTYLE_WEIGHTS")]
    named = [options.content, *options.style, *masks, options.init, *weights, options.checkpoint]
    return [Path(os.path.expanduser(path)) for path in named if path]


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, be it there or not."""
    with suppress(OSError):  # one of them is not there
        return os.path.samefile(one, other)
    with suppress(OSError):  # the current folder is gone
        return os.path.realpath(one) == os.path.realpath(other)
    return False


def _checkpoint(options: argparse.Namespace, output: Path) -> Path | None:
    """Where the state of the run is saved: the file that is named, or a folder in the user's cache."""
    from npstyle.run.checkpoint_writer import check_place, folder

    if options.no_checkpoint:
        return None
    if options.checkpoint:
        path = Path(options.checkpoint)
        if _same_file(path, output):
            raise UserError(f"checkpoint: {path}", "the output", "another name", "choose one such as run.npz")
        check_place(path)
        return path
    try:
        path = folder(tidy=not options.resume)  # no checkpoint is too old to be resumed
        check_place(path)
        return path
    except OSError as error:
        print_err(f"npstyle: checkpoint: found {error}; expected a folder to write to; continuing without")
    except UserError as error:
        print_err(f"npstyle: {error}; continuing without checkpoints")
    return None


def _checkpoint_every() -> float:
    """Seconds between two checkpoints; a variable for those who test runs that are killed."""
    return check_nonnegative("NPSTYLE_CHECKPOINT_EVERY", os.environ.get("NPSTYLE_CHECKPOINT_EVERY", 60))


def _tidy_checkpoint(options: argparse.Namespace, output: Path, result: StyleResult) -> None:
    """Say how to resume an interrupted run; remove the checkpoint of one that is complete."""
    if result.checkpoint is None or result.diverged:
        return
    if not result.interrupted:
        if not _same_file(result.checkpoint, output):  # file systems may ignore case
            with suppress(OSError):
                os.unlink(result.checkpoint)
    elif not options.quiet and os.path.exists(result.checkpoint):
        size = format_bytes(os.path.getsize(result.checkpoint))
        print_err(f"{HOW_TO_RESUME} (its state: {size}, {result.checkpoint})")


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
        images.write(path, picture, overwrite, alpha=alpha, depth=options.depth, text=metadata)

    save_or_refuge(output, write, options.overwrite)


def _metadata(
    options: argparse.Namespace, request: Request, result: StyleResult, random: bool
) -> dict[str, str]:
    """The options of the run, as they are kept in the picture's file for `npstyle show`."""
    from npstyle.images.metadata import as_text

    settings = request.settings
    values = {"content": options.content, "style": options.style, "size": request.size}
    if request.exact:
        values |= {"size": None, "width": options.width, "height": options.height}
    names = ("seed", "weights", "preprocessing", "convolution", "style_scale")
    values |= {name: getattr(options, name) for name in names}
    values |= filter_options(options, random)
    for field in map(field_of, RECIPE):
        if hasattr(settings, field):
            value = getattr(settings, field)
            values[field] = value if isinstance(value, bool) else format_field(settings, field)
    if options.init not in (None, *STARTS):
        values["init"] = options.init
    masks = {name: getattr(options, name) for name in ("content_mask", "style_mask", "keep_mask")}
    blend = None if options.blend is None else ",".join(map(repr, options.blend))
    more = {"blend": blend, "alpha": options.alpha or None, "depth": options.depth}
    more["enlarge"] = options.enlarge or None
    return as_text({**values, **masks, **more}, note=result.message, filters=result.weights)


# ------------------------------------------------------------------------------------------------
# Options
# ------------------------------------------------------------------------------------------------


def painting_parser() -> argparse.ArgumentParser:
    """All options of the main job."""
    parser = Parser(
        prog="npstyle",
        description="Paint a photograph in the style of a painting (neural style transfer).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("content", metavar="CONTENT", type=Path, help="the photograph")
    add("style", metavar="STYLE", type=Path, nargs="+", help="the painting; several can be blended")
    add_output(parser, "CONTENT-STYLE.png")
    add("--preset", choices=list(PRESETS), help="a recipe by name, see npstyle presets; options change it")
    add_run(parser, size=512)
    parser.set_defaults(size=None)  # 512, unless another option says how large
    add("--enlarge", action="store_true", help="let the picture become larger than the photograph")
    text = "exact {} in pixels, instead of --size; with both, the photograph is cropped, around its center"
    for side in ("width", "height"):
        add(f"--{side}", type=integer(16), metavar="N", help=text.format(side))
    methods = CONVOLUTION_METHODS
    add("--convolution", choices=methods, default="auto", help="how convolutions are computed (auto)")
    add("--depth", type=int, choices=(8, 16), default=8, help="bits per channel; 16 for PNG and TIFF (8)")
    add("--alpha", action="store_true", help="keep the photograph's transparency")
    add("--version", action="version", version=f"npstyle {__version__}")
    _add_long_runs(parser)
    _add_regions(parser)
    add_recipe(parser)
    return parser


def _add_long_runs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("long runs")
    text = "write a picture after every N iterations"
    group.add_argument("--save-every", type=integer(1), metavar="N", help=text)
    checkpoint = group.add_mutually_exclusive_group()
    text = "where the state of the run is saved every minute (a file in the user's cache)"
    checkpoint.add_argument("--checkpoint", type=Path, metavar="FILE", help=text)
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
        add(f"--{option}-mask", action="append", default=[], type=Path, metavar="MASK", help=text)
    add("--keep-mask", type=Path, metavar="MASK", help="white where the photograph stays as it is")
