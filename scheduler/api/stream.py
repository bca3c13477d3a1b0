"""Live snapshots: one is made a second while anybody follows, and pushed to all as server-sent events.

How many may follow is bounded, and what waits for each of them too: who does not read what is sent is cut off. A
snapshot that cannot be made is a heartbeat instead, so that a page can tell a silent scheduler from a lost one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from pydantic import TypeAdapter

from adaptivegen.clock import Clock
from adaptivegen.errors import ResourceExhausted, Unavailable
from adaptivegen.telemetry import get_logger
from scheduler.snapshot import Snapshot

EVERY_S = 1.0
MAX_STREAMS = 32
MAX_WAITING = 8  # events for one reader, beside what its socket holds
FULL_RETRY_S = 5.0
RECONNECT_MS = 2000  # after which a browser comes back by itself
HEARTBEAT = b": still here\n\n"
_JSON = TypeAdapter(Snapshot)


class _Reader:
    """One who follows. cut: ends its connection."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._cut = cut

    def tell(self, event: bytes | None) -> bool:
        """Hand it an event, None after the last; cut it off and return False where too many wait already."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self._cut()
            return False
        return True

    def end(self) -> None:
        """No more comes. One who has not read the last ones would not read this either: it is cut off."""
        if not self._events.empty():
            self._cut()
        self.tell(None)

    async def heard(self) -> bytes | None:
        """The next event."""
        return await self._events.get()


class Streams:
    """All who follow one scheduler. `run` must be running; when it is cancelled all streams end."""

    def __init__(self, take: Callable[[], Awaitable[Snapshot]], *, clock: Clock) -> None:
        self._take = take
        self._clock = clock
        self._readers: set[_Reader] = set()
        self._last: tuple[float, bytes] | None = None  # when it was made, and the event
        self._ended = False

    def __len__(self) -> int:
        return len(self._readers)

    async def run(self) -> None:
        """Push a snapshot every second, until cancelled."""
        try:
            while True:
                await self._clock.sleep(EVERY_S)
                if self._readers:
                    await self.push()
        finally:
            self._ended = True
            for reader in tuple(self._readers):
                reader.end()

    async def push(self) -> None:
        """Tell all who follow how it is now."""
        event = await self._event()
        self._readers = {reader for reader in self._readers if reader.tell(event)}

    async def follow(self, cut: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """The events of a new stream, the first of them at once; cut: ends its connection, where it does not read.

        Raises ResourceExhausted or Unavailable before the first.
        """
        if self._ended:
            raise Unavailable("this scheduler is ending", retry_after_s=FULL_RETRY_S)
        if len(self._readers) >= MAX_STREAMS:
            raise ResourceExhausted(f"{MAX_STREAMS} streams are open", retry_after_s=FULL_RETRY_S)
        reader = _Reader(cut)
        self._readers.add(reader)
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode() + await self._newest()
            while (event := await reader.heard()) is not None:
                yield event
        finally:
            self._readers.discard(reader)

    async def _newest(self) -> bytes:
        """The last one if it is still good: many may come at once."""
        if self._last is not None and self._clock.monotonic_s() - self._last[0] < EVERY_S:
            return self._last[1]
        return await self._event()

    async def _event(self) -> bytes:
        made_s = self._clock.monotonic_s()
        try:
            event = b"event: snapshot\ndata: " + _JSON.dump_json(await self._take()) + b"\n\n"
        except Exception as exc:  # nobody's page is worth the scheduler
            get_logger().error("no_snapshot", exc_info=exc)
            return HEARTBEAT
        self._last = (made_s, event)
        return event
