"""A hub on memory parts, and what its tests do with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.jobs.events import EventType, JobEvent, make_event, terminal_event
from adaptivegen.jobs.record import new_record
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobStore
from edge_node.hub import MAX_TOPICS, EventHub
from tests.jobs import JOB_ID, make_spec, media

DRAFT_ONLY = "vid_01hzzzzzzzzzzzzzzzzzzzzzz1"
RECORD = new_record(make_spec())
DONE = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=9, final=media())
SOON_S = 0.01
NEVER_S = 60.0


def event(number: int, kind: EventType = "progress", *, producer: str = "w1") -> JobEvent:
    return make_event(kind, RECORD, producer=producer, now_ns=number)


class Desk:
    """A hub on memory parts, with the job submitted."""

    def __init__(self, look_again_s: float, max_topics: int) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(self.clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=self.clock)
        self.hub = EventHub(
            node_id="edge-1", jobs=self.jobs, clock=self.clock, look_again_s=look_again_s, max_topics=max_topics
        )
        self.running: asyncio.Task[None]

    async def tell(self, happened: JobEvent) -> None:
        """As another node would."""
        await self.bus.publish(f"ag.events.t.{JOB_ID}", happened.encode())
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self, number: int) -> JobEvent:
        """Finish the job; returns the event of it."""
        record, _ = await self.jobs.finish(DONE)
        return terminal_event(record, producer="w1", now_ns=number)


@asynccontextmanager
async def running(*, look_again_s: float = NEVER_S, max_topics: int = MAX_TOPICS) -> AsyncIterator[Desk]:
    desk = Desk(look_again_s, max_topics)
    await desk.jobs.submit(make_spec())
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        desk.running = group.create_task(desk.hub.run())
        await asyncio.sleep(0)
        yield desk
        desk.running.cancel()
        await desk.bus.close()


async def take(stream: AsyncIterator[JobEvent | None], count: int) -> list[JobEvent]:
    found: list[JobEvent] = []
    while len(found) < count:
        happened = await anext(stream)
        if happened is not None:
            found.append(happened)
    return found


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
