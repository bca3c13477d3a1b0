"""Time as an argument: the only module that may read the machine's clocks or sleep.

Wall time (`now_ns`, UTC since 1970) is for records that leave the process; monotonic time (`monotonic_s`) is for
durations and deadlines inside it. `ManualClock` is virtual time for unit tests: `advance` wakes sleepers in
order of their due time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """What every component that needs time is given."""

    def now_ns(self) -> int:
        """Wall time in nanoseconds since 1970 (UTC)."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Virtual time, moved only by `advance`."""

    def __init__(self, *, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._start_ns = start_ns
        self._elapsed_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        return self._start_ns + round(self._elapsed_s * 1e9)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking each sleeper at its own instant and letting it run before the next."""
        target_s = self._elapsed_s + seconds
        while self._sleepers and self._sleepers[0][0] <= target_s:
            due_s, _, future = heapq.heappop(self._sleepers)
            self._elapsed_s = max(self._elapsed_s, due_s)
            if not future.done():
                future.set_result(None)
            for _ in range(5):  # a woken task may need a few turns before it sleeps again
                await asyncio.sleep(0)
        self._elapsed_s = target_s


def seconds_from_ns(duration_ns: int) -> float:
    """Nanoseconds as seconds."""
    return duration_ns / 1e9
