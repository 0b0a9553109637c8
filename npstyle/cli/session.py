"""What all commands do alike: Ctrl-C and other signals, memory, filters, warnings, saving, exit status.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.cli.interrupts import Signals
from npstyle.cli.progress import shows_bars
from npstyle.cli.terminal import print_err, print_out
from npstyle.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from npstyle.run import StyleResult
    from npstyle.weights import Weights


WRITE_ERRORS = (UserError, OSError, MemoryError)  # what writing a picture may raise

# ------------------------------------------------------------------------------------------------
# Warnings
# ------------------------------------------------------------------------------------------------


@contextmanager
def session() -> Iterator[Signals]:
    """The context of a command that runs the network: its signals, and its warnings printed as lines."""
    with warnings_as_lines(), Signals() as signals:  # in this order: first all that is imported
        yield signals


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print npstyle's warnings to standard error, each once, whatever filters Python was started with."""
    from npstyle.images import PictureWarning
    from npstyle.run import CheckpointWarning
    from npstyle.weights import RandomFiltersWarning, WeightsWarning

    printed: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) in printed:
            return
        printed.add(str(message))
        if isinstance(message, RandomFiltersWarning):
            rule = "=" * 78
            print_err(f"{rule}\nnpstyle: WARNING: {message}\n{rule}")
        else:
            print_err(f"npstyle: {message}")

    with warnings.catch_warnings():
        for category in (PictureWarning, CheckpointWarning, WeightsWarning):
            warnings.simplefilter("always", category)
        # What runs in another way than it was meant to, such as L-BFGS with another version of SciPy.
        warnings.filterwarnings("always", category=RuntimeWarning, module=r"npstyle\.")
        warnings.showwarning = show
        yield


# ------------------------------------------------------------------------------------------------
# Memory, filters and the picture to start from
# ------------------------------------------------------------------------------------------------


def check_memory(
    options: argparse.Namespace,
    bytes_at: Callable[[int], float],
    size: int,
    longest: int,
    option: Callable[[int], str] = "--size {}".format,
    allowed: float | None = None,
) -> str:
    """Refuse a run for which there is too little memory, unless --force is given.

    Parameters
    ----------
    options
        Those of `arguments.add_size` and `add_resources`.
    bytes_at : callable
        Bytes that the run takes with a --size.
    size : int
        The one that is asked for.
    longest : int
        The longer side of the picture, beyond which --size changes nothing.
    option : callable
        How a size is asked for.
    allowed : float, optional
        Bytes that --memory allows, in place of what is free.

    Returns
    -------
    str
        The memory that the run takes, in words.

    Raises
    ------
    UserError
        With a size that fits, if any does.
    """
    from npstyle.run import memory

    needed = bytes_at(size)
    free = memory.available_memory(options.threads) if allowed is None else allowed
    if free is not None and needed > free and not options.force:
        possible = memory.largest(lambda size: bytes_at(size) <= free, 16, min(size, longest))
        more = "free some" if allowed is None else "allow more"
        cure = f"try {option(possible)}" if possible else more
        raise UserError(
            "memory",
            f"{format_bytes(free)} {'free' if allowed is None else 'allowed by --memory'}",
            f"about {format_bytes(needed)}",
            f"{cure}, or --force to run all the same",
        )
    return f"about {format_bytes(needed)} of memory"


def announce(options: argparse.Namespace, run: str, memory: str, weights: Weights) -> None:
    """Print what is run, the memory it takes and its filters; and, also with --quiet, what makes it slow."""
    warn_if_slow(options.threads)
    if not options.quiet:
        print_err(f"{run}: {memory}")
        print_err(f"filters: {weights.source}")


def warn_if_slow(threads: int | None) -> None:
    """Print, in every run, what makes it many times slower than it could be."""
    from npstyle import _kernels

    if _kernels.IMPLEMENTATION == "reference":
        print_err("npstyle: NPSTYLE_KERNELS=reference: plain NumPy, many times slower")
    _kernels.warn_without_openmp(threads)  # here, as a command may compute before it has a network


def count_of(number: int, noun: str) -> str:
    """As "1 iteration" and "2 iterations"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_bytes(number: float) -> str:
    """As "186 MB" and "2.8 GB"."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def load_weights(options: argparse.Namespace, deepest: str) -> Weights:
    """The filters that --weights names, up to a layer; a bar shows a download on a terminal."""
    from npstyle import weights

    return weights.load_weights(
        options.weights,
        options.seed,
        deepest,
        progress=shows_bars(options.quiet),
        preprocessing=options.preprocessing,
    )


def filter_options(options: argparse.Namespace, random: bool) -> dict[str, str | None]:
    """--weights and --preprocessing of the filters that `load_weights` returned, whatever led to them."""
    if random:
        return {"weights": "random", "preprocessing": None}
    named = os.environ.get("NPSTYLE_WEIGHTS") if options.weights in ("auto", "imagenet") else None
    return {"weights": named or options.weights, "preprocessing": options.preprocessing}


def read_init(init: str | None, kinds: Sequence[str]) -> NDArray[Any] | None:
    """The picture that --init names, or None if it names a kind of start or is not given."""
    from npstyle import images

    if init is None or init in kinds:
        return None
    try:
        return images.read(init)
    except UserError as error:
        expected = f"{', '.join(kinds)} or a picture file"
        name = error.name.replace("picture", "--init", 1)
        raise UserError(name, error.found, expected, error.cure) from None


# ------------------------------------------------------------------------------------------------
# Saving
# ------------------------------------------------------------------------------------------------


def save_or_refuge(
    output: Path,
    write: Callable[[Path, bool], None],
    overwrite: bool,
    extension: str = ".png",
    result: str = "the picture is",
) -> None:
    """Write the result of a long run; to the folder for temporary files, if that has become impossible.

    Parameters
    ----------
    output : Path
        A picture or another file, or a folder for several.
    write : callable
        Writes to a path, and may replace what is there if its second argument is True.
    extension : str
        Of the path in the folder for temporary files.
    result : str
        What was to be written, for the message, with its verb.

    Raises
    ------
    UserError
        It could not be written to `output`; it says where it is instead.
    """
    try:
        write(output, overwrite)
        return
    except WRITE_ERRORS as error:
        failure = write_error(error, output)
    refuge = Path(f"npstyle-{secrets.token_hex(4)}-{output.stem[:50]}{extension}")
    try:
        refuge = tempfile.gettempdir() / refuge  # OSError if there is none
        write(refuge, False)
    except WRITE_ERRORS as error:
        cure = f"{result} lost, as {refuge} can't be written either ({error})"
        raise UserError(failure.name, failure.found, failure.expected, cure) from error
    cure = f"{result} in {refuge}"
    raise UserError(failure.name, failure.found, failure.expected, cure) from failure


def write_error(error: BaseException, output: Path) -> UserError:
    """What one of WRITE_ERRORS says, in the form of a UserError."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):  # the current folder itself is gone
        return UserError(f"output: {output}", f"{error.strerror} on writing", "a folder", "choose another")
    return UserError(f"output: {output}", "too little memory to write it", "more", "close other programs")


def report(
    output: Path,
    result: StyleResult,
    seconds: float,
    quiet: bool,
    print_line: Callable[[str], None] = print_out,
) -> None:
    """Print the line about a picture that was saved; an error if its run diverged."""
    if result.diverged:
        print_err(f"npstyle: {output}: {result.message}")
    elif not quiet:
        H, W, _ = result.image.shape
        losses = result.levels[-1].losses if result.levels else ()
        change = f", loss {losses[0]:.4g} -> {result.loss:.4g}" if losses else ""
        print_line(f"{output}: {W} x {H} pixels, {result.message} in {seconds:.0f} s{change}")
