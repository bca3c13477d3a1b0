"""The broker in one process: the same guarantees without a network, on any clock. For unit tests and the simulator.

It behaves as the contract suite shows a real broker to behave, also where that surprises: a late acknowledgement of an
earlier delivery settles the message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from adaptivegen.bus.base import (
    MAX_ACK_PENDING,
    WATCH_BUFFER,
    Change,
    DeadLetter,
    Delivery,
    Entry,
    KeyValue,
    Message,
    QueueDepth,
    Subscription,
    Watch,
    WorkQueue,
    check_key,
    check_prefix,
)
from adaptivegen.bus.buffer import DropOldest
from adaptivegen.clock import Clock
from adaptivegen.errors import InternalError, PreconditionFailed, ResourceExhausted
from adaptivegen.ids import check_name

DEDUP_WINDOW_S = 120.0
MAX_QUEUED_MESSAGES = 100_000
MAX_DEAD_MESSAGES = 100_000
Item = TypeVar("Item")


class MemoryBus:
    """Everything is shared by whoever holds this object. `dead` shows the newest dead letters, oldest first; each
    pool's queue holds `max_queued` messages."""

    def __init__(self, clock: Clock, *, max_queued: int = MAX_QUEUED_MESSAGES) -> None:
        self._clock = clock
        self._max_queued = max_queued
        self._buckets: dict[str, MemoryKeyValue] = {}
        self._queues: dict[str, MemoryWorkQueue] = {}
        self._feeds: list[MemoryFeed[Message]] = []
        self._buried = _Dedup()
        self.dead: deque[DeadLetter] = deque(maxlen=MAX_DEAD_MESSAGES)

    @property
    def connected(self) -> bool:
        return True

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        for feed in list(self._feeds):
            await feed.close()
        for bucket in self._buckets.values():
            await bucket.close()

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        if bucket not in self._buckets:
            check_name(bucket, field="bucket")
            self._buckets[bucket] = MemoryKeyValue(self._clock, ttl_s)
        return self._buckets[bucket]

    async def work_queue(
        self, pool: str, *, ack_wait_s: float | None = None, max_ack_pending: int = MAX_ACK_PENDING
    ) -> WorkQueue:
        if pool not in self._queues:
            check_name(pool, field="pool")
            self._queues[pool] = MemoryWorkQueue(self._clock, max_queued=self._max_queued)
        queue = self._queues[pool]
        if ack_wait_s is None:
            return PublishingQueue(queue)
        queue.ack_wait_s, queue.max_ack_pending = ack_wait_s, max_ack_pending
        return queue

    async def dead_letter(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        check_name(pool, field="pool")
        if self._buried.first(msg_id, now_s=self._clock.monotonic_s()):
            self.dead.append(DeadLetter(pool, data, reason, self._clock.now_ns()))

    async def dead_letters(self, *, limit: int) -> list[DeadLetter]:
        return list(self.dead)[: -limit - 1 : -1]

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        message = Message(subject, data, dict(headers or {}))
        for feed in self._feeds:
            if feed.wants(subject):
                feed.offer(message)

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        return MemoryFeed(buffer, lambda given: matches(subject, given), self._feeds)


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject fits a pattern of NATS: `*` is one part, a closing `>` one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1] if len(given) >= len(wanted) else []
    return len(wanted) == len(given) and all(want in ("*", part) for want, part in zip(wanted, given, strict=True))


class MemoryFeed(Generic[Item]):
    """Registered in a list of feeds while it is open; `wants` says which subjects or keys it is offered."""

    def __init__(self, size: int, wants: Callable[[str], bool], registered: list[MemoryFeed[Item]]) -> None:
        self.wants = wants
        self._buffer: DropOldest[Item] = DropOldest(size)
        self._registered = registered
        registered.append(self)

    @property
    def dropped(self) -> int:
        return self._buffer.dropped

    def offer(self, item: Item) -> None:
        """Add an item."""
        self._buffer.offer(item)

    def __aiter__(self) -> AsyncIterator[Item]:
        return self._buffer.__aiter__()

    async def close(self) -> None:
        self._buffer.close()
        if self in self._registered:
            self._registered.remove(self)


class MemoryKeyValue:
    """One bucket; revisions count over the whole bucket."""

    def __init__(self, clock: Clock, ttl_s: float | None) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._entries: dict[str, tuple[Entry, float]] = {}
        self._revision = 0
        self._feeds: list[MemoryFeed[Change]] = []

    async def get(self, key: str) -> Entry | None:
        return self._read(check_key(key))

    async def create(self, key: str, value: bytes) -> int:
        if self._read(check_key(key)) is not None:
            raise PreconditionFailed(f"create {key}: someone else wrote first")
        return self._write(key, value)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        held = self._read(check_key(key))
        if held is None or held.revision != revision:
            raise PreconditionFailed(f"update {key}: someone else wrote first")
        return self._write(key, value)

    async def put(self, key: str, value: bytes) -> int:
        return self._write(check_key(key), value)

    async def delete(self, key: str) -> None:
        self._write(check_key(key), None)

    async def keys(self, prefix: str = "") -> list[str]:
        check_prefix(prefix)
        return sorted(key for key in list(self._entries) if key.startswith(prefix) and self._read(key) is not None)

    async def watch(self, prefix: str = "", *, buffer: int = WATCH_BUFFER) -> Watch:
        check_prefix(prefix)
        return MemoryFeed(buffer, lambda key: key.startswith(prefix), self._feeds)

    async def close(self) -> None:
        """End all watches."""
        for feed in list(self._feeds):
            await feed.close()

    def _read(self, key: str) -> Entry | None:
        held = self._entries.get(key)
        if held is None:
            return None
        entry, written_s = held
        if self._ttl_s is not None and self._clock.monotonic_s() - written_s >= self._ttl_s:
            del self._entries[key]
            return None
        return entry

    def _write(self, key: str, value: bytes | None) -> int:
        self._revision += 1
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = (Entry(key, value, self._revision), self._clock.monotonic_s())
        for feed in self._feeds:
            if feed.wants(key):
                feed.offer(Change(key, value, self._revision))
        return self._revision


class _Dedup:
    """Message ids of the last `DEDUP_WINDOW_S`."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._by_age: deque[tuple[float, str]] = deque()

    def first(self, msg_id: str, *, now_s: float) -> bool:
        """Whether this id was not seen lately; it now is."""
        while self._by_age and now_s - self._by_age[0][0] >= DEDUP_WINDOW_S:
            self._known.discard(self._by_age.popleft()[1])
        if msg_id in self._known:
            return False
        self._known.add(msg_id)
        self._by_age.append((now_s, msg_id))
        return True


@dataclass(slots=True, eq=False)
class _Queued:
    data: bytes
    headers: Mapping[str, str]
    due_s: float = 0.0
    delivered: int = 0


class MemoryWorkQueue:
    """One pool's queue."""

    def __init__(self, clock: Clock, *, max_queued: int) -> None:
        self.ack_wait_s = 0.0
        self._max_queued = max_queued
        self.max_ack_pending = MAX_ACK_PENDING
        self._clock = clock
        self._new: deque[_Queued] = deque()
        self._out: dict[int, _Queued] = {}  # delivered and not settled, by identity
        self._seen = _Dedup()
        self._pullers: set[asyncio.Event] = set()

    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        if len(self._new) + len(self._out) >= self._max_queued:
            raise ResourceExhausted("publish: maximum messages exceeded", retry_after_s=1.0)
        if self._seen.first(msg_id, now_s=self._clock.monotonic_s()):
            self._new.append(_Queued(data, dict(headers)))
            self.wake()

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        until_s = self._clock.monotonic_s() + timeout_s
        while True:
            now_s = self._clock.monotonic_s()
            queued = self._next(now_s)
            if queued is not None:
                queued.due_s = now_s + self.ack_wait_s
                queued.delivered += 1
                self._out[id(queued)] = queued
                return MemoryDelivery(self, queued, self._clock)
            if now_s >= until_s:
                return None
            wake_s = min([until_s, *(held.due_s for held in self._out.values())])
            await self._wait(wake_s - now_s)

    async def depth(self) -> QueueDepth:
        return QueueDepth(pending=len(self._new), in_flight=len(self._out))

    def settle(self, queued: _Queued) -> None:
        """Forget a message; one that was settled before is no error."""
        self._out.pop(id(queued), None)
        self.wake()

    def wake(self) -> None:
        """Let all who wait look again."""
        for puller in self._pullers:
            puller.set()

    def _next(self, now_s: float) -> _Queued | None:
        for queued in self._out.values():
            if queued.due_s <= now_s:
                return queued
        return self._new.popleft() if self._new and len(self._out) < self.max_ack_pending else None

    async def _wait(self, seconds: float) -> None:
        """Return when something changed or `seconds` of the clock have passed."""
        woken = asyncio.Event()

        async def ring() -> None:
            await self._clock.sleep(seconds)
            woken.set()

        self._pullers.add(woken)
        try:
            async with asyncio.TaskGroup() as group:
                alarm = group.create_task(ring())
                await woken.wait()
                alarm.cancel()
        finally:
            self._pullers.discard(woken)


class PublishingQueue:
    """A pool's queue for one who publishes and looks."""

    def __init__(self, queue: MemoryWorkQueue) -> None:
        self.publish = queue.publish
        self.depth = queue.depth

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        raise InternalError("this queue was opened without ack_wait_s, for publishing only")


class MemoryDelivery:
    """One delivered message. Acts on the message whoever holds it now; on a settled one it has no effect."""

    def __init__(self, queue: MemoryWorkQueue, queued: _Queued, clock: Clock) -> None:
        self._queue = queue
        self._queued = queued
        self._clock = clock
        self.data = queued.data
        self.headers = queued.headers
        self.delivered = queued.delivered

    async def ack(self) -> None:
        self._queue.settle(self._queued)

    async def in_progress(self) -> None:
        self._queued.due_s = self._clock.monotonic_s() + self._queue.ack_wait_s

    async def nak(self, delay_s: float) -> None:
        self._queued.due_s = self._clock.monotonic_s() + delay_s
        self._queue.wake()

    async def term(self, reason: str) -> None:
        self._queue.settle(self._queued)
