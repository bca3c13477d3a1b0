"""One key-value bucket in JetStream: no direct reads (a replica may lag), one value per key, files on disk.

Owns what the design asks of compare-and-set: a lost answer is read back. A bucket that was deleted is made again by
the next write, list or watch; a read before that finds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import nats.errors
import nats.js.errors
import nats.js.kv
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from adaptivegen.bus.base import WATCH_BUFFER, Change, Entry, Watch, check_key, check_prefix
from adaptivegen.bus.nats_connection import GONE, NatsConnection, translated
from adaptivegen.bus.nats_feed import NatsFeed, Receive, Unsubscribable
from adaptivegen.errors import BrokerUnavailable

Result = TypeVar("Result")
LIST_TIMEOUT_S = 30.0
LIST_BATCH = 500
DELETE_TRIES = 20
LIST_LOOK_S = 1.0  # then it is asked whether what was counted is still to come


class NatsKeyValue:
    """Made on first use if it is absent."""

    def __init__(self, connection: NatsConnection, bucket: str, *, ttl_s: float | None, replicas: int) -> None:
        self._connection = connection
        self._bucket = bucket
        self._ttl_s = ttl_s
        self._replicas = replicas
        self._opened: tuple[Client, nats.js.kv.KeyValue] | None = None

    async def get(self, key: str) -> Entry | None:
        check_key(key)

        async def step(bucket: nats.js.kv.KeyValue) -> Entry | None:
            try:
                entry = await bucket.get(key)
            except nats.js.errors.KeyNotFoundError:
                return None
            return Entry(key=key, value=entry.value or b"", revision=entry.revision or 0)

        return await self._run(f"get {key}", step)

    async def create(self, key: str, value: bytes) -> int:
        check_key(key)
        return await self._compare_and_set(f"create {key}", key, value, lambda bucket: bucket.create(key, value))

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        check_key(key)
        return await self._compare_and_set(
            f"update {key}", key, value, lambda bucket: bucket.update(key, value, last=revision)
        )

    async def put(self, key: str, value: bytes) -> int:
        check_key(key)
        return await self._run(f"put {key}", lambda bucket: bucket.put(key, value))

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._run(f"delete {key}", lambda bucket: bucket.delete(key))

    async def keys(self, prefix: str = "") -> list[str]:
        check_prefix(prefix)

        async def step(bucket: nats.js.kv.KeyValue) -> list[str]:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                return sorted(key for key in await self._list(prefix) if key.startswith(prefix))

        return await self._run(f"keys {prefix}", step)

    async def _list(self, prefix: str) -> list[str]:
        """The keys under the narrowest pattern for `prefix`, by a consumer of headers that is deleted at once: those
        that nats-py makes stay on the server for minutes. It is named here, so that it can be deleted also when the
        answer to its making did not arrive; the server forgets what even that left."""
        client, stream, subject = await self._connection.client(), f"KV_{self._bucket}", f"$KV.{self._bucket}."
        jetstream = client.jetstream(timeout=self._connection.call_timeout_s)
        name, tries = client.new_inbox().rpartition(".")[2], DELETE_TRIES
        try:
            consumer = await jetstream.add_consumer(
                stream,
                api.ConsumerConfig(
                    name=name,
                    filter_subject=subject + _pattern(prefix),
                    deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
                    ack_policy=api.AckPolicy.NONE,
                    headers_only=True,
                    mem_storage=True,
                    inactive_threshold=LIST_TIMEOUT_S,
                ),
            )
            tries = 1
            reading = await jetstream.pull_subscribe_bind(consumer=name, stream=stream)
            try:
                there = await self._read(reading, consumer)
            finally:
                with suppress(nats.errors.Error):
                    await reading.unsubscribe()
        finally:
            await _delete(jetstream, stream, name, tries=tries)
        return [told.removeprefix(subject) for told, exists in there.items() if exists]

    async def _read(self, reading: JetStreamContext.PullSubscription, consumer: api.ConsumerInfo) -> dict[str, bool]:
        """The subjects a listing's consumer tells, and whether each exists. One that is written meanwhile is told
        again, so that busy writers could keep the consumer from ever being done: then it is enough that all have been
        told. One that goes meanwhile may have been counted and never come: after a silence the stream is asked what it
        has. (nats-py's own count of what waits here takes late status messages for keys.)"""
        there: dict[str, bool] = {}
        awaited: set[str] | None = None
        pattern = consumer.config.filter_subject or ">"
        counted = left = consumer.num_pending or 0
        while left and (awaited is None or not awaited <= there.keys()):
            try:
                messages = await reading.fetch(min(left, LIST_BATCH), timeout=LIST_LOOK_S)
            except TimeoutError:  # nats-py raises its own and the plain one
                awaited = await self._subjects(pattern)
                continue
            for message in messages:
                there[message.subject] = nats.js.kv.KV_OP not in (message.headers or {})
                left = message.metadata.num_pending
            counted -= len(messages)
            if left and counted <= 0 and awaited is None:
                awaited = await self._subjects(pattern)
        return there

    async def _subjects(self, pattern: str) -> set[str]:
        """All subjects the stream has, also those of deleted keys; the server tells them in pages."""
        found: set[str] = set()
        while True:
            body: dict[str, object] = {"subjects_filter": pattern, "offset": len(found)}
            answer = await self._connection.api(f"STREAM.INFO.KV_{self._bucket}", body)
            page = answer["state"].get("subjects") or {}
            found.update(page)
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def watch(self, prefix: str = "", *, buffer: int = WATCH_BUFFER) -> Watch:
        subject = f"$KV.{self._bucket}."

        async def open_on(client: Client, receive: Receive) -> Unsubscribable:
            async def wanted(message: Msg) -> None:
                if message.subject.removeprefix(subject).startswith(prefix):
                    await receive(message)

            async def step(bucket: nats.js.kv.KeyValue) -> Unsubscribable:
                return await client.jetstream(timeout=self._connection.call_timeout_s).subscribe(
                    subject + _pattern(prefix),
                    stream=f"KV_{self._bucket}",
                    cb=wanted,
                    ordered_consumer=True,
                    deliver_policy=api.DeliverPolicy.NEW,
                )

            return await self._run("watch", step)

        def read(message: Msg) -> Change:
            deleted = nats.js.kv.KV_OP in (message.headers or {})
            key, revision = message.subject.removeprefix(subject), message.metadata.sequence.stream
            return Change(key, None if deleted else message.data, revision)

        check_prefix(prefix)
        feed = NatsFeed(self._connection, open_on, read, what=f"watch bucket {self._bucket}", buffer=buffer)
        await feed.attach()
        return feed

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

    async def _run(self, what: str, step: Callable[[nats.js.kv.KeyValue], Awaitable[Result]]) -> Result:
        with translated(f"{what} in bucket {self._bucket}"):
            try:
                return await step(await self._open(make=False))
            except GONE:
                return await step(await self._open(make=True))

    async def _open(self, *, make: bool) -> nats.js.kv.KeyValue:
        """The bucket on the client in use; looked up once per client. Raises an error of `GONE` unless `make`."""
        client = await self._connection.client()
        if not make and self._opened is not None and self._opened[0] is client:
            return self._opened[1]
        jetstream = client.jetstream(timeout=self._connection.call_timeout_s)
        if make:
            bucket = await jetstream.create_key_value(
                api.KeyValueConfig(
                    bucket=self._bucket, history=1, ttl=self._ttl_s, replicas=self._replicas, direct=False
                )
            )
        else:
            bucket = await jetstream.key_value(self._bucket)
        self._opened = (client, bucket)
        return bucket


def _pattern(prefix: str) -> str:
    """The narrowest NATS filter that holds all keys with this prefix: it can only end at a dot."""
    return prefix[: prefix.rfind(".") + 1] + ">"


async def _delete(jetstream: JetStreamContext, stream: str, name: str, *, tries: int) -> None:
    """Delete a listing's consumer. The server may still be making one whose maker did not stay for the answer: what is
    not found then is asked for again."""
    with suppress(nats.errors.Error):
        for _ in range(tries):
            try:
                await jetstream.delete_consumer(stream, name)
                return
            except nats.js.errors.NotFoundError:
                continue
