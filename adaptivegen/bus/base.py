"""The broker as everyone sees it: key-value buckets, work queues, and lossy publish-subscribe.

Guarantees. KV: a write is on the broker's disk when it returns; `create` and `update` are compare-and-set, and one
whose answer was lost is resolved by reading back. Work queue: a published message is delivered until settled,
possibly more than once, in no strict order; a repeat with the same `msg_id` within two minutes is dropped.
Publish-subscribe: may lose, keeps the order of one publisher. No broker is the truth: what must never be lost is in
the object store, and a bucket or stream that was deleted is made again, empty, on its next use.

Errors. BrokerUnavailable: not reachable or not acknowledged in time; a write that raised it may still take effect.
PreconditionFailed: a compare-and-set lost. ResourceExhausted: the queue is full. PayloadTooLarge, InvalidRequest: the
message, key or name can never be sent. Every call has a deadline.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from adaptivegen.errors import InvalidRequest

MAX_ACK_PENDING = 4096
WATCH_BUFFER = 256
_PART = "[-/_=A-Za-z0-9]+"
_KEY = re.compile(rf"{_PART}(?:\.{_PART})*")
_PREFIX = re.compile(rf"(?:{_PART}\.)*(?:{_PART})?")


def check_key(key: str) -> str:
    """Return `key` if it can name an entry; raises InvalidRequest (wildcards, blanks and empty parts are refused)."""
    if _KEY.fullmatch(key) is None:
        raise InvalidRequest.field("key", key, "parts of A-Z, a-z, 0-9, - / _ = joined by dots")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a key can start with it; raises InvalidRequest."""
    if _PREFIX.fullmatch(prefix) is None:
        raise InvalidRequest.field("prefix", prefix, "the beginning of a key, or nothing")
    return prefix


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value at a revision. Revisions grow over the whole bucket, never repeat, and may skip."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """A write seen by a watch; `value` is None when the key was deleted."""

    key: str
    value: bytes | None
    revision: int


class Watch(Protocol):
    """The writes of a bucket from now on, oldest first. A hint, not a log: it may fall silent or lose (a full buffer
    drops the oldest and counts it; expiry is not told; a broken connection loses), so readers also list the bucket
    every so often and act on that alone."""

    @property
    def dropped(self) -> int:
        """How many changes the full buffer lost."""
        ...

    def __aiter__(self) -> AsyncIterator[Change]:
        """The changes; ends after `close`."""
        ...

    async def close(self) -> None:
        """Stop watching; iteration ends."""
        ...


class KeyValue(Protocol):
    """One bucket. Keys are dot-separated names (`check_key`); only the latest value of a key is kept."""

    async def get(self, key: str) -> Entry | None:
        """The latest value, or None. Reads what the leader has: a write that returned is seen."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that does not exist; returns its revision. Raises PreconditionFailed if it exists.

        A lost answer is read back and taken for ours if the value is ours, so rivals must write different values
        (an owner, an epoch) wherever it matters who won.
        """
        ...

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        """Write if the key still is at `revision`; returns the new one. Raises PreconditionFailed. Read back as
        `create` is."""
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

    async def watch(self, prefix: str = "", *, buffer: int = WATCH_BUFFER) -> Watch:
        """Changes of keys that start with `prefix`, from now on."""
        ...


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Messages never delivered yet, and delivered but not settled (also those given back or overdue)."""

    pending: int
    in_flight: int


class Delivery(Protocol):
    """One delivered message. Each of these calls returns when the broker has confirmed it and raises BrokerUnavailable
    if it did not; then the message may or may not come again.

    They act on the message, not on this delivery of it: a late `ack` or `nak` of a holder whose time is over takes or
    returns the message that another now holds. Who holds a job is for the job record's epoch to say.
    """

    @property
    def data(self) -> bytes:
        """The message."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...

    @property
    def delivered(self) -> int:
        """How often it was delivered, this time included."""
        ...

    async def ack(self) -> None:
        """Done: never deliver it again."""
        ...

    async def in_progress(self) -> None:
        """Restart the acknowledgement wait."""
        ...

    async def nak(self, delay_s: float) -> None:
        """Deliver it again after `delay_s`."""
        ...

    async def term(self, reason: str) -> None:
        """Never deliver it again, because it cannot be handled."""
        ...


class WorkQueue(Protocol):
    """One pool's queue."""

    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        """Add a message; returns when it is on the broker's disk. Raises ResourceExhausted when the queue is full,
        BrokerUnavailable when that is not known: repeat it with the same `msg_id`."""
        ...

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        """The next message, or None after `timeout_s`."""
        ...

    async def depth(self) -> QueueDepth:
        """How much waits."""
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, why, and when (wall nanoseconds)."""

    pool: str
    data: bytes
    reason: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Message:
    """A published message."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Subscription(Protocol):
    """Messages of a subject from now on. The buffer is bounded: when full, the oldest is dropped and counted."""

    @property
    def dropped(self) -> int:
        """How many messages the full buffer lost."""
        ...

    def __aiter__(self) -> AsyncIterator[Message]:
        """The messages, oldest first; ends after `close`, also after the bus's."""
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
        """Flush and disconnect; subscriptions and watches end."""
        ...

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        """A bucket, made on first use if absent; entries expire after `ttl_s`. One that is there keeps its own."""
        ...

    async def work_queue(
        self, pool: str, *, ack_wait_s: float | None = None, max_ack_pending: int = MAX_ACK_PENDING
    ) -> WorkQueue:
        """A pool's queue, made if absent. With `ack_wait_s`, the handle of one who pulls: what is not settled within it
        comes again, without a limit (attempts are counted by the jobs), and at most `max_ack_pending` messages are out
        at a time; these are the queue's, and those of the latest such handle count. Without, the handle of one who
        publishes and looks: it leaves them alone, and its `pull` raises InternalError."""
        ...

    async def dead_letter(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        """Keep a message that was given up, with the reason, for an operator to look at."""
        ...

    async def dead_letters(self, *, limit: int) -> list[DeadLetter]:
        """Up to `limit` of all pools, newest first."""
        ...

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send, without any promise. Raises BrokerUnavailable at once while disconnected: nothing is kept back."""
        ...

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        """Receive; `*` stands for one part of the subject, a closing `>` for one or more."""
        ...
