"""Events: what those who look at a page are told, from the moment that they begin to look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

MAX_EVENTS = 1000  # that wait for one who looks; whoever is slower than that connects again
KEEP_ALIVE = 15.0  # seconds without an event after which a comment is sent

Event = tuple[str, Any]  # its name, and what it says


class Listeners:
    """Those who look, each with the events that were not sent yet."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def __len__(self) -> int:
        return len(self._queues)

    def publish(self, event: Event) -> None:
        """Tell it to all of them; one who is too slow is sent away, and connects again."""
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                with suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
                queue.put_nowait(None)

    def end(self) -> None:
        """Say nothing more."""
        for queue in list(self._queues):
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    async def stream(self, first: Sequence[Event]) -> AsyncIterator[str]:
        """Server-sent events for one who begins to look: how things are, and what happens from now on."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_EVENTS)
        for event in first:
            queue.put_nowait(event)
        self._queues.add(queue)
        try:
            yield "retry: 1000\n\n"
            while True:
                try:
                    told = await asyncio.wait_for(queue.get(), KEEP_ALIVE)
                except asyncio.TimeoutError:
                    yield ":\n\n"
                    continue
                if told is None:
                    return
                name, values = told
                yield f"event: {name}\ndata: {json.dumps(values)}\n\n"
        finally:
            self._queues.discard(queue)
