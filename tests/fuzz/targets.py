"""What npstyle does with an input of each kind, and the checks of how that ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from seeds import OPTIMIZERS, run

MAX_LINE = 2000  # characters of an error message


class FindingError(Exception):
    """npstyle did something that it must not do."""


def read_picture(path: Path) -> bool:
    from PIL import Image

    from npstyle import images

    # The default limit is tested elsewhere; pictures near it take seconds and gigabytes.
    Image.MAX_IMAGE_PIXELS = 10**6
    readers = (images.read, images.read_alpha, images.read_mask, images.describe)
    successes = [succeeds(partial(reader, path)) for reader in readers]
    return all(successes)


def read_weights_file(path: Path) -> bool:
    from npstyle import weights

    succeeds(partial(weights.read_weights, path))
    return succeeds(partial(weights.read_weights, path, "conv1_1", preprocessing="caffe"))


def read_checkpoint(path: Path) -> bool:
    from npstyle.run import checkpoint

    return succeeds(partial(checkpoint.read, path))


def resume_run(path: Path) -> bool:
    resume = partial(run, path, resume=True, checkpoint_every=1e9)
    successes = [succeeds(partial(resume, optimizer=optimizer)) for optimizer in OPTIMIZERS]
    return any(successes)


def read_registry(path: Path) -> bool:
    from npstyle import weights
    from npstyle.weights.registry import registry

    os.environ["NPSTYLE_REGISTRY"] = str(path)
    return succeeds(registry) & succeeds(weights.find_weights)


def run_command(path: Path) -> bool:
    from npstyle.cli.main import main

    folder = path.parent / "working-folder"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "FOLDER").mkdir(parents=True)
    for name in ("PHOTO", "BAD", "WEIGHTS"):
        shutil.copy(path.parent / name, folder / name)
    os.chdir(folder)
    os.environ["NPSTYLE_REGISTRY"] = str(path.parent / "empty.json")
    out, err = io.StringIO(), io.StringIO()
    arguments = json.loads(path.read_text())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: Any = main(arguments)
        except SystemExit as error:
            status = error.code
    os.chdir(path.parent)
    lines = [line for line in _without_frames(err.getvalue()) if ": its color profile" not in line]
    if status not in (0, 1, 2, None):
        raise FindingError(f"exit status {status}")
    if status == 0:  # a run that goes well also says which filters it has
        lines = [line for line in lines if not line.startswith("filters: ")]
    # Commands that look at several files may print a line for each.
    several = arguments[:1] == ["show"] or arguments[:2] == ["weights", "verify"]
    max_lines = len(arguments) if several else 1
    failed_silently = status in (1, 2) and not lines
    if len(lines) > max_lines or failed_silently or any("Traceback" in line for line in lines):
        raise FindingError(f"exit status {status} with {len(lines)} lines on standard error: {lines}")
    return bool(status == 0)


# Each returns whether there was a result.
TARGETS: dict[str, Callable[[Path], bool]] = {
    "pictures": read_picture,
    "weights": read_weights_file,
    "checkpoints": read_checkpoint,
    "resumed": resume_run,
    "registries": read_registry,
    "commands": run_command,
}
# Not by default: SciPy's L-BFGS-B trusts its state, so resuming from a checkpoint that was forged with all
# checksums right may crash the process. npstyle promises nothing for such a file.
DEFAULT_KINDS = [kind for kind in TARGETS if kind != "resumed"]


def succeeds(call: Callable[[], object]) -> bool:
    """Whether the call returns, rather than raises a UserError.

    Raises
    ------
    FindingError
        The message is not one short printable line, hides a programming error, or there were warnings other
        than documented ones.
    """
    from npstyle.errors import UserError
    from npstyle.images import PictureWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except UserError as error:
            success = False
            _check_message(error)
        else:
            success = True
    for warning in caught:
        if not issubclass(warning.category, (PictureWarning, ResourceWarning)):
            raise FindingError(f"the warning {warning.category.__name__}: {warning.message}")
        if not str(warning.message).isprintable():
            raise FindingError(f"a warning with control characters: {str(warning.message)!r}")
    return success


def _check_message(error: Exception) -> None:
    line = str(error)
    if type(error.__cause__) in (NameError, AssertionError):  # reported as damage of the file
        raise FindingError(f"{error.__cause__!r}") from error
    if len(line.splitlines()) != 1 or len(line) > MAX_LINE:
        raise FindingError(f"not one short line: {line[:300]!r} ({len(line)} characters)") from error
    if any(unicodedata.category(letter) == "Cc" for letter in line):
        raise FindingError(f"a message with control characters: {line!r}") from error


def _without_frames(text: str) -> Iterator[str]:
    """The lines outside of framed warnings."""
    inside = False
    for line in text.split("\n"):
        if line.startswith("=" * 70):
            inside = not inside
        elif line and not inside:
            yield line
