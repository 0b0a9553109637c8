"""The command line: options in, pictures read, a run, a picture written. No mathematics.

Exit status: 0 done, 1 failed (one line on standard error), 2 wrong usage, 130 interrupted (the
picture so far is saved). Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from npstyle._version import __version__
from npstyle.architecture import CONVOLUTION_METHODS
from npstyle.errors import UserError
from npstyle.settings import CHOICES, PRESETS, STARTS, Settings, preset

if TYPE_CHECKING:
    from npstyle.pictures import Pictures
    from npstyle.run import Progress, StyleResult
    from npstyle.weights import Weights

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
IMPATIENCE = 2.0  # seconds within which Ctrl-C pressed again means the same
WORTH_TELLING = 10.0  # seconds; shorter runs are over before anyone plans for them


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


# Options that change a field of the same name in Settings: its type, and what to call it; None for a choice.
RECIPE: dict[str, tuple[Any, str | None, str]] = {
    "iterations": (_whole(0), "N", "steps at each size"),
    "smallest": (_whole(0), "N", "longer side at which to begin, doubling in two steps; 0 for one size only"),
    "content-weight": (float, "X", "how much the drawing counts"),
    "style-weight": (float, "X", "how much the manner counts"),
    "tv-weight": (float, "X", "how much smoothness counts"),
    "content-layers": (str, "A,B", "as conv4_2 or conv4_2:2,conv5_2:1 with weights"),
    "style-layers": (str, "A,B", "likewise"),
    "content-blend": (float, "X", "the share of conv4_2, the rest of conv5_2, in place of --content-layers"),
    "style-layer-exponent": (float, "X", "the n-th style layer counts X^(n-1) times as much"),
    "average-layers": (bool, None, "divide the layers' weights by their sum"),
    "scaling": (str, None, "in what a layer's distance is measured"),
    "tv": (str, None, "the formula of smoothness"),
    "mixture": (str, None, "of several styles: one blended target, or the mean of the losses of each"),
    "style-as-content": (bool, None, "stretch styles to the size of the photograph"),
    "pooling": (str, None, "of the network"),
    "padding": (str, None, "beyond the border of the picture"),
    "init": (str, "START", "content, noise, blend or a picture file"),
    "init-noise": (float, "X", "share of noise in a blend"),
    "noise": (float, "X", "deviation of normal noise around the mean colour; 0 for uniform noise"),
    "optimizer": (str, None, "what moves the pixels"),
    "learning-rate": (float, "X", "of Adam"),
    "history": (_whole(1), "N", "steps that L-BFGS remembers"),
    "color": (
        str,
        None,
        "the style's colours; the photograph's by luma afterwards, by a match beforehand, or luminance only",
    ),
}

EPILOG = """\
examples:
  npstyle photo.jpg painting.jpg                     photo-painting.png, at most 512 pixels wide or high
  npstyle photo.jpg painting.jpg -o out.jpg --size 800 --iterations 100
  npstyle photo.jpg painting.jpg --style-weight 1000 more of the style
  npstyle photo.jpg painting.jpg --preset paper      the formula of the paper, starting from noise
  npstyle photo.jpg painting.jpg --color match       in the colours of the photograph
  npstyle presets                                    recipes by name
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may have letters the terminal has not
    try:
        return command(arguments)
    except (UserError, ImportError) as error:
        _tell(f"npstyle: {error}")
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        _tell(f"npstyle: memory: found too little{what}; expected more; try a smaller --size")
    except KeyboardInterrupt:
        _tell("\nnpstyle: interrupted before there was a picture; nothing was written")
        return INTERRUPTED
    return FAILED


def _tell(text: str) -> None:
    """Print to standard error; that nobody listens there must not end a run."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _say(text: str) -> None:
    """Print to standard output."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever read our output, head for example, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        raise UserError("standard output", str(error.strerror), "room to write to", "free some") from error


def paint(argv: list[str]) -> int:
    """The main job: a picture from a photograph and a painting."""
    parser = painting_parser()
    options = parser.parse_args(argv)
    try:
        settings = settings_from(options)
    except UserError as error:
        option = f"--{error.name.replace('_', '-')}: " if hasattr(options, error.name) else ""
        parser.error(option + str(error))
    from npstyle import images
    from npstyle.pictures import read_all
    from npstyle.run import scales, stylize

    output = images.check_output(options.output or default_output(options), options.overwrite)
    extras: dict[str, Any] = {
        "blend": options.blend,
        "style_scale": options.style_scale,
        "content_masks": options.content_mask,
        "style_masks": options.style_mask,
        "keep": options.keep_mask,
    }
    pictures = read_all(
        options.content, options.style, options.size, settings, init=_starting_file(options), **extras
    )
    H, W, _ = pictures.content.shape
    W, H = images.fitted_size(W, H, options.size)
    images.check_dimensions(output, W, H)
    memory = _memory_for(options, settings, pictures)
    weights = _weights(options, settings)
    if weights.random:
        settings = settings_from(options, otherwise="random")
    _tell_what_is_slow(options)
    sizes = scales(max(W, H), settings.smallest)
    if not options.quiet:
        steps = f"{settings.iterations} iterations"
        if len(sizes) > 1:
            steps += f" at each of {len(sizes)} sizes from {sizes[0]} up"
        _tell(f"{W} x {H} pixels, {steps}: about {_gigabytes(memory)} of memory")
    extras["content_masks"], extras["style_masks"] = pictures.content_masks, pictures.style_masks
    began = time.monotonic()
    with _Bar(options) as bar, _ctrl_c() as no_more:
        result = stylize(
            pictures.content,
            pictures.styles,
            settings=settings,
            weights=weights,
            size=options.size,
            seed=options.seed,
            init=pictures.init,
            **{**extras, "keep": pictures.keep},
            convolution=options.convolution,
            threads=options.threads,
            callback=bar.step,
        )
        no_more()
        bar.close()
        _save(output, result, options.overwrite)
        if result.diverged:
            _tell(f"npstyle: {output}: {result.message}")
        elif not options.quiet:
            _report(result, output, time.monotonic() - began)
    if result.diverged:
        return FAILED
    return INTERRUPTED if result.interrupted else DONE


def _starting_file(options: argparse.Namespace) -> Any:
    """The picture that --init names, or None where it names a kind of start."""
    from npstyle import images

    if options.init in (None, *STARTS):
        return None
    try:
        return images.read(options.init)
    except UserError as error:
        kinds = ", ".join(STARTS)
        raise UserError(
            f"--init: {options.init}", error.found, f"{kinds} or a picture file", error.cure
        ) from None


def _weights(options: argparse.Namespace, settings: Settings) -> Weights:
    """The filters asked for; that random ones take their place is shown whatever filters warnings have."""
    from npstyle.architecture import deepest
    from npstyle.weights import RandomFiltersWarning, load_weights

    with warnings.catch_warnings():
        warnings.simplefilter("always", RandomFiltersWarning)
        warnings.showwarning = _show_warning
        top = deepest(settings.layers)
        return load_weights(
            options.weights,
            options.seed,
            top,
            progress=_may_show_bar(options),
            preparation=options.preparation,
        )


def _memory_for(options: argparse.Namespace, settings: Settings, pictures: Pictures) -> float:
    """Bytes that the run will take; a UserError with a size that fits, if they are not there."""
    from npstyle import estimate, images

    masks = bool(pictures.content_masks)

    def fitted(picture: Any, size: int) -> tuple[int, int]:
        H, W = picture.shape[:2]
        width, height = images.fitted_size(W, H, size)
        return height, width

    def bytes_at(size: int) -> float:
        styles = [fitted(style, max(1, round(size * options.style_scale))) for style in pictures.styles]
        shape = fitted(pictures.content, size)
        return estimate.of_run(shape, styles, settings, options.convolution, options.threads, masks)

    needed, free = bytes_at(options.size), estimate.available_memory()
    if free is None or needed <= free or options.force:
        return needed
    fitting = estimate.largest(lambda size: bytes_at(size) <= free, 16, max(pictures.content.shape[:2]))
    cure = f"try --size {fitting}" if fitting else "free some"
    raise UserError(
        "memory", f"{_gigabytes(free)} free", f"about {_gigabytes(needed)}", f"{cure}, or --force to go on"
    )


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _tell_what_is_slow(options: argparse.Namespace) -> None:
    from npstyle import _kernels

    if _kernels.IMPLEMENTATION == "reference":
        _tell("npstyle: NPSTYLE_KERNELS=reference: plain NumPy, many times slower")
    elif options.threads and options.threads > 1 and not _kernels.OPENMP:
        _tell("npstyle: --threads: built without OpenMP, so it runs on one thread")


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end the run once, however often it is pressed, and never keep a picture from being saved.

    Yields what is to be called when there is a picture to save: from then on Ctrl-C does nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or before in (signal.SIG_IGN, None):
        yield lambda: None  # not ours to choose, or Ctrl-C is not meant for a process in the background
        return
    pressed = -math.inf

    def interrupt(*_: object) -> None:
        # Pressed again at once it means the same; later, that the first was lost somewhere on its way.
        nonlocal pressed
        again, pressed = time.monotonic() - pressed < IMPATIENCE, time.monotonic()
        if not again:
            raise KeyboardInterrupt

    def no_more() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield no_more
    finally:
        signal.signal(signal.SIGINT, before)


def _save(output: Path, result: StyleResult, overwrite: bool) -> None:
    """Write the picture; where that has become impossible during the run, write it somewhere else."""
    from npstyle import images

    try:
        images.write(output, result.image, overwrite)
        return
    except (UserError, MemoryError) as error:
        first = (
            error
            if isinstance(error, UserError)
            else UserError(f"output: {output}", "too little memory to write it", "more", "")
        )
    refuge = Path(tempfile.gettempdir(), f"npstyle-{secrets.token_hex(4)}-{output.stem[:50]}.png")
    try:
        images.write(refuge, result.image, overwrite=False)
    except (UserError, MemoryError) as error:
        cure = f"the picture is lost, as {refuge} can't be written either ({error})"
        raise UserError(first.name, first.found, first.expected, cure) from error
    raise UserError(first.name, first.found, first.expected, f"the picture is in {refuge}") from first


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
    add("style", metavar="STYLE", type=Path, nargs="+", help="the painting; several are mixed")
    add(
        "-o", "--output", type=Path, metavar="OUT", help="picture to write (CONTENT-STYLE.png in this folder)"
    )
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add(
        "--size",
        type=_whole(16),
        default=512,
        metavar="N",
        help="longer side in pixels, never enlarging (512)",
    )
    add("--preset", choices=list(PRESETS), help="a recipe by name, see npstyle presets; options change it")
    add("--seed", type=_whole(0), default=0, help="of noise and random filters (0)", metavar="N")
    add("--weights", default="auto", metavar="W", help="auto, imagenet, random or a file (auto)")
    add("--preparation", choices=("caffe", "torchvision"), help="what a weights file was trained on")
    methods = CONVOLUTION_METHODS
    add("--convolution", choices=methods, default="auto", help="how convolutions are computed (auto)")
    add("--threads", type=_whole(1), help="(every core this process may use)", metavar="N")
    add("--force", action="store_true", help="go on where the memory seems too small")
    add("--quiet", action="store_true", help="say nothing but warnings and errors")
    add("--version", action="version", version=f"npstyle {__version__}")

    add = parser.add_argument_group("several styles, and regions").add_argument
    add("--blend", type=_numbers, metavar="X,X", help="how much each style counts (evenly)")
    add("--style-scale", type=float, default=1.0, metavar="X", help="size of the styles beside --size (1)")
    for option, meaning in (
        ("content", "white where the n-th style mask applies; repeat for more regions"),
        ("style", "white in the part of the style picture that is for that region"),
    ):
        add(f"--{option}-mask", action="append", default=[], type=Path, metavar="MASK", help=meaning)
    add("--keep-mask", type=Path, metavar="MASK", help="white where the photograph is left as it is")

    group = parser.add_argument_group("the recipe, instead of the preset's")
    for option, (kind, metavar, meaning) in RECIPE.items():
        field = option.replace("-", "_")
        text = f"{meaning} ({_presets_have(field)})" if hasattr(Settings, field) else meaning
        if kind is bool:
            group.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, help=text)
        elif metavar is None:
            group.add_argument(f"--{option}", choices=CHOICES[field], help=text)
        else:
            group.add_argument(f"--{option}", type=kind, metavar=metavar, help=text)
    return parser


def _presets_have(field: str) -> str:
    """What a field is by default."""
    return _text(getattr(Settings(), field))


def _text(value: Any) -> str:
    """A field of Settings as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_from(options: argparse.Namespace, otherwise: str = "default") -> Settings:
    """The preset named, or else the one given, with the options of the command line over it."""
    given = {option.replace("-", "_"): getattr(options, option.replace("-", "_")) for option in RECIPE}
    changes = {field: value for field, value in given.items() if value is not None}
    for kind in ("content", "style"):  # layers without weights of their own do not keep the preset's
        if f"{kind}_layers" in changes:
            changes[f"{kind}_layer_weights"] = None
    share = changes.pop("content_blend", None)
    if share is not None:
        if not 0 <= share <= 1:
            raise UserError("content_blend", f"{share:g}", "a share from 0 to 1", "1 is conv4_2 alone")
        changes["content_layers"] = ("conv4_2", "conv5_2")
        changes["content_layer_weights"] = (share, 1 - share)
    if changes.get("init") not in (None, *STARTS):
        del changes["init"]  # a file
    return replace(preset(options.preset or otherwise), **changes)


def presets(argv: list[str]) -> int:
    """Print the recipes: what a field is in each preset, where they differ."""
    parser = _Parser(prog="npstyle presets", description="The recipes of --preset, field by field.")
    parser.parse_args(argv)
    by_default, always = Settings(), ("content_layers", "style_layers", "content_weight", "style_weight")
    for name, settings in PRESETS.items():
        _say(name)
        for field in (option.replace("-", "_") for option in RECIPE):
            value = getattr(settings, field, None)
            differs = name == "default" or field in always or value != getattr(by_default, field, None)
            if value is not None and differs:
                _say(f"    --{field.replace('_', '-'):<24}{_shown(settings, field)}")
    return DONE


def _shown(settings: Settings, field: str) -> str:
    """A field as the command line takes it, layers with their weights."""
    value = getattr(settings, field)
    weights = getattr(settings, field.replace("layers", "layer_weights"), None) if "layers" in field else None
    if isinstance(value, tuple) and weights is not None:
        return ",".join(f"{name}:{weight:g}" for name, weight in zip(value, weights, strict=True))
    return _text(value)


def default_output(options: argparse.Namespace) -> Path:
    """photo.jpg and painting.jpg make photo-painting.png in the current folder."""
    return Path(f"{options.content.stem}-{options.style[0].stem}.png")


def info(argv: list[str]) -> int:
    """Print what this installation is made of and what it found."""
    parser = _Parser(prog="npstyle info", description="Versions, kernels, BLAS, threads, weights.")
    parser.parse_args(argv)
    from npstyle._info import lines

    for name, value in lines():
        _say(f"{name + ':':<12}{value}")
    return DONE


def weights(argv: list[str]) -> int:
    """List, fetch, convert, verify or normalise weights files."""
    from npstyle import weights_command

    return weights_command.main(argv)


SUBCOMMANDS = {"info": info, "presets": presets, "weights": weights}


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected numbers such as 2,1") from None


def _may_show_bar(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr is not None and sys.stderr.isatty()


class _Bar:
    """Progress with loss and time left, where someone is looking; elsewhere one line on the time left."""

    FIRST = 3  # iterations that the line is made from

    def __init__(self, options: argparse.Namespace) -> None:
        from tqdm import tqdm

        self.told = options.quiet or _may_show_bar(options)
        self.began = math.nan
        self.bar = tqdm(disable=not _may_show_bar(options), unit="it", dynamic_ncols=True)

    def step(self, progress: Progress) -> None:
        self.bar.total = progress.iterations
        h, w, _ = progress.pixels.shape
        self.bar.set_postfix_str(f"{w} x {h}, loss {progress.loss:.4g}", refresh=False)
        self.bar.update()
        if progress.iteration == 1:
            self.began = time.monotonic()
        elif progress.iteration == 1 + self.FIRST and not self.told:
            left = (time.monotonic() - self.began) / self.FIRST * _work_left(progress)
            if left > WORTH_TELLING:
                _tell(f"about {_duration(left)} to go")

    def close(self) -> None:
        self.bar.close()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _work_left(progress: Progress) -> float:
    """In iterations of the first scale; at each further one they take twice as long."""
    each = progress.iterations // progress.scales
    return sum(each * 2.0**scale for scale in range(progress.scales)) - progress.iteration


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _report(result: StyleResult, output: Path, seconds: float) -> None:
    H, W, _ = result.image.shape
    losses = f", loss {result.history[0]:.4g} -> {result.loss:.4g}" if result.history else ""
    _say(f"{output}: {W} x {H} pixels, {result.message} in {seconds:.0f} s{losses}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    rule = "=" * 78
    _tell(f"{rule}\nnpstyle: WARNING: {message}\n{rule}")
