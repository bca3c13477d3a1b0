"""What every broker adapter promises of work queues, asked of each: in memory and over a real nats-server."""

import asyncio

import pytest

from adaptivegen.bus.base import Bus, Delivery, QueueDepth, WorkQueue
from adaptivegen.errors import InternalError


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
