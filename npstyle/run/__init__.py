"""The run: from pictures, settings and weights to a painted picture, from a small level to the full one."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import images
from npstyle._typing import Convolution
from npstyle.architecture import convolutions_up_to, deepest
from npstyle.errors import UserError, check_integer
from npstyle.images.color import gray, match_color_statistics, match_luma_statistics, transfer_luma
from npstyle.initialize import data_dependent_init
from npstyle.layers import CaffeInput
from npstyle.objective import Objective
from npstyle.optimize import Minimizer, OptimizeResult
from npstyle.presets import preset
from npstyle.run import checkpoint as checkpoints
from npstyle.run.checkpoint import Checkpoint, checksum
from npstyle.run.inputs import Pictures, Source, large_enough, read_all, resized_mask
from npstyle.settings import Settings
from npstyle.vgg import VGG19, Filters
from npstyle.weights import Weights, load_weights

Array = NDArray[Any]


@dataclass(frozen=True)
class Progress:
    """What a callback is given after each iteration.

    Attributes
    ----------
    iteration, iterations : int
        How many are done, of how many, over all levels.
    level, levels : int
        Which of them this is, from 1.
    loss : float
    terms : mapping of str to float
        The parts of the loss, as `Objective.terms`.
    iterate : (h, w, 3) float32 array
        The best picture of this level so far, as the network sees it.
    """

    iteration: int
    iterations: int
    level: int
    levels: int
    loss: float
    terms: Mapping[str, float]
    iterate: NDArray[np.float32]
    _finish: Callable[[Array], Array] = field(repr=False, default=lambda pixels: pixels)

    @property
    def image(self) -> images.Picture:
        """The picture so far, (h, w, 3) uint8, as it would be written."""
        return images.to_uint8(self._finish(self.iterate))


@dataclass(frozen=True)
class StyleResult:
    """What a run ends with. In a notebook it shows itself.

    Attributes
    ----------
    image : (H, W, 3) uint8 array
    loss : float
        Of the picture at the last level, before it was rounded to whole numbers.
    losses : list of float
        The loss of the last level at its start and after each iteration.
    message : str
        Why the run stopped, in plain words.
    interrupted : bool
        By Ctrl-C; the picture is the best up to then.
    diverged : bool
        Loss or gradient were no longer finite numbers; the picture is the last good one.
    pixels : (H, W, 3) float32 array
        The picture before rounding and clipping.
    checkpoint : Path or None
        Where the run's state was kept, if it was.
    """

    image: images.Picture
    loss: float
    losses: list[float]
    message: str
    interrupted: bool
    diverged: bool
    pixels: NDArray[np.float32] = field(repr=False)
    checkpoint: Path | None = None

    def _repr_png_(self) -> bytes:
        return images.png(self.image)


def stylize(
    content: Source,
    styles: Sequence[Source] | Source,
    *,
    settings: Settings | str | None = None,
    weights: Mapping[str, Filters] | str | os.PathLike[str] = "auto",
    size: int = 512,
    iterations: int | None = None,
    seed: int = 0,
    init: Source | None = None,
    blend: Sequence[float] | None = None,
    style_scale: float = 1.0,
    content_masks: Sequence[Source] = (),
    style_masks: Sequence[Source] = (),
    keep: Source | None = None,
    convolution: Convolution = "auto",
    threads: int | None = None,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    resume: bool = False,
) -> StyleResult:
    """Paint the content picture in the manner of the style pictures.

    Parameters
    ----------
    content : path, Pillow image or (H, W, 3) array
        An array is RGB, 0..255.
    styles : the same, or a sequence of them
        Of any sizes.
    settings : Settings or name of a preset, optional
        If left out, `preset("default")`, or `preset("random")` with random filters.
    weights : mapping, str or path
        Filters, or what `load_weights` is to load.
    size : int
        Longer side of the result and of the style pictures, in pixels; smaller pictures stay as they are.
    iterations : int, optional
        At each level, in place of `settings.iterations`. One of L-BFGS takes more than one loss and
        gradient, now and then two or three.
    seed : int
        Of noise in the start, and of random filters.
    init : path, image or array, optional
        A picture to start from, in place of `settings.init`; resized to the content picture's size.
    blend : sequence of float, optional
        How much each style picture counts; evenly, if left out.
    style_scale : float
        Size of the style pictures beside `size`: larger strokes above 1, finer ones below.
    content_masks, style_masks : sequences of paths, images or (H, W) arrays, optional
        Pairs of regions, each mask of its picture's size, white (of arrays 1) inside: what is in the n-th
        content mask is painted like what is in the n-th style mask. What is in no content mask is painted
        by its surroundings' gradient alone.
    keep : path, image or (H, W) array, optional
        A mask of what is left as it is in the content picture.
    convolution, threads
        See `VGG19`.
    callback : callable, optional
        Called with a `Progress` after each iteration. It may raise StopIteration to end the run.
    checkpoint : path, optional
        A file that the run's state is written to every `checkpoint_every` seconds and on Ctrl-C, or a folder
        for it. It is left there.
    resume : bool
        Go on from the checkpoint, to the same picture as a run that was never ended.

    Returns
    -------
    StyleResult
        Also on Ctrl-C (KeyboardInterrupt) after the first iteration, which ends the run with the picture
        so far, enlarged if it was at a smaller level.

    Raises
    ------
    UserError
        Something given can't be used; the message says what, and what would do.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> photo, painting = rng.uniform(0, 255, (40, 60, 3)), rng.uniform(0, 255, (50, 50, 3))
    >>> result = stylize(photo, painting, weights="random", iterations=2)
    >>> result.image.shape, result.image.dtype
    ((40, 60, 3), dtype('uint8'))
    """
    seed = check_integer("seed", seed, 0)
    if isinstance(settings, str):
        settings = preset(settings)
    like = settings or preset("random")
    masks = content_masks, style_masks, keep
    pictures = read_all(content, styles, size, like, blend, style_scale, *masks, init)
    photo, paintings = pictures.content, pictures.styles
    fitting = [images.fit(picture, size) for picture in (photo, *paintings)]
    settings, filters = prepare(settings, weights, fitting, seed, threads)
    if iterations is not None:
        settings = replace(settings, iterations=iterations)
    network = VGG19.for_settings(filters, settings, convolution, threads)
    keeper = None
    if checkpoint is not None:
        options = {"size": size, "seed": seed, "style_scale": style_scale, "blend": blend}
        fingerprint = _identity(settings, pictures, filters, {**options, "convolution": convolution})
        keeper = CheckpointWriter(Path(checkpoint), checkpoint_every, fingerprint)
    elif resume:
        raise UserError("resume", "no checkpoint", "the file to go on from", "name it")
    run = _Run(network, pictures, settings, size, blend, style_scale, seed, callback, keeper)
    return run.result(resume)


def _identity(
    settings: Settings, pictures: Pictures, filters: Mapping[str, Filters], options: Mapping[str, Any]
) -> dict[str, str]:
    """What makes a run this one and no other; anything else ends in another picture."""
    found = {name: f"{value!r}" for name, value in options.items()}
    found |= {entry.name: f"{getattr(settings, entry.name)!r}" for entry in fields(settings)}
    found |= {name: version(name) for name in ("npstyle", "numpy", "scipy")}
    for name, value in pictures._asdict().items():
        arrays = value if isinstance(value, list) else [] if value is None else [value]
        found |= {f"{name} {n}": checksum(array) for n, array in enumerate(arrays, 1)}
    for name in convolutions_up_to(deepest(settings.layers)):
        if name in filters:
            found[f"filters of {name}"] = checksum(filters[name].kernel) + checksum(filters[name].bias)
    return found


def prepare(
    settings: Settings | None,
    weights: Mapping[str, Filters] | str | os.PathLike[str],
    pictures: Sequence[ArrayLike],
    seed: int = 0,
    threads: int | None = None,
) -> tuple[Settings, Mapping[str, Filters]]:
    """Settings and filters of a run: loaded where they are named, calibrated where they are random."""
    if isinstance(weights, (str, os.PathLike)):
        top = deepest((settings or preset("default")).layers)
        weights = load_weights(weights, seed=seed, deepest=top)
    random = isinstance(weights, Weights) and weights.random
    settings = settings or preset("random" if random else "default")
    if random:
        weights = data_dependent_init(weights, pictures, settings.layers, settings.pooling, threads)
    return settings, weights


def starting_picture(content: ArrayLike, settings: Settings, seed: int) -> Array:
    """The picture a run starts from, (H, W, 3): see `Settings.init`."""
    picture = np.asarray(content, np.float64)
    if settings.init == "content":
        return picture.copy()
    rng = np.random.default_rng(seed)
    if settings.noise_std:
        mean = CaffeInput.MEAN_BGR[::-1]
        noise = mean + settings.noise_std * rng.standard_normal(picture.shape)
    else:
        noise = rng.uniform(0, 255, picture.shape)
    share = 1.0 if settings.init == "noise" else settings.init_noise
    return noise if share == 1 else (1 - share) * picture + share * noise


def levels(longer: int, min_size: int) -> list[int]:
    """Longer sides of a run's pictures: each sqrt(2) times the one before, the first about `min_size`.

    Examples
    --------
    >>> levels(512, 128)
    [128, 181, 256, 362, 512]
    >>> levels(512, 0)
    [512]
    """
    steps = round(2 * math.log2(longer / min_size)) if 0 < min_size < longer else 0
    return [round(longer / 2 ** (step / 2)) for step in range(steps, -1, -1)]


def _ended(outcome: OptimizeResult, error: BaseException) -> OptimizeResult:
    """The outcome of one level, if the next could not begin."""
    if isinstance(error, KeyboardInterrupt):
        return outcome._replace(interrupted=True, message=f"interrupted: {outcome.message}")
    return outcome._replace(message=f"{outcome.message}, then there was too little memory for the next size")


class _Evaluation:
    """The objective, of which the optimizer may change less than every color of every pixel."""

    def __init__(self, objective: Objective, gray: bool, keep: Array | None) -> None:
        self.objective = objective
        self.gray = gray
        self.free = None if keep is None else (1 - keep[:, :, None]).astype(np.float32)

    @property
    def terms(self) -> Mapping[str, float]:
        return self.objective.terms

    def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
        """Loss, and the gradient's part along what may change."""
        loss, gradient = self.objective(pixels)
        if self.gray:  # x = Y (1, 1, 1): the projection on that direction
            gradient = np.repeat(gradient.mean(axis=2, keepdims=True), 3, axis=2)
        return loss, gradient if self.free is None else gradient * self.free


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; the run goes on without."""


class CheckpointWriter:
    """Writes a checkpoint every so often, and takes up the one that is there."""

    def __init__(self, path: Path, every: float, fingerprint: dict[str, str]) -> None:
        self.path = path / checkpoints.name_of(fingerprint) if os.path.isdir(path) else path
        self.every = every
        self.fingerprint = fingerprint
        self.next = time.monotonic() + every
        self.failed = False

    def read(self) -> Checkpoint:
        found = checkpoints.read(self.path)
        checkpoints.check(found, self.fingerprint, self.path)
        return found

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.next

    def write(self, level: int, done: int, state: dict[str, Array]) -> None:
        began = time.monotonic()
        try:
            checkpoints.write(self.path, Checkpoint(self.fingerprint, level, done, state))
        except UserError as error:
            if not self.failed:  # said once; what is written between two levels and at the end is tried again
                warnings.warn(f"{error}; going on without checkpoints", CheckpointWarning, stacklevel=2)
            self.next, self.failed = math.inf, True
            return
        self.failed = False
        now = time.monotonic()
        # Large pictures have large states: no more than a twentieth of the time goes into writing them.
        self.next = now + max(self.every, 20 * (now - began))


# What the checkpoint of a level that has not begun holds instead of a descent's state.
BEFORE = "before"


class _Run:
    """The levels one after the other, each started with the result of the one before."""

    def __init__(
        self,
        network: VGG19,
        pictures: Pictures,
        settings: Settings,
        size: int,
        blend: Sequence[float] | None,
        style_scale: float,
        seed: int,
        callback: Callable[[Progress], None] | None,
        keeper: CheckpointWriter | None = None,
    ) -> None:
        self.network = network
        self.pictures = pictures
        self.settings = settings
        self.size = size
        self.blend = blend
        self.style_scale = style_scale
        self.seed = seed
        self.callback = callback
        self.keeper = keeper
        self.gray = settings.color == "luminance"
        H, W, _ = pictures.content.shape
        longer = max(images.fitted_size(W, H, size))
        full = [images.fitted_size(W, H, side) for side in levels(longer, settings.min_size)]
        self.full = full[-1]
        self.sizes = [size for size in full[:-1] if self._large_enough(size)] + full[-1:]
        self.done = 0

    def result(self, resume: bool = False) -> StyleResult:
        """From the first level, or from the checkpoint, to the last, or to Ctrl-C."""
        kept = self.keeper.read() if resume and self.keeper else None
        outcome: OptimizeResult | None = None
        before: Array | None = None
        painted = self.full
        for level, size in enumerate(self.sizes, 1):
            if kept and level < kept.level:
                continue
            mine = kept if kept and level == kept.level else None
            try:
                before = self._begin(level, before, mine)
                outcome = self._descend(level, size, before, mine)
            except (KeyboardInterrupt, MemoryError) as error:
                if outcome is None:
                    raise  # there is nothing yet that is worth keeping
                outcome = _ended(outcome, error)
                break
            painted, before = size, outcome.pixels
            if outcome.ended_early:
                break
        if outcome is None:
            raise UserError(
                "resume", f"level {kept and kept.level}", f"1 to {len(self.sizes)}", "begin again"
            )
        return self._shown(outcome, painted)

    def _begin(self, level: int, before: Array | None, kept: Checkpoint | None) -> Array | None:
        """The picture a level starts from, kept for whoever is interrupted before its first iteration."""
        if kept:
            self.done = kept.done
            before = kept.state.get(BEFORE)
            w, h = self.sizes[level - 2]
            if before is not None and (level == 1 or before.shape != (h, w, 3) or before.dtype != np.float32):
                raise self._another(f"{before.dtype} array of shape {before.shape} before level {level}")
            return before
        if self.keeper and before is not None:
            self.keeper.write(level, self.done, {BEFORE: before})
        return before

    def _another(self, why: str) -> UserError:
        name = f"checkpoint: {self.keeper.path}" if self.keeper else "checkpoint"
        return UserError(name, f"something else ({why})", "one of this run", "begin again")

    def _shown(self, outcome: OptimizeResult, painted: tuple[int, int]) -> StyleResult:
        """The result, enlarged where the run ended at a smaller level."""
        pixels: Array = outcome.pixels
        message = outcome.message
        if len(self.sizes) > 1 and not outcome.ended_early:
            message += f" at the last of {len(self.sizes)} sizes"
        if painted != self.full:
            pixels = images.resize(pixels, *self.full)
            message += f"; the picture is enlarged from {painted[0]} x {painted[1]} pixels"
        pixels = np.asarray(self._finisher(*self.full)(pixels), np.float32)
        return StyleResult(
            images.to_uint8(pixels),
            outcome.loss,
            outcome.losses,
            message,
            outcome.interrupted,
            outcome.diverged,
            pixels,
            self.keeper.path if self.keeper else None,
        )

    def _descend(
        self, level: int, size: tuple[int, int], before: Array | None, kept: Checkpoint | None
    ) -> OptimizeResult:
        """One level."""
        w, h = size
        content, styles, masks, keep = self._at(w, h)
        objective = Objective(self.network, content, styles, self.settings, self.blend, *masks)
        start = self._start(content, w, h) if before is None else images.resize(before, w, h)
        if keep is not None:
            start = keep[:, :, None] * content + (1 - keep[:, :, None]) * start
        finish = self._finisher(w, h)

        def after_iteration(pixels: NDArray[np.float32], loss: float, terms: Mapping[str, float]) -> None:
            self.done += 1
            if self.keeper and self.keeper.due:
                self.keeper.write(level, self.done, descent.state)
            total = self.settings.iterations * len(self.sizes)
            if self.callback is not None:
                at = (self.done, total, level, len(self.sizes))
                self.callback(Progress(*at, loss, terms, pixels, finish))

        evaluation = _Evaluation(objective, self.gray, keep)
        state = kept.state if kept and BEFORE not in kept.state else None
        try:
            descent = Minimizer(evaluation, start, self.settings, after_iteration, state)
        except ValueError as error:
            raise self._another(str(error)) from error
        outcome = descent.outcome()
        if outcome.interrupted and self.keeper:
            self.keeper.write(level, self.done, descent.state)
        return outcome

    def _style_sizes(self, w: int, h: int) -> list[tuple[int, int]]:
        """Widths and heights of the style pictures, where the result is (w, h)."""
        longer = max(1, round(self.size * self.style_scale * max(w, h) / max(self.full)))
        shapes = [style.shape for style in self.pictures.styles]
        if self.settings.style_as_content:
            return [(w, h)] * len(shapes)
        return [images.fitted_size(W, H, longer) for H, W, _ in shapes]

    def _large_enough(self, size: tuple[int, int]) -> bool:
        return all(large_enough(one, self.settings) for one in [size, *self._style_sizes(*size)])

    def _at(self, w: int, h: int) -> tuple[Array, list[Array], tuple[list[Array], list[Array]], Array | None]:
        """Pictures and masks as the network is shown them at one level."""
        p, s = self.pictures, self.settings
        content = images.resize(p.content, w, h)
        sizes = self._style_sizes(w, h)
        styles = [images.resize(style, *size) for style, size in zip(p.styles, sizes, strict=True)]
        if s.color == "match":
            styles = [match_color_statistics(style, content) for style in styles]
        if self.gray:
            content = gray(content)
            styles = [match_luma_statistics(gray(style), content) for style in styles]
        mask_sizes = sizes if len(sizes) > 1 else sizes * len(p.style_masks)
        masks = (
            [resized_mask(mask, w, h) for mask in p.content_masks],
            [resized_mask(mask, *size) for mask, size in zip(p.style_masks, mask_sizes, strict=False)],
        )
        return content, styles, masks, None if p.keep is None else resized_mask(p.keep, w, h)

    def _start(self, content: Array, w: int, h: int) -> Array:
        if self.pictures.init is not None:
            start = images.resize(self.pictures.init, w, h).astype(np.float64)
        else:
            start = starting_picture(content, self.settings, self.seed)
        return gray(start) if self.gray else start

    def _finisher(self, w: int, h: int) -> Callable[[Array], Array]:
        """What makes the picture that is shown of the one that the network sees."""
        p = self.pictures
        recolor = self.settings.color in ("luma", "luminance")
        if not recolor and p.keep is None:
            return lambda pixels: pixels

        def finish(pixels: Array) -> Array:
            content = images.resize(p.content, w, h)
            if recolor:
                pixels = transfer_luma(pixels, content)
            if p.keep is not None:
                keep = resized_mask(p.keep, w, h)[:, :, None]
                pixels = keep * content + (1 - keep) * pixels
            return pixels

        return finish
