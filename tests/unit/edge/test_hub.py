"""Event streams of an edge: snapshots, resuming, slow and silent streams, other nodes' events, draining."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, NotFound
from adaptivegen.jobs.events import EventType, JobEvent, make_event
from adaptivegen.jobs.record import new_record
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobStore
from edge_node.hub import HISTORY, LINGER_S, WATCHER_BUFFER, EventHub, Topic, Watcher
from tests.jobs import JOB_ID, make_spec, media

RECORD = new_record(make_spec())
DONE = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=9, final=media())
SOON_S = 0.01
NEVER_S = 60.0


def event(number: int, kind: EventType = "progress", *, producer: str = "w1") -> JobEvent:
    return make_event(kind, RECORD, producer=producer, now_ns=number)


class Desk:
    """A hub on memory parts, with the job submitted."""

    def __init__(self, look_again_s: float) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(self.clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=self.clock)
        self.hub = EventHub(node_id="edge-1", jobs=self.jobs, clock=self.clock, look_again_s=look_again_s)

    async def tell(self, happened: JobEvent) -> None:
        """As another node would."""
        await self.bus.publish(f"ag.events.t.{JOB_ID}", happened.encode())
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def running(*, look_again_s: float = NEVER_S) -> AsyncIterator[Desk]:
    desk = Desk(look_again_s)
    await desk.jobs.submit(make_spec())
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(desk.hub.run())
        await asyncio.sleep(0)
        yield desk
        task.cancel()
        await desk.bus.close()


async def take(stream: AsyncIterator[JobEvent | None], count: int) -> list[JobEvent]:
    found: list[JobEvent] = []
    while len(found) < count:
        happened = await anext(stream)
        if happened is not None:
            found.append(happened)
    return found


async def test_a_new_stream_begins_with_the_record_and_follows_both_nodes() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        (first,) = await take(stream, 1)
        assert (first.type, first.record.status) == ("snapshot", "queued")
        await desk.tell(event(1))
        await desk.hub.publish(event(2, "draft.started", producer="edge-1"))
        await desk.tell(event(3, "completed"))
        assert [happened.id for happened in await take(stream, 3)] == ["1-w1", "2-edge-1", "3-w1"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_the_copy_of_an_own_event_that_comes_back_is_not_told_twice() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        await desk.hub.publish(event(1, producer="edge-1"))
        await desk.tell(event(1, producer="edge-1"))
        await desk.tell(event(2))
        assert [happened.id for happened in await take(stream, 2)] == ["1-edge-1", "2-w1"]


async def test_a_stream_resumes_after_the_last_event_seen() -> None:
    async with running() as desk:
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            await desk.tell(event(1))
            (last,) = await take(stream, 1)
        await desk.tell(event(2))
        await desk.tell(event(3, "completed"))
        async with aclosing(desk.hub.stream("t", JOB_ID, after=last.id)) as stream:
            assert [happened.id for happened in await take(stream, 2)] == ["2-w1", "3-w1"]
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_resuming_after_an_event_that_is_not_known_here_begins_with_a_snapshot() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after="77-elsewhere")) as stream:
        assert (await take(stream, 1))[0].type == "snapshot"


async def test_a_job_that_has_ended_is_told_at_once() -> None:
    async with running() as desk:
        await desk.jobs.finish(DONE)
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            assert [happened.type for happened in await take(stream, 2)] == ["snapshot", "completed"]
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_an_end_whose_event_was_lost_is_read_from_the_record() -> None:
    async with running(look_again_s=SOON_S) as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        assert await anext(stream) is None  # silence is told, so that a server can keep the connection alive
        await desk.jobs.finish(DONE)
        (last,) = await take(stream, 1)
        assert (last.type, last.record.final) == ("completed", media())


async def test_a_job_of_another_tenant_is_not_found() -> None:
    async with running() as desk, aclosing(desk.hub.stream("u", JOB_ID, after=None)) as stream:
        with pytest.raises(NotFound):
            await anext(stream)


async def test_draining_ends_open_streams_without_an_end_of_the_job() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        waiting = asyncio.get_running_loop().create_task(anext(stream, None))
        await asyncio.sleep(0)
        desk.hub.close()
        assert await waiting is None
        assert await anext(stream, None) is None


async def test_garbage_on_the_subject_does_not_end_a_stream() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        await desk.bus.publish(f"ag.events.t.{JOB_ID}", b"\xff{")
        await desk.tell(event(1))
        assert (await take(stream, 1))[0].id == "1-w1"


async def test_an_unwatched_topic_is_let_go_and_its_subscription_with_it() -> None:
    async with running() as desk:
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            await desk.tell(event(1))
            await take(stream, 1)
            await desk.clock.advance(3 * LINGER_S)  # watched: stays
            await desk.tell(event(2))
            assert (await take(stream, 1))[0].id == "2-w1"
        await desk.clock.advance(2 * LINGER_S)
        async with aclosing(desk.hub.stream("t", JOB_ID, after="1-w1")) as stream:
            assert (await take(stream, 1))[0].type == "snapshot"


async def test_without_a_broker_the_events_of_this_edge_are_still_told() -> None:
    async with running() as desk:

        async def away(*_: object, **__: object) -> None:
            raise BrokerUnavailable("away")

        class NoBroker:
            kv = staticmethod(desk.bus.kv)
            subscribe = staticmethod(away)
            publish = staticmethod(away)

        desk.jobs.bus = NoBroker()  # type: ignore[assignment]
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            await desk.hub.publish(event(1, producer="edge-1"))
            assert (await take(stream, 1))[0].id == "1-edge-1"


async def test_a_slow_reader_loses_the_oldest_and_gets_the_end() -> None:
    watcher = Watcher()
    for number in range(3 * WATCHER_BUFFER):
        watcher.offer(event(number))
    watcher.offer(event(10_000, "completed"))
    found = [await watcher.next(timeout_s=0) for _ in range(WATCHER_BUFFER)]
    assert found[-1] is not None and found[-1].type == "completed"
    assert found[0] is not None and found[0].id == f"{2 * WATCHER_BUFFER + 1}-w1"
    assert await watcher.next(timeout_s=0) is None


def test_the_history_of_a_topic_is_bounded() -> None:
    topic = Topic()
    for number in range(2 * HISTORY):
        topic.add(event(number))
    assert len(topic.history) == HISTORY
    assert topic.after("0-w1") is None
    assert [happened.id for happened in topic.after(f"{2 * HISTORY - 2}-w1") or []] == [f"{2 * HISTORY - 1}-w1"]
