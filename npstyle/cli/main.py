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
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.cli.arguments import RECIPE, painting_parser, settings_from, shown
from npstyle.cli.terminal import (
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    Parser,
    print_err,
    print_out,
    warnings_as_lines,
)
from npstyle.errors import UserError
from npstyle.presets import PRESETS
from npstyle.settings import STARTS, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from npstyle.run import Progress, StyleResult
    from npstyle.run.inputs import Request
    from npstyle.weights import Weights

STUDY = ("reconstruct", "texture", "figure", "inspect")
IMPATIENCE = 2.0  # seconds within which Ctrl-C pressed again means the same
CANT_WRITE = (UserError, OSError, MemoryError)  # what becomes of a picture that has lost its place
WORTH_TELLING = 10.0  # seconds; shorter runs are over before anyone plans for them


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
        print_err(f"npstyle: {error}")
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        print_err(f"npstyle: memory: found too little{what}; expected more; try a smaller --size")
    except KeyboardInterrupt:
        print_err("\nnpstyle: interrupted before there was a picture; nothing was written")
        return INTERRUPTED
    return FAILED


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
    from npstyle.run import stylize
    from npstyle.run.pyramid import levels

    output = images.check_output(options.output or default_output(options), options.overwrite)
    images.check_depth(output, options.depth)
    if options.alpha:
        images.check_alpha(output)
    every = _checkpoint_every()
    with _shown_as_lines():
        pictures = _pictures(options, settings)
    H, W, _ = pictures.content.shape
    W, H = images.fitted_size(W, H, options.size)
    images.check_dimensions(output, W, H)
    alpha = images.read_alpha(options.content) if options.alpha else None  # now, while the file is there
    alpha = None if alpha is None else images.resize(alpha, W, H)
    memory = _memory_for(options, pictures)
    weights = _weights(options, settings)
    if weights.random:
        settings = settings_from(options, otherwise="random")
    _tell_what_is_slow(options)
    sizes = levels(max(W, H), settings.min_size)
    if not options.quiet:
        steps = f"{settings.iterations} iterations"
        if len(sizes) > 1:
            steps += f" at each of {len(sizes)} sizes from {sizes[0]} up"
        print_err(f"{W} x {H} pixels, {steps}: about {_gigabytes(memory)} of memory")
    began = time.monotonic()
    with _Bar(options, output) as bar, _signals() as signals, _shown_as_lines():
        result = stylize(
            pictures.content,
            pictures.styles,
            settings=settings,
            weights=weights,
            size=options.size,
            seed=options.seed,
            init=pictures.init,
            blend=options.blend,
            style_scale=options.style_scale,
            content_masks=pictures.content_masks,
            style_masks=pictures.style_masks,
            keep=pictures.keep,
            convolution=options.convolution,
            threads=options.threads,
            callback=bar.step,
            checkpoint=_checkpoint(options),
            checkpoint_every=every,
            resume=options.resume is not None,
        )
        signals.no_more()
        bar.close()
        _save(output, result, options, _text_of(options, settings, result), alpha)
        if result.diverged:
            print_err(f"npstyle: {output}: {result.message}")
        elif not options.quiet:
            _report(result, output, time.monotonic() - began)
    if result.diverged:
        return FAILED
    if result.interrupted:
        if not options.quiet and result.checkpoint and os.path.exists(result.checkpoint):
            print_err("the same command with --resume --overwrite goes on")
        return TERMINATED if signals.terminated else INTERRUPTED
    if result.checkpoint:
        with suppress(OSError):
            os.unlink(result.checkpoint)
    return DONE


def _pictures(options: argparse.Namespace, settings: Settings) -> Request:
    from npstyle.run.inputs import Request

    return Request.read(
        options.content,
        options.style,
        settings=settings,
        size=options.size,
        blend=options.blend,
        style_scale=options.style_scale,
        content_masks=options.content_mask,
        style_masks=options.style_mask,
        keep=options.keep_mask,
        init=_starting_file(options),
    )


def _checkpoint(options: argparse.Namespace) -> Path | None:
    """Where the run's state is kept: a file named, or a folder in the user's cache."""
    if isinstance(options.resume, str):
        return Path(options.resume)
    if options.no_checkpoint:
        return None
    if options.checkpoint:
        return Path(options.checkpoint)
    from npstyle.run.checkpoint import folder

    try:
        return folder(tidy=options.resume is None)  # what is to be gone on from is never too old
    except OSError as error:
        print_err(f"npstyle: checkpoint: found {error}; expected a folder to write to; going on without")
        return None


def _checkpoint_every() -> float:
    """Seconds between two checkpoints; for those who test what becomes of a run that is killed."""

    from npstyle.errors import check_nonnegative

    return check_nonnegative("NPSTYLE_CHECKPOINT_EVERY", os.environ.get("NPSTYLE_CHECKPOINT_EVERY", 60))


def _text_of(options: argparse.Namespace, settings: Settings, result: StyleResult) -> dict[str, str]:
    """What the picture's file says of how it was made."""
    from npstyle.images.metadata import as_text

    given = ("content", "style", "size", "seed", "weights", "preprocessing", "convolution", "style_scale")
    text = {name: getattr(options, name) for name in given}
    for option in RECIPE:
        field = option.replace("-", "_")
        if hasattr(settings, field):
            value = getattr(settings, field)
            text[field] = value if isinstance(value, bool) else shown(settings, field)
    if options.init not in (None, *STARTS):
        text["init"] = options.init
    masks = {name: getattr(options, name) for name in ("content_mask", "style_mask", "keep_mask")}
    blend = None if options.blend is None else ",".join(map(repr, options.blend))
    extra = {"blend": blend, "alpha": options.alpha or None, "depth": options.depth}
    return as_text({**text, **masks, **extra}, note=result.message)


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
        warnings.showwarning = _show_in_a_frame
        top = deepest(settings.layers)
        return load_weights(
            options.weights,
            options.seed,
            top,
            progress=_may_show_bar(options),
            preprocessing=options.preprocessing,
        )


def _memory_for(options: argparse.Namespace, pictures: Request) -> float:
    """Bytes that the run will take; a UserError with a size that fits, if they are not there."""
    from npstyle.run import memory

    convolution, threads = options.convolution, options.threads
    needed = memory.run_memory(pictures, convolution, threads)
    free = memory.available_memory(threads)
    if free is None or needed <= free or options.force:
        return needed
    fitting = memory.largest_size(pictures, free, convolution, threads)
    cure = f"try --size {fitting}" if fitting else "free some"
    raise UserError(
        "memory", f"{_gigabytes(free)} free", f"about {_gigabytes(needed)}", f"{cure}, or --force to go on"
    )


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _tell_what_is_slow(options: argparse.Namespace) -> None:
    from npstyle import _kernels

    if _kernels.IMPLEMENTATION == "reference":
        print_err("npstyle: NPSTYLE_KERNELS=reference: plain NumPy, many times slower")
    elif options.threads and options.threads > 1 and not _kernels.OPENMP:
        print_err("npstyle: --threads: built without OpenMP, so it runs on one thread")


class _Signals:
    """What came from outside while the picture was painted."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self.numbers = numbers
        self.terminated = False
        self.pressed = -math.inf

    def interrupt(self, number: int, _: object) -> None:
        """Ctrl-C, or a request to end: end the run with the picture so far."""
        # Pressed again at once it means the same; later, that the first was lost somewhere on its way.
        again, self.pressed = time.monotonic() - self.pressed < IMPATIENCE, time.monotonic()
        self.terminated |= number == signal.SIGTERM
        if not again:
            raise KeyboardInterrupt

    def no_more(self) -> None:
        """There is a picture to save, and nothing is to keep it from being saved."""
        for number in self.numbers:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Let Ctrl-C and SIGTERM end the run once, however often they come, where they are meant for us."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread():
        before = {}  # not ours to choose
    signals = _Signals([number for number, does in before.items() if does not in (signal.SIG_IGN, None)])
    for number in signals.numbers:
        signal.signal(number, signals.interrupt)
    try:
        yield signals
    finally:
        for number in signals.numbers:
            signal.signal(number, before[number])


def _save(
    output: Path,
    result: StyleResult,
    options: argparse.Namespace,
    text: dict[str, str],
    alpha: NDArray[Any] | None,
) -> None:
    """Write the picture; where that has become impossible during the run, write it somewhere else."""
    from npstyle import images

    picture = result.pixels if options.depth == 16 else result.image

    def write(path: Path, overwrite: bool) -> None:
        images.write(path, picture, overwrite, alpha=alpha, depth=options.depth, text=text)

    try:
        write(output, options.overwrite)
        return
    except CANT_WRITE as error:
        first = _as_user_error(error, output)
    refuge = Path(tempfile.gettempdir(), f"npstyle-{secrets.token_hex(4)}-{output.stem[:50]}.png")
    try:
        write(refuge, overwrite=False)
    except CANT_WRITE as error:
        cure = f"the picture is lost, as {refuge} can't be written either ({error})"
        raise UserError(first.name, first.found, first.expected, cure) from error
    raise UserError(first.name, first.found, first.expected, f"the picture is in {refuge}") from first


def _as_user_error(error: BaseException, output: Path) -> UserError:
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):  # the current folder itself is gone
        return UserError(f"output: {output}", f"{error.strerror} on writing", "a folder", "choose another")
    return UserError(f"output: {output}", "too little memory to write it", "more", "")


def default_output(options: argparse.Namespace) -> Path:
    """photo.jpg and painting.jpg make photo-painting.png in the current folder."""
    return Path(f"{options.content.stem}-{options.style[0].stem}.png")


def presets(argv: list[str]) -> int:
    """Print the recipes: what a field is in each preset, where they differ."""
    parser = Parser(prog="npstyle presets", description="The recipes of --preset, field by field.")
    parser.parse_args(argv)
    by_default, always = Settings(), ("content_layers", "style_layers", "content_weight", "style_weight")
    for name, settings in PRESETS.items():
        print_out(name)
        for field in (option.replace("-", "_") for option in RECIPE):
            value = getattr(settings, field, None)
            differs = name == "default" or field in always or value != getattr(by_default, field, None)
            if value is not None and differs:
                print_out(f"    --{field.replace('_', '-'):<24}{shown(settings, field)}")
    return DONE


def info(argv: list[str]) -> int:
    """Print what this installation is made of and what it found."""
    parser = Parser(prog="npstyle info", description="Versions, kernels, BLAS, threads, weights.")
    parser.parse_args(argv)
    from npstyle.cli.info import lines

    for name, value in lines():
        print_out(f"{name + ':':<12}{value}")
    return DONE


def _elsewhere(module: str, function: str = "main") -> Callable[[list[str]], int]:
    """A subcommand of another module, which is imported when it is called."""

    def command(argv: list[str]) -> int:
        run: Callable[[list[str]], int] = getattr(import_module(f"npstyle.{module}"), function)
        return run(argv)

    return command


SUBCOMMANDS = {
    "info": info,
    "presets": presets,
    "weights": _elsewhere("cli.weights"),
    "show": _elsewhere("cli.show"),
    "gradcheck": _elsewhere("cli.gradcheck"),
    **{name: _elsewhere("cli.study", f"main_{name}") for name in STUDY},
}


def _may_show_bar(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr is not None and sys.stderr.isatty()


class _Bar:
    """Progress with loss and time left, where someone is looking; elsewhere one line on the time left."""

    FIRST = 3  # iterations that the line is made from

    def __init__(self, options: argparse.Namespace, output: Path) -> None:
        from tqdm import tqdm

        self.output, self.save_every = output, options.save_every
        self.told = options.quiet or _may_show_bar(options)
        self.began, self.steps = math.nan, 0
        self.bar = tqdm(disable=not _may_show_bar(options), unit="it", dynamic_ncols=True)

    def step(self, progress: Progress) -> None:
        self.bar.total = progress.iterations
        h, w, _ = progress.iterate.shape
        self.bar.set_postfix_str(f"{w} x {h}, loss {progress.loss:.4g}", refresh=False)
        self.bar.update(progress.iteration - self.bar.n)
        if self.save_every and progress.iteration % self.save_every == 0:
            self.save(progress)
        self.steps += 1
        if self.steps == 1:
            self.began = time.monotonic()
        elif self.steps == 1 + self.FIRST and not self.told:
            left = (time.monotonic() - self.began) / self.FIRST * _work_left(progress)
            if left > WORTH_TELLING:
                print_err(f"about {_duration(left)} to go")

    def save(self, progress: Progress) -> None:
        """The picture so far, beside the output: out.png, out-00050.png."""
        from npstyle import images

        path = self.output.with_stem(f"{self.output.stem}-{progress.iteration:05d}")
        try:
            images.write(path, progress.image, overwrite=True)
        except CANT_WRITE as error:
            print_err(f"npstyle: {_as_user_error(error, path)}; going on without pictures in between")
            self.save_every = None

    def close(self) -> None:
        self.bar.close()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _work_left(progress: Progress) -> float:
    """In iterations of this scale; at each further one they take twice as long."""
    each = progress.iterations // progress.levels
    here = progress.level * each - progress.iteration
    return here + sum(each * 2.0**more for more in range(1, progress.levels - progress.level + 1))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _report(result: StyleResult, output: Path, seconds: float) -> None:
    H, W, _ = result.image.shape
    losses = f", loss {result.losses[0]:.4g} -> {result.loss:.4g}" if result.losses else ""
    print_out(f"{output}: {W} x {H} pixels, {result.message} in {seconds:.0f} s{losses}")


def _shown_as_lines() -> AbstractContextManager[None]:
    from npstyle.images import ProfileWarning
    from npstyle.run import CheckpointWarning

    return warnings_as_lines(ProfileWarning, CheckpointWarning)


def _show_in_a_frame(message: Warning | str, *_: Any, **__: Any) -> None:
    rule = "=" * 78
    print_err(f"{rule}\nnpstyle: WARNING: {message}\n{rule}")
