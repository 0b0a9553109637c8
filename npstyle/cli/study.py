"""`npstyle reconstruct`, `texture`, `figure` and `inspect`: what layers and losses hold, in pictures.

Exit status as of `npstyle`: 0 done, 1 failed (one line on standard error), 2 wrong usage, 130 interrupted
(the picture so far is saved). What is slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.architecture import CONVOLUTIONS, canonical, convolutions_up_to, deepest
from npstyle.cli.terminal import DONE, FAILED, INTERRUPTED, Parser, print_err, print_out, warnings_as_lines
from npstyle.errors import UserError, check_integer, check_nonnegative
from npstyle.settings import PAPER_STYLE_LAYERS

if TYPE_CHECKING:
    from npstyle.run import Progress, StyleResult
    from npstyle.study import Panel
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


def main_reconstruct(argv: list[str]) -> int:
    """Rebuild a picture from the responses of one layer, from noise."""
    parser = _parser("reconstruct", "A picture rebuilt from what one layer keeps of it (equation 1 alone).")
    add = parser.add_argument
    add("picture", metavar="PICTURE", type=Path)
    add("--layer", metavar="LAYER", type=_checked(canonical), required=True, help="such as conv4_2")
    _add_run(parser, "PICTURE-LAYER.png", size=256)
    _add_start(parser)
    options = parser.parse_args(argv)
    from npstyle import images
    from npstyle.study import reconstruct

    output = _output(options, f"{options.picture.stem}-{options.layer}.png")
    with _warnings_as_lines():
        picture = images.read(options.picture)
        start = _start(options)
        _check_size(picture, options.size, [options.layer], f"picture: {options.picture}")
        weights = _weights(options, options.layer)
    with _Bar(options, options.iterations) as bar:
        result = reconstruct(
            picture,
            options.layer,
            weights=weights,
            size=options.size,
            iterations=options.iterations,
            seed=options.seed,
            init=start,
            tv_weight=options.tv_weight,
            threads=options.threads,
            callback=bar.step,
        )
    return _saved(result, output, options, bar)


def main_texture(argv: list[str]) -> int:
    """Make another picture with the Gram matrices of a given one, from noise."""
    parser = _parser("texture", "A picture, from noise, with the manner of another in some layers.")
    add = parser.add_argument
    add("picture", metavar="PICTURE", type=Path)
    layers = ",".join(PAPER_STYLE_LAYERS)
    add("--layers", metavar="A,B", type=_checked(_layers), default=None, help=f"({layers}; as far as there)")
    add("--width", metavar="N", type=_whole("width", 16), help="of the result, in pixels (PICTURE's)")
    add("--height", metavar="N", type=_whole("height", 16), help="likewise")
    _add_run(parser, "PICTURE-texture.png", size=256)
    _add_start(parser)
    options = parser.parse_args(argv)
    from npstyle import images
    from npstyle.study import texture

    output = _output(options, f"{options.picture.stem}-texture.png")
    with _warnings_as_lines():
        picture = images.fit(images.read(options.picture), options.size)
        start = _start(options)
        H, W, _ = picture.shape
        images.check_dimensions(output, options.width or W, options.height or H)
        weights = _weights(options, deepest(options.layers or PAPER_STYLE_LAYERS))
    held = _those_held(options, options.layers, weights)
    _check_size(picture, options.size, held, f"picture: {options.picture}")
    with _Bar(options, options.iterations) as bar:
        result = texture(
            picture,
            held,
            width=options.width,
            height=options.height,
            weights=weights,
            size=options.size,
            iterations=options.iterations,
            seed=options.seed,
            init=start,
            tv_weight=options.tv_weight,
            threads=options.threads,
            callback=bar.step,
        )
    return _saved(result, output, options, bar)


def main_figure(argv: list[str]) -> int:
    """Make one of the paper's figures of one's own pictures."""
    kinds = "\n".join(f"  {name:15}{about}" for name, (_, about) in FIGURES.items())
    parser = _parser("figure", f"One of the paper's figures, of your pictures:\n\n{kinds}")
    add = parser.add_argument
    add("name", metavar="NAME", choices=list(FIGURES), help="one of those above")
    add("picture", metavar="PICTURE", type=Path, help="the photograph; of `style` the painting")
    add("style", metavar="STYLE", type=Path, nargs="?", help="the painting, for transfers")
    _add_run(parser, "PICTURE-NAME.png", size=224)
    options = parser.parse_args(argv)
    needs_style = FIGURES[options.name][0]
    if needs_style and options.style is None:
        parser.error(f"{options.name}: found no STYLE; expected a painting after the photograph")
    if options.style is not None and not needs_style:
        parser.error(f"{options.name}: found STYLE; expected one picture only")
    from npstyle import images, study

    output = _output(options, f"{options.picture.stem}-{options.name}.png")
    with _warnings_as_lines():
        given = [options.picture, *([options.style] if options.style else [])]
        pictures = [images.fit(images.read(path), options.size) for path in given]
        weights = _weights(options, "conv5_4")
    rows, notes = study.plan(options.name, weights, options.iterations)
    for note in notes:
        print_err(f"npstyle: {note}")
    panels = [panel.settings for row in rows for panel in row if panel.settings]
    layers = {layer for settings in panels for layer in settings.layers}
    for path, picture in zip(given, pictures, strict=True):
        _check_size(picture, options.size, layers, f"picture: {path}")
    H, W, _ = study.blank_figure(rows, pictures[0]).shape
    images.check_dimensions(output, W, H)
    style = pictures[1] if len(pictures) > 1 else None
    with _Bar(options, options.iterations * len(panels), len(panels)) as bar:
        drawn = study.draw(
            rows, pictures[0], style, weights, seed=options.seed, threads=options.threads, callback=bar.panel
        )
    images.write(output, drawn.image, options.overwrite)
    for line in drawn.diverged:
        print_err(f"npstyle: {output}: {line}")
    if not options.quiet:
        ended = "interrupted, with the panels so far" if drawn.interrupted else f"{len(panels)} panels made"
        print_out(f"{output}: {W} x {H} pixels, {ended} in {bar.seconds:.0f} s")
    if drawn.diverged:
        return FAILED
    return INTERRUPTED if drawn.interrupted else DONE


def main_inspect(argv: list[str]) -> int:
    """Show responses, Gram matrices, gradients and receptive fields."""
    parser = _parser("inspect", "What layers answer to a picture, and what each part of the loss asks of it.")
    add = parser.add_argument
    add("picture", metavar="PICTURE", type=Path)
    add("style", metavar="STYLE", type=Path, nargs="?", help="the painting, for Gram matrices and style loss")
    layers = ",".join(PAPER_STYLE_LAYERS)
    add("--layer", metavar="A,B", type=_checked(_layers), help=f"({layers}; as far as there)")
    add("--content-layer", metavar="LAYER", type=_checked(canonical), help="(the deepest of --layer)")
    text = "where the loss's gradients are taken, such as a result (PICTURE, whose content loss is 0)"
    add("--at", metavar="FILE", type=Path, help=text)
    add("--channels", metavar="N", type=_whole("channels", 1), default=36, help="of each layer (36)")
    text = "folder for the pictures (PICTURE-inspected in this folder)"
    add("-o", "--output", metavar="FOLDER", type=Path, help=text)
    add("--overwrite", action="store_true", help="replace pictures in FOLDER")
    _add_common(parser, size=256)
    options = parser.parse_args(argv)
    from npstyle import images
    from npstyle.study import initialize_once, inspect, picture_names
    from npstyle.vgg import filters_of

    with _warnings_as_lines():
        picture = images.fit(images.read(options.picture), options.size)
        style = None if options.style is None else images.fit(images.read(options.style), options.size)
        at = None if options.at is None else images.read(options.at)
        weights = _weights(options, "conv5_4")
    held = _those_held(options, options.layer, weights)
    wanted = [*held, options.content_layer or held[0]]
    for name in convolutions_up_to(deepest(wanted)):
        filters_of(weights, name)  # before there is a folder
    for path, one in ((options.picture, picture), (options.style, style)):
        if one is not None:
            _check_size(one, options.size, wanted, f"picture: {path}")
    H, W, _ = picture.shape
    folder = options.output or Path(f"{options.picture.stem}-inspected")
    names = picture_names(held)
    _check_folder(folder, names, options.overwrite)
    filters = initialize_once(weights, [picture, *([] if style is None else [style])], wanted)
    seen = inspect(
        picture,
        style,
        held,
        filters,
        content_layer=options.content_layer,
        at=None if at is None else images.resize(at, W, H),
        channels=options.channels,
        threads=options.threads,
    )
    try:
        for name in names:
            images.write(folder / f"{name}.png", seen.pictures[name], options.overwrite)
    except KeyboardInterrupt:
        print_err(f"\nnpstyle: interrupted; some of the pictures are in {folder}")
        return INTERRUPTED
    for line in seen.table:
        print_out(line)
    print_out("")
    print_out(f"{folder}: {', '.join(f'{name}.png' for name in names)}")
    return DONE


def _check_folder(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Make the folder, and make sure that the pictures can be written there."""
    from npstyle import images

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        cure = "choose another, or make the folder that it is to be in"
        raise UserError(f"output: {folder}", str(error.strerror), "a folder", cure) from error
    for name in names:
        images.check_output(folder / f"{name}.png", overwrite)


# ------------------------------------------------------------------------------------------------
# Options
# ------------------------------------------------------------------------------------------------


def _parser(name: str, description: str) -> Parser:
    return Parser(
        prog=f"npstyle {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_run(parser: Parser, otherwise: str, size: int) -> None:
    """Options of what is found step by step."""
    add = parser.add_argument
    add("-o", "--output", metavar="OUT", type=Path, help=f"picture to write ({otherwise} in this folder)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add("--iterations", metavar="N", type=_whole("iterations", 0), default=200, help="of each picture (200)")
    add("--quiet", action="store_true", help="say nothing but warnings and errors")
    _add_common(parser, size)


def _add_start(parser: Parser) -> None:
    add = parser.add_argument
    add("--init", metavar="START", default="noise", help="noise or a picture file (noise)")
    tv_weight = _checked(lambda text: check_nonnegative("tv_weight", text))
    add("--tv-weight", metavar="X", type=tv_weight, default=0.0, help="how much smoothness counts (0)")


def _add_common(parser: Parser, size: int) -> None:
    add = parser.add_argument
    text = f"longer side of pictures, in pixels, never enlarging ({size})"
    add("--size", metavar="N", type=_whole("size", 16), default=size, help=text)
    add("--seed", metavar="N", type=_whole("seed", 0), default=0, help="of noise and random filters (0)")
    add("--weights", metavar="W", default="auto", help="auto, imagenet, random or a file (auto)")
    add("--preprocessing", choices=("caffe", "torchvision"), help="what a weights file was trained on")
    add("--threads", metavar="N", type=_whole("threads", 1), help="(every core this process may use)")


def _checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type for argparse: what a UserError says is wrong usage."""

    def checked(text: str) -> Any:
        try:
            return convert(text)
        except UserError as error:
            message = f"found {error.found}; expected {error.expected}; {error.cure}"
            raise argparse.ArgumentTypeError(message) from error

    return checked


def _whole(name: str, least: int) -> Callable[[str], Any]:
    def convert(text: str) -> int:
        try:
            value: Any = int(text)
        except ValueError:
            value = text
        return check_integer(name, value, least)

    return _checked(convert)


def _layers(text: str) -> tuple[str, ...]:
    """Layers by the paper's names, each once."""
    names = tuple(dict.fromkeys(canonical(name) for name in text.split(",") if name.strip()))
    if not names:
        raise UserError("layers", "none", "at least one", "give one such as conv1_1")
    return names


# ------------------------------------------------------------------------------------------------
# What goes in and what comes out
# ------------------------------------------------------------------------------------------------


def _output(options: argparse.Namespace, otherwise: str) -> Path:
    from npstyle import images

    return images.check_output(options.output or otherwise, options.overwrite)


def _start(options: argparse.Namespace) -> Any:
    """The picture that --init names, or None for noise."""
    from npstyle import images

    if options.init == "noise":
        return None
    try:
        return images.read(options.init)
    except UserError as error:
        name, expected = f"--init: {options.init}", "noise or a picture file"
        raise UserError(name, error.found, expected, error.cure) from None


def _check_size(picture: Any, size: int, layers: Iterable[str], name: str) -> None:
    """Hold a picture, once reduced, against what its deepest layer needs, before anything takes time."""
    from npstyle import images
    from npstyle.vgg import check_size

    H, W, _ = picture.shape
    w, h = images.fitted_size(W, H, size)
    check_size((h, w), layers, name)


def _weights(options: argparse.Namespace, top: str) -> Weights:
    from npstyle.weights import load_weights

    return load_weights(
        options.weights,
        options.seed,
        top,
        progress=_may_show_bar(options),
        preprocessing=options.preprocessing,
    )


def _those_held(
    options: argparse.Namespace, asked: Sequence[str] | None, weights: Weights
) -> tuple[str, ...]:
    """The layers asked for; or else those of the paper's style layers that the weights have."""
    if asked is not None:
        return tuple(asked)
    held = tuple(name for name in PAPER_STYLE_LAYERS if name in weights)
    missing = [name for name in PAPER_STYLE_LAYERS if name not in held]
    if not held:
        there = ", ".join(name for name in CONVOLUTIONS if name in weights) or "nothing"
        raise UserError("weights", f"no conv1_1 (there is {there})", "VGG19's filters", "take other ones")
    if missing:
        print_err(f"npstyle: left out: {', '.join(missing)}, which the weights do not have")
    return held


def _saved(result: StyleResult, output: Path, options: argparse.Namespace, bar: _Bar) -> int:
    """Write the picture, tell of it, and return the exit status."""
    from npstyle import images

    images.write(output, result.image, options.overwrite)
    if result.diverged:
        print_err(f"npstyle: {output}: {result.message}")
        return FAILED
    if not options.quiet:
        H, W, _ = result.image.shape
        losses = f"loss {result.losses[0]:.4g} -> {result.loss:.4g}"
        print_out(f"{output}: {W} x {H} pixels, {result.message} in {bar.seconds:.0f} s, {losses}")
    return INTERRUPTED if result.interrupted else DONE


def _may_show_bar(options: argparse.Namespace) -> bool:
    quiet = getattr(options, "quiet", False)
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


class _Bar:
    """Progress where someone is looking; elsewhere a line for each panel of a figure."""

    def __init__(self, options: argparse.Namespace, iterations: int, panels: int = 1) -> None:
        from tqdm import tqdm

        shown = _may_show_bar(options)
        self.iterations, self.panels = options.iterations, panels
        self.tells = not shown and not options.quiet
        self.told = 0
        self.began = time.monotonic()
        self.seconds = math.nan
        self.bar = tqdm(total=iterations, disable=not shown, unit="it", dynamic_ncols=True)

    def step(self, progress: Progress) -> None:
        self.bar.set_postfix_str(f"loss {progress.loss:.4g}", refresh=False)
        self.bar.update(progress.iteration - self.bar.n)

    def panel(self, number: int, panel: Panel, progress: Progress) -> None:
        if self.tells and number > self.told:
            self.told = number
            print_err(f"{number} of {self.panels}: {panel.caption}")
        self.bar.set_postfix_str(f"{panel.caption}, loss {progress.loss:.4g}", refresh=False)
        self.bar.update((number - 1) * self.iterations + progress.iteration - self.bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.monotonic() - self.began
        self.bar.close()


def _warnings_as_lines() -> AbstractContextManager[None]:
    from npstyle.images import ProfileWarning
    from npstyle.weights import RandomFiltersWarning

    return warnings_as_lines(ProfileWarning, RandomFiltersWarning)
