"""A pool's work queue in JetStream: its subject in the one jobs stream, one durable consumer for its workers.

The stream keeps a message until it is settled (work-queue retention) and refuses new ones when full; deliveries are
unlimited, for the jobs count attempts (a message past its own limit would stay, unseen). A stream or consumer that
was deleted is made again on next use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from adaptivegen.bus.base import Delivery, QueueDepth
from adaptivegen.bus.nats_connection import GONE, NatsConnection, ensure_stream, translated
from adaptivegen.errors import BrokerUnavailable, InternalError

JOBS_STREAM = "AG_JOBS"
DEDUP_WINDOW_S = 120.0
MAX_QUEUED_MESSAGES = 100_000
FETCH_S = 5.0  # longest single request: one that outlived a reconnect would never be answered
HEARTBEATS_FROM_S = 1.0  # shorter requests go without, the server wants two heartbeats at least

_ABSENT = (*GONE, nats.errors.NoRespondersError, nats.js.errors.ServiceUnavailableError)


class NatsWorkQueue:
    """Several tasks of one process may pull at once. Without `ack_wait_s` nobody pulls, and the consumer is neither
    made nor changed: its acknowledgement wait is the workers' to say."""

    def __init__(
        self, connection: NatsConnection, pool: str, *, ack_wait_s: float | None, max_ack_pending: int, replicas: int
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._durable = f"pool-{pool}"
        self._ack_wait_s = ack_wait_s
        self._max_ack_pending = max_ack_pending
        self._replicas = replicas
        self._bound: tuple[Client, JetStreamContext.PullSubscription] | None = None

    async def ensure(self) -> None:
        """Make the stream, and for one who pulls the consumer as well; raises BrokerUnavailable, Conflict."""
        jetstream = await self._connection.jetstream()
        with translated("jobs stream"):
            await ensure_stream(
                jetstream,
                api.StreamConfig(
                    name=JOBS_STREAM,
                    subjects=["ag.jobs.*"],
                    retention=api.RetentionPolicy.WORK_QUEUE,
                    discard=api.DiscardPolicy.NEW,
                    max_msgs=MAX_QUEUED_MESSAGES,
                    duplicate_window=DEDUP_WINDOW_S,
                    num_replicas=self._replicas,
                ),
            )
            if self._ack_wait_s is None:
                return
            await jetstream.add_consumer(
                JOBS_STREAM,
                api.ConsumerConfig(
                    durable_name=self._durable,
                    filter_subject=f"ag.jobs.{self._pool}",
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=self._ack_wait_s,
                    max_deliver=-1,
                    max_ack_pending=self._max_ack_pending,
                ),
            )

    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        async def step() -> None:
            jetstream = await self._connection.jetstream()
            await jetstream.publish(
                f"ag.jobs.{self._pool}", data, stream=JOBS_STREAM, headers={**headers, "Nats-Msg-Id": msg_id}
            )

        with translated(f"publish to pool {self._pool}"):
            try:
                await step()
            except GONE:
                await self.ensure()
                await step()

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        if self._ack_wait_s is None:
            raise InternalError("this queue was opened without ack_wait_s, for publishing only")
        made = False
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        with translated(f"pull from pool {self._pool}"):
            while (left_s := until_s - loop.time()) > 0:
                try:
                    message = await self._fetch(min(left_s, FETCH_S))
                except _ABSENT as exc:
                    await self._unbind()
                    if made:  # just made, and absent again: no reason to spin
                        raise BrokerUnavailable(f"the queue of pool {self._pool} cannot be read: {exc}") from exc
                    await self.ensure()
                    made = True
                    continue
                if message is not None:
                    return NatsDelivery(self._connection, message)
        return None

    async def depth(self) -> QueueDepth:
        async def step() -> api.ConsumerInfo:
            jetstream = await self._connection.jetstream()
            found: api.ConsumerInfo = await jetstream.consumer_info(JOBS_STREAM, self._durable)
            return found

        with translated("queue depth"):
            try:
                info = await step()
            except GONE:
                await self.ensure()
                if self._ack_wait_s is None:
                    return await self._waiting()
                info = await step()
        return QueueDepth(pending=info.num_pending or 0, in_flight=info.num_ack_pending or 0)

    async def _waiting(self) -> QueueDepth:
        """The depth of a pool that no worker has served yet: everything in the stream waits."""
        jetstream = await self._connection.jetstream()
        subject = f"ag.jobs.{self._pool}"
        stream = await jetstream.stream_info(JOBS_STREAM, subjects_filter=subject)
        return QueueDepth(pending=(stream.state.subjects or {}).get(subject, 0), in_flight=0)

    async def _fetch(self, wait_s: float) -> Msg | None:
        """One request. Silence without even heartbeats means that the request itself was lost: bind anew."""
        consumer = await self._bind()
        heartbeat_s = wait_s / 4 if wait_s >= HEARTBEATS_FROM_S else None
        try:
            messages = await consumer.fetch(1, timeout=max(wait_s, 0.01), heartbeat=heartbeat_s)
        except nats.js.errors.FetchTimeoutError:
            return None
        except nats.errors.TimeoutError:
            if heartbeat_s is not None:
                await self._unbind()
            return None
        return messages[0]

    async def _bind(self) -> JetStreamContext.PullSubscription:
        client = await self._connection.client()
        if self._bound is None or self._bound[0] is not client:
            jetstream = client.jetstream(timeout=self._connection.call_timeout_s)
            consumer = await jetstream.pull_subscribe_bind(consumer=self._durable, stream=JOBS_STREAM)
            self._bound = (client, consumer)
        return self._bound[1]

    async def _unbind(self) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            with suppress(nats.errors.Error):  # its client may be closed already
                await bound[1].unsubscribe()


class NatsDelivery:
    """One JetStream message; every answer to it is a request, so that the broker's confirmation is waited for."""

    def __init__(self, connection: NatsConnection, message: Msg) -> None:
        self._connection = connection
        self._reply = message.reply
        self.data: bytes = message.data
        self.headers: Mapping[str, str] = dict(message.headers or {})
        self.delivered: int = message.metadata.num_delivered

    async def ack(self) -> None:
        await self._answer("acknowledge", b"+ACK")

    async def in_progress(self) -> None:
        await self._answer("extend the lease", b"+WPI")

    async def nak(self, delay_s: float) -> None:
        delay_ns = max(1, round(delay_s * 1e9))
        await self._answer("give back", b"-NAK " + json.dumps({"delay": delay_ns}).encode())

    async def term(self, reason: str) -> None:
        await self._answer("terminate", b"+TERM " + " ".join(reason.split())[:200].encode())

    async def _answer(self, what: str, payload: bytes) -> None:
        client = await self._connection.client()
        with translated(what):
            await client.request(self._reply, payload, timeout=self._connection.call_timeout_s)
