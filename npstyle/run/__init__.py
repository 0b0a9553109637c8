"""A run: from pictures, settings and weights to a painted picture.

`stylize` reads its pictures (`inputs`), prepares the network and goes through the levels of `pyramid`, each
at a size of its own (`level`), to a `StyleResult` (`results`). `checkpoint` stores its state, `finish` adds
what the result takes over from the content picture, and `memory` says beforehand how much a run needs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from npstyle import images
from npstyle._runtime.memo import Memo
from npstyle._runtime.paths import as_path
from npstyle._typing import Array, Convolution, Preprocessing
from npstyle.architecture import MIN_SIZE, deepest
from npstyle.divided import Workers
from npstyle.errors import UserError
from npstyle.initialize import data_dependent_init
from npstyle.optimize import warn_of_optimizer, with_possible_optimizer
from npstyle.presets import as_settings
from npstyle.run.checkpoint import fingerprint
from npstyle.run.checkpoint_writer import CheckpointWarning, CheckpointWriter, Resume, check_place
from npstyle.run.inputs import Request, Source
from npstyle.run.memory import as_bytes, available_memory, choose_plan, level_memory
from npstyle.run.pyramid import Pyramid
from npstyle.run.results import LevelResult, NextLevel, PlannedLevel, Progress, StyleResult
from npstyle.settings import Settings
from npstyle.vgg import VGG19, Filters
from npstyle.weights import Weights, load_weights

__all__ = [
    "CheckpointWarning",
    "LevelResult",
    "NextLevel",
    "PlannedLevel",
    "Prepared",
    "Progress",
    "Request",
    "StyleResult",
    "paint",
    "prepare",
    "stylize",
]

# Of a picture that random filters are initialized to: their statistics hardly change with its size, and all
# positions of a layer have to be there at once.
INITIALIZATION_PIXELS = 1024 * 1024


def stylize(
    content: Source,
    styles: Sequence[Source] | Source,
    *,
    settings: Settings | str | None = None,
    weights: Mapping[str, Filters] | str | os.PathLike[str] = "auto",
    size: int | None = None,
    iterations: int | Sequence[int] | None = None,
    seed: int = 0,
    init: Source | None = None,
    blend: Sequence[float] | None = None,
    style_scale: float | None = None,
    content_masks: Sequence[Source] = (),
    style_masks: Sequence[Source] = (),
    keep: Source | None = None,
    enlarge: bool = False,
    width: int | None = None,
    height: int | None = None,
    preprocessing: Preprocessing | None = None,
    convolution: Convolution = "auto",
    threads: int | None = None,
    memory: float | str | None = None,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    resume: Resume = False,
) -> StyleResult:
    """Paint the content picture in the manner of the style pictures.

    Parameters
    ----------
    content : path, Pillow image or (H, W, 3) array
        An array is RGB, 0..255.
    styles : the same, or a sequence of them
        Of any sizes.
    settings : Settings or name of a preset, optional
        If left out, `preset("default")`, or `preset("random")` with random weights.
    weights : mapping, str or path
        Loaded weights, or what `load_weights` is to load. Random ones are initialized to the pictures.
    preprocessing : {"caffe", "torchvision"}, optional
        The preprocessing that the filters expect; required if neither the weights nor their file say it.
    size : int, optional
        Longer side of the result and of the style pictures, in pixels: 512, if left out. Smaller pictures
        keep their size.
    iterations : int or sequence of int, optional
        At each level, or at each of the last levels, in place of `settings.iterations`. One of L-BFGS takes
        one evaluation of loss and gradient, now and then two or three.
    seed : int
        Of the noise in the start, and of random weights.
    init : path, image or array, optional
        A picture to start from, in place of `settings.init`; resized to the result's size. Cropped as the
        content picture, if both `width` and `height` are given.
    blend : sequence of float, optional
        The weight of each style picture; equal, if left out.
    style_scale : float, optional
        Size of the style pictures relative to `size`, or to the longer of `width` and `height`: larger
        strokes above 1, finer ones below. If left out, 1.
    content_masks, style_masks : sequences of paths, images or (H, W) arrays, optional
        Pairs of regions, each mask of its picture's size, white (of arrays 1) inside: the n-th region of
        the content picture is painted like the n-th region of the style picture. What is in no content
        mask is influenced by its surroundings only.
    keep : path, image or (H, W) array, optional
        A mask of what is left as it is in the content picture.
    enlarge : bool
        Let the result be larger than the content picture, if `size`, `width` or `height` is. Style pictures
        still keep their size where they are smaller, unless `style_scale` is given, too.
    width, height : int, optional
        The result's, exactly, in place of `size`. With one of them it has the content picture's proportions.
        With both the content picture is cropped to theirs, around its center, and its masks with it.
    convolution, threads
        See `VGG19`.
    memory : float or str, optional
        What the run may take, in bytes or as "8GB": what there is, if left out. Where it does not suffice,
        blocks of the network are computed in strips, which takes longer; the picture is the same.
    callback : callable, optional
        Called with a `Progress` after each iteration. It may raise StopIteration to end the run, or
        `npstyle.run.NextLevel` to end the current level and continue with the next.
    checkpoint : path, optional
        A file that the run's state is written to every `checkpoint_every` seconds and on Ctrl-C, or a folder
        for it. It is left there. A file that is there must be a checkpoint of the same run, and is replaced
        once this one is further.
    resume : bool, "must" or "quietly"
        Continue from the checkpoint, if there is one, to the same result as a run that was never stopped;
        with "must", raise an error if there is none, and with "quietly" no warning.

    Returns
    -------
    StyleResult
        Also on Ctrl-C (KeyboardInterrupt) after the first iteration, which ends the run with the picture
        so far, enlarged if it was at a smaller level.

    Raises
    ------
    UserError
        An argument can't be used; the message says why, and what could be.

    Warns
    -----
    CheckpointWarning
        A checkpoint can't be written; there is none to continue from; or there is one, and `resume` is
        False.

    See Also
    --------
    Request.read, paint : the same in two steps, for pictures that are painted several times.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> photo, painting = rng.uniform(0, 255, (40, 60, 3)), rng.uniform(0, 255, (50, 50, 3))
    >>> result = stylize(photo, painting, weights="random", iterations=2)
    >>> result.image.shape, result.image.dtype, result.nit
    ((40, 60, 3), dtype('uint8'), 2)
    """
    _check_checkpoint(checkpoint, resume)
    request = Request.read(
        content,
        styles,
        settings=_with_iterations("default" if settings is None else settings, iterations),
        size=size,
        blend=blend,
        style_scale=style_scale,
        content_masks=content_masks,
        style_masks=style_masks,
        keep=keep,
        init=init,
        seed=seed,
        enlarge=enlarge,
        width=width,
        height=height,
    )
    if isinstance(weights, (str, os.PathLike)):
        top = deepest(request.settings.layers)
        weights = load_weights(weights, request.seed, top, preprocessing=preprocessing)
    if settings is None and _random(weights):
        request = replace(request, settings=_with_iterations("random", iterations))
    return paint(
        request,
        weights,
        preprocessing=preprocessing,
        convolution=convolution,
        threads=threads,
        memory=memory,
        callback=callback,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
    )


def paint(
    request: Request,
    weights: Mapping[str, Filters],
    *,
    preprocessing: Preprocessing | None = None,
    convolution: Convolution = "auto",
    threads: int | None = None,
    memory: float | str | None = None,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    resume: Resume = False,
    memo: Memo | None = None,
    workers: Callable[[VGG19], Workers] | None = None,
) -> StyleResult:
    """Paint a picture that was requested, with weights that are loaded.

    Parameters
    ----------
    request : Request
        From `Request.read`.
    weights : mapping of str to weights
        Random ones (`Weights.random`) are initialized to the request's pictures first.
    preprocessing, convolution, threads, memory, callback, checkpoint, checkpoint_every, resume
        See `stylize`.
    memo : Memo, optional
        Where what is computed of the style pictures is kept, for further pictures with the same weights: one
        memo for each weights. Not used with random ones, which are initialized to each picture.
    workers : callable, optional
        Given the network, those who compute levels of more than 960 rows, a band each: `npstyle.divided`.

    Returns
    -------
    StyleResult

    Examples
    --------
    >>> import numpy as np
    >>> from npstyle import load_weights
    >>> picture = np.random.default_rng(0).uniform(0, 255, (32, 32, 3))
    >>> request = Request.read(picture, picture[::-1], settings="random")
    >>> weights = load_weights("random")
    >>> paint(replace(request, settings=replace(request.settings, iterations=3)), weights).nit
    3
    """
    if callback is not None and not callable(callback):
        raise UserError("callback", repr(callback), "a function", "it is called with a Progress")
    request.check()
    _check_checkpoint(checkpoint, resume)
    prepared = prepare(
        request,
        weights,
        preprocessing=preprocessing,
        convolution=convolution,
        threads=threads,
        memory=memory,
    )
    request, network = prepared.request, prepared.network
    # Random filters are others for each picture, and would be taken for the same.
    network.memo = None if _random(weights) else memo
    writer = None
    if checkpoint is not None:
        options = {"convolution": convolution, "preprocessing": network.preprocessing}
        writer = CheckpointWriter(
            as_path(checkpoint), checkpoint_every, fingerprint(request, prepared.weights, **options)
        )
    helpers = workers(network) if workers else None
    pyramid = Pyramid(request, network, callback, writer, prepared.plan_of, helpers)
    result = pyramid.run(writer.begin(resume) if writer else None)
    return replace(result, weights=prepared.label)


class Prepared(NamedTuple):
    """A request that can be painted at once: with its network, and a plan for the memory there is.

    Attributes
    ----------
    request : Request
        With an optimizer that its size permits.
    weights : mapping
        Random ones are initialized to the request's pictures.
    network : VGG19
    plan_of : callable
        The evaluation plan of a level of a width and height; see `Objective`.
    label : str
        The weights, in words.
    """

    request: Request
    weights: Mapping[str, Filters]
    network: VGG19
    plan_of: Callable[[tuple[int, int]], int]
    label: str


def prepare(
    request: Request,
    weights: Mapping[str, Filters],
    *,
    preprocessing: Preprocessing | None = None,
    convolution: Convolution = "auto",
    threads: int | None = None,
    memory: float | str | None = None,
) -> Prepared:
    """All that a run does before its first level; parameters as in `paint`."""
    if memory is not None:
        as_bytes(memory)
    W, H = request.result_size
    settings = with_possible_optimizer(request.settings, W * H)
    warn_of_optimizer(request.settings, settings)
    request, label = (
        replace(request, settings=settings),
        getattr(weights, "label", "filters given as a mapping"),
    )
    if _random(weights):
        weights = data_dependent_init(
            weights,
            _pictures_to_initialize(request),
            settings.layers,
            settings.pooling,
            threads,
            preprocessing,
        )
    network = VGG19.for_settings(weights, settings, convolution, threads, preprocessing)
    available = available_memory(threads) if memory is None else as_bytes(memory)

    def plan_of(size: tuple[int, int]) -> int:
        def bytes_with(plan: int) -> float:
            return level_memory(request, size, convolution, threads, plan)

        return choose_plan(bytes_with, available, settings.layers)

    return Prepared(request, weights, network, plan_of, label)


def _check_checkpoint(checkpoint: str | os.PathLike[str] | None, resume: Resume) -> None:
    """Raise UserError, before anything takes time, where a run's state can't be read or written."""
    if resume not in (False, True, "must", "quietly"):
        raise UserError("resume", repr(resume), "False, True, 'must' or 'quietly'", "choose one of these")
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise UserError("checkpoint", repr(checkpoint), "a path", "name a file or a folder")
    if checkpoint is not None:
        check_place(checkpoint)
    elif resume:
        raise UserError("resume", "no checkpoint", "the file to continue from", "name it")


def _pictures_to_initialize(request: Request) -> list[Array]:
    """What random filters are initialized to: the pictures in the sizes of the run, but for large ones."""
    styles = (style.shape for style in request.styles)
    sizes = (images.fitted_size(W, H, request.size, request.enlarges_styles) for H, W, _ in styles)
    pairs = zip((request.content, *request.styles), (request.result_size, *sizes), strict=True)
    return [images.resize(picture, *_reduced(*size)) for picture, size in pairs]


def _reduced(width: int, height: int) -> tuple[int, int]:
    """A size of at most INITIALIZATION_PIXELS with about the same proportions."""
    scale = min(1.0, math.sqrt(INITIALIZATION_PIXELS / (width * height)))
    # A side that is short already stays, as deep layers need some pixels.
    width, height = (max(min(n, 2 * MIN_SIZE), round(n * scale)) for n in (width, height))
    return width, height


def _random(weights: Mapping[str, Filters]) -> bool:
    return isinstance(weights, Weights) and weights.random


def _with_iterations(settings: Settings | str, iterations: int | Sequence[int] | None) -> Settings:
    """The settings, or the preset of this name, with another number of iterations if one is given."""
    settings = as_settings(settings)
    return settings if iterations is None else replace(settings, iterations=iterations)
