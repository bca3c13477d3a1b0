"""One at a time, the one that is due first: whose turn it is at a model."""

from __future__ import annotations

import asyncio
import heapq
import math
from types import TracebackType

AT_ONCE = -math.inf


class Turn:
    """Held by one; of those that wait the one that is due first has it next, of several the one that came first.

    Fair as far as the times at which work is due move on: whoever waits is due some day. A task that is cancelled while
    it waits loses nothing for the others.
    """

    def __init__(self) -> None:
        self._held = False
        self._number = 0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"Turn(held={self._held}, waiting={len(self._waiting)})"

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._held

    def due_by(self, at_s: float) -> int:
        """How many wait that are due by then."""
        return sum(due_s <= at_s for due_s, _, _ in self._waiting)

    async def acquire(self, due_s: float = AT_ONCE) -> None:
        """Wait for it. due_s: by a clock that is the same for all."""
        if not self._held:
            self._held = True
            return
        self._number += 1
        place = (due_s, self._number, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, place)
        try:
            await place[2]
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
            else:  # it had just come
                self.release()
            raise

    def release(self) -> None:
        """Hand it to the next."""
        if self._waiting:
            heapq.heappop(self._waiting)[2].set_result(None)
        else:
            self._held = False

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
