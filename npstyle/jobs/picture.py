"""One picture as a job: all that it takes, to be painted here or in another process, to the same bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npstyle import images
from npstyle._typing import Convolution
from npstyle.errors import UserError
from npstyle.images.metadata import as_text
from npstyle.jobs.filters import Filters, kept
from npstyle.run import Progress, Request, StyleResult, paint
from npstyle.run.memory import available_memory
from npstyle.study.judging import JUDGED_SIZE, Judge, trained_weights


@dataclass(frozen=True)
class PictureJob:
    """A picture to paint.

    Attributes
    ----------
    content : path or FileContents
    styles : tuple of the same
    output : Path
        Its extension is the format; nothing is written.
    request : mapping
        More arguments of `Request.read`.
    filters : Filters
    recorded : mapping
        The options that are stored in the picture (`npstyle.images.metadata.as_text`).
    convolution, threads, memory
        See `npstyle.stylize`.
    at_a_time : int
        How many pictures are painted at a time where it is: without `memory`, each takes its part of what
        is free.
    depth : {8, 16}
        Bits per channel.
    alpha : bool
        Keep the content picture's transparency.
    judge : bool
        Measure E and C (docs/judge.md).
    checkpoint : Path, optional
        The folder for its state, while it is painted.
    checkpoint_every : float
        Seconds.
    """

    content: images.PictureFile
    styles: tuple[images.PictureFile, ...]
    output: Path
    request: Mapping[str, Any]
    filters: Filters
    recorded: Mapping[str, Any] = field(default_factory=dict)
    convolution: Convolution = "auto"
    threads: int | None = None
    memory: float | None = None
    at_a_time: int = 1
    depth: int = 8
    alpha: bool = False
    judge: bool = False
    checkpoint: Path | None = None
    checkpoint_every: float = 60.0


@dataclass(frozen=True)
class Painted:
    """A picture that was painted.

    Attributes
    ----------
    file : bytes
        The picture file.
    facts : dict
        What is said of it: `facts_of`, seconds, and if it was judged E and C.
    checkpoint : Path or None
        Its state, which can be removed once the picture is written.
    """

    file: bytes = field(repr=False)
    facts: dict[str, Any]
    checkpoint: Path | None = None


def facts_of(result: StyleResult) -> dict[str, Any]:
    """What a line of JSON says of a result."""
    height, width, _ = result.image.shape
    losses = result.levels[-1].losses if result.levels else ()
    return {
        "width": width,
        "height": height,
        "loss": result.loss,
        "first_loss": losses[0] if losses else None,
        "iterations": result.nit,
        "evaluations": result.nfev,
        "message": result.message,
        "filters": result.weights,
    }


def paint_picture(job: PictureJob, callback: Callable[[Progress], None] | None = None) -> Painted:
    """Paint the picture of a job.

    Filters, and what is computed of style pictures, are kept for the next job in this process.

    Raises
    ------
    UserError
        Something can't be used: a picture, the filters, the memory; or the run diverged.
    KeyboardInterrupt
        The run was interrupted. Its state is in the folder for it, from where the same job continues.
    """
    began = time.monotonic()
    request = Request.read(job.content, list(job.styles), **job.request)
    width, height = request.result_size
    images.check_dimensions(job.output, width, height)
    alpha = _alpha(job, request)
    weights, memo = kept(job.filters)
    free = available_memory(job.threads) if job.memory is None else job.memory
    result = paint(
        request,
        weights,
        convolution=job.convolution,
        threads=job.threads,
        memory=(free or 0) / (job.at_a_time if job.memory is None else 1) or None,
        callback=callback,
        checkpoint=job.checkpoint,
        checkpoint_every=job.checkpoint_every,
        resume=job.checkpoint is not None and "quietly",
        memo=memo,
    )
    if result.interrupted:
        raise KeyboardInterrupt
    if not result.success:
        raise UserError(f"picture: {job.output}", result.message, "a complete run", "try other settings")
    text = as_text(job.recorded, note=result.message, filters=result.weights)
    picture = result.pixels if job.depth == 16 else result.image
    file = images.encode(job.output, picture, alpha=alpha, depth=job.depth, text=text)
    facts = {**facts_of(result), "seconds": round(time.monotonic() - began, 3)}
    if job.judge:
        facts |= _judged(job, file)
    return Painted(file, facts, result.checkpoint)


def contents_of(file: Any) -> Any:
    """The contents of a picture file in place of its path; what is none, or can't be read, as it is."""
    if not isinstance(file, (str, os.PathLike)):
        return file
    try:
        return images.FileContents(str(file), Path(file).read_bytes())
    except OSError:
        return file


def sent(job: PictureJob) -> PictureJob:
    """The same job with the contents of its files in place of their paths, for a machine without them.

    A file that can't be read stays a path, which is an error there, too.
    """
    request = dict(job.request)
    for name in ("content_masks", "style_masks"):
        request[name] = [contents_of(file) for file in request.get(name, ())]
    for name in ("keep", "init"):
        request[name] = contents_of(request.get(name))
    styles = tuple(contents_of(style) for style in job.styles)
    return replace(job, content=contents_of(job.content), styles=styles, request=request)


def _alpha(job: PictureJob, request: Request) -> images.Picture | None:
    """The content picture's transparency, in the size of the result."""
    alpha = images.read_alpha(job.content) if job.alpha else None
    if alpha is None:
        return None
    width, height = request.result_size
    return images.resize(images.crop(alpha, width, height) if request.crops else alpha, width, height)


def _judged(job: PictureJob, file: bytes) -> dict[str, float]:
    """E and C of a picture file, as `npstyle judge` has them, of the only style picture."""
    weights, _ = kept(job.filters)
    content, style = images.read(job.content), images.read(job.styles[0])
    result = images.fit(images.read(images.FileContents(str(job.output), file)), JUDGED_SIZE)
    judgment = Judge(content, style, trained_weights(weights), job.threads)(result, str(job.output))
    return {"E": judgment.missing_style, "C": judgment.lost_content}
