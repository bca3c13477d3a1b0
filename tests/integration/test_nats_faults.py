"""The broker killed, restarted, and stripped of its streams."""

import asyncio

import pytest

from adaptivegen.bus.nats import JOBS_STREAM, NatsBus
from adaptivegen.errors import BrokerUnavailable
from tests.servers import NatsServer


async def until_connected(bus: NatsBus) -> None:
    async with asyncio.timeout(15):
        while not bus.connected:
            await asyncio.sleep(0.05)


async def test_acknowledged_work_and_values_survive_a_killed_broker(own_nats: NatsServer) -> None:
    bus = NatsBus([own_nats.url], name="t")
    await bus.start()
    queue = await bus.work_queue("p", ack_wait_s=2)
    await queue.publish(b"job", msg_id="1", headers={})
    await (await bus.kv("b")).put("k", b"v")
    own_nats.kill()
    async with asyncio.timeout(10):
        while bus.connected:
            await asyncio.sleep(0.02)
    with pytest.raises(BrokerUnavailable):
        await queue.publish(b"lost", msg_id="2", headers={})
    own_nats.start()
    await until_connected(bus)
    delivery = await queue.pull(timeout_s=5)
    assert delivery is not None
    assert delivery.data == b"job"
    await delivery.ack()
    entry = await (await bus.kv("b")).get("k")
    assert entry is not None
    assert entry.value == b"v"
    await bus.close()


async def test_a_subscription_goes_on_after_the_broker_came_back(own_nats: NatsServer) -> None:
    bus = NatsBus([own_nats.url], name="t")
    await bus.start()
    subscription = await bus.subscribe("s")
    own_nats.kill()
    async with asyncio.timeout(10):
        while bus.connected:
            await asyncio.sleep(0.02)
    own_nats.start()
    await until_connected(bus)
    await bus.publish("s", b"again")
    async with asyncio.timeout(5):
        async for message in subscription:
            assert message.data == b"again"
            break
    await bus.close()


async def test_deleted_streams_and_buckets_are_made_again(own_nats: NatsServer) -> None:
    bus = NatsBus([own_nats.url], name="t")
    await bus.start()
    queue = await bus.work_queue("p", ack_wait_s=2)
    bucket = await bus.kv("b")
    await bucket.put("k", b"v")
    jetstream = await bus.jetstream()
    await jetstream.delete_stream(JOBS_STREAM)
    await jetstream.delete_stream("KV_b")
    await queue.publish(b"job", msg_id="1", headers={})
    delivery = await queue.pull(timeout_s=5)
    assert delivery is not None
    assert await bucket.get("k") is None
    await bucket.put("k", b"again")
    await bus.close()


async def test_no_broker_is_a_typed_error_at_once() -> None:
    bus = NatsBus(["nats://127.0.0.1:9"], name="t")
    async with asyncio.timeout(20):
        with pytest.raises(BrokerUnavailable):
            await bus.start()
