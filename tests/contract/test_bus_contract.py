"""What every broker adapter promises, asked of each: in memory and over a real nats-server."""

import uuid
from collections.abc import AsyncIterator

import pytest

from adaptivegen.bus.base import Bus, Message
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import PreconditionFailed


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    made: Bus
    if request.param == "memory":
        made = MemoryBus(SystemClock())
    else:
        made = NatsBus([request.getfixturevalue("nats_url")], name="contract")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def name() -> str:
    """A name of this test's own in the shared server."""
    return f"n{uuid.uuid4().hex[:12]}"


async def test_only_one_create_wins_and_the_value_is_the_winners(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    revision = await bucket.create("a.b", b"first")
    with pytest.raises(PreconditionFailed):
        await bucket.create("a.b", b"second")
    entry = await bucket.get("a.b")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"first", revision)


async def test_an_update_from_an_old_revision_loses(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    first = await bucket.create("k", b"1")
    second = await bucket.update("k", b"2", revision=first)
    with pytest.raises(PreconditionFailed):
        await bucket.update("k", b"3", revision=first)
    assert second > first
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"2"


async def test_a_deleted_key_is_gone_and_can_be_created_again(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    await bucket.put("k", b"1")
    await bucket.delete("k")
    await bucket.delete("never-was")
    assert await bucket.get("k") is None
    assert await bucket.keys() == []
    await bucket.create("k", b"2")
    assert await bucket.keys() == ["k"]


async def test_keys_are_listed_by_prefix_in_order(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    assert await bucket.keys("t.") == []
    for key in ("t.b", "t.a", "u.c"):
        await bucket.put(key, b"x")
    assert await bucket.keys("t.") == ["t.a", "t.b"]
    assert await bucket.keys() == ["t.a", "t.b", "u.c"]


async def test_a_published_message_is_delivered_with_its_headers_until_acknowledged(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={"traceparent": "00-x"})
    delivery = await queue.pull(timeout_s=2)
    assert delivery is not None
    assert delivery.data == b"job"
    assert delivery.headers["traceparent"] == "00-x"
    assert await queue.pull(timeout_s=0.2) is None
    await delivery.in_progress()
    await delivery.ack()
    depth = await queue.depth()
    assert (depth.pending, depth.in_flight) == (0, 0)


async def test_a_repeat_with_the_same_message_id_is_dropped(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    for _ in range(3):
        await queue.publish(b"job", msg_id=f"{name}-same", headers={})
    assert (await queue.depth()).pending == 1


async def test_a_message_given_back_comes_again(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    first = await queue.pull(timeout_s=2)
    assert first is not None
    await first.nak(0.05)
    again = await queue.pull(timeout_s=5)
    assert again is not None
    await again.term("enough")
    assert await queue.pull(timeout_s=0.2) is None


async def test_an_unacknowledged_message_comes_again_after_the_wait(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=1)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    assert await queue.pull(timeout_s=2) is not None
    again = await queue.pull(timeout_s=5)
    assert again is not None
    await again.ack()


async def test_pools_do_not_see_one_anothers_work(bus: Bus, name: str) -> None:
    mine, theirs = await bus.work_queue(name, ack_wait_s=30), await bus.work_queue(f"{name}x", ack_wait_s=30)
    await mine.publish(b"job", msg_id=f"{name}-1", headers={})
    assert await theirs.pull(timeout_s=0.2) is None
    assert await mine.pull(timeout_s=2) is not None


async def test_subscribers_get_what_fits_their_subject_in_order(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(f"{name}.*.x")
    for number in range(3):
        await bus.publish(f"{name}.{number}.x", str(number).encode(), headers={"n": str(number)})
    await bus.publish(f"{name}.0.y", b"other")
    await bus.publish(f"{name}.9.x", b"end")
    got: list[Message] = []
    async for message in subscription:
        got.append(message)
        if message.data == b"end":
            break
    assert [message.data for message in got] == [b"0", b"1", b"2", b"end"]
    assert got[1].headers["n"] == "1"
    await subscription.close()


async def test_a_slow_subscriber_loses_the_oldest_and_it_is_counted(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(name, buffer=2)
    probe = await bus.subscribe(f"{name}.done")
    for number in range(5):
        await bus.publish(name, str(number).encode())
    await bus.publish(f"{name}.done", b"")
    async for _ in probe:
        break
    await subscription.close()
    assert subscription.dropped == 3


async def test_closing_ends_the_iteration(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(name)
    await subscription.close()
    assert [message async for message in subscription] == []
