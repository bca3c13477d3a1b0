"""The broker over NATS and JetStream: composes connection, buckets, queues and subscriptions.

Replicas (1 on one machine, 3 in a cluster) are those of streams and buckets this process makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg

from adaptivegen.bus.base import MAX_ACK_PENDING, DeadLetter, KeyValue, Message, Subscription, WorkQueue
from adaptivegen.bus.nats_connection import CALL_TIMEOUT_S, NatsConnection, translated
from adaptivegen.bus.nats_dead import NatsDeadLetters
from adaptivegen.bus.nats_feed import NatsFeed, Receive, Unsubscribable
from adaptivegen.bus.nats_kv import NatsKeyValue
from adaptivegen.bus.nats_queue import NatsWorkQueue
from adaptivegen.ids import check_name


class NatsBus:
    """One client of a NATS cluster. `name` shows in the broker's connection list; no call waits longer than a few
    times `call_timeout_s`. `tls_ca` and `credentials` are files (NatsConnection)."""

    def __init__(
        self,
        servers: list[str],
        *,
        name: str,
        replicas: int = 1,
        call_timeout_s: float = CALL_TIMEOUT_S,
        tls_ca: Path | None = None,
        credentials: Path | None = None,
    ) -> None:
        self._connection = NatsConnection(
            servers, name=name, call_timeout_s=call_timeout_s, tls_ca=tls_ca, credentials=credentials
        )
        self._replicas = replicas
        self._dead = NatsDeadLetters(self._connection, replicas=replicas)
        self._buckets: dict[str, NatsKeyValue] = {}
        self._queues: dict[tuple[str, float | None, int], NatsWorkQueue] = {}

    @property
    def connected(self) -> bool:
        return self._connection.connected

    async def start(self) -> None:
        await self._connection.open()

    async def close(self) -> None:
        await self._connection.close()

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        if bucket not in self._buckets:
            check_name(bucket, field="bucket")
            self._buckets[bucket] = NatsKeyValue(self._connection, bucket, ttl_s=ttl_s, replicas=self._replicas)
        return self._buckets[bucket]

    async def work_queue(
        self, pool: str, *, ack_wait_s: float | None = None, max_ack_pending: int = MAX_ACK_PENDING
    ) -> WorkQueue:
        known = (pool, ack_wait_s, max_ack_pending)
        if known not in self._queues:
            check_name(pool, field="pool")
            queue = NatsWorkQueue(
                self._connection,
                pool,
                ack_wait_s=ack_wait_s,
                max_ack_pending=max_ack_pending,
                replicas=self._replicas,
            )
            await queue.ensure()
            self._queues[known] = queue
        return self._queues[known]

    async def dead_letter(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        check_name(pool, field="pool")
        await self._dead.add(pool, data, reason=reason, msg_id=msg_id)

    async def dead_letters(self, *, limit: int) -> list[DeadLetter]:
        return await self._dead.newest(limit)

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        client = await self._connection.client()
        with translated("publish"):
            await client.publish(subject, data, headers=dict(headers) if headers else None)

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        async def open_on(client: Client, receive: Receive) -> Unsubscribable:
            subscription = await client.subscribe(subject, cb=receive)
            await client.flush(
                timeout=ceil(self._connection.call_timeout_s)
            )  # what is published after this returned is received
            return subscription

        def read(message: Msg) -> Message:
            return Message(message.subject, message.data, dict(message.headers or {}))

        feed = NatsFeed(self._connection, open_on, read, what=f"subscribe to {subject}", buffer=buffer)
        await feed.attach()
        return feed
