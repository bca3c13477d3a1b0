"""Endpoints in the broker: each node keeps its own entry alive in the bucket `nodes`; what is not kept expires.

A node that ended without a word is out of the list after `ttl_s`; one that ends in order takes itself out at once.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from adaptivegen.bus.base import Bus, Entry, KeyValue
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint, Tell, parse_endpoint
from adaptivegen.discovery.polling import LOOK_EVERY_S, poll
from adaptivegen.errors import AdaptiveGenError, InvalidRequest, first_error
from adaptivegen.ids import check_name
from adaptivegen.telemetry import get_logger

NODES_BUCKET = "nodes"
TTL_S = 15.0
RENEWALS_PER_TTL = 3  # two may be lost
WITHDRAW_TIMEOUT_S = 2.0
MAX_CONCURRENT_READS = 16


class NatsDiscovery:
    """The bucket keeps the `ttl_s` it was made with: all nodes of a deployment use the same."""

    def __init__(self, bus: Bus, clock: Clock, *, ttl_s: float = TTL_S, look_every_s: float = LOOK_EVERY_S) -> None:
        self._bus = bus
        self._clock = clock
        self._ttl_s = ttl_s
        self._look_every_s = look_every_s

    async def endpoints(self, kind: str) -> list[Endpoint]:
        """Those alive, by node id; an entry that cannot be read is logged and left out. Raises InvalidRequest,
        BrokerUnavailable."""
        check_name(kind, field="kind")
        bucket = await self._bucket()
        gate = asyncio.Semaphore(MAX_CONCURRENT_READS)

        async def read(key: str) -> Entry | None:
            async with gate:
                return await bucket.get(key)

        try:
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(read(key)) for key in await bucket.keys(f"{kind}.")]
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        found = [_decode(entry) for task in reads if (entry := task.result()) is not None]
        return sorted((endpoint for endpoint in found if endpoint is not None), key=lambda e: e.node_id)

    async def follow(self, kind: str, tell: Tell) -> None:
        """By reading the bucket every `look_every_s`."""
        await poll(self, kind, tell, clock=self._clock, every_s=self._look_every_s)

    async def register(self, endpoint: Endpoint) -> None:
        """Keep `endpoint` listed until cancelled, then take it out. A broker that is away is waited for."""
        key = f"{endpoint.kind}.{endpoint.node_id}"
        value = json.dumps(endpoint.fields()).encode()
        try:
            while True:
                try:
                    await (await self._bucket()).put(key, value)
                except AdaptiveGenError as exc:
                    get_logger().debug("not_registered", node=endpoint.node_id, error=exc.message)
                await self._clock.sleep(self._ttl_s / RENEWALS_PER_TTL)
        finally:
            with suppress(AdaptiveGenError, TimeoutError):  # else it expires
                async with asyncio.timeout(WITHDRAW_TIMEOUT_S):
                    await self._withdraw(key, value)

    async def _withdraw(self, key: str, value: bytes) -> None:
        """Take the entry out unless another process of this name has replaced it."""
        bucket = await self._bucket()
        entry = await bucket.get(key)
        if entry is not None and entry.value == value:
            await bucket.delete(key)

    async def _bucket(self) -> KeyValue:
        return await self._bus.kv(NODES_BUCKET, ttl_s=self._ttl_s)


def _decode(entry: Entry) -> Endpoint | None:
    """One bad entry (another version's, a stranger's) hides no good one."""
    try:
        return parse_endpoint(json.loads(entry.value), where=entry.key)
    except (ValueError, RecursionError, InvalidRequest) as exc:
        get_logger().warning("bad_endpoint", key=entry.key, error=str(exc))
        return None
