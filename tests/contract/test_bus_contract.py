"""What every broker adapter promises, asked of each: in memory and over a real nats-server."""

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator

import pytest

from adaptivegen.bus.base import Bus, Change, Delivery, Message, QueueDepth, WorkQueue
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import InternalError, InvalidRequest, PreconditionFailed


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


async def test_one_who_only_publishes_sees_the_depth_before_and_after_anyone_pulls(bus: Bus, name: str) -> None:
    publisher = await bus.work_queue(name)
    await reaches(publisher, QueueDepth(pending=0, in_flight=0))
    await publisher.publish(b"job", msg_id=f"{name}-1", headers={})
    await reaches(publisher, QueueDepth(pending=1, in_flight=0))
    await reaches(await bus.work_queue(f"{name}x"), QueueDepth(pending=0, in_flight=0))
    with pytest.raises(InternalError, match="publishing"):
        await publisher.pull(timeout_s=0.1)
    worker = await bus.work_queue(name, ack_wait_s=30)
    assert await worker.pull(timeout_s=2) is not None
    await reaches(publisher, QueueDepth(pending=0, in_flight=1))


async def test_one_who_only_publishes_leaves_the_acknowledgement_wait_alone(bus: Bus, name: str) -> None:
    worker = await bus.work_queue(name, ack_wait_s=1)
    await worker.publish(b"job", msg_id=f"{name}-1", headers={})
    assert await worker.pull(timeout_s=2) is not None
    await (await bus.work_queue(name)).publish(b"job", msg_id=f"{name}-1", headers={})
    again = await worker.pull(timeout_s=5)  # after its one second
    assert again is not None and again.delivered == 2


async def test_dead_letters_are_told_newest_first_with_their_reasons(bus: Bus, name: str) -> None:
    for number in range(3):
        await bus.dead_letter(name, b"job %d" % number, reason=f"why\n{number}", msg_id=f"{name}-{number}")
    await bus.dead_letter(name, b"again", reason="a repeat", msg_id=f"{name}-2")
    found = await bus.dead_letters(limit=2)
    assert [(letter.pool, letter.data) for letter in found] == [(name, b"job 2"), (name, b"job 1")]
    assert found[0].reason.split() == ["why", "2"]
    assert found[0].at_ns >= found[1].at_ns > 0


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


async def test_of_many_racing_creates_exactly_one_wins(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)

    async def attempt(number: int) -> bool:
        try:
            await bucket.create("k", str(number).encode())
        except PreconditionFailed:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(20)))
    assert won.count(True) == 1
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == str(won.index(True)).encode()


async def test_a_missing_key_cannot_be_updated(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    with pytest.raises(PreconditionFailed):
        await bucket.update("k", b"1", revision=1)


async def test_a_prefix_may_end_inside_a_part(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    for key in ("t.ab", "t.ac", "t.b", "t.ab.c"):
        await bucket.put(key, b"x")
    assert await bucket.keys("t.a") == ["t.ab", "t.ab.c", "t.ac"]


async def test_an_entry_expires_after_the_buckets_time(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name, ttl_s=1)
    await bucket.put("k", b"x")
    async with asyncio.timeout(10):
        while await bucket.get("k") is not None:
            await asyncio.sleep(0.05)
    assert await bucket.keys() == []
    await bucket.create("k", b"y")


@pytest.mark.parametrize("key", ["", ".", "a..b", "a.", ".a", "a b", "a.*", ">", "a\n", "ä", "a\0"])
async def test_what_cannot_be_a_key_is_refused(bus: Bus, name: str, key: str) -> None:
    bucket = await bus.kv(name)
    for call in (bucket.get(key), bucket.put(key, b""), bucket.create(key, b""), bucket.delete(key)):
        with pytest.raises(InvalidRequest, match="key is"):
            await call
    if key not in ("", "a."):
        with pytest.raises(InvalidRequest, match="prefix is"):
            await bucket.keys(key)


@pytest.mark.parametrize("bad", ["", "a.b", "*", ">", "a b", "A", "../x"])
async def test_what_cannot_be_a_pool_or_bucket_is_refused(bus: Bus, bad: str) -> None:
    with pytest.raises(InvalidRequest, match="pool is"):
        await bus.work_queue(bad, ack_wait_s=1)
    with pytest.raises(InvalidRequest, match="pool is"):
        await bus.dead_letter(bad, b"", reason="", msg_id="1")
    with pytest.raises(InvalidRequest, match="bucket is"):
        await bus.kv(bad)


async def test_a_watch_tells_writes_and_deletions_of_its_prefix_from_now_on(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    await bucket.put("t.before", b"x")
    watch = await bucket.watch("t.")
    await bucket.put("u.other", b"x")
    first = await bucket.put("t.a", b"1")
    await bucket.delete("t.a")
    seen: list[Change] = []
    async with asyncio.timeout(5):
        async for change in watch:
            seen.append(change)
            if change.value is None:
                break
    assert [(change.key, change.value) for change in seen] == [("t.a", b"1"), ("t.a", None)]
    assert (seen[0].revision, seen[1].revision) == (first, first + 1)
    await watch.close()
    assert [change async for change in watch] == []


async def test_a_delivery_knows_how_often_it_was_made(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    for count in (1, 2, 3):
        delivery = await queue.pull(timeout_s=5)
        assert delivery is not None
        assert delivery.delivered == count
        await delivery.nak(0)


async def test_a_message_is_in_flight_from_its_delivery_until_it_is_settled(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    for number in range(2):
        await queue.publish(b"job", msg_id=f"{name}-{number}", headers={})
    await reaches(queue, QueueDepth(pending=2, in_flight=0))
    delivery = await queue.pull(timeout_s=5)
    assert delivery is not None
    await reaches(queue, QueueDepth(pending=1, in_flight=1))
    await delivery.nak(60)  # it is given back, and still not new
    await reaches(queue, QueueDepth(pending=1, in_flight=1))


async def reaches(queue: WorkQueue, expected: QueueDepth) -> None:
    """Wait until the queue's depth is that: a broker counts a moment after it has answered."""
    for _ in range(100):
        if (found := await queue.depth()) == expected:
            return
        await asyncio.sleep(0.02)
    assert found == expected


async def redelivered(queue: WorkQueue, name: str) -> tuple[Delivery, Delivery]:
    """A delivery whose holder overslept, and the next one of the same message."""
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    late, now = await queue.pull(timeout_s=5), await queue.pull(timeout_s=5)
    assert late is not None
    assert now is not None
    return late, now


async def test_a_late_acknowledgement_settles_the_message_under_its_new_holder(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=0.5)
    late, now = await redelivered(queue, name)
    await late.ack()
    await reaches(queue, QueueDepth(pending=0, in_flight=0))
    assert await queue.pull(timeout_s=0.7) is None
    await now.ack()  # settled already: confirmed all the same


async def test_a_late_return_brings_the_message_again_although_another_holds_it(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=0.5)
    late, _ = await redelivered(queue, name)
    await late.nak(0)
    again = await queue.pull(timeout_s=0.4)
    assert again is not None
    await again.ack()


async def test_settling_twice_is_no_error(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    delivery = await queue.pull(timeout_s=5)
    assert delivery is not None
    await delivery.ack()
    await delivery.ack()
    await delivery.nak(0)
    assert await queue.pull(timeout_s=0.2) is None


async def test_a_lease_that_is_extended_keeps_the_message(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=1)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    delivery = await queue.pull(timeout_s=5)
    assert delivery is not None
    for _ in range(4):
        assert await queue.pull(timeout_s=0.4) is None
        await delivery.in_progress()
    await delivery.ack()


async def test_no_more_than_the_allowed_messages_are_out_at_a_time(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30, max_ack_pending=1)
    for number in range(2):
        await queue.publish(str(number).encode(), msg_id=f"{name}-{number}", headers={})
    first = await queue.pull(timeout_s=5)
    assert first is not None
    assert await queue.pull(timeout_s=0.2) is None
    await first.ack()
    second = await queue.pull(timeout_s=5)
    assert second is not None
    assert {first.data, second.data} == {b"0", b"1"}


async def test_several_may_pull_at_once_and_each_message_goes_to_one(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=30)
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(queue.pull(timeout_s=5)) for _ in range(5)]
        for number in range(5):
            await queue.publish(str(number).encode(), msg_id=f"{name}-{number}", headers={})
    got = sorted(delivery.data for pull in pulls if (delivery := pull.result()) is not None)
    assert got == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_pull_that_was_cancelled_disturbs_no_later_one(bus: Bus, name: str) -> None:
    queue = await bus.work_queue(name, ack_wait_s=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await queue.pull(timeout_s=5)
    await queue.publish(b"job", msg_id=f"{name}-1", headers={})
    delivery = await queue.pull(timeout_s=5)
    assert delivery is not None
    await delivery.ack()


async def test_closing_the_bus_ends_its_subscriptions_and_watches(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(name)
    watch = await (await bus.kv(name)).watch()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        messages, changes = group.create_task(collect(subscription)), group.create_task(collect(watch))
        await asyncio.sleep(0)
        await bus.close()
    assert (messages.result(), changes.result()) == ([], [])


async def collect(items: AsyncIterable[object]) -> list[object]:
    return [item async for item in items]


async def test_a_closing_wildcard_takes_all_that_follows(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(f"{name}.>")
    for subject in (name, f"{name}.a", f"{name}x.a", f"{name}.a.b"):
        await bus.publish(subject, subject.encode())
    got: list[str] = []
    async with asyncio.timeout(5):
        async for message in subscription:
            got.append(message.subject)
            if message.subject == f"{name}.a.b":
                break
    assert got == [f"{name}.a", f"{name}.a.b"]
