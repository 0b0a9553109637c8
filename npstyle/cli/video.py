"""`npstyle video`: the frames of a film, painted one after the other so that they hold together.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle._runtime.paths import as_path
from npstyle.architecture import CONVOLUTION_METHODS, deepest
from npstyle.cli.arguments import (
    add_log_every,
    add_overwrite,
    add_run,
    command_parser,
    input_file,
    integer,
    nonnegative,
    numbers,
    size_in_bytes,
)
from npstyle.cli.interrupts import Signals
from npstyle.cli.paint import check_run_memory, describe_iterations, recipe_text
from npstyle.cli.progress import FrameBar
from npstyle.cli.recipe import add_recipe, settings_from, without_effect
from npstyle.cli.run_files import same_file
from npstyle.cli.session import announce, count_of, filter_options, load_weights, session
from npstyle.cli.terminal import DONE, print_err, print_out
from npstyle.errors import UserError
from npstyle.presets import PRESETS
from npstyle.settings import STARTS, Settings

if TYPE_CHECKING:
    from npstyle.film.frames import Survey
    from npstyle.film.painting import Film, FilmSettings, Shot
    from npstyle.weights import Weights

EPILOG = """\
examples:
  npstyle video frames/ painting.jpg -o painted/          a folder of frames, to another one
  npstyle video frames/ painting.jpg -o painted/ --method difference

The same command continues a film that was interrupted: finished frames are not painted again.
"""


def main(argv: list[str]) -> int:
    """Paint the frames of a film, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        settings = settings_from(options)
    except UserError as error:
        from npstyle.cli.recipe import by_option

        parser.error(str(by_option(error)))
    for line in without_effect(options, settings):
        print_err(f"npstyle: {line}")
    with session() as signals:
        return _paint(options, settings, signals)


def _paint(options: argparse.Namespace, settings: Settings, signals: Signals) -> int:
    """All that comes after the options, to the exit status."""
    from npstyle.film.frames import list_frames, survey
    from npstyle.film.painting import missing_frames, plan_shots

    temporal = _film_settings(options)
    _check_start(options.init)
    _check_output(options)
    with FrameBar(options.quiet, "frames read") as bar:
        found = survey(list_frames(options.film), bar.update)
    film = _film(options, settings, temporal, found)
    request, memory, note = check_run_memory(options, film.request(_first(found)), options.memory)
    weights = load_weights(options, deepest(settings.layers))
    if weights.random:
        film = replace(film, settings=settings_from(options, default_preset="random"))
        request, memory, note = check_run_memory(options, film.request(_first(found)), options.memory)
    film = replace(film, settings=request.settings, text=_text(options, film, weights))
    if note:  # also with --quiet
        print_err(f"npstyle: {note}")
    outputs = [options.output / f"{frame.path.stem}.png" for frame in found.frames]
    shots = plan_shots(found.frames, outputs, film, weights, options.cuts)
    finished = found.number - sum(len(missing_frames(shot, options.overwrite)) for shot in shots)
    announce(options, _describe(film, shots, describe_iterations(request)), memory, weights)
    return _paint_shots(options, film, shots, weights, finished, signals)


def _paint_shots(
    options: argparse.Namespace,
    film: Film,
    shots: Sequence[Shot],
    weights: Weights,
    finished: int,
    signals: Signals,
) -> int:
    """Paint what is missing; print how far it is when something ends it early."""
    from npstyle.film.painting import Frame, paint_shot
    from npstyle.run import Progress

    total = sum(len(shot.frames) for shot in shots)
    done = finished

    def after(frame: Frame, progress: Progress | None) -> None:
        nonlocal done
        done += progress is None
        bar.update(done, total, frame.number, progress)

    options.output.mkdir(exist_ok=True)
    with FrameBar(options.quiet, "frames", finished, options.log_every) as bar:
        try:
            for shot in shots:
                paint_shot(
                    film,
                    shot,
                    weights,
                    overwrite=options.overwrite,
                    threads=options.threads,
                    memory=options.memory,
                    callback=after,
                )
        except KeyboardInterrupt:
            print_err(f"\nnpstyle: interrupted; {_how_far(shots)}; the same command continues")
            return signals.status
    if not options.quiet:
        skipped = f", {finished} of them finished before" if finished else ""
        print_out(f"{options.output}: {count_of(total, 'frame')}{skipped}, in {bar.seconds:.0f} s")
    return DONE


def _how_far(shots: Sequence[Shot]) -> str:
    frames = [frame for shot in shots for frame in shot.frames]
    done = sum(frame.output.exists() for frame in frames)
    return f"{done} of {count_of(len(frames), 'frame')} {'is' if done == 1 else 'are'} finished"


def _film_settings(options: argparse.Namespace) -> FilmSettings:
    from npstyle.film.painting import FilmSettings

    names = ("method", "flow", "temporal_weight", "feature_weight", "long_term")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given["iterations"] = options.frame_iterations
    return FilmSettings(**{name: value for name, value in given.items() if value is not None})


def _check_start(init: str | None) -> None:
    """A picture to start from is that of one frame; in a film all but the first start from the one before."""
    if init not in (None, *STARTS):
        raise UserError("--init", repr(init), " or ".join(STARTS), "take one of these in a film")


def _check_output(options: argparse.Namespace) -> None:
    """Make sure, before anything takes time, that frames can be written to the folder."""
    from npstyle._runtime.atomic import check_writable

    output: Path = options.output
    if not output.is_dir():
        check_writable(output, False)
        return
    if same_file(output, options.film):
        found, cure = "the folder of the frames that are read", "choose another name"
        raise UserError(f"output: {output}", found, "a folder of its own", cure)
    if not os.access(output, os.W_OK | os.X_OK):
        raise UserError(
            f"output: {output}", "no permission to write", "a folder to write to", "choose another"
        )


def _film(options: argparse.Namespace, settings: Settings, temporal: FilmSettings, found: Survey) -> Film:
    """The film, its styles read; checked by the run that paints its first frame."""
    from npstyle import images
    from npstyle.film.painting import Film
    from npstyle.run import Request

    request = Request.read(
        _first(found),
        options.style,
        settings=settings,
        size=options.size,
        blend=options.blend,
        style_scale=options.style_scale,
        seed=options.seed,
    )
    width, height = images.fitted_size(found.width, found.height, options.size)
    return Film(
        styles=request.styles,
        settings=settings,
        temporal=temporal,
        width=width,
        height=height,
        blend=request.blend,
        style_scale=options.style_scale,
        seed=options.seed,
        convolution=options.convolution,
        preprocessing=options.preprocessing,
    )


def _first(found: Survey) -> Any:
    from npstyle import images

    return images.read(found.frames[0].path)


def _describe(film: Film, shots: Sequence[Shot], iterations: str) -> str:
    """As "24 frames of 512 x 288 pixels in 2 shots, 16 iterations at each of 7 levels, then 8 a frame"."""
    frames = sum(len(shot.frames) for shot in shots)
    text = f"{count_of(frames, 'frame')} of {film.width} x {film.height} pixels"
    if film.temporal.method == "none":
        return f"{text}, each by itself: {iterations}"
    then = f"then {film.temporal.iterations} a frame"
    return f"{text} in {count_of(len(shots), 'shot')}, {film.temporal.method}: {iterations}, {then}"


def _text(options: argparse.Namespace, film: Film, weights: Weights) -> dict[str, str]:
    """What is kept in each frame's file for `npstyle show`."""
    from npstyle.images.metadata import as_text

    values = {"command": "video", "content": options.film, "style": options.style, "output": options.output}
    values |= {"size": options.size, "method": film.temporal.method}
    names = ("flow", "temporal_weight", "feature_weight", "frame_iterations", "blend", "style_scale", "seed")
    values |= {name: getattr(options, name) for name in (*names, "convolution")}
    values |= filter_options(options, weights.random)
    return as_text({**values, **recipe_text(film.settings)}, filters=weights.label)


# ------------------------------------------------------------------------------------------------
# Options
# ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    text = "Paint the frames of a film in the style of a painting, each like the one before it."
    parser = command_parser("video", text)
    parser.epilog = EPILOG
    add = parser.add_argument
    add("film", metavar="IN", type=input_file, help="the film: a folder of frames such as frame_0001.png")
    add("style", metavar="STYLE", type=input_file, nargs="+", help="the painting; several can be blended")
    text = "the folder to write the painted frames to"
    add("-o", "--output", type=as_path, metavar="OUT", required=True, help=text)
    add_overwrite(parser, "frames in OUT that other settings made,")
    add("--preset", choices=list(PRESETS), help="a recipe by name, see npstyle presets; options change it")
    add_run(parser, size=512)
    add("--blend", type=numbers, metavar="X,X", help="weight of each style (equal weights)")
    add("--style-scale", type=nonnegative, metavar="X", help="size of the styles relative to the film's (1)")
    methods = CONVOLUTION_METHODS
    add("--convolution", choices=methods, default="auto", help="how convolutions are computed (auto)")
    text = "what the run may take, such as 8GB; where that is little, it takes longer (what is free)"
    add("--memory", type=size_in_bytes, metavar="SIZE", help=text)
    add_log_every(parser)
    parser.set_defaults(width=None, height=None)
    _add_film(parser)
    add_recipe(parser)
    return parser


def _add_film(parser: argparse.ArgumentParser) -> None:
    from npstyle.cli.arguments import checked

    @checked
    def steps(text: str) -> tuple[int, ...]:
        return tuple(integer(1)(part) for part in text.split(","))

    add = parser.add_argument_group("what holds the frames together").add_argument
    add("--method", choices=METHODS, help="flow, difference, or none: each frame by itself (flow)")
    text = "how motion is found: dis, tvl1 or a folder of .flo files (dis)"
    add("--flow", metavar="FLOW", help=text)
    add("--temporal-weight", type=nonnegative, metavar="X", help="weight of what holds frames together (200)")
    text = "with difference: the same for feature maps, in units of the content loss (1)"
    add("--feature-weight", type=nonnegative, metavar="X", help=text)
    text = "iterations of each frame but the first of a shot, at full size (8)"
    add("--frame-iterations", type=integer(0), metavar="N", help=text)
    text = "with flow: how many frames back those are that a frame is compared with (1,2,4)"
    add("--long-term", type=steps, metavar="N,N", help=text)
    text = "begin anew where the picture changes all at once (yes)"
    add("--cuts", action=argparse.BooleanOptionalAction, default=True, help=text)


METHODS = ("flow", "difference", "none")
