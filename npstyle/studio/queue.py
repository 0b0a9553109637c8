"""The queue: one picture is painted at a time, by a process of its own; the page is told how far it is."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from npstyle.errors import UserError
from npstyle.studio.estimates import Estimate, estimate, measure_rate
from npstyle.studio.events import Event, Listeners
from npstyle.studio.folder import (
    DONE,
    ERRORS,
    FAILED,
    MAX_QUEUE,
    PAINTING,
    PAUSED,
    QUEUED,
    RESULT,
    Folder,
    Job,
    read_json,
)
from npstyle.studio.inputs import InputFile, Inputs
from npstyle.studio.orders import Order
from npstyle.studio.worker import NEXT, PAUSE, STOP

MAX_LINE = 2**20  # bytes of an event
END_SECONDS = 20.0  # that a worker has to write its checkpoint when the server ends


class Queue:
    """The paintings of a folder: what waits, what is painted, and what is done.

    Parameters
    ----------
    folder : Folder
    weights : str
        The filters that orders without random ones are painted with.
    threads : int, optional
    trial : bool
        Measure how fast this machine is, if no picture that was painted here says so.
    """

    def __init__(
        self, folder: Folder, weights: str = "auto", threads: int | None = None, trial: bool = False
    ) -> None:
        self.folder, self.weights, self.threads, self.trial = folder, weights, threads, trial
        self.trial_rate: float | None = None
        self.jobs: dict[str, Job] = folder.jobs()
        self.progress: Event | None = None  # the last one of what is painted
        self.listeners = Listeners()
        self._wake = asyncio.Event()
        self._current: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._told = ""
        self._task: asyncio.Task[None] | None = None
        self._trial: asyncio.Task[None] | None = None  # kept, as the loop does not

    # --------------------------------------------------------------------------------------------
    # What the page does
    # --------------------------------------------------------------------------------------------

    def add(self, inputs: Inputs[InputFile], estimated: Estimate, origin: str = "") -> Job:
        """Put a painting at the end; one that starts from the picture of another one, `origin`, first.

        Raises
        ------
        UserError
            There are too many.
        """
        self._demand_room()
        places = [job.place for job in self.jobs.values()]
        place = min(places) - 1 if origin else max(places, default=0)
        job = self.folder.new_job(inputs, estimated, self.weights, place, origin)
        self._set(job)
        self._wake.set()
        return job

    def _demand_room(self) -> None:
        if sum(job.status in (QUEUED, PAINTING, PAUSED) for job in self.jobs.values()) >= MAX_QUEUE:
            expected = f"at most {MAX_QUEUE} that wait"
            raise UserError("queue", f"{MAX_QUEUE} pictures", expected, "wait for some, or remove them")

    @property
    def waiting(self) -> list[Job]:
        """Those that wait, the next one first."""
        queued = [job for job in self.jobs.values() if job.status == QUEUED]
        return sorted(queued, key=lambda job: (job.place, job.id))

    async def move(self, job: Job, where: str) -> None:
        """Let one that waits be painted earlier or later: "up" or "down" by one, or "first"."""
        self._demand(job, QUEUED)
        waiting = self.waiting
        now = waiting.index(job)
        then = {"up": max(0, now - 1), "down": now + 1, "first": 0}[where]
        waiting.insert(then, waiting.pop(now))
        lowest = min(each.place for each in waiting)
        for place, each in enumerate(waiting, lowest):
            if each.place != place:
                self._keep(replace(each, place=place))
        self._publish_jobs()

    async def stop(self, job: Job) -> None:
        """Keep the picture as it is."""
        self._demand(job, PAINTING)
        await self._tell(STOP)

    async def next_level(self, job: Job, level: int) -> None:
        """End this level of a painting, and continue with the next; nothing, if it has ended meanwhile."""
        self._demand(job, PAINTING)
        await self._write(f"{NEXT} {level}")

    async def go_on(self, job: Job, strength: float) -> None:
        """Begin a painting of another strength that starts from this one's picture, and is painted next.

        What is being painted ends after this iteration, and is kept.

        Raises
        ------
        UserError
            It can't be painted so, or there are too many.
        """
        self._demand(job, PAINTING, PAUSED, DONE)
        self._demand_room()
        then = Order.read({**job.options, "strength": strength}).options
        await asyncio.to_thread(self._estimate_next, replace(job, then=then))  # while nothing is lost yet
        job = replace(self.jobs.get(job.id, job), then=then)
        if job.status == DONE:
            await self._begin_next(job)
        elif job.status == PAUSED:
            places = [each.place for each in self.jobs.values()]
            self._set(replace(job, status=QUEUED, place=min(places) - 1))
            self._wake.set()
        elif job.id in self.jobs:
            self._set(job)
            await self._tell(STOP)

    def _next(self, job: Job) -> tuple[Inputs[InputFile], Order]:
        """What the painting after this one is made of, as far as that is known."""
        inputs, options = self.folder.inputs(job), dict(job.then)
        if job.status != DONE:
            return inputs, Order(options)
        last = job.facts.get("levels", [{}])[-1]
        size = last.get("width", job.width), last.get("height", job.height)
        options["min_size"] = 0 if size == (job.width, job.height) else max(size)  # what it had come to
        options.pop("init", None)
        return replace(inputs, start=self.folder.result(job)), Order(options)

    def _estimate_next(self, job: Job) -> Estimate:
        inputs, order = self._next(job)
        random = "random" in (self.weights, order.options.get("weights"))
        return estimate(order, inputs.map(lambda file: file.size), self.threads, random)

    async def _begin_next(self, job: Job) -> None:
        estimated = await asyncio.to_thread(self._estimate_next, job)
        self.add(self._next(job)[0], estimated, job.id)

    async def pause(self, job: Job) -> None:
        """Let the next one be painted; the state of this one is kept."""
        self._demand(job, PAINTING, QUEUED)
        if job.status == QUEUED:
            self._set(replace(job, status=PAUSED))
        else:
            await self._tell(PAUSE)

    async def resume(self, job: Job) -> None:
        """Continue what was paused, or has failed."""
        self._demand(job, PAUSED, FAILED)
        self._set(replace(job, status=QUEUED, error=""))
        self._wake.set()

    async def remove(self, job: Job) -> None:
        """Remove a painting, whatever its state."""
        self.jobs.pop(job.id, None)
        if job.id == self._current and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await asyncio.to_thread(self.folder.remove, job)
        self._publish_jobs()

    def _demand(self, job: Job, *statuses: str) -> None:
        if job.status not in statuses:
            raise UserError("picture", f"one that is {job.status}", " or ".join(statuses), "look at it again")

    async def _tell(self, word: str) -> None:
        self._told = word
        await self._write(word)

    async def _write(self, word: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(f"{word}\n".encode())
                await self._process.stdin.drain()

    # --------------------------------------------------------------------------------------------
    # What the page sees
    # --------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """How things are, for one who begins to look."""
        return [("jobs", self.as_json()), *([self.progress] if self.progress else [])]

    def as_json(self) -> list[dict[str, Any]]:
        """All paintings, for the page."""
        return [
            {
                "id": job.id,
                "content": job.content,
                "styles": job.styles,
                "options": job.options,
                "status": job.status,
                "width": job.width,
                "height": job.height,
                "facts": job.facts,
                "error": job.error,
                "command": job.command,
                "place": job.place,
                "origin": job.origin,
                "more": job.more,
                "going_on": bool(job.then),
                "inputs": job.work > 0,  # whether they are there, which they are not of pictures alone
            }
            for job in self.jobs.values()
        ]

    @property
    def rate(self) -> float | None:
        """Seconds that a unit of `Estimate.work` took in the last paintings; None before the first."""
        done = [job for job in self.jobs.values() if job.status == DONE and job.work > 0]
        whole = [job for job in done if not job.facts.get("stopped") and not job.facts.get("continued")]
        whole = [job for job in whole if all(level["whole"] for level in job.facts.get("levels", ()))]
        timed = [job for job in whole if job.facts.get("seconds")][-5:]
        work = sum(job.work for job in timed)
        return sum(job.facts["seconds"] for job in timed) / work if work else None

    def _publish_jobs(self) -> None:
        self.listeners.publish(("jobs", self.as_json()))

    def _set(self, job: Job) -> None:
        """Keep a painting's new state, and tell it to those who look."""
        self._keep(job)
        self._publish_jobs()

    def _keep(self, job: Job) -> None:
        self.folder.save(job)
        self.jobs[job.id] = job

    # --------------------------------------------------------------------------------------------
    # Painting
    # --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what waits."""
        self._task = asyncio.create_task(self._work())
        if self.trial and self.rate is None and not self.waiting:
            self._trial = asyncio.create_task(self._measure())

    async def _measure(self) -> None:
        with suppress(UserError, MemoryError):  # there is a rough guess without it
            self.trial_rate = await asyncio.to_thread(measure_rate, self.threads)

    async def close(self) -> None:
        """End; what is painted is paused until the next start."""
        process = self._process
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS)
            except asyncio.TimeoutError:
                process.kill()

    async def _work(self) -> None:
        for id in [job.id for job in self.jobs.values() if job.status == DONE]:
            await self._follow(id)
        while True:
            job = next(iter(self.waiting), None)
            if job is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._current, self._told = job.id, STOP if job.then else ""
            try:
                await self._paint(job)
            except (OSError, UserError) as error:  # the process can't be started, or the disk is full
                self._finish(job.id, status=FAILED, error=str(error))
            finally:
                self._process = self._current = self.progress = None

    async def _paint(self, job: Job) -> None:
        """Have one picture painted, up to the end of its process."""
        self._set(replace(job, status=PAINTING))
        folder = self.folder.pictures / job.id
        words = (str(folder), self.weights, str(self.threads or ""))
        with (folder / ERRORS).open("wb") as errors:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "npstyle.studio.worker", *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=MAX_LINE,
            )
        if self._told:  # meanwhile
            await self._tell(self._told)
        assert process.stdout is not None
        last: dict[str, Any] = {}
        async for line in process.stdout:
            event = json.loads(line)
            if event["event"] in ("done", "paused", "failed"):
                last = event
            else:
                self._tell_listeners(job.id, event)
        status = await process.wait()
        kind = last.get("event")
        if kind == "done":
            await self._end(job.id, read_json(folder / RESULT))
        elif kind == "paused":
            self._finish(job.id, status=PAUSED)
        else:
            ended = f"the process that painted it has ended (status {status}); it can be continued"
            self._finish(job.id, status=FAILED, error=str(last.get("error", ended)))

    async def _end(self, id: str, facts: dict[str, Any]) -> None:
        """The picture is there; begin the one that is to start from it."""
        if id in self.jobs:  # it may have been removed meanwhile
            self._finish(id, status=DONE, facts=facts, command=self.jobs[id].ended(facts).command)
            await self._follow(id)

    async def _follow(self, id: str) -> None:
        """Begin the painting that is to start from this one's picture, if there is one."""
        job, error = self.jobs[id], ""
        if not job.then:
            return
        try:
            if not any(other.origin == id for other in self.jobs.values()):  # before a server ended
                await self._begin_next(job)
        except UserError as refusal:
            error = f"no painting was begun from this one: {refusal}"
        self._finish(id, then={}, error=error)

    def _tell_listeners(self, id: str, event: dict[str, Any]) -> None:
        name = event.pop("event")
        told: Event = name, {"id": id, **event}
        if name != "warning":
            self.progress = told
        self.listeners.publish(told)

    def _finish(self, id: str, **changes: Any) -> None:
        """The state of a painting whose process has ended, unless it was removed."""
        if id in self.jobs:
            try:
                self._set(replace(self.jobs[id], **changes))
            except UserError as error:  # the disk is full: it is known here, but not after the next start
                self.jobs[id] = replace(self.jobs[id], **{**changes, "error": str(error)})
                self._publish_jobs()
