"""The broker over NATS and JetStream.

Owns the connection, the translation of nats-py's errors, and what the design says of JetStream: work-queue retention
with discard-new, unlimited deliveries (attempts are counted by the jobs), confirmed acknowledgements, no direct reads
from buckets, a lost answer of a compare-and-set read back. A stream or bucket that was deleted is made again on next
use. While disconnected calls fail at once: nats-py would buffer them and might lose the buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import nats.errors
import nats.js.errors
import nats.js.kv
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext, api

from adaptivegen.bus.base import Delivery, Entry, KeyValue, Message, QueueDepth, Subscription, WorkQueue
from adaptivegen.errors import BrokerUnavailable, PreconditionFailed
from adaptivegen.telemetry import get_logger

Result = TypeVar("Result")
CALL_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
RECONNECT_WAIT_S = 0.25
JOBS_STREAM = "AG_JOBS"
DEAD_STREAM = "AG_DEAD"
DEDUP_WINDOW_S = 120.0
MAX_QUEUED_MESSAGES = 100_000
MAX_DEAD_AGE_S = 30 * 24 * 3600.0

_GONE = (nats.js.errors.NotFoundError, nats.js.errors.NoStreamResponseError, nats.js.errors.BucketNotFoundError)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """nats-py's errors as ours; `_GONE` is handled by the callers first."""
    try:
        yield
    except nats.js.errors.KeyWrongLastSequenceError as exc:
        raise PreconditionFailed(f"{what}: someone else wrote first") from exc
    except (nats.errors.Error, TimeoutError, OSError) as exc:
        raise BrokerUnavailable(f"{what}: {type(exc).__name__} {exc}".rstrip()) from exc


class NatsBus:
    """One client of a NATS cluster. `name` shows in the broker's connection list."""

    def __init__(self, servers: list[str], *, name: str, replicas: int = 1) -> None:
        self._servers = servers
        self._name = name
        self._replicas = replicas
        self._client: Client | None = None
        self._buckets: dict[str, NatsKeyValue] = {}
        self._subscriptions: set[NatsLiveSubscription] = set()
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def start(self) -> None:
        await self.client()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            # Not `drain`: it waits for subscriptions, and an open pull would hold it up.
            with contextlib.suppress(TimeoutError, nats.errors.Error):
                if client.is_connected:
                    await client.flush(timeout=2)
            await client.close()

    async def client(self) -> Client:
        """The connected client; made again if it was closed for good. Raises BrokerUnavailable."""
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
                for subscription in self._subscriptions:
                    await subscription.attach(self._client)
        if not self._client.is_connected:
            raise BrokerUnavailable("the connection to the broker is lost; reconnecting")
        return self._client

    async def jetstream(self) -> JetStreamContext:
        """JetStream of the connected client."""
        return (await self.client()).jetstream(timeout=CALL_TIMEOUT_S)

    async def _connect(self) -> Client:
        async def on_error(exc: Exception) -> None:
            get_logger().debug("broker_error", error=str(exc))

        async def on_disconnect() -> None:
            if self._client is not None:  # else this is our own close
                get_logger().warning("broker_disconnected")

        async def on_reconnect() -> None:
            get_logger().info("broker_reconnected")

        client = Client()
        with _translated("connect"):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):  # nats-py would try for ever
                    await client.connect(
                        self._servers,
                        name=self._name,
                        connect_timeout=2,
                        reconnect_time_wait=cast(int, RECONNECT_WAIT_S),  # a float works; its stub is narrow
                        max_reconnect_attempts=-1,
                        ping_interval=10,
                        allow_reconnect=True,
                        error_cb=on_error,
                        disconnected_cb=on_disconnect,
                        reconnected_cb=on_reconnect,
                    )
            except BaseException:
                await client.close()
                raise
        return client

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        if bucket not in self._buckets:
            self._buckets[bucket] = NatsKeyValue(self, bucket, ttl_s=ttl_s, replicas=self._replicas)
        return self._buckets[bucket]

    async def work_queue(self, pool: str, *, ack_wait_s: float) -> WorkQueue:
        queue = NatsWorkQueue(self, pool, ack_wait_s=ack_wait_s, replicas=self._replicas)
        await queue.ensure()
        return queue

    async def dead_letter(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        jetstream = await self.jetstream()
        headers = {"Nats-Msg-Id": msg_id, "ag-reason": reason.replace("\n", " ")[:500]}
        with _translated("dead letter"):
            try:
                await jetstream.publish(f"ag.dead.{pool}", data, stream=DEAD_STREAM, headers=headers)
            except _GONE:
                config = api.StreamConfig(
                    name=DEAD_STREAM,
                    subjects=["ag.dead.*"],
                    max_age=MAX_DEAD_AGE_S,
                    num_replicas=self._replicas,
                )
                await jetstream.add_stream(config)
                await jetstream.publish(f"ag.dead.{pool}", data, stream=DEAD_STREAM, headers=headers)

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        client = await self.client()
        with _translated("publish"):
            await client.publish(subject, data, headers=dict(headers) if headers else None)

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        subscription = NatsLiveSubscription(subject, buffer, self._subscriptions.discard)
        await subscription.attach(await self.client())
        self._subscriptions.add(subscription)
        return subscription


class NatsKeyValue:
    """One bucket; made on first use and again if it was deleted."""

    def __init__(self, bus: NatsBus, bucket: str, *, ttl_s: float | None, replicas: int) -> None:
        self._bus = bus
        self._bucket = bucket
        self._ttl_s = ttl_s
        self._replicas = replicas

    async def _open(self, *, make: bool) -> nats.js.kv.KeyValue:
        jetstream = await self._bus.jetstream()
        if not make:
            return await jetstream.key_value(self._bucket)
        config = api.KeyValueConfig(
            bucket=self._bucket, history=1, ttl=self._ttl_s, replicas=self._replicas, direct=False
        )
        return await jetstream.create_key_value(config)

    async def _run(self, what: str, step: Callable[[nats.js.kv.KeyValue], Awaitable[Result]]) -> Result:
        with _translated(f"{what} in bucket {self._bucket}"):
            try:
                return await step(await self._open(make=False))
            except (nats.js.errors.BucketNotFoundError, nats.js.errors.NoStreamResponseError):
                return await step(await self._open(make=True))

    async def get(self, key: str) -> Entry | None:
        async def step(bucket: nats.js.kv.KeyValue) -> Entry | None:
            try:
                entry = await bucket.get(key)
            except nats.js.errors.KeyNotFoundError:
                return None
            return Entry(key=key, value=entry.value or b"", revision=entry.revision or 0)

        return await self._run(f"get {key}", step)

    async def create(self, key: str, value: bytes) -> int:
        async def step(bucket: nats.js.kv.KeyValue) -> int:
            return await bucket.create(key, value)

        return await self._compare_and_set(f"create {key}", key, value, step)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        async def step(bucket: nats.js.kv.KeyValue) -> int:
            return await bucket.update(key, value, last=revision)

        return await self._compare_and_set(f"update {key}", key, value, step)

    async def _compare_and_set(
        self, what: str, key: str, value: bytes, step: Callable[[nats.js.kv.KeyValue], Awaitable[int]]
    ) -> int:
        """A lost answer is resolved by reading back: if the key holds our value, the write was ours."""
        try:
            return await self._run(what, step)
        except BrokerUnavailable:
            entry = await self.get(key)
            if entry is not None and entry.value == value:
                return entry.revision
            raise

    async def put(self, key: str, value: bytes) -> int:
        async def step(bucket: nats.js.kv.KeyValue) -> int:
            return await bucket.put(key, value)

        return await self._run(f"put {key}", step)

    async def delete(self, key: str) -> None:
        async def step(bucket: nats.js.kv.KeyValue) -> bool:
            return await bucket.delete(key)

        await self._run(f"delete {key}", step)

    async def keys(self, prefix: str = "") -> list[str]:
        async def step(bucket: nats.js.kv.KeyValue) -> list[str]:
            watcher = await bucket.watch(f"{prefix}>", ignore_deletes=True, meta_only=True)
            try:
                found: list[str] = []
                updates = cast(Any, watcher)  # nats-py leaves these two untyped
                while (entry := await updates.updates(timeout=CALL_TIMEOUT_S)) is not None:
                    found.append(entry.key)
                return sorted(found)
            finally:
                await cast(Any, watcher).stop()

        return await self._run(f"keys {prefix}", step)


class NatsWorkQueue:
    """A pool's subject in the one jobs stream, with one durable consumer shared by the pool's workers."""

    def __init__(self, bus: NatsBus, pool: str, *, ack_wait_s: float, replicas: int) -> None:
        self._bus = bus
        self._pool = pool
        self._ack_wait_s = ack_wait_s
        self._replicas = replicas
        self._consumer: JetStreamContext.PullSubscription | None = None
        self._client: Client | None = None

    async def ensure(self) -> None:
        """Make the stream and the consumer where they are missing."""
        jetstream = await self._bus.jetstream()
        with _translated("jobs stream"):
            await jetstream.add_stream(
                api.StreamConfig(
                    name=JOBS_STREAM,
                    subjects=["ag.jobs.*"],
                    retention=api.RetentionPolicy.WORK_QUEUE,
                    discard=api.DiscardPolicy.NEW,
                    max_msgs=MAX_QUEUED_MESSAGES,
                    duplicate_window=DEDUP_WINDOW_S,
                    num_replicas=self._replicas,
                )
            )
            await jetstream.add_consumer(
                JOBS_STREAM,
                api.ConsumerConfig(
                    durable_name=f"pool-{self._pool}",
                    filter_subject=f"ag.jobs.{self._pool}",
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=self._ack_wait_s,
                    max_deliver=-1,
                    max_ack_pending=4096,
                ),
            )

    async def publish(self, data: bytes, *, msg_id: str, headers: Mapping[str, str]) -> None:
        async def step() -> None:
            jetstream = await self._bus.jetstream()
            await jetstream.publish(
                f"ag.jobs.{self._pool}", data, stream=JOBS_STREAM, headers={**headers, "Nats-Msg-Id": msg_id}
            )

        with _translated(f"publish to pool {self._pool}"):
            try:
                await step()
            except _GONE:
                await self.ensure()
                await step()

    async def pull(self, *, timeout_s: float) -> Delivery | None:
        client = await self._bus.client()
        with _translated(f"pull from pool {self._pool}"):
            try:
                if self._consumer is None or self._client is not client:
                    jetstream = await self._bus.jetstream()
                    self._consumer = await jetstream.pull_subscribe_bind(
                        consumer=f"pool-{self._pool}", stream=JOBS_STREAM
                    )
                    self._client = client
                messages = await self._consumer.fetch(1, timeout=timeout_s)
            except (nats.errors.TimeoutError, nats.js.errors.FetchTimeoutError):
                await self._check()
                return None
            except (*_GONE, nats.errors.NoRespondersError, nats.js.errors.ServiceUnavailableError):
                self._consumer = None
                await self.ensure()
                return None
        return NatsDelivery(messages[0]) if messages else None

    async def _check(self) -> None:
        """A deleted consumer shows only as silence: look, and make it again."""
        try:
            await (await self._bus.jetstream()).consumer_info(JOBS_STREAM, f"pool-{self._pool}")
        except _GONE:
            self._consumer = None
            await self.ensure()

    async def depth(self) -> QueueDepth:
        with _translated("queue depth"):
            info = await (await self._bus.jetstream()).consumer_info(JOBS_STREAM, f"pool-{self._pool}")
        return QueueDepth(pending=info.num_pending or 0, in_flight=info.num_ack_pending or 0)


class NatsDelivery:
    """One JetStream message."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.data: bytes = message.data
        self.headers: Mapping[str, str] = dict(message.headers or {})

    async def ack(self) -> None:
        with _translated("acknowledge"):
            await self._message.ack_sync(timeout=CALL_TIMEOUT_S)

    async def in_progress(self) -> None:
        with _translated("extend the lease"):
            await self._message._client.request(self._message.reply, b"+WPI", timeout=CALL_TIMEOUT_S)

    async def nak(self, delay_s: float) -> None:
        with _translated("give back"):
            await self._message.nak(delay=max(delay_s, 0.001))

    async def term(self, reason: str) -> None:
        with _translated("terminate"):
            await self._message._client.publish(self._message.reply, b"+TERM " + reason.encode()[:200])


class NatsLiveSubscription:
    """A core subscription with a bounded drop-oldest buffer that survives a rebuilt connection."""

    def __init__(self, subject: str, buffer: int, forget: Callable[[NatsLiveSubscription], None]) -> None:
        self._subject = subject
        self._buffer: deque[Message] = deque(maxlen=buffer)
        self._arrived = asyncio.Event()
        self._closed = False
        self._forget = forget
        self._subscription: NatsSubscription | None = None
        self.dropped = 0

    async def attach(self, client: Client) -> None:
        """Subscribe on this connection."""

        async def receive(message: Msg) -> None:
            if len(self._buffer) == self._buffer.maxlen:
                self.dropped += 1
            self._buffer.append(Message(message.subject, message.data, dict(message.headers or {})))
            self._arrived.set()

        with _translated(f"subscribe to {self._subject}"):
            self._subscription = await client.subscribe(self._subject, cb=receive)
            if client.is_connected:
                await client.flush(timeout=int(CALL_TIMEOUT_S))

    async def __aiter__(self) -> AsyncIterator[Message]:
        while not self._closed:
            while self._buffer:
                yield self._buffer.popleft()
            self._arrived.clear()
            if not self._closed:
                await self._arrived.wait()

    async def close(self) -> None:
        self._closed = True
        self._forget(self)
        self._arrived.set()
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except nats.errors.Error:
                return  # the connection is gone, and the subscription with it
