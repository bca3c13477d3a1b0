"""The bounded buffer behind every subscription: when it is full the oldest item goes, and the loss is counted.

Decides what a slow reader loses. Knows nothing of brokers: adapters offer what arrived, the reader takes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from adaptivegen.errors import InvalidRequest

Item = TypeVar("Item")


class DropOldest(Generic[Item]):
    """At most `size` items between one producer and one reader. Raises InvalidRequest for a size below 1."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InvalidRequest.field("buffer", size, "at least 1")
        self._items: deque[Item] = deque(maxlen=size)
        self._arrived = asyncio.Event()
        self.closed = False
        self.dropped = 0

    def offer(self, item: Item) -> None:
        """Add an item, at the cost of the oldest when full."""
        if len(self._items) == self._items.maxlen:
            self.dropped += 1
        self._items.append(item)
        self._arrived.set()

    async def take(self) -> Item | None:
        """The oldest item once there is one; None once closed. Safe to cancel: nothing is lost."""
        while not self.closed:
            if self._items:
                return self._items.popleft()
            self._arrived.clear()
            await self._arrived.wait()
        return None

    def close(self) -> None:
        """End the reading at once; what is still buffered is not delivered."""
        self.closed = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Item]:
        while (item := await self.take()) is not None:
            yield item
