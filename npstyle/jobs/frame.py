"""Frames of a film as jobs: several shots are painted at a time, each of them frame by frame, by any worker.

A shot's next frame is a job once the one before is written. So a worker that is killed costs the frame that
it paints, and files are always written here, also where workers have others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from npstyle import images
from npstyle.errors import UserError
from npstyle.film.flow import flow_version
from npstyle.film.painting import Film, ShotPainter, frames_needed, write_frame
from npstyle.film.shots import Frame, Shot, missing_frames
from npstyle.jobs.filters import Filters, kept
from npstyle.jobs.picture import contents_of
from npstyle.jobs.workers import Workers
from npstyle.run import prepare
from npstyle.run.memory import available_memory


@dataclass(frozen=True)
class FrameJob:
    """A frame to paint; or what all frames of a film have in common, as long as there are no frames in it.

    Attributes
    ----------
    film : Film
    filters : Filters
    flow : str
        `flow_version` of what has to be there: another one would paint another frame.
    frames : mapping of int to Frame
        Those of `frames_needed`, by number in their shot.
    n : int
        Which of them is painted.
    threads, memory
        See `npstyle.stylize`.
    at_a_time : int
        As of `PictureJob`.
    """

    film: Film
    filters: Filters
    flow: str
    frames: Mapping[int, Frame] | None = None
    n: int = 0
    threads: int | None = None
    memory: float | None = None
    at_a_time: int = 1


def of_film(film: Film, filters: Filters) -> FrameJob:
    """What all frames of a film have in common."""
    by_flow = film.temporal.method == "flow"
    return FrameJob(film, filters, flow_version(film.temporal.flow) if by_flow else "")


def paint_frame(job: FrameJob) -> bytes:
    """The file of a frame, with the bytes that `npstyle.film.painting.paint_shot` writes.

    Raises
    ------
    UserError
        Something can't be used: a frame, the filters, the flow, the memory; or the run diverged.
    """
    assert job.frames is not None
    film = job.film
    _check_flow(job)
    weights, memo = kept(job.filters)
    free = available_memory(job.threads) if job.memory is None else job.memory
    prepared = prepare(
        film.request(images.read(job.frames[0].content)),
        weights,
        preprocessing=film.preprocessing,
        convolution=film.convolution,
        threads=job.threads,
        memory=(free or 0) / (job.at_a_time if job.memory is None else 1) or None,
    )
    prepared.network.memo = None if weights.random else memo
    return ShotPainter(film, prepared).paint(job.frames, job.n)


def _check_flow(job: FrameJob) -> None:
    """Raise UserError where flows can't be had, or would be others."""
    if not job.flow:
        return
    try:
        found = flow_version(job.film.temporal.flow)
    except ImportError as error:
        found = str(error)
    if found != job.flow:
        raise UserError("worker", found, f"{job.flow}, as here", "install the same version")


class Painted(NamedTuple):
    """A frame that is written; or why it is not, which is the end of its shot."""

    frame: Frame
    error: str
    warnings: tuple[str, ...]


def paint_shots(
    workers: Workers,
    film: FrameJob,
    shots: Sequence[Shot],
    overwrite: bool = False,
    send_painted: bool = False,
    send: bool = False,
) -> Iterator[Painted]:
    """Have the frames painted that are not finished, and yield each when it is written.

    Parameters
    ----------
    workers : Workers
    film : FrameJob
        What all frames have in common.
    shots : sequence of Shot
        The one with most frames to paint is begun first.
    overwrite : bool
        Replace files that have the names of frames and are none of this film.
    send_painted, send : bool
        Whether workers are sent earlier painted frames, and the film's own frames, rather than their paths.
    """
    missing = [deque(missing_frames(shot, overwrite)) for shot in shots]
    ready = deque(sorted((i for i, left in enumerate(missing) if left), key=lambda i: -len(missing[i])))
    begun: list[tuple[int, int]] = []  # shot and frame of each job

    def jobs() -> Iterator[FrameJob | None]:
        while any(missing):
            if not ready:
                yield None
                continue
            i = ready.popleft()
            n = missing[i].popleft()
            begun.append((i, n))
            yield _job(film, shots[i], n, send_painted, send)

    for outcome in workers.run(paint_frame, jobs()):
        i, n = begun[outcome.number]
        frame = shots[i].frames[n]
        if outcome.error:
            missing[i].clear()
        else:
            write_frame(frame, outcome.value, overwrite)
            if missing[i]:
                ready.appendleft(i)
        yield Painted(frame, outcome.error, outcome.warnings)


def _job(film: FrameJob, shot: Shot, n: int, send_painted: bool, send: bool) -> FrameJob:
    frames = {}
    for number in frames_needed(film.film.temporal, n):
        frame = shot.frames[number]
        if send:
            frame = frame._replace(content=contents_of(frame.content))
        if send_painted and number < n:
            frame = frame._replace(painted=contents_of(frame.output))
        frames[number] = frame
    return replace(film, frames=frames, n=n)
