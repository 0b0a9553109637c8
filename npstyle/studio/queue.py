"""The queue: one picture is painted at a time, by a process of its own; the page is told how far it is."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from npstyle.errors import UserError
from npstyle.studio.estimates import Estimate
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
    Upload,
    read_json,
)
from npstyle.studio.worker import PAUSE, STOP

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
    """

    def __init__(self, folder: Folder, weights: str = "auto", threads: int | None = None) -> None:
        self.folder, self.weights, self.threads = folder, weights, threads
        self.jobs: dict[str, Job] = folder.jobs()
        self.progress: Event | None = None  # the last one of what is painted
        self.listeners = Listeners()
        self._wake = asyncio.Event()
        self._current: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    # --------------------------------------------------------------------------------------------
    # What the page does
    # --------------------------------------------------------------------------------------------

    def add(self, content: Upload, styles: list[Upload], estimated: Estimate) -> Job:
        """Put a painting at the end.

        Raises
        ------
        UserError
            There are too many.
        """
        if sum(job.status in (QUEUED, PAINTING, PAUSED) for job in self.jobs.values()) >= MAX_QUEUE:
            expected = f"at most {MAX_QUEUE} that wait"
            raise UserError("queue", f"{MAX_QUEUE} pictures", expected, "wait for some, or remove them")
        job = self.folder.new_job(content, styles, estimated, self.weights)
        self._set(job)
        self._wake.set()
        return job

    async def stop(self, job: Job) -> None:
        """Keep the picture as it is."""
        self._demand(job, PAINTING)
        await self._tell(STOP)

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
                "inputs": job.work > 0,  # whether they are there, which they are not of pictures alone
            }
            for job in self.jobs.values()
        ]

    @property
    def rate(self) -> float | None:
        """Seconds that a unit of `Estimate.work` took in the last paintings; None before the first."""
        done = [job for job in self.jobs.values() if job.status == DONE and job.work > 0]
        whole = [job for job in done if not job.facts.get("stopped") and not job.facts.get("continued")]
        timed = [job for job in whole if job.facts.get("seconds")][-5:]
        work = sum(job.work for job in timed)
        return sum(job.facts["seconds"] for job in timed) / work if work else None

    def _publish_jobs(self) -> None:
        self.listeners.publish(("jobs", self.as_json()))

    def _set(self, job: Job) -> None:
        """Keep a painting's new state, and tell it to those who look."""
        self.folder.save(job)
        self.jobs[job.id] = job
        self._publish_jobs()

    # --------------------------------------------------------------------------------------------
    # Painting
    # --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what waits."""
        self._task = asyncio.create_task(self._work())

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
        while True:
            job = next((job for job in self.jobs.values() if job.status == QUEUED), None)
            if job is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._current, self._told = job.id, ""
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
            self._finish(job.id, status=DONE, facts=read_json(folder / RESULT))
        elif kind == "paused":
            self._finish(job.id, status=PAUSED)
        else:
            ended = f"the process that painted it has ended (status {status}); it can be continued"
            self._finish(job.id, status=FAILED, error=str(last.get("error", ended)))

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
