"""The in-memory broker in virtual time."""

import asyncio
import itertools

import pytest

from adaptivegen.bus.base import Delivery, QueueDepth, WorkQueue
from adaptivegen.bus.memory import MemoryBus, matches
from adaptivegen.clock import ManualClock
from adaptivegen.errors import ResourceExhausted


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def queue(clock: ManualClock) -> WorkQueue:
    return await MemoryBus(clock).work_queue("p", ack_wait_s=30)


async def take(queue: WorkQueue) -> Delivery:
    delivery = await queue.pull(timeout_s=0)
    assert delivery is not None
    return delivery


async def settled() -> None:
    """Let tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_unsettled_message_comes_again_exactly_when_its_time_is_over(
    clock: ManualClock, queue: WorkQueue
) -> None:
    await queue.publish(b"job", msg_id="1", headers={})
    await take(queue)
    await clock.advance(29.9)
    assert await queue.pull(timeout_s=0) is None
    await clock.advance(0.1)
    assert (await take(queue)).delivered == 2


async def test_an_extended_lease_counts_from_the_extension(clock: ManualClock, queue: WorkQueue) -> None:
    await queue.publish(b"job", msg_id="1", headers={})
    delivery = await take(queue)
    await clock.advance(20)
    await delivery.in_progress()
    await clock.advance(29)
    assert await queue.pull(timeout_s=0) is None
    await clock.advance(1)
    assert await queue.pull(timeout_s=0) is not None


async def test_a_waiting_pull_gets_a_returned_message_when_its_pause_is_over(
    clock: ManualClock, queue: WorkQueue
) -> None:
    await queue.publish(b"job", msg_id="1", headers={})
    delivery = await take(queue)
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(queue.pull(timeout_s=100))
        await settled()
        await delivery.nak(5)
        await clock.advance(4.9)
        await settled()
        assert not pull.done()
        await clock.advance(0.1)
    again = pull.result()
    assert again is not None
    assert again.delivered == 2
    assert clock.monotonic_s() == 5.0


async def test_a_waiting_pull_gets_what_is_published_without_time_passing(clock: ManualClock, queue: WorkQueue) -> None:
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(queue.pull(timeout_s=100))
        await settled()
        await queue.publish(b"job", msg_id="1", headers={})
    assert pull.result() is not None
    assert clock.monotonic_s() == 0.0


async def test_a_pull_with_nothing_to_get_ends_after_its_time(clock: ManualClock, queue: WorkQueue) -> None:
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(queue.pull(timeout_s=3))
        await settled()
        await clock.advance(3)
    assert pull.result() is None


async def test_a_message_id_is_free_again_after_the_window(clock: ManualClock, queue: WorkQueue) -> None:
    await queue.publish(b"1", msg_id="same", headers={})
    await clock.advance(119)
    await queue.publish(b"2", msg_id="same", headers={})
    assert (await queue.depth()).pending == 1
    await clock.advance(1)
    await queue.publish(b"3", msg_id="same", headers={})
    assert (await queue.depth()).pending == 2


async def test_a_full_queue_refuses_and_keeps_what_it_has(clock: ManualClock) -> None:
    queue = await MemoryBus(clock, max_queued=2).work_queue("p", ack_wait_s=30)
    ids = itertools.count()
    for _ in range(2):
        await queue.publish(b"job", msg_id=str(next(ids)), headers={})
    await take(queue)  # it still counts: it is not settled
    with pytest.raises(ResourceExhausted):
        await queue.publish(b"job", msg_id="more", headers={})
    assert await queue.depth() == QueueDepth(pending=1, in_flight=1)


async def test_values_expire_by_the_clock(clock: ManualClock) -> None:
    bucket = await MemoryBus(clock).kv("b", ttl_s=10)
    await bucket.put("k", b"v")
    await clock.advance(9)
    assert await bucket.get("k") is not None
    await bucket.put("k", b"w")
    await clock.advance(9)
    assert await bucket.keys() == ["k"]
    await clock.advance(1)
    assert await bucket.get("k") is None
    assert await bucket.keys() == []


async def test_dead_letters_are_kept_once_with_their_reason(clock: ManualClock) -> None:
    bus = MemoryBus(clock)
    for reason in ("first", "second"):
        await bus.dead_letter("p", b"job", reason=reason, msg_id="1")
    assert [(letter.pool, letter.data, letter.reason) for letter in bus.dead] == [("p", b"job", "first")]


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
    ],
)
def test_subjects_fit_patterns_as_in_nats(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits
