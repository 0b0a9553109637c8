"""Painting a film: each shot by itself, its first frame as any picture, each other one from those before.

A `Shot` says which frames to read and which files to write; `paint_shot` paints it. Shots know nothing of
each other, and a shot, its film and weights can be pickled: other processes may paint them, with a
`ShotPainter` a frame at a time (`npstyle.jobs.frame`).

What a frame is painted from are files, also within one run: so a film that was interrupted and continued has
the same bits as one that was not. A finished frame has its key in it (`Frame.key`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from npstyle import images
from npstyle._runtime.atomic import open_replacing
from npstyle._typing import Convolution, Preprocessing
from npstyle.errors import UserError, check_choice, check_integer, check_nonnegative
from npstyle.film.cuts import find_shots
from npstyle.film.flow import (
    FLOW_METHODS,
    check_flow,
    flow_between,
    flow_names,
    flow_version,
    joined_target,
    long_term_masks,
    missing_flow,
    reliability,
    warp,
)
from npstyle.film.frames import SourceFrame, file_checksum
from npstyle.film.shots import Frame, Shot, chain, missing_frames
from npstyle.images.color import gray
from npstyle.optimize import Minimizer
from npstyle.run import PlannedLevel, Prepared, Progress, Request, prepare
from npstyle.run.checkpoint import fingerprint, name_of
from npstyle.run.finish import Finish, RestrictedObjective
from npstyle.run.level import Level
from npstyle.run.pyramid import Pyramid
from npstyle.settings import Settings
from npstyle.temporal import Anchor, difference_target
from npstyle.vgg import Filters

Array = NDArray[Any]
Frames = Mapping[int, Frame] | Sequence[Frame]
Method = Literal["flow", "difference", "none"]
METHODS: tuple[Method, ...] = get_args(Method)
TEMPORAL_WEIGHTS: dict[Method, float] = {"flow": 100.0, "difference": 20.0, "none": 0.0}


@dataclass(frozen=True)
class FilmSettings:
    """How the frames of a shot are held together. How the values were chosen: docs/video.md.

    Parameters
    ----------
    method : {"flow", "difference", "none"}
        "flow": a frame is compared with earlier ones, warped by optical flow, where that is reliable.
        "difference": it should change as the content picture does; needs no flow.
        "none": each frame is painted by itself.
    flow : {"dis", "tvl1"} or str
        The method that flows are estimated by, or a folder of .flo files.
    temporal_weight : float, optional
        Of the distance of pixels; TEMPORAL_WEIGHTS of the method, if left out.
    feature_weight : float
        "difference" only: of the distance of feature maps, in units of the content loss.
    iterations : int
        For each frame but a shot's first one, at full size.
    long_term : sequence of int
        "flow" only: how many frames back those are that a frame is compared with.
    """

    method: Method = "flow"
    flow: str = "dis"
    temporal_weight: float | None = None
    feature_weight: float = 5.0
    iterations: int = 8
    long_term: Sequence[int] = (1, 2, 4)

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        if self.temporal_weight is None:
            object.__setattr__(self, "temporal_weight", TEMPORAL_WEIGHTS[self.method])
        for name in ("temporal_weight", "feature_weight"):
            object.__setattr__(self, name, check_nonnegative(name, getattr(self, name)))
        object.__setattr__(self, "iterations", check_integer("frame_iterations", self.iterations, 0))
        steps = tuple(sorted({check_integer("long_term", step, 1) for step in self.long_term}))
        if 1 not in steps:
            raise UserError("long_term", f"{steps}", "1 among them", "the frame before is always used")
        object.__setattr__(self, "long_term", steps)
        if self.method == "flow":
            check_flow(self.flow)


@dataclass(frozen=True, eq=False)
class Film:
    """What all shots have in common.

    Attributes
    ----------
    styles : tuple of (h, w, 3) arrays
    settings : Settings
        Of the first frames; those after them take all but the iterations.
    temporal : FilmSettings
    width, height : int
        Of the painted frames.
    blend, style_scale, seed, convolution, preprocessing
        See `npstyle.stylize`.
    text : mapping of str to str
        Kept in each finished frame, for `npstyle show`.
    """

    styles: tuple[Array, ...]
    settings: Settings
    temporal: FilmSettings
    width: int
    height: int
    blend: tuple[float, ...] | None = None
    style_scale: float | None = None
    seed: int = 0
    convolution: Convolution = "auto"
    preprocessing: Preprocessing | None = None
    text: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.settings.color == "luma" and self.temporal.method != "none":
            # Its finished frames do not show what the network saw, which the next frame is compared with.
            found, expected = "luma", "style, match or luminance in a film"
            raise UserError("color", found, expected, "luminance paints the brightness only, too")

    def request(self, content: Array) -> Request:
        """The run that paints a frame by itself."""
        return Request(
            content=images.resize(content, self.width, self.height),
            styles=self.styles,
            settings=self.settings,
            size=max(self.width, self.height),
            blend=self.blend,
            style_scale=self.style_scale,
            seed=self.seed,
        )


# ------------------------------------------------------------------------------------------------
# Painting
# ------------------------------------------------------------------------------------------------


def paint_shot(
    film: Film,
    shot: Shot,
    weights: Mapping[str, Filters],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    memory: float | str | None = None,
    callback: Callable[[Frame, Progress | None], None] = lambda frame, progress: None,
) -> int:
    """Paint all frames of a shot that are not finished yet, and return how many there were.

    Parameters
    ----------
    film, shot
        Both can be pickled, and so can weights.
    weights : mapping
        Random ones are initialized to the shot's first frame.
    overwrite : bool
        Replace files that have the names of frames and are none of this film.
    threads, memory
        See `npstyle.stylize`.
    callback : callable
        Called with a frame and a `Progress` after each iteration, and with None once it is written.

    Raises
    ------
    UserError
        A frame can't be read or written, or its loss is not a finite number. Frames that were finished before
        stay.
    KeyboardInterrupt
        At any time; likewise.
    """
    missing = missing_frames(shot, overwrite)
    if not missing:
        return 0
    first = film.request(images.read(shot.frames[0].content))
    prepared = prepare(
        first,
        weights,
        preprocessing=film.preprocessing,
        convolution=film.convolution,
        threads=threads,
        memory=memory,
    )
    painter = ShotPainter(film, prepared, callback)
    for n in missing:
        frame = shot.frames[n]
        write_frame(frame, painter.paint(shot.frames, n), overwrite)
        callback(frame, None)
    return len(missing)


def write_frame(frame: Frame, file: bytes, overwrite: bool) -> None:
    """Write the file of a finished frame.

    Raises
    ------
    UserError
        It can't be written, or there is one and `overwrite` is False.
    """
    try:
        with open_replacing(frame.output, overwrite) as target:
            target.write(file)
    except OSError as error:
        found, cure = f"{error.strerror or error} on writing", "make some, and the same command continues"
        raise UserError(f"output: {frame.output}", found, "a folder with room", cure) from error


def frames_needed(temporal: FilmSettings, n: int) -> list[int]:
    """Which frames of a shot the n-th is painted from, from 0: the first, itself, and some before it."""
    steps = {"flow": temporal.long_term, "difference": (1,), "none": ()}[temporal.method]
    return sorted({0, n, *(n - step for step in steps if step <= n)})


class ShotPainter:
    """Paints the frames of one shot, with one network and one set of style targets.

    Parameters
    ----------
    film : Film
    prepared : Prepared
        Of the shot's first frame.
    callback : callable
        Called with a frame and a `Progress` after each iteration.
    """

    def __init__(
        self,
        film: Film,
        prepared: Prepared,
        callback: Callable[[Frame, Progress], None] = lambda frame, progress: None,
    ) -> None:
        self.film, self.prepared, self.callback = film, prepared, callback
        self.size = film.width, film.height
        self._first: tuple[Level, RestrictedObjective] | None = None

    def paint(self, frames: Frames, n: int) -> bytes:
        """The file of the n-th frame of the shot, from 0; `frames` has those of `frames_needed` by number."""
        frame = frames[n]
        pixels = self._from_pyramid(frame) if n == 0 else self._from_earlier(frames, n)
        text = {**(self.film.text or {}), "key": frame.key}
        return images.encode(frame.output, images.to_uint8(pixels), text=text)

    def _from_pyramid(self, frame: Frame) -> Array:
        """As any other picture; also all frames, one by one, with the method "none"."""
        prepared = self.prepared

        def after_iteration(progress: Progress) -> None:
            self.callback(frame, progress)

        result = Pyramid(prepared.request, prepared.network, after_iteration, None, prepared.plan_of).run()
        _check(frame, result.interrupted, result.diverged)
        return result.pixels

    def _from_earlier(self, frames: Frames, n: int) -> Array:
        """From earlier frames of the shot, at full size."""
        frame, film = frames[n], self.film
        level, first = self._level()
        content = self._content(frame)
        start, anchor = self._anchor(frames, n, content)
        objective = RestrictedObjective(
            first.objective.for_frame(self._seen(content), anchor), level.gray, None
        )
        settings = replace(film.settings, iterations=film.temporal.iterations)
        request = replace(self.prepared.request, content=content)
        finish = Finish(request, *self.size)
        threads = self.prepared.network.threads
        minimizer = Minimizer(objective, start, settings, None, None, threads)

        def after_iteration(pixels: NDArray[np.float32], loss: float, terms: Mapping[str, float]) -> None:
            schedule = (PlannedLevel(*self.size, film.temporal.iterations),)
            nit = minimizer.nit
            self.callback(frame, Progress(nit, 1, schedule, loss, terms, pixels, nit, finish))

        minimizer.callback = after_iteration
        result = minimizer.run()
        minimizer.callback = None
        _check(frame, result.interrupted, result.diverged)
        return np.asarray(finish(result.pixels))

    def _level(self) -> tuple[Level, RestrictedObjective]:
        """The first frame at full size: its styles, and their targets, are those of the whole shot."""
        if self._first is None:
            level = Level(self.prepared.request, *self.size)
            self._first = level, level.objective(self.prepared.network, self.prepared.plan_of(self.size))
        return self._first

    def _content(self, frame: Frame) -> NDArray[np.uint8]:
        return np.asarray(images.resize(images.read(frame.content), *self.size))

    def _painted(self, frame: Frame) -> Array:
        """An earlier frame as it was written."""
        return self._seen(images.read(frame.painted or frame.output).astype(np.float32))

    def _seen(self, picture: Array) -> Array:
        """A picture as the network sees it: gray, where only brightness is painted."""
        return np.asarray(gray(picture), np.float32) if self._level()[0].gray else picture

    def _anchor(self, frames: Frames, n: int, content: NDArray[np.uint8]) -> tuple[Array, Anchor]:
        """The picture to start from, and what the frame is compared with."""
        temporal = self.film.temporal
        weight = temporal.temporal_weight or 0.0
        if temporal.method == "difference":
            previous, pictures = self._painted(frames[n - 1]), (content, self._content(frames[n - 1]))
            now, before = (self._seen(picture.astype(np.float32)) for picture in pictures)
            target = difference_target(previous, now, before)
            return target, Anchor(target, None, weight, previous, before, temporal.feature_weight)
        targets, masks = [], []
        for step in temporal.long_term:
            if step > n:
                break
            earlier = frames[n - step]
            numbers = earlier.number, frames[n].number
            pair = flow_between(self._content(earlier), content, temporal.flow, numbers)
            targets.append(warp(self._painted(earlier), pair.backward))
            masks.append(reliability(pair))
        target, mask = joined_target(targets, long_term_masks(masks))
        return target, Anchor(target, mask, weight)


def _check(frame: Frame, interrupted: bool, diverged: bool) -> None:
    if interrupted:
        raise KeyboardInterrupt
    if diverged:
        found, cure = "a loss that is no finite number", "take smaller weights or other filters"
        raise UserError(frame.name, found, "one", cure)


def flow_files(film: FilmSettings, first: int, number: int) -> list[Path]:
    """The .flo files that a frame needs, of a shot that begins with the frame `first`."""
    if film.method != "flow" or film.flow in FLOW_METHODS:
        return []
    earlier = [number - step for step in film.long_term if number - step >= first]
    return [Path(film.flow) / name for n in earlier for name in flow_names(n, number)]


def _flow_checksum(path: Path) -> str:
    try:
        return file_checksum(path)
    except UserError as error:
        raise missing_flow(path, error.found) from error


# ------------------------------------------------------------------------------------------------
# Planning
# ------------------------------------------------------------------------------------------------


def film_key(film: Film, weights: Mapping[str, Filters]) -> str:
    """A checksum of all that every frame of a film depends on."""
    nothing = np.zeros((film.height, film.width, 3), np.uint8)
    method = film.temporal.method
    options: dict[str, Any] = {"method": method} if method == "none" else asdict(film.temporal)
    options |= {"flow": flow_version(film.temporal.flow)} if method == "flow" else {}
    options |= {"convolution": film.convolution, "preprocessing": film.preprocessing}
    items = fingerprint(film.request(nothing), weights, **options)
    return name_of(items).removesuffix(".npz")


def plan_shots(
    frames: Sequence[SourceFrame],
    outputs: Sequence[Path],
    film: Film,
    weights: Mapping[str, Filters],
    cuts: bool = True,
) -> list[Shot]:
    """The shots of a film: between cuts, if they are looked for; each frame by itself with the method "none".

    Raises
    ------
    UserError
        A flow that will be needed is missing.
    """
    key, temporal = film_key(film, weights), film.temporal
    if temporal.method == "none":
        ranges = [range(n, n + 1) for n in range(len(frames))]
    else:
        ranges = find_shots([frame.histogram for frame in frames]) if cuts else [range(len(frames))]
    shots = []
    for numbers in ranges:
        flows = [flow_files(temporal, numbers[0] + 1, n + 1) for n in numbers]
        read = [[frames[n].checksum, *map(_flow_checksum, f)] for n, f in zip(numbers, flows, strict=True)]
        keys = chain(key, [" ".join(checksums) for checksums in read])
        members = (Frame(n + 1, frames[n].path, outputs[n], k) for n, k in zip(numbers, keys, strict=True))
        shots.append(Shot(tuple(members)))
    return shots
