"""The broker in one process: the same guarantees without a network, on any clock. For unit tests and the simulator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from adaptivegen.bus.base import Delivery, Entry, KeyValue, Message, QueueDepth, Subscription, WorkQueue
from adaptivegen.clock import Clock
from adaptivegen.errors import PreconditionFailed

DEDUP_WINDOW_S = 120.0
_LOOK_EVERY_S = 0.01


class MemoryBus:
    """Everything is shared by whoever holds this object."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, MemoryKeyValue] = {}
        self._queues: dict[str, MemoryWorkQueue] = {}
        self._subscriptions: list[MemorySubscription] = []
        self.dead: list[tuple[str, bytes, str]] = []

    @property
    def connected(self) -> bool:
        return True

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        for subscription in list(self._subscriptions):
            await subscription.close()

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        if bucket not in self._buckets:
            self._buckets[bucket] = MemoryKeyValue(self._clock, ttl_s)
        return self._buckets[bucket]

    async def work_queue(self, pool: str, *, ack_wait_s: float) -> WorkQueue:
        if pool not in self._queues:
            self._queues[pool] = MemoryWorkQueue(self._clock, ack_wait_s)
        return self._queues[pool]

    async def dead_letter(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        self.dead.append((pool, data, reason))

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        for subscription in self._subscriptions:
            if matches(subscription.subject, subject):
                subscription.offer(Message(subject, data, dict(headers or {})))

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        subscription = MemorySubscription(subject, buffer, self._subscriptions)
        self._subscriptions.append(subscription)
        return subscription


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject fits a pattern of NATS: `*` is one part, a closing `>` one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1] if len(given) >= len(wanted) else []
    return len(wanted) == len(given) and all(want in ("*", part) for want, part in zip(wanted, given, strict=True))


class MemoryKeyValue:
    """One bucket; revisions count over the whole bucket."""

    def __init__(self, clock: Clock, ttl_s: float | None) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._entries: dict[str, tuple[Entry, float]] = {}
        self._revision = 0

    async def get(self, key: str) -> Entry | None:
        held = self._entries.get(key)
        if held is None:
            return None
        entry, written_s = held
        if self._ttl_s is not None and self._clock.monotonic_s() - written_s > self._ttl_s:
            del self._entries[key]
            return None
        return entry

    async def create(self, key: str, value: bytes) -> int:
        if await self.get(key) is not None:
            raise PreconditionFailed(f"key {key!r} exists")
        return await self.put(key, value)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        held = await self.get(key)
        if held is None or held.revision != revision:
            raise PreconditionFailed(f"key {key!r} is not at revision {revision}")
        return await self.put(key, value)

    async def put(self, key: str, value: bytes) -> int:
        self._revision += 1
        self._entries[key] = (Entry(key, value, self._revision), self._clock.monotonic_s())
        return self._revision

    async def delete(self, key: str) -> None:
        self._entries.pop(key, None)

    async def keys(self, prefix: str = "") -> list[str]:
        return sorted([key for key in list(self._entries) if key.startswith(prefix) and await self.get(key)])


@dataclass(slots=True)
class _Queued:
    data: bytes
    headers: Mapping[str, str]
    visible_at_s: float = 0.0
    token: int = 0
    done: bool = False
    delivered: bool = field(default=False)


class MemoryWorkQueue:
    """One pool's queue."""

    def __init__(self, clock: Clock, ack_wait_s: float) -> None:
        self._clock = clock
        self.ack_wait_s = ack_wait_s
        self._messages: list[_Queued] = []
        self._seen: dict[str, float] = {}

    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._seen.get(msg_id, -DEDUP_WINDOW_S) < DEDUP_WINDOW_S:
            return
        self._seen[msg_id] = now_s
        self._messages.append(_Queued(data, dict(headers)))

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        until_s = self._clock.monotonic_s() + timeout_s
        while True:
            now_s = self._clock.monotonic_s()
            for queued in self._messages:
                if queued.visible_at_s <= now_s:
                    queued.visible_at_s = now_s + self.ack_wait_s
                    queued.token += 1
                    queued.delivered = True
                    return MemoryDelivery(self, queued, self._clock)
            if now_s >= until_s:
                return None
            await self._clock.sleep(_LOOK_EVERY_S)

    async def depth(self) -> QueueDepth:
        now_s = self._clock.monotonic_s()
        waiting = sum(1 for queued in self._messages if not queued.delivered or queued.visible_at_s <= now_s)
        return QueueDepth(pending=waiting, in_flight=len(self._messages) - waiting)

    def settle(self, queued: _Queued) -> None:
        """Forget a message."""
        if queued in self._messages:
            self._messages.remove(queued)


class MemoryDelivery:
    """One delivered message. Settling it after it was delivered again has no effect, as with JetStream."""

    def __init__(self, queue: MemoryWorkQueue, queued: _Queued, clock: Clock) -> None:
        self._queue = queue
        self._queued = queued
        self._clock = clock
        self._token = queued.token
        self.data = queued.data
        self.headers = queued.headers

    @property
    def _current(self) -> bool:
        return self._queued.token == self._token

    async def ack(self) -> None:
        if self._current:
            self._queue.settle(self._queued)

    async def in_progress(self) -> None:
        if self._current:
            self._queued.visible_at_s = self._clock.monotonic_s() + self._queue.ack_wait_s

    async def nak(self, delay_s: float) -> None:
        if self._current:
            self._queued.visible_at_s = self._clock.monotonic_s() + delay_s

    async def term(self, reason: str) -> None:
        self._queue.settle(self._queued)


class MemorySubscription:
    """A subject's messages in a bounded drop-oldest buffer."""

    def __init__(self, subject: str, buffer: int, registered: list[MemorySubscription]) -> None:
        self.subject = subject
        self.dropped = 0
        self._buffer: deque[Message] = deque(maxlen=buffer)
        self._arrived = asyncio.Event()
        self._registered = registered
        self._closed = False

    def offer(self, message: Message) -> None:
        """Add a message."""
        if len(self._buffer) == self._buffer.maxlen:
            self.dropped += 1
        self._buffer.append(message)
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Message]:
        while not self._closed:
            while self._buffer:
                yield self._buffer.popleft()
            self._arrived.clear()
            if not self._closed:
                await self._arrived.wait()

    async def close(self) -> None:
        self._closed = True
        if self in self._registered:
            self._registered.remove(self)
        self._arrived.set()
