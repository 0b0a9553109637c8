"""`npstyle reconstruct`, `texture` and `figure`: what layers and losses contain, as pictures from noise.

The fourth study command, `inspect`, is in inspect.py. Everything slow to import is imported where it is used,
so that --help is instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.architecture import CONVOLUTIONS, deepest
from npstyle.cli.arguments import (
    add_log_every,
    add_output,
    add_run,
    command_parser,
    input_file,
    integer,
    layer,
    layers,
    nonnegative,
)
from npstyle.cli.interrupts import FIGURE_INTERRUPTED, Signals, exit_status
from npstyle.cli.progress import ProgressBar
from npstyle.cli.run_files import check_no_input
from npstyle.cli.session import (
    announce,
    check_memory,
    count_of,
    filter_options,
    load_weights,
    read_init,
    report,
    save_or_refuge,
    session,
)
from npstyle.cli.terminal import print_err, print_out
from npstyle.errors import UserError
from npstyle.settings import PAPER_STYLE_LAYERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from npstyle.run import StyleResult
    from npstyle.settings import Settings
    from npstyle.weights import Weights

# Whether a figure needs a style picture, and what it shows.
FIGURES = {
    "content": (False, "reconstructions from one content layer each"),
    "style": (False, "reconstructions from more and more style layers"),
    "layers": (True, "transfers by set of style layers"),
    "ratio": (True, "transfers by set of style layers and by alpha/beta"),
    "content-layer": (True, "transfers with a low and a high content layer"),
    "starts": (True, "transfers from the photograph, the painting and noise"),
}
INIT_KINDS = ("noise",)  # what --init may name beside a picture file
# Positional arguments, and options that do not change what a picture shows.
NOT_STORED = ("picture", "style", "name", "output", "overwrite", "threads", "force", "quiet")

# ------------------------------------------------------------------------------------------------
# reconstruct
# ------------------------------------------------------------------------------------------------


def main_reconstruct(argv: list[str]) -> int:
    """Rebuild a picture from the feature map of one layer, from noise, and return the exit status."""
    text = "Reconstruct a picture from its feature map in one layer, starting from noise (equation 1 alone)."
    parser = command_parser("reconstruct", text)
    parser.add_argument("picture", metavar="PICTURE", type=input_file, help="the picture to reconstruct")
    text = "layer whose feature map is matched, such as conv4_2"
    parser.add_argument("--layer", metavar="LAYER", type=layer, required=True, help=text)
    _add_optimization(parser, "PICTURE-LAYER.png", size=256)
    _add_start(parser)
    parser.set_defaults(width=None, height=None, tile=None)  # the picture's, and no tile
    options = parser.parse_args(argv)
    with session() as signals:
        return _reconstruct(options, signals)


def _reconstruct(options: argparse.Namespace, signals: Signals) -> int:
    from npstyle import study

    output, picture, init = _read(options, f"{options.picture.stem}-{options.layer}.png")
    check_picture_size(picture, options.size, [options.layer], options.picture)
    weights = load_weights(options, options.layer)
    settings = study.reconstruction_settings(options.layer, options.iterations, options.tv_weight)
    _announce_run(options, picture, settings, weights)
    run = partial(study.reconstruct, picture, options.layer, init=init)
    return _run_and_save(options, signals, output, "reconstruct", run, weights)


# ------------------------------------------------------------------------------------------------
# texture
# ------------------------------------------------------------------------------------------------


def main_texture(argv: list[str]) -> int:
    """Make another picture with the Gram matrices of a given one, from noise, and return the exit status."""
    text = "Make a texture with the Gram matrices of a picture, starting from noise (equation 5 alone)."
    parser = command_parser("texture", text)
    parser.add_argument(
        "picture", metavar="PICTURE", type=input_file, help="the picture whose texture is made"
    )
    add_style_layers(parser, "--layers")
    for side in ("width", "height"):
        text = f"{side} of the texture in pixels (the picture's)"
        parser.add_argument(f"--{side}", metavar="N", type=integer(16), help=text)
    text = "without seams, to be laid out side by side; four of them are written, too: OUT-2x2.png"
    # None and not False, for which a picture would store --no-tile.
    parser.add_argument("--tile", action="store_true", default=None, help=text)
    _add_optimization(parser, "PICTURE-texture.png", size=256)
    _add_start(parser)
    options = parser.parse_args(argv)
    with session() as signals:
        return _texture(options, signals)


def _texture(options: argparse.Namespace, signals: Signals) -> int:
    from npstyle import study

    output, picture, init = _read(options, f"{options.picture.stem}-texture.png")
    preview = _check_preview(options, output, picture) if options.tile else None
    weights = load_weights(options, deepest(options.layers or PAPER_STYLE_LAYERS))
    options.layers = available_layers(options.layers, weights)
    check_picture_size(picture, options.size, options.layers, options.picture)
    tile = bool(options.tile)
    settings = study.texture_settings(options.layers, options.iterations, options.tv_weight, tile)
    _announce_run(options, picture, settings, weights)
    size = {"width": options.width, "height": options.height}
    run = partial(study.texture, picture, options.layers, **size, init=init, tile=tile)
    return _run_and_save(options, signals, output, "texture", run, weights, preview)


def _check_preview(options: argparse.Namespace, output: Path, picture: NDArray[Any]) -> Path:
    """Where four tiles are written: OUT-2x2.png, if that replaces nothing that it may not."""
    from npstyle import images

    preview = output.with_stem(f"{output.stem}-2x2")
    inputs = (options.picture, options.init)
    check_no_input(f"--tile: {preview}", preview, inputs, "choose another name for the output")
    try:
        images.check_output(preview, options.overwrite)
    except UserError as error:
        raise UserError(f"--tile: {preview}", error.found, error.expected, error.cure) from None
    W, H = _result_size(options, picture, options.size)
    images.check_dimensions(preview, 2 * W, 2 * H)
    return preview


# ------------------------------------------------------------------------------------------------
# What reconstruct and texture share: one picture from noise
# ------------------------------------------------------------------------------------------------


def _read(options: argparse.Namespace, default: str) -> tuple[Path, NDArray[Any], NDArray[Any] | None]:
    """The output, after a check that the result can be written there; the picture; the one to start from."""
    from npstyle import images

    output = _check_output(options, default)
    picture = images.read(options.picture)
    init = read_init(options.init, INIT_KINDS)
    images.check_dimensions(output, *_result_size(options, picture, options.size))
    return output, picture, init


def _result_size(options: argparse.Namespace, picture: NDArray[Any], size: int) -> tuple[int, int]:
    """Width and height of the result: those that are asked for, or else the picture's at a size."""
    from npstyle import study

    W, H = size_at(picture, size)
    if options.tile:
        layers = options.layers or PAPER_STYLE_LAYERS
        return study.tile_size((W, H), layers, options.width, options.height)
    return options.width or W, options.height or H


def _announce_run(
    options: argparse.Namespace, picture: NDArray[Any], settings: Settings, weights: Weights
) -> None:
    """Print size, memory and filters of the run, if there is enough memory."""

    def bytes_at(size: int) -> float:
        return _run_memory(
            _result_size(options, picture, size), [size_at(picture, size)], settings, options.threads
        )

    memory = check_memory(options, bytes_at, options.size, max(picture.shape))
    (W, H), (w, h) = _result_size(options, picture, options.size), size_at(picture, options.size)
    rounded = (options.width or w, options.height or h) != (W, H)
    change = " (rounded for --tile)" if rounded else ""
    announce(
        options, f"{W} x {H} pixels{change}, {count_of(options.iterations, 'iteration')}", memory, weights
    )


def _run_and_save(
    options: argparse.Namespace,
    signals: Signals,
    output: Path,
    command: str,
    run: Callable[..., StyleResult],
    weights: Weights,
    preview: Path | None = None,
) -> int:
    """Run with the options that both have, save the picture, and return the exit status.

    `preview` is where it is written a second time, 2 x 2.
    """
    import numpy as np

    from npstyle import images

    with ProgressBar(options.quiet, log_every=options.log_every) as bar:
        result = run(
            weights=weights,
            size=options.size,
            iterations=options.iterations,
            seed=options.seed,
            tv_weight=options.tv_weight,
            threads=options.threads,
            callback=bar.update,
        )
        signals.ignore()
    text = picture_text(options, [command], weights, result.message)

    def write(path: Path, overwrite: bool, copies: int = 1) -> None:
        images.write(path, np.tile(result.image, (copies, copies, 1)), overwrite, text=text)

    save_or_refuge(output, write, options.overwrite)
    report(output, result, bar.seconds, options.quiet)
    if preview is not None:
        save_or_refuge(preview, partial(write, copies=2), options.overwrite)
        if not options.quiet:
            print_out(f"{preview}: the same, 2 x 2")
    return exit_status(signals, result.interrupted, result.diverged)


# ------------------------------------------------------------------------------------------------
# figure
# ------------------------------------------------------------------------------------------------


def main_figure(argv: list[str]) -> int:
    """Make one of the paper's figures of one's own pictures, and return the exit status."""
    kinds = "\n".join(f"  {name:15}{text}" for name, (_, text) in FIGURES.items())
    parser = command_parser("figure", f"One of the paper's figures, of your pictures:\n\n{kinds}")
    add = parser.add_argument
    add("name", metavar="NAME", choices=list(FIGURES), help="one of those above")
    add("picture", metavar="PICTURE", type=input_file, help="the photograph; for `style`, the painting")
    add("style", metavar="STYLE", type=input_file, nargs="?", help="the painting, for transfers")
    _add_optimization(parser, "PICTURE-NAME.png", size=224)
    options = parser.parse_args(argv)
    needs_style, _ = FIGURES[options.name]
    if needs_style and options.style is None:
        parser.error(f"{options.name}: found no STYLE; expected a painting after the photograph")
    if options.style is not None and not needs_style:
        parser.error(f"{options.name}: found STYLE; expected one picture only")
    with session() as signals:
        return _figure(options, signals)


def _figure(options: argparse.Namespace, signals: Signals) -> int:
    from npstyle import images, study

    output = _check_output(options, f"{options.picture.stem}-{options.name}.png")
    paths = [path for path in (options.picture, options.style) if path is not None]
    originals = [images.read(path) for path in paths]
    weights = load_weights(options, "conv5_4")
    rows, notes = study.plan(options.name, weights, options.iterations)
    for note in notes:
        print_err(f"npstyle: {note}")
    recipes = [panel.settings for row in rows for panel in row if panel.settings]
    names = {name for settings in recipes for name in settings.layers}
    for path, picture in zip(paths, originals, strict=True):
        check_picture_size(picture, options.size, names, path)

    def bytes_at(size: int) -> float:
        sizes = [size_at(picture, size) for picture in originals]
        return max(_run_memory(sizes[0], sizes, settings, options.threads) for settings in recipes)

    memory = check_memory(options, bytes_at, options.size, max(max(picture.shape) for picture in originals))
    pictures = [images.fit(picture, options.size) for picture in originals]
    H, W, _ = pictures[0].shape
    sheet_height, sheet_width, _ = study.blank_figure(rows, pictures[0]).shape
    images.check_dimensions(output, sheet_width, sheet_height)
    panels = f"{count_of(len(recipes), 'panel')} of {W} x {H} pixels"
    announce(options, f"{panels}, {count_of(options.iterations, 'iteration')} each", memory, weights)
    style = pictures[1] if len(pictures) > 1 else None
    run = {"seed": options.seed, "threads": options.threads}
    with ProgressBar(options.quiet, len(recipes), options.log_every) as bar:
        figure = study.draw(rows, pictures[0], style, weights, callback=bar.update_panel, **run)
        signals.ignore()
    message = FIGURE_INTERRUPTED if figure.interrupted else f"{count_of(len(recipes), 'panel')} made"
    text = picture_text(options, ["figure", options.name], weights, message)

    def write(path: Path, overwrite: bool) -> None:
        images.write(path, figure.image, overwrite, text=text)

    save_or_refuge(output, write, options.overwrite)
    for line in figure.diverged:
        print_err(f"npstyle: {output}: {line}")
    if not options.quiet:
        print_out(f"{output}: {sheet_width} x {sheet_height} pixels, {message} in {bar.seconds:.0f} s")
    return exit_status(signals, figure.interrupted, bool(figure.diverged))


# ------------------------------------------------------------------------------------------------
# What these commands share
# ------------------------------------------------------------------------------------------------


def _add_optimization(parser: argparse.ArgumentParser, output: str, size: int) -> None:
    add_output(parser, output)
    text = "iterations for each picture (200)"
    parser.add_argument("--iterations", metavar="N", type=integer(0), default=200, help=text)
    add_run(parser, size)
    add_log_every(parser)


def _add_start(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--init", metavar="START", default="noise", help="noise or a picture file to start from (noise)")
    text = "weight of the total variation, which makes the picture smoother (0)"
    add("--tv-weight", metavar="X", type=nonnegative, default=0.0, help=text)


def add_style_layers(parser: argparse.ArgumentParser, option: str) -> None:
    """Add an option for layers, which are the paper's style layers if it is not given."""
    text = (
        f"layers, such as conv1_1,conv2_1 ({','.join(PAPER_STYLE_LAYERS)}, as far as the weights have them)"
    )
    parser.add_argument(option, dest="layers", metavar="A,B", type=layers, help=text)


def _check_output(options: argparse.Namespace, default: str) -> Path:
    from npstyle import images

    output = images.check_output(options.output or default, options.overwrite)
    inputs = (options.picture, getattr(options, "style", None), getattr(options, "init", None))
    check_no_input(f"output: {output}", output, inputs, "choose another")
    return output


def picture_text(
    options: argparse.Namespace, command: Sequence[str], weights: Weights, note: str = ""
) -> dict[str, str]:
    """How a picture is made, as it is kept in its file for `npstyle show`."""
    from npstyle.images.metadata import as_text

    positional = {"command": command, "content": options.picture, "style": getattr(options, "style", None)}
    values = {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in vars(options).items()
        if name not in NOT_STORED
    }
    values |= filter_options(options, weights.random)
    return as_text({**positional, **values}, note=note, filters=weights.label)


def size_at(picture: NDArray[Any], size: int) -> tuple[int, int]:
    """Width and height of a picture, reduced to a size."""
    from npstyle import images

    H, W, _ = picture.shape
    return images.fitted_size(W, H, size)


def check_picture_size(picture: NDArray[Any], size: int, names: Iterable[str], path: Path) -> None:
    """Refuse a picture that is too small for its deepest layer once it is reduced."""
    from npstyle.run.inputs import check_reduced

    check_reduced(picture.shape, size, names, f"picture: {path}")


def available_layers(names: Sequence[str] | None, weights: Weights) -> tuple[str, ...]:
    """The layers asked for; or else those of the paper's style layers that the weights have."""
    if names is not None:
        return tuple(names)
    available = tuple(name for name in PAPER_STYLE_LAYERS if name in weights)
    missing = [name for name in PAPER_STYLE_LAYERS if name not in available]
    if not available:
        present = ", ".join(name for name in CONVOLUTIONS if name in weights) or "nothing"
        raise UserError("weights", f"no conv1_1 (only {present})", "VGG19's filters", "choose another file")
    if missing:
        print_err(f"npstyle: left out: {', '.join(missing)}, which the weights do not have")
    return available


def _run_memory(
    content: tuple[int, int], styles: Sequence[tuple[int, int]], settings: Settings, threads: int | None
) -> float:
    """Bytes that a run takes; sizes are width and height."""
    from npstyle.run.memory import run_memory_of_sizes

    return run_memory_of_sizes(content, styles, settings, threads=threads)
