"""`npstyle inspect`: feature maps, Gram matrices, receptive fields, and the gradient of each loss.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from npstyle._runtime.paths import as_path
from npstyle.architecture import CONVOLUTIONS, channels, convolutions_up_to, deepest, log2_stride
from npstyle.cli.arguments import (
    add_overwrite,
    add_run,
    command_parser,
    input_file,
    integer,
    layer,
    nonnegative,
)
from npstyle.cli.interrupts import Signals
from npstyle.cli.run_files import check_no_input
from npstyle.cli.session import (
    announce,
    check_memory,
    count_of,
    load_weights,
    save_or_refuge,
    session,
)
from npstyle.cli.study import (
    add_style_layers,
    available_layers,
    check_picture_size,
    picture_text,
    size_at,
)
from npstyle.cli.terminal import DONE, print_out
from npstyle.errors import UserError


def main(argv: list[str]) -> int:
    """Show what layers and losses see in a picture, and return the exit status."""
    options = _parser().parse_args(argv)
    with session() as signals:
        return _inspect(options, signals)


def _parser() -> argparse.ArgumentParser:
    text = "Feature maps and Gram matrices of a picture, receptive fields, and the gradient of each loss."
    parser = command_parser("inspect", text)
    add = parser.add_argument
    add("picture", metavar="PICTURE", type=input_file, help="the picture to look at")
    add(
        "style",
        metavar="STYLE",
        type=input_file,
        nargs="?",
        help="the painting, for Gram matrices and style loss",
    )
    add_style_layers(parser, "--layers")
    add(
        "--content-layer",
        metavar="LAYER",
        type=layer,
        help="layer of the content loss (the deepest of --layers)",
    )
    text = "where the gradients of the losses are taken, such as a result (PICTURE, whose content loss is 0)"
    add("--at", metavar="FILE", type=input_file, help=text)
    text = "weight of the picture's edges in the loss, as of a run with --keep-edges (0)"
    add("--keep-edges", metavar="WEIGHT", type=nonnegative, default=0.0, help=text)
    add("--channels", metavar="N", type=integer(1), default=36, help="channels shown of each layer (36)")
    text = "folder for the pictures (PICTURE-inspected in this folder)"
    add("-o", "--output", metavar="FOLDER", type=as_path, help=text)
    add_overwrite(parser, "pictures in FOLDER")
    add_run(parser, size=256)
    return parser


def _inspect(options: argparse.Namespace, signals: Signals) -> int:
    folder = options.output or Path(f"{options.picture.stem}-inspected")
    _check_folder(folder)
    with _output_folder(folder):
        return _inspect_into(folder, options, signals)


def _inspect_into(folder: Path, options: argparse.Namespace, signals: Signals) -> int:
    from npstyle import images, study
    from npstyle.vgg import filters_of

    _check_files(folder, study.picture_names(options.layers or ()), options)
    paths = [path for path in (options.picture, options.style) if path is not None]
    originals = [images.read(path) for path in paths]
    at = None if options.at is None else images.read(options.at)
    weights = load_weights(options, "conv5_4")
    options.layers = available_layers(options.layers, weights)
    names = [*options.layers, options.content_layer or options.layers[0]]
    for name in convolutions_up_to(deepest(names)):
        filters_of(weights, name)  # raises UserError if it is missing
    for path, picture in zip(paths, originals, strict=True):
        check_picture_size(picture, options.size, names, path)

    def bytes_at(size: int) -> float:
        return _memory([size_at(picture, size) for picture in originals], names, options.threads)

    memory = check_memory(options, bytes_at, options.size, max(max(picture.shape) for picture in originals))
    pictures = [images.fit(picture, options.size) for picture in originals]
    H, W, _ = pictures[0].shape
    files = study.picture_names(options.layers)
    _check_files(folder, files, options)
    announce(options, f"{W} x {H} pixels, {count_of(len(options.layers), 'layer')}", memory, weights)
    inspection = study.inspect(
        pictures[0],
        pictures[1] if len(pictures) > 1 else None,
        options.layers,
        study.initialize_once(weights, pictures, names, options.threads),
        content_layer=options.content_layer,
        at=None if at is None else images.resize(at, W, H),
        channels=options.channels,
        keep_edges=options.keep_edges,
        threads=options.threads,
    )
    signals.ignore()
    text = picture_text(options, ["inspect"], weights)

    def write(path: Path, overwrite: bool) -> None:
        path.mkdir(exist_ok=True)
        for name in files:
            images.write(path / f"{name}.png", inspection.pictures[name], overwrite, text=text)

    save_or_refuge(folder, write, options.overwrite, extension="", result="the pictures are")
    if not options.quiet:
        print_out("\n".join([*inspection.table, ""]))
        print_out(f"{folder}: {', '.join(f'{name}.png' for name in files)}")
    return DONE


def _check_folder(folder: Path) -> None:
    """Raise UserError, before anything takes time, where there can be no such folder."""
    cure = "choose another, or make the folder that it is to be in"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output: {folder}", "a file", "a folder", "choose another name")
    try:
        has_parent = Path(os.path.realpath(folder)).parent.is_dir()
    except OSError as error:  # the current folder is gone
        raise UserError(f"output: {folder}", f"{error.strerror}", "a folder", cure) from error
    if not has_parent:
        raise UserError(f"output: {folder}", "no folder to make it in", "a folder", cure)


@contextmanager
def _output_folder(folder: Path) -> Iterator[None]:
    """Make the folder, and remove it if it stays empty."""
    existed = folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        cure = "choose another, or make the folder that it is to be in"
        raise UserError(f"output: {folder}", str(error.strerror), "a folder", cure) from error
    try:
        yield
    finally:
        if not existed:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _check_files(folder: Path, names: Sequence[str], options: argparse.Namespace) -> None:
    """Make sure that pictures can be written there, and that none replaces one that is read."""
    from npstyle import images

    inputs = (options.picture, options.style, options.at)
    for name in names:
        output = images.check_output(folder / f"{name}.png", options.overwrite)
        check_no_input(f"output: {output}", output, inputs, "choose another folder")


def _memory(sizes: Sequence[tuple[int, int]], names: Sequence[str], threads: int | None) -> float:
    """Bytes that `study.inspect` takes at most, besides what Python and the pictures take already.

    Parameters
    ----------
    sizes
        Width and height of the picture and, if there is one, of the style picture.
    names
        The layers shown, whose feature maps are all there at once, and the content layer.
    """
    from npstyle._runtime.threads import resolve
    from npstyle.run.memory import LIBRARY_BYTES, SAFETY_FACTOR, evaluation_memory

    W, H = sizes[0]
    layers = set(names)
    maps = [4.0 * (H >> log2_stride(name)) * (W >> log2_stride(name)) * channels(name) for name in layers]
    # The channels' energy is the mean of squares in float64, and the white level comes from a sorted copy.
    drawing = 4 * max(maps)
    evaluations = [evaluation_memory(h, w, layers, "auto", resolve(threads)) for w, h in sizes]
    gradients = 12.0 * H * W * (2 * len(layers) + 2)
    in_and_out = [CONVOLUTIONS[name] for name in convolutions_up_to(deepest(names))]
    weights = sum(4.0 * 9 * C * K for C, K in in_and_out)
    run = sum(maps) + max(drawing, gradients + max(evaluations))
    return SAFETY_FACTOR * (LIBRARY_BYTES + weights + run)
