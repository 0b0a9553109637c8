"""The command line: options in, pictures read, a run, a picture written. No mathematics.

Exit status: 0 done, 1 failed (one line on standard error), 2 wrong usage, 130 interrupted (the
picture so far is saved). Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from npstyle._version import __version__
from npstyle.errors import UserError
from npstyle.settings import POOLINGS, PRESETS, STARTS, Settings, preset

if TYPE_CHECKING:
    from npstyle.run import Progress, StyleResult

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

EPILOG = """\
examples:
  npstyle photo.jpg painting.jpg                     photo-painting.png, 512 pixels wide or high
  npstyle photo.jpg painting.jpg -o out.jpg --size 800 --iterations 500
  npstyle photo.jpg painting.jpg --style-weight 100  more of the style
  npstyle photo.jpg painting.jpg --preset paper      the formula of the paper, starting from noise
  npstyle info                                       versions, processor, weights
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"npstyle: wrong usage: {message}; see npstyle --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: Callable[[list[str]], int] = paint
    if arguments and arguments[0] in SUBCOMMANDS:
        command = SUBCOMMANDS[arguments.pop(0)]
    try:
        return command(arguments)
    except UserError as error:
        print(f"npstyle: {error}", file=sys.stderr)
    except ImportError as error:
        print(f"npstyle: {error}", file=sys.stderr)
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        print(
            f"npstyle: memory: found too little{what}; expected more; try a smaller --size", file=sys.stderr
        )
    except KeyboardInterrupt:
        print("\nnpstyle: interrupted before there was a picture; nothing was written", file=sys.stderr)
        return INTERRUPTED
    return FAILED


def paint(argv: list[str]) -> int:
    """The main job: a picture from a photograph and a painting."""
    parser = painting_parser()
    options = parser.parse_args(argv)
    try:
        settings = settings_from(options)
    except UserError as error:
        parser.error(str(error))
    from npstyle import _kernels, images
    from npstyle.architecture import deepest
    from npstyle.run import stylize
    from npstyle.weights import load_weights

    output = images.check_output(options.output or default_output(options), options.overwrite)
    content = images.read(options.content)
    styles = [images.read(path) for path in options.style]
    init = None if options.init in (None, *STARTS) else images.read(options.init)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        weights = load_weights(
            options.weights, options.seed, deepest(settings.layers), progress=_may_show_bar(options)
        )
    if weights.random:
        settings = settings_from(options, otherwise="random")
    if _kernels.IMPLEMENTATION == "reference":
        print("npstyle: NPSTYLE_KERNELS=reference: plain NumPy, many times slower", file=sys.stderr)
    if options.threads and options.threads > 1 and not _kernels.OPENMP:
        print("npstyle: --threads: built without OpenMP, so it runs on one thread", file=sys.stderr)
    began = time.monotonic()
    with _Bar(options) as bar:
        result = stylize(
            content,
            styles,
            settings=settings,
            weights=weights,
            size=options.size,
            iterations=options.iterations,
            seed=options.seed,
            init=init,
            convolution=options.convolution,
            threads=options.threads,
            callback=bar.step,
        )
    images.write(output, result.image)
    if not options.quiet:
        _report(result, output, time.monotonic() - began)
    return INTERRUPTED if result.interrupted else DONE


def painting_parser() -> argparse.ArgumentParser:
    """Options of the main job."""
    parser = _Parser(
        prog="npstyle",
        description="Paint a photograph in the manner of a painting (neural style transfer).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("content", metavar="CONTENT", type=Path, help="the photograph")
    add("style", metavar="STYLE", type=Path, nargs="+", help="the painting; of several, the mean is taken")
    add("-o", "--output", type=Path, metavar="OUT", help="picture to write (default: CONTENT-STYLE.png here)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add(
        "--size",
        type=_whole(16),
        default=512,
        metavar="N",
        help="longer side in pixels, never enlarging (512)",
    )
    add("--iterations", type=_whole(0), default=300, metavar="N", help="steps of L-BFGS (300)")
    add("--preset", choices=list(PRESETS), help="a recipe by name; the options below change it")
    add("--content-weight", type=float, metavar="X", help="how much the drawing counts (1)")
    add(
        "--style-weight",
        type=float,
        metavar="X",
        help=f"how much the manner counts ({Settings().style_weight:g})",
    )
    add("--tv-weight", type=float, metavar="X", help="how much smoothness counts (0)")
    add("--content-layers", metavar="A,B", help="default conv4_2; with random filters conv3_1")
    add("--style-layers", metavar="A,B", help="default conv1_1,conv2_1,conv3_1,conv4_1,conv5_1")
    add("--pooling", choices=POOLINGS, help="(average)")
    add("--init", metavar="START", help="content, noise, blend or a picture file (content)")
    add("--seed", type=_whole(0), default=0, metavar="N", help="of noise and random filters (0)")
    add("--weights", default="auto", metavar="W", help="auto, imagenet, random or a file (auto)")
    add(
        "--convolution",
        choices=("auto", "im2col"),
        default="auto",
        help="how convolutions are computed (auto)",
    )
    add("--threads", type=_whole(1), metavar="N", help="(every core this process may use)")
    add("--quiet", action="store_true", help="say nothing but warnings and errors")
    add("--version", action="version", version=f"npstyle {__version__}")
    return parser


def settings_from(options: argparse.Namespace, otherwise: str = "default") -> Settings:
    """The preset named, or else the one given, with the options of the command line over it."""
    fields = ("content_weight", "style_weight", "tv_weight", "content_layers", "style_layers", "pooling")
    changes = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    if options.init in STARTS:
        changes["init"] = options.init
    return replace(preset(options.preset or otherwise), **changes)


def default_output(options: argparse.Namespace) -> Path:
    """photo.jpg and painting.jpg make photo-painting.png in the current folder."""
    return Path(f"{options.content.stem}-{options.style[0].stem}.png")


def info(argv: list[str]) -> int:
    """Print what this installation is made of and what it found."""
    parser = _Parser(prog="npstyle info", description="Versions, kernels, BLAS, threads, weights.")
    parser.parse_args(argv)
    from npstyle._info import lines

    for name, value in lines():
        print(f"{name + ':':<12}{value}")
    return DONE


SUBCOMMANDS = {"info": info}


def _whole(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from {least}")
        return value

    return whole_number


def _may_show_bar(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr.isatty()


class _Bar:
    """Progress with loss and time left, where someone is looking."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=options.iterations, disable=not _may_show_bar(options), unit="it", dynamic_ncols=True
        )

    def step(self, progress: Progress) -> None:
        self.bar.set_postfix_str(f"loss {progress.loss:.4g}", refresh=False)
        self.bar.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()


def _report(result: StyleResult, output: Path, seconds: float) -> None:
    H, W, _ = result.image.shape
    losses = f", loss {result.history[0]:.4g} -> {result.loss:.4g}" if result.history else ""
    print(f"{output}: {W} x {H} pixels, {result.message} in {seconds:.0f} s{losses}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    rule = "=" * 78
    print(f"{rule}\nnpstyle: WARNING: {message}\n{rule}", file=sys.stderr)
