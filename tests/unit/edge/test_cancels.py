"""Cancel hints: only the manifest stops a draft, and nothing that goes wrong with one hint harms the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Subscription
from adaptivegen.bus.hearing import RETRY_S
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, StorageFailure
from adaptivegen.jobs.events import cancel_subject
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobStore
from edge_node.cancels import Cancels
from tests.jobs import JOB_ID, make_spec, media

ELSEWHERE = "vid_01hzzzzzzzzzzzzzzzzzzzzzz9"


class Drafts:
    """Stands where the desk does."""

    def __init__(self) -> None:
        self.making = {("t", JOB_ID)}
        self.stopped: list[tuple[str, str]] = []

    def tenants_of(self, job_id: str) -> list[str]:
        return [tenant for tenant, held in self.making if held == job_id]

    def cancel(self, tenant: str, job_id: str) -> None:
        self.stopped.append((tenant, job_id))


class UnsteadyBus(MemoryBus):
    """Refuses the first `refusals` subscriptions."""

    refusals = 0

    async def subscribe(self, subject: str, *, buffer: int = 256) -> Subscription:
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailable("away")
        return await super().subscribe(subject, buffer=buffer)


class Edge:
    """Cancels on memory parts, with the job submitted."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = UnsteadyBus(self.clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=self.clock)
        self.looked: list[str] = []
        self.trouble: list[BaseException] = []
        self.hangs = False
        manifest = self.jobs.manifest

        async def look(tenant: str, job_id: str) -> Manifest | None:
            self.looked.append(job_id)
            if self.hangs:
                self.hangs = False
                await asyncio.Event().wait()
            if self.trouble:
                raise self.trouble.pop()
            return await manifest(tenant, job_id)

        self.jobs.manifest = look  # type: ignore[method-assign]
        self.drafts = Drafts()
        self.cancels = Cancels(
            jobs=self.jobs,
            desk=self.drafts,  # type: ignore[arg-type]
            clock=self.clock,
            look_deadline_s=0.5,  # enough for a memory store on a busy machine: a look that is late is given up
        )

    async def hint(self, job_id: str = JOB_ID) -> None:
        await self.bus.publish(cancel_subject(job_id), job_id.encode())

    async def stopped(self) -> None:
        """Return once a draft was stopped."""
        while not self.drafts.stopped:
            await asyncio.sleep(0)


@asynccontextmanager
async def running(*, refusals: int = 0) -> AsyncIterator[Edge]:
    edge = Edge()
    edge.bus.refusals = refusals
    await edge.jobs.submit(make_spec())
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(edge.cancels.run())
        for _ in range(5):
            await asyncio.sleep(0)
        yield edge
        assert not task.done()
        task.cancel()


async def test_a_cancel_at_another_node_stops_the_draft_here() -> None:
    async with running() as edge:
        await edge.jobs.cancel("t", JOB_ID)  # tells it on the broker
        await edge.stopped()
        assert edge.drafts.stopped == [("t", JOB_ID)]


@pytest.mark.parametrize("outcome", [None, "completed"])
async def test_a_hint_about_a_job_that_was_not_cancelled_stops_nothing(outcome: str | None) -> None:
    async with running() as edge:
        if outcome is not None:
            done = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=9, final=media())
            await edge.jobs.finish(done)
        await edge.hint()
        while not edge.looked:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert edge.drafts.stopped == []


async def test_hints_for_drafts_made_elsewhere_cost_no_look_into_the_store() -> None:
    async with running() as edge:
        for _ in range(100):
            await edge.hint(ELSEWHERE)
        await edge.jobs.cancel("t", JOB_ID)
        await edge.stopped()
        assert set(edge.looked) == {JOB_ID}


@pytest.mark.parametrize("trouble", ["the store fails", "the store hangs"])
async def test_a_store_in_trouble_is_survived_and_the_next_hint_acted_on(trouble: str) -> None:
    async with running() as edge:
        edge.trouble = [StorageFailure("broken")] if trouble == "the store fails" else []
        edge.hangs = trouble == "the store hangs"
        await edge.jobs.cancel("t", JOB_ID)
        await edge.hint()
        await edge.stopped()
        assert edge.looked == [JOB_ID, JOB_ID]


async def test_a_broker_that_is_away_at_first_is_asked_again() -> None:
    async with running(refusals=2) as edge:
        await edge.clock.advance(3 * RETRY_S)
        await edge.jobs.cancel("t", JOB_ID)
        await edge.stopped()


async def test_a_subscription_that_ended_is_made_anew() -> None:
    async with running() as edge:
        await edge.bus.close()
        for _ in range(5):
            await asyncio.sleep(0)
        await edge.clock.advance(2 * RETRY_S)
        await edge.jobs.cancel("t", JOB_ID)
        await edge.stopped()
