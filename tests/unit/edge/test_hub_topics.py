"""Topics of an edge's hub: one subscription each, however many open it; which are let go, and when none can be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from adaptivegen.bus.base import Message, Subscription
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, ResourceExhausted
from edge_node.hub import LINGER_S
from tests.jobs import JOB_ID
from tests.unit.edge.watching import Desk, event, running, take, turns


class CountingBus(MemoryBus):
    """Counts open subscriptions, and holds each new one back while `gate` is closed."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        self.held: list[CountedSubscription] = []

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        self.asked += 1
        await self.gate.wait()
        return CountedSubscription(await super().subscribe(subject, buffer=buffer), self.held)


class CountedSubscription:
    """Is in `held` while it is open."""

    def __init__(self, inner: Subscription, held: list["CountedSubscription"]) -> None:
        self._inner = inner
        self._held = held
        held.append(self)

    @property
    def dropped(self) -> int:
        return self._inner.dropped

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._inner.__aiter__()

    async def close(self) -> None:
        self._held.remove(self)
        await self._inner.close()


@asynccontextmanager
async def counted(*, max_topics: int = 8) -> AsyncIterator[tuple[Desk, CountingBus]]:
    async with running(max_topics=max_topics) as desk:
        bus = CountingBus(desk.clock)
        desk.jobs.bus = bus
        yield desk, bus


async def test_concurrent_openers_of_one_job_share_one_subscription() -> None:
    async with counted() as (desk, bus):
        bus.gate.clear()
        async with asyncio.TaskGroup() as group:
            opened = [group.create_task(desk.hub.open("t", JOB_ID)) for _ in range(10)]
            await turns()
            assert bus.asked == 1
            bus.gate.set()
        assert len({id(task.result()) for task in opened}) == 1
        assert len(bus.held) == 1
        await desk.clock.advance(2 * LINGER_S)
        await turns()
        assert bus.held == []


async def test_an_opener_that_leaves_does_not_take_the_subscription_of_the_others_with_it() -> None:
    async with counted() as (desk, bus):
        bus.gate.clear()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(desk.hub.open("t", JOB_ID))
            second = group.create_task(desk.hub.open("t", JOB_ID))
            await turns()
            first.cancel()
            await turns()
            bus.gate.set()
        assert not second.cancelled()
        assert (bus.asked, len(bus.held)) == (1, 1)


async def test_a_topic_that_is_being_opened_is_not_swept() -> None:
    async with counted(max_topics=1) as (desk, bus):
        bus.gate.clear()
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(desk.hub.open("t", JOB_ID))
            await turns()
            await desk.clock.advance(2 * LINGER_S)
            with pytest.raises(ResourceExhausted):
                await desk.hub.open("t", "vid_other")
            bus.gate.set()
        assert await desk.hub.open("t", JOB_ID) is opening.result()
        assert (bus.asked, len(bus.held)) == (1, 1)


async def test_beyond_the_bound_the_longest_idle_topic_gives_way_and_a_watched_one_never() -> None:
    async with counted(max_topics=3) as (desk, bus), aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        for number in range(20):
            await desk.clock.advance(0.001)
            await desk.hub.open("t", f"vid_{number}")
        await turns()
        assert len(bus.held) == 3
        await desk.jobs.announce(event(1))
        assert (await take(stream, 1))[0].id == "1-w1"


async def test_when_every_topic_is_watched_a_new_one_is_refused_until_a_watcher_leaves() -> None:
    async with counted(max_topics=1) as (desk, bus):
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            with pytest.raises(ResourceExhausted) as refused:
                await desk.hub.open("t", "vid_other")
            assert refused.value.retry_after_s
            async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as second:  # the same job: no new topic
                await take(second, 1)
        await desk.hub.open("t", "vid_other")
        await turns()
        assert len(bus.held) == 1


async def test_a_subscription_that_failed_is_tried_again_by_the_next_opener() -> None:
    async with counted() as (desk, bus):
        away = [True]
        subscribe = bus.subscribe

        async def unsteady(subject: str, *, buffer: int = 256) -> Subscription:
            if away[0]:
                raise BrokerUnavailable("away")
            return await subscribe(subject, buffer=buffer)

        bus.subscribe = unsteady  # type: ignore[method-assign]
        await desk.hub.open("t", JOB_ID)
        assert bus.held == []
        away[0] = False
        await desk.hub.open("t", JOB_ID)
        assert len(bus.held) == 1


async def test_ending_the_hub_closes_every_subscription() -> None:
    async with counted() as (desk, bus):
        for number in range(5):
            await desk.hub.open("t", f"vid_{number}")
        assert len(bus.held) == 5
        desk.running.cancel()
        await asyncio.wait([desk.running])
        assert bus.held == []


async def test_an_opener_does_not_wait_for_a_hub_that_ended() -> None:
    async with counted() as (desk, bus):
        bus.gate.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(desk.hub.open("t", JOB_ID))
            await asyncio.sleep(0)  # asked for, not begun
            desk.running.cancel()
        assert bus.held == []
