"""`npstyle video`: the frames of a film, painted one after the other so that they hold together.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from npstyle._runtime.paths import as_path
from npstyle.architecture import CONVOLUTION_METHODS, deepest
from npstyle.cli.arguments import (
    add_log_every,
    add_overwrite,
    add_run,
    checked,
    command_parser,
    input_file,
    integer,
    nonnegative,
    numbers,
    size_in_bytes,
)
from npstyle.cli.interrupts import Signals
from npstyle.cli.paint import check_run_memory, describe_run, recipe_text
from npstyle.cli.progress import FrameBar
from npstyle.cli.recipe import add_recipe, settings_from, without_effect
from npstyle.cli.run_files import same_file
from npstyle.cli.session import (
    WRITE_ERRORS,
    announce,
    count_of,
    filter_options,
    load_weights,
    session,
    write_error,
)
from npstyle.cli.terminal import DONE, FAILED, print_err, print_out
from npstyle.cli.workers import Demand, Share, add_workers, check_workers, workers_for
from npstyle.errors import UserError
from npstyle.presets import PRESETS
from npstyle.settings import STARTS, Settings

if TYPE_CHECKING:
    from npstyle.film.codecs import Codec, FilmInfo
    from npstyle.film.frames import Survey
    from npstyle.film.painting import Film, FilmSettings
    from npstyle.film.shots import Frame, Shot
    from npstyle.jobs.workers import Workers
    from npstyle.run import Progress
    from npstyle.weights import Weights

MAX_IMBALANCE = 1.2  # of workers, where their number is chosen: what the busiest one has, by the average
METHODS = ("flow", "difference", "none")  # the first is the default
EFFECTIVE_WITH = {
    "flow": ("flow",),
    "long_term": ("flow",),
    "feature_weight": ("difference",),
    "temporal_weight": ("flow", "difference"),
    "frame_iterations": ("flow", "difference"),
}
EPILOG = """\
examples:
  npstyle video film.mp4 painting.jpg -o painted.mp4      with its rate, colors and sound
  npstyle video frames/ painting.jpg -o painted/          a folder of frames, to another one
  npstyle video frames/ painting.jpg -o painted.mp4 --rate 24
  npstyle video film.mp4 painting.jpg -o painted.mp4 --method difference
  npstyle video film.mp4 painting.jpg -o painted.mp4 --workers 4      shots at the same time

The same command continues a film that was interrupted: finished frames are not painted again.
"""


def main(argv: list[str]) -> int:
    """Paint the frames of a film, and return the exit status."""
    parser = video_parser()
    options = parser.parse_args(argv)
    check_workers(parser, options)
    try:
        settings = settings_from(options)
    except UserError as error:
        from npstyle.cli.recipe import by_option

        parser.error(str(by_option(error)))
    for line in [*without_effect(options, settings), *_without_effect(options)]:
        print_err(f"npstyle: {line}")
    with session() as signals:
        return _paint(options, settings, signals)


def _paint(options: argparse.Namespace, settings: Settings, signals: Signals) -> int:
    """All that comes after the options, to the exit status."""
    from npstyle.film.frames import survey
    from npstyle.film.painting import plan_shots
    from npstyle.film.shots import missing_frames
    from npstyle.run.memory import available_memory

    temporal = film_settings(options)
    _check_start(options.init)
    _check_flow(options, temporal)
    _check_output(options)
    source = _read_source(options)
    with FrameBar(options.quiet, "frames looked through") as bar:
        found = survey(source.paths, bar.update)
    film = _film(options, settings, temporal, found)
    free = available_memory(options.threads) if options.memory is None else options.memory
    request, memory, note = check_run_memory(options, film.request(_first(found)), free)
    weights = load_weights(options, deepest(settings.layers))
    if weights.random:
        film = replace(film, settings=settings_from(options, random=True))
        request, memory, note = check_run_memory(options, film.request(_first(found)), free)
    film = replace(film, settings=request.settings, text=_text(options, film, weights))
    if note:  # also with --quiet
        print_err(f"npstyle: {note}")
    outputs = [_folder(options) / f"{frame.path.stem}.png" for frame in found.frames]
    shots = plan_shots(found.frames, outputs, film, weights, options.cuts)
    finished = found.number - sum(len(missing_frames(shot, options.overwrite)) for shot in shots)
    announce(options, _describe(film, shots, describe_run(request)), memory, weights)
    if source.codec is not None and not options.quiet:
        print_err(f"film: {_describe_film(source.info)}")
    try:
        painting = _Painting(options, film, shots, weights)
        seconds = painting.run(finished, found)
        if painting.failed:
            print_err(f"npstyle: {_how_far(shots)}; the same command continues")
            return FAILED
        remark = _encode(options, source, outputs)
    except KeyboardInterrupt:
        print_err(f"\nnpstyle: interrupted; {_how_far(shots)}; the same command continues")
        return signals.status
    if not options.quiet:
        skipped = f", {finished} of them finished before" if finished else ""
        print_out(f"{options.output}: {count_of(found.number, 'frame')}{skipped}, in {seconds:.0f} s{remark}")
    return DONE


class _Source(NamedTuple):
    """The frames to paint, what is known of their film, and what reads and writes it, if it is a file."""

    paths: list[Path]
    info: FilmInfo
    codec: Codec | None
    audio: Path | None


def _read_source(options: argparse.Namespace) -> _Source:
    """The frames of a folder; or those of a film, in a folder beside the painted ones."""
    from npstyle.film.codecs import RATE, FilmInfo, check_folder, codec, extract, is_film
    from npstyle.film.frames import list_frames

    from_film = options.film.is_file()
    needs_codec = from_film or is_film(options.output)
    chosen = codec(options.backend) if needs_codec else None
    if not from_film:
        return _Source(list_frames(options.film), FilmInfo(rate=options.rate or RATE), chosen, None)
    if options.rate is not None:
        found, expected = "a film, which has one of its own", "a folder of frames"
        raise UserError("--rate", found, expected, "leave it out")
    assert chosen is not None
    folder = _folder(options) / "content"
    check_folder(folder)
    with FrameBar(options.quiet, "frames read") as bar:
        paths, info = extract(options.film, folder, chosen, _size_of(options), bar.update)
    return _Source(paths, info, chosen, options.film if info.audio else None)


def _folder(options: argparse.Namespace) -> Path:
    """Where the painted frames are: OUT, or OUT.frames if it is a film."""
    from npstyle.film.codecs import is_film

    output: Path = options.output
    return output.with_name(f"{output.name}.frames") if is_film(output) else output


def _size_of(options: argparse.Namespace) -> Callable[[int, int], tuple[int, int]]:
    """The size of painted frames, of that of the film's: films in files have even sides."""
    from npstyle.film.codecs import is_film
    from npstyle.images import fitted_size

    def size_of(width: int, height: int) -> tuple[int, int]:
        w, h = fitted_size(width, height, options.size)
        return (max(2, w - w % 2), max(2, h - h % 2)) if is_film(options.output) else (w, h)

    return size_of


def _encode(options: argparse.Namespace, source: _Source, frames: Sequence[Path]) -> str:
    """Write the film, if it is to be one; what there is to say of it."""
    from npstyle._runtime.atomic import replacing
    from npstyle.film.codecs import is_film

    output: Path = options.output
    if not is_film(output):
        return ""
    assert source.codec is not None
    try:
        with replacing(output, options.overwrite) as temporary:
            suffix = output.suffix.lower()
            remark = source.codec.encode(frames, temporary, suffix, source.info, source.audio)
    except WRITE_ERRORS as error:
        failure = write_error(error, output)
        cure = f"the frames are in {_folder(options)}, and the same command writes the film"
        raise UserError(f"output: {output}", failure.found, failure.expected, cure) from error
    return f"{remark and '; '}{remark}; the frames are in {_folder(options)}"


class _Painting:
    """Paints what is missing of a film, by this process or by workers, with a bar over all frames."""

    def __init__(
        self, options: argparse.Namespace, film: Film, shots: Sequence[Shot], weights: Weights
    ) -> None:
        self.options, self.film, self.shots, self.weights = options, film, shots, weights
        self.total = sum(len(shot.frames) for shot in shots)
        self.failed = False

    def run(self, finished: int, found: Survey) -> float:
        """Paint where so many frames are finished, and return the seconds that it took."""
        from npstyle.film.shots import missing_frames
        from npstyle.jobs.workers import ThisProcess

        options, self.done = self.options, finished
        lengths = [n for shot in self.shots if (n := len(missing_frames(shot, options.overwrite)))]
        if not lengths:
            return 0.0
        with (
            workers_for(options, self._demand(lengths, found), options.workers) as (workers, share),
            FrameBar(options.quiet, "frames", finished, options.log_every) as self.bar,
        ):
            _folder(options).mkdir(exist_ok=True)
            _say_if_idle(options, workers, len(lengths))
            if isinstance(workers, ThisProcess):
                self._here(share.threads, share.memory)
            else:
                self._by(workers, share)
            return self.bar.seconds

    def _demand(self, lengths: Sequence[int], found: Survey) -> Demand:
        from npstyle.run.memory import least_memory

        needed = least_memory(self.film.request(_first(found)), self.film.convolution, 1)
        return Demand(len(lengths), "shot", needed, "each frame", balanced(lengths))

    def _here(self, threads: int | None, memory: float | None) -> None:
        from npstyle.film.painting import paint_shot

        def after(frame: Frame, progress: Progress | None) -> None:
            self.done += progress is None
            self.bar.update(self.done, self.total, frame.number, progress)

        for shot in self.shots:
            paint_shot(
                self.film,
                shot,
                self.weights,
                overwrite=self.options.overwrite,
                threads=threads,
                memory=memory,
                callback=after,
            )

    def _by(self, workers: Workers, share: Share) -> None:
        from npstyle.jobs import frame as jobs
        from npstyle.jobs.filters import Filters

        options, settings = self.options, self.film.settings
        filters = Filters.of(self.weights, deepest(settings.layers), options.seed, options.preprocessing)
        common = replace(jobs.of_film(self.film, filters), **share._asdict())
        if options.send:
            workers.send({filters.source})
        printed: set[str] = set()
        elsewhere = bool(options.scheduler)
        for frame, error, warnings in jobs.paint_shots(
            workers, common, self.shots, options.overwrite, elsewhere, options.send
        ):
            for warning in (text for text in warnings if text not in printed):
                print_err(f"npstyle: {warning}")
                printed.add(warning)
            if error:
                self.failed = True
                print_err(f"npstyle: {error}")
            else:
                self.done += 1
                self.bar.update(self.done, self.total, frame.number)


def balanced(lengths: Sequence[int]) -> int:
    """The most workers of which none is idle for long, given the frames to paint in each shot.

    Each of n workers has an n-th of the machine. So they take longer than one by what the busiest of them has
    more than its part.
    """
    for number in range(len(lengths), 1, -1):
        loads = [0] * number
        for length in sorted(lengths, reverse=True):
            loads[loads.index(min(loads))] += length
        if number * max(loads) <= MAX_IMBALANCE * sum(lengths):
            return number
    return 1


def _say_if_idle(options: argparse.Namespace, workers: Workers, shots: int) -> None:
    """Say that there are more workers than were asked for can be used."""
    if not options.quiet and max(options.workers or 0, workers.number) > shots:
        by = "one worker" if shots == 1 else f"{shots} workers"
        reason = "in a shot each frame follows from those before"
        print_err(f"{count_of(shots, 'shot')} to paint, by {by} at a time: {reason}")


def _how_far(shots: Sequence[Shot]) -> str:
    from npstyle.film.shots import missing_frames

    total = sum(len(shot.frames) for shot in shots)
    done = total - sum(len(missing_frames(shot, overwrite=True)) for shot in shots)
    return f"{done} of {count_of(total, 'frame')} {'is' if done == 1 else 'are'} finished"


def film_settings(options: argparse.Namespace) -> FilmSettings:
    """What the options say of how frames are held together."""
    from npstyle.film.painting import FilmSettings

    names = ("method", "flow", "temporal_weight", "feature_weight", "long_term")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given["iterations"] = options.frame_iterations
    return FilmSettings(**{name: value for name, value in given.items() if value is not None})


def _without_effect(options: argparse.Namespace) -> list[str]:
    """A line for each option that the method leaves without effect."""
    method = options.method or METHODS[0]
    given = [name for name in EFFECTIVE_WITH if getattr(options, name) is not None]
    return [
        f"--{name.replace('_', '-')}: no effect with --method {method}, only with "
        + " or ".join(EFFECTIVE_WITH[name])
        for name in given
        if method not in EFFECTIVE_WITH[name]
    ]


def _check_start(init: str | None) -> None:
    """A picture to start from is that of one frame; in a film all but the first start from the one before."""
    if init not in (None, *STARTS):
        raise UserError("--init", repr(init), " or ".join(STARTS), "take one of these in a film")


def _check_flow(options: argparse.Namespace, temporal: FilmSettings) -> None:
    """A folder of flows is not sent: it is larger than all else together."""
    from npstyle.film.flow import FLOW_METHODS

    if options.send and temporal.method == "flow" and temporal.flow not in FLOW_METHODS:
        found, expected = f"--flow {temporal.flow}", f"{' or '.join(FLOW_METHODS)}, as a folder is not sent"
        raise UserError("--send", found, expected, "let the cluster share the files, and leave --send out")


def _check_output(options: argparse.Namespace) -> None:
    """Make sure, before anything takes time, that frames can be written, and a film if it is to be one."""
    from npstyle import images
    from npstyle._runtime.atomic import check_writable
    from npstyle.film.codecs import FORMATS, OTHER_FILMS, is_film

    output, folder = options.output, _folder(options)
    name = f"output: {output}"
    if output.suffix.lower() in images.FORMATS:
        found, expected = f"a picture ({output.suffix})", f"a folder, or a film: {' '.join(FORMATS)}"
        raise UserError(name, found, expected, f"try {output.with_suffix('')}")
    if output.suffix.lower() in OTHER_FILMS and not output.is_dir():
        found, expected = f"a film that can't be written ({output.suffix})", " ".join(FORMATS)
        raise UserError(name, found, expected, f"try {output.with_suffix('.mp4')}, or a folder")
    if is_film(output):
        if same_file(output, options.film):
            raise UserError(name, "the film that is read", "another name", "choose one")
        check_writable(output, options.overwrite)
    if not folder.is_dir():
        check_writable(folder, False)
    elif same_file(folder, options.film):
        found, cure = "the folder of the frames that are read", "choose another name"
        raise UserError(name, found, "a folder of its own", cure)
    elif not os.access(folder, os.W_OK | os.X_OK):
        found, expected = "no permission to write", "a folder to write to"
        raise UserError(f"output: {folder}", found, expected, "choose another")


def _film(options: argparse.Namespace, settings: Settings, temporal: FilmSettings, found: Survey) -> Film:
    """The film, its styles read; checked by the run that paints its first frame."""
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
    width, height = _size_of(options)(found.width, found.height)
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


def _describe_film(info: FilmInfo) -> str:
    """As "25 frames a second, BT.709, with sound"."""
    rate = f"{float(info.rate):.5g} frames a second{'' if info.constant else ' on average'}"
    matrix = {"bt601": "BT.601", "bt709": "BT.709", "bt2020": "BT.2020"}.get(info.matrix, "RGB")
    full = ", full range" if info.full_range else ""
    return f"{rate}, {matrix}{full}, {'with' if info.audio else 'without'} sound"


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


def video_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    text = "Paint the frames of a film in the style of a painting, each like the one before it."
    parser = command_parser("video", text)
    parser.epilog = EPILOG
    add = parser.add_argument
    add("film", metavar="IN", type=input_file, help="a film, or a folder of frames such as frame_0001.png")
    add("style", metavar="STYLE", type=input_file, nargs="+", help="the painting; several can be blended")
    text = "the film to write, .mp4 .mov .mkv .webm, or a folder for the painted frames"
    add("-o", "--output", type=as_path, metavar="OUT", required=True, help=text)
    add_overwrite(parser, "OUT, or frames in it that other settings made,")
    add("--preset", choices=list(PRESETS), help="a recipe by name, see npstyle presets; options change it")
    add_run(parser, size=512)
    add("--blend", type=numbers, metavar="X,X", help="weight of each style (equal weights)")
    add("--style-scale", type=nonnegative, metavar="X", help="size of the styles relative to the film's (1)")
    methods = CONVOLUTION_METHODS
    add("--convolution", choices=methods, default="auto", help="how convolutions are computed (auto)")
    text = "what the run may take, such as 8GB; where that is little, it takes longer (what is free)"
    add("--memory", type=size_in_bytes, metavar="SIZE", help=text)
    text = "frames a second of a film from a folder, such as 24 or 30000/1001 (25)"
    add("--rate", type=_rate, metavar="R", help=text)
    text = "what reads and writes films: ffmpeg, pyav, or auto, the first that is there (auto)"
    add("--backend", choices=("auto", "ffmpeg", "pyav"), default="auto", help=text)
    add_log_every(parser)
    parser.set_defaults(width=None, height=None)
    _add_film(parser)
    add_workers(parser, "as many as cores, memory and shots permit", "frames")
    add_recipe(parser)
    return parser


@checked
def _rate(text: str) -> Fraction:
    """The type of a rate: an integer, a fraction or a decimal number."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UserError("argument", repr(text), "frames a second", "give one such as 24 or 30000/1001")
    return rate


@checked
def _steps(text: str) -> tuple[int, ...]:
    """The type of numbers of frames, separated by commas."""
    return tuple(integer(1)(part) for part in text.split(","))


def _add_film(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what holds the frames together").add_argument
    add("--method", choices=METHODS, help="flow, difference, or none: each frame by itself (flow)")
    text = "how motion is found: dis, tvl1 or a folder of .flo files (dis)"
    add("--flow", metavar="FLOW", help=text)
    text = "weight of what holds frames together (100; with difference 20)"
    add("--temporal-weight", type=nonnegative, metavar="X", help=text)
    text = "with difference: the same for feature maps, in units of the content loss (5)"
    add("--feature-weight", type=nonnegative, metavar="X", help=text)
    text = "iterations of each frame but the first of a shot, at full size (8)"
    add("--frame-iterations", type=integer(0), metavar="N", help=text)
    text = "with flow: how many frames back those are that a frame is compared with (1,2,4)"
    add("--long-term", type=_steps, metavar="N,N", help=text)
    text = "begin anew where the picture changes all at once (yes)"
    add("--cuts", action=argparse.BooleanOptionalAction, default=True, help=text)
