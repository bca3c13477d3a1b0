"""Endpoints kept alive in the broker, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adaptivegen.bus.base import KeyValue
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.nats_kv import NODES_BUCKET, NatsDiscovery
from adaptivegen.errors import BrokerUnavailable

EDGE = Endpoint("edge", "e", http_url="http://h")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def registered(discovery: NatsDiscovery, endpoint: Endpoint) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(discovery.register(endpoint))
        await settled()
        yield task
        task.cancel()


async def test_a_node_stays_listed_while_it_lives_and_leaves_when_it_ends(clock: ManualClock) -> None:
    discovery = NatsDiscovery(MemoryBus(clock), clock, ttl_s=15)
    async with registered(discovery, EDGE):
        for _ in range(5):
            await clock.advance(14)
            assert await discovery.endpoints("edge") == [EDGE]
    assert await discovery.endpoints("edge") == []


async def test_a_node_that_fell_silent_is_out_after_its_time(clock: ManualClock) -> None:
    bus = MemoryBus(clock)
    discovery = NatsDiscovery(bus, clock, ttl_s=15)
    bucket = await bus.kv(NODES_BUCKET, ttl_s=15)
    await bucket.put("edge.e", b'{"kind": "edge", "node_id": "e", "http_url": "http://h"}')
    await clock.advance(14)
    assert await discovery.endpoints("edge") == [EDGE]
    await clock.advance(1)
    assert await discovery.endpoints("edge") == []


async def test_a_node_that_ends_leaves_the_entry_of_its_successor_alone(clock: ManualClock) -> None:
    discovery = NatsDiscovery(MemoryBus(clock), clock)
    successor = Endpoint("edge", "e", http_url="http://moved")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(discovery.register(EDGE))
        await settled()
        second = group.create_task(discovery.register(successor))
        await settled()
        first.cancel()
        await settled()
        assert await discovery.endpoints("edge") == [successor]
        second.cancel()


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"\xff", b'{"kind": "edge", "node_id": "../x"}'])
async def test_a_bad_entry_hides_no_good_one(clock: ManualClock, value: bytes) -> None:
    bus = MemoryBus(clock)
    discovery = NatsDiscovery(bus, clock)
    async with registered(discovery, EDGE):
        await (await bus.kv(NODES_BUCKET)).put("edge.bad", value)
        assert await discovery.endpoints("edge") == [EDGE]


class Away(MemoryBus):
    """A broker that can be away."""

    away = False

    async def kv(self, bucket: str, *, ttl_s: float | None = None) -> KeyValue:
        if self.away:
            raise BrokerUnavailable("away")
        return await super().kv(bucket, ttl_s=ttl_s)


async def test_a_broker_that_is_away_is_waited_for_and_said_to_readers(clock: ManualClock) -> None:
    bus = Away(clock)
    discovery = NatsDiscovery(bus, clock)
    bus.away = True
    async with registered(discovery, EDGE) as keeper:
        await clock.advance(60)
        assert not keeper.done()
        with pytest.raises(BrokerUnavailable):
            await discovery.endpoints("edge")
        bus.away = False
        await clock.advance(5)
        assert await discovery.endpoints("edge") == [EDGE]
        bus.away = True  # and gone again at the end: leaving must not fail
