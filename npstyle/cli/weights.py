"""`npstyle weights`: list, fetch, convert, verify and normalize files with filters.

Exit status as of `npstyle`: 0 done, 1 failed or found something wrong, 2 wrong usage. What is slow to import
is imported where it is used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.architecture import CONVOLUTIONS, POOLING_METHODS, convolutions_up_to, deepest
from npstyle.cli.terminal import DONE, FAILED, Parser, print_err, print_out
from npstyle.errors import UserError, check_choice, check_integer, check_nonnegative
from npstyle.weights import download as _download
from npstyle.weights import registry as _registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from npstyle._typing import Preprocessing
    from npstyle.weights import Weights
    from npstyle.weights.registry import Entry


def main(argv: list[str]) -> int:
    """Do what the words after `npstyle weights` say, and return the exit status."""
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    from npstyle.initialize import FLOOR
    from npstyle.weights import PREPROCESSINGS

    parser = Parser(prog="npstyle weights", description="Files with VGG19's filters.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, does: Callable[[argparse.Namespace], int], text: str) -> Any:
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(command=does)
        return made.add_argument

    def of_input(add: Any) -> None:
        add("--preprocessing", choices=PREPROCESSINGS, help="what the filters were trained on")

    def of_output(add: Any) -> None:
        add("--overwrite", action="store_true", help="replace OUT if it exists")

    command("list", _list, "The registered files: size, where they are, intact or damaged.")
    add = command("fetch", _fetch, "Download a registered file and print where it is.")
    add("name", metavar="NAME", nargs="?", help="one of `npstyle weights list` (the first)")
    add = command("convert", _convert, "Read a file of any format and write .npz or Keras .h5.")
    add("source", metavar="IN", type=Path)
    add("target", metavar="OUT", type=Path)
    of_input(add)
    of_output(add)
    add = command("verify", _verify, "Compare checksums, shapes and numbers; exit with 1 if any is wrong.")
    add("files", metavar="FILE", type=Path, nargs="*", help="(every registered one, and NPSTYLE_WEIGHTS)")
    of_input(add)
    add = command("normalize", _normalize, "Write the paper's normalized network: mean activations of 1.")
    add("source", metavar="WEIGHTS", help="a file, or auto")
    add("pictures", metavar="PICTURE", type=Path, nargs="+", help="over which activations are averaged")
    add("-o", "--output", metavar="OUT", dest="target", type=Path, required=True, help=".npz or .h5")
    text = f"share of a layer's median below which a mean activation does not count ({FLOOR})"
    add(
        "--floor",
        metavar="X",
        type=_checked(lambda x: check_nonnegative("floor", x)),
        default=FLOOR,
        help=text,
    )
    add("--pooling", choices=POOLING_METHODS, default="average", help="(average)")
    size = _checked(lambda x: check_integer("size", _as_int(x), 16))
    add("--size", metavar="N", type=size, default=512, help="longer side of pictures, never enlarging (512)")
    of_input(add)
    of_output(add)
    return parser


def _checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type for argparse: what a UserError says is wrong usage."""

    def checked(text: str) -> Any:
        try:
            return convert(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(f"found {error.found}; expected {error.expected}") from error

    return checked


def _as_int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _list(options: argparse.Namespace) -> int:
    for entry in _registry.registry():
        about = f"about {entry.megabytes} MB" if entry.megabytes else "of unknown size"
        copies = list(_copies(entry))
        print_out(f"{entry.name}:" + (f" absent, {about}" if not copies else ""))
        for path, state in copies:
            print_out(f"  {state}, {path.stat().st_size / 1e6:.0f} MB, {path}")
    print_out(f"project folder: {_registry.project_folder()}")
    print_out(f"cache: {_registry.cache_folder()}")
    named = os.environ.get("NPSTYLE_WEIGHTS")
    missing = ", no file of that name" if named and not os.path.isfile(os.path.expanduser(named)) else ""
    print_out(f"NPSTYLE_WEIGHTS: {named or 'not set'}{missing}")
    return DONE


def _copies(entry: Entry) -> Iterator[tuple[Path, str]]:
    """Where a registered file lies, and in what state."""
    for folder in dict.fromkeys([_registry.project_folder(), _registry.cache_folder()]):
        path = folder / entry.name
        if os.path.isfile(path):
            try:
                good = _registry.matches_checksum(path, entry)
                yield path, "intact" if good else f"damaged ({entry.algorithm} is not the registered one)"
            except OSError as error:
                yield path, f"unreadable ({error.strerror})"


def _fetch(options: argparse.Namespace) -> int:
    entries = {entry.name: entry for entry in _registry.registry()}
    if not entries:
        raise UserError("registry", "no files", "at least one", "unset NPSTYLE_REGISTRY")
    name = options.name or next(iter(entries))
    check_choice("name", name, entries)
    for path, state in _copies(entries[name]):
        if state == "intact":
            print_out(str(path))
            return DONE
    progress = sys.stderr is not None and sys.stderr.isatty()
    fetched, failures = _download.fetch_any(progress, [entries[name]])
    if fetched is None:
        cure = f"fetch it on another machine and put it into {_registry.cache_folder()}"
        raise UserError(f"weights: {name}", "; ".join(failures) or "no address", "a download", cure)
    print_out(str(fetched))
    return DONE


def _convert(options: argparse.Namespace) -> int:
    from npstyle.weights import check_target, read_weights, write_weights

    check_target(options.target, options.overwrite)
    weights = read_weights(options.source, preprocessing=options.preprocessing)
    written = write_weights(options.target, weights, options.overwrite)
    print_out(f"{written}: {_summary(weights)}, from {weights.source}")
    return DONE


def _verify(options: argparse.Namespace) -> int:
    files = options.files or _files_here()
    if not files:
        cure = "name one, or npstyle weights fetch"
        raise UserError("weights", "no file to verify", "at least one", cure)
    wrong = 0
    for path in files:
        try:
            print_out(_verified(path, options.preprocessing))
        except UserError as error:
            wrong += 1
            print_err(f"npstyle: {error}")
    return FAILED if wrong else DONE


def _files_here() -> list[Path]:
    """Every registered file that is here, and the one that NPSTYLE_WEIGHTS names."""
    found = [path for entry in _registry.registry() for path, _ in _copies(entry)]
    named = os.environ.get("NPSTYLE_WEIGHTS")
    return list(dict.fromkeys([*found, *([Path(named)] if named else [])]))


def _verified(path: Path, preprocessing: Preprocessing | None) -> str:
    """What is good about a file; a UserError if anything is not."""
    from npstyle.weights import read_weights

    weights = read_weights(path, preprocessing=preprocessing)
    missing = [name for name in convolutions_up_to(deepest(weights)) if name not in weights]
    if missing:
        raise UserError(
            f"weights: {path}", f"no {missing[0]}", "all layers up to the deepest", "take a file of VGG19"
        )
    known = "not a registered name"
    for entry in _registry.registry():
        if entry.name == path.name:
            if not _registry.matches_checksum(path.expanduser(), entry):
                found = f"another {entry.algorithm} than is registered for that name"
                raise UserError(f"weights: {path}", found, entry.checksum, "fetch it again")
            known = f"{entry.algorithm} as registered"
    return f"{weights.source}: {_summary(weights)}, {known}"


def _summary(weights: Weights) -> str:
    names = list(weights)
    return f"{names[0]} ... {names[-1]} ({len(names)} of {len(CONVOLUTIONS)}), {weights.preprocessing}"


def _normalize(options: argparse.Namespace) -> int:
    from npstyle import images
    from npstyle.initialize import mean_activations, normalize_network
    from npstyle.vgg import check_size
    from npstyle.weights import check_target, load_weights, write_weights

    check_target(options.target, options.overwrite)
    pictures = [images.fit(images.read(path), options.size) for path in options.pictures]
    source = "imagenet" if options.source == "auto" else options.source
    weights = load_weights(source, progress=True, preprocessing=options.preprocessing)
    if weights.random:
        raise UserError("weights", "random filters", "trained ones", "a run scales random filters itself")
    for path, picture in zip(options.pictures, pictures, strict=True):
        check_size(picture.shape, weights, f"picture: {path}")
    before = mean_activations(weights, pictures, options.pooling)
    scaled = normalize_network(weights, pictures, options.floor, options.pooling)
    written = write_weights(options.target, scaled, options.overwrite)
    for line in _table(before, mean_activations(scaled, pictures, options.pooling)):
        print_out(line)
    print_out(f"{written}: {_summary(scaled)}")
    return DONE


def _table(
    before: Mapping[str, NDArray[np.float64]], after: Mapping[str, NDArray[np.float64]]
) -> Iterator[str]:
    """Mean activations of each layer's filters: least, median and largest; and how many are not 1 now."""
    import numpy as np

    yield f"{'layer':9}{'mean activation before':>27}{'after':>27}{'not 1':>9}"
    yield " " * 9 + 2 * f"{'least':>9}{'median':>9}{'largest':>9}"
    for name in before:
        numbers = [f(means[name]) for means in (before, after) for f in (np.min, np.median, np.max)]
        other = np.count_nonzero(np.abs(after[name] - 1) > 0.01)
        yield f"{name:9}" + "".join(f"{value:9.3g}" for value in numbers) + f"{other:9}"
