"""Messages pushed by NATS into a bounded buffer: subscriptions and watches.

Owns the renewal: nats-py subscribes again by itself after a reconnect, but not after a client was closed for good, so
a reader that hears nothing looks every few seconds whether its client still is the one in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from adaptivegen.bus.buffer import DropOldest
from adaptivegen.bus.nats_connection import NatsConnection, translated
from adaptivegen.errors import AdaptiveGenError

Item = TypeVar("Item")
CHECK_S = 2.0


class Unsubscribable(Protocol):
    """What nats-py returns for a subscription."""

    async def unsubscribe(self) -> None:
        """Stop it."""
        ...


Receive = Callable[[Msg], Awaitable[None]]
Open = Callable[[Client, Receive], Awaitable[Unsubscribable]]


class NatsFeed(Generic[Item]):
    """`open_on` subscribes on a client; `read` makes a message an item."""

    def __init__(
        self,
        connection: NatsConnection,
        open_on: Open,
        read: Callable[[Msg], Item],
        *,
        what: str,
        buffer: int,
    ) -> None:
        self._connection = connection
        self._open_on = open_on
        self._read = read
        self._what = what
        self._buffer: DropOldest[Item] = DropOldest(buffer)
        self._client: Client | None = None
        self._subscription: Unsubscribable | None = None

    @property
    def dropped(self) -> int:
        return self._buffer.dropped

    async def attach(self) -> None:
        """Subscribe on the client in use, unless that is done; raises BrokerUnavailable."""
        client = await self._connection.client()
        if client is self._client:
            return
        with translated(self._what):
            self._subscription = await self._open_on(client, self._receive)
        self._client = client
        self._connection.feeds.add(self)

    async def __aiter__(self) -> AsyncIterator[Item]:
        while not self._buffer.closed:
            try:
                async with asyncio.timeout(CHECK_S):
                    item = await self._buffer.take()
            except TimeoutError:
                with suppress(AdaptiveGenError):  # looked at again after the next silence
                    await self.attach()
                continue
            if item is not None:
                yield item

    async def close(self) -> None:
        self._buffer.close()
        self._connection.feeds.discard(self)
        if self._subscription is not None:
            with suppress(nats.errors.Error):  # the connection is gone, and the subscription with it
                await self._subscription.unsubscribe()

    async def _receive(self, message: Msg) -> None:
        self._buffer.offer(self._read(message))
