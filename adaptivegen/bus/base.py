"""The broker as everyone sees it: key-value buckets, work queues, and lossy publish-subscribe.

Guarantees. KV: a write is durable when it returns; `create` and `update` are compare-and-set, and one whose answer was
lost is resolved by reading back. Work queue: a published message is delivered until acknowledged, possibly more than
once, in no strict order; a repeat with the same `msg_id` within two minutes is dropped. Publish-subscribe: may lose,
keeps the order of one publisher. Errors: PreconditionFailed, BrokerUnavailable. Every call has a deadline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value at a revision."""

    key: str
    value: bytes
    revision: int


class KeyValue(Protocol):
    """One bucket. Keys are dot-separated names."""

    async def get(self, key: str) -> Entry | None:
        """The latest value, or None."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that does not exist; returns its revision. Raises PreconditionFailed if it exists."""
        ...

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        """Write if the key still is at `revision`; returns the new one. Raises PreconditionFailed."""
        ...

    async def put(self, key: str, value: bytes) -> int:
        """Write unconditionally; returns the revision."""
        ...

    async def delete(self, key: str) -> None:
        """Remove; a missing key is fine."""
        ...

    async def keys(self, prefix: str = "") -> list[str]:
        """All keys that start with `prefix`, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Messages not yet delivered, and delivered but not acknowledged."""

    pending: int
    in_flight: int


class Delivery(Protocol):
    """One delivered message; exactly one of ack, nak, term settles it."""

    data: bytes
    headers: Mapping[str, str]

    async def ack(self) -> None:
        """Done; returns when the broker has confirmed it."""
        ...

    async def in_progress(self) -> None:
        """Restart the acknowledgement wait; returns when confirmed, raises BrokerUnavailable if not."""
        ...

    async def nak(self, delay_s: float) -> None:
        """Deliver it again after `delay_s`."""
        ...

    async def term(self, reason: str) -> None:
        """Never deliver it again."""
        ...


class WorkQueue(Protocol):
    """One pool's queue."""

    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        """Add a message; returns when it is durable."""
        ...

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        """The next message, or None after `timeout_s`."""
        ...

    async def depth(self) -> QueueDepth:
        """How much waits."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """A published message."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Subscription(Protocol):
    """Messages of a subject from now on. The buffer is bounded: when full, the oldest is dropped and counted."""

    dropped: int

    def __aiter__(self) -> AsyncIterator[Message]:
        """The messages, oldest first."""
        ...

    async def close(self) -> None:
        """Unsubscribe; iteration ends."""
        ...


class Bus(Protocol):
    """One connection to the broker; it reconnects by itself, forever."""

    @property
    def connected(self) -> bool:
        """Whether the broker is reachable now."""
        ...

    async def start(self) -> None:
        """Connect; raises BrokerUnavailable."""
        ...

    async def close(self) -> None:
        """Flush and disconnect."""
        ...

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        """A bucket, made if absent; entries expire after `ttl_s`."""
        ...

    async def work_queue(self, pool: str, *, ack_wait_s: float) -> WorkQueue:
        """A pool's queue, made if absent. Undelivered for good is nothing: attempts are counted by the jobs."""
        ...

    async def dead_letter(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        """Keep a message that was given up, with the reason."""
        ...

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send, without any promise."""
        ...

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        """Receive; `*` stands for one part of the subject."""
        ...
