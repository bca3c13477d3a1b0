"""What a worker does with a delivery, on an in-memory broker and store, with a scripted model."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import GenerationFailed, InvalidRequest
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.record import JobRecord, claim
from adaptivegen.jobs.store import JobStore
from adaptivegen.ways import Transfers
from core_cloud.drafts import DraftSource
from core_cloud.turns import InOrder
from core_cloud.worker import Worker
from tests.cards import cloud_card
from tests.jobs import JOB_ID, make_spec
from tests.unit.worker.bench import kept_models

LEASE_S = 2.0


class ScriptedModel:
    """Stands where the runner does: generates at once, fails as told, or waits until it is stopped."""

    ready = True

    def __init__(self) -> None:
        self.commands: list[GenerateCommand] = []
        self.errors: list[Exception] = []
        self.running = asyncio.Event()
        self.hold = False
        self.stopped = False

    async def generate(
        self, command: GenerateCommand, start_mp4: bytes | None, on_step: Callable[[Step], None]
    ) -> Generated:
        self.commands.append(command)
        self.running.set()
        if self.errors:
            raise self.errors.pop(0)
        if self.hold:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.stopped = True
                raise
        on_step(Step(step=command.request.steps, steps=command.request.steps, stage="base"))
        return Generated(
            mp4=b"clip of " + command.request_id.encode(),
            width=256,
            height=256,
            frames=24,
            generate_ms=1,
            encode_ms=1,
        )


class Bench:
    """A worker on its bench."""

    def __init__(self, node_id: str = "w1") -> None:
        self.clock = SystemClock()
        self.bus = MemoryBus(self.clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=self.clock)
        self.model = ScriptedModel()
        self.worker = self.make(node_id)

    def make(self, node_id: str) -> Worker:
        transfers = Transfers()
        return Worker(
            node_id=node_id,
            jobs=self.jobs,
            bus=self.bus,
            models=kept_models(cloud_card(), self.model, clock=self.clock),
            line=cloud_card().name,
            drafts=DraftSource(jobs=self.jobs, wait_s=0.2, tls=None, clock=self.clock, transfers=transfers),
            clock=self.clock,
            pool="default",
            lease_s=LEASE_S,
            ahead_s=0.3,
            incarnation="1",
            turns=InOrder(),
            transfers=transfers,
        )

    async def record(self) -> JobRecord:
        return await self.jobs.find("t", JOB_ID)

    async def until(self, condition: Callable[[JobRecord], bool]) -> JobRecord:
        async with asyncio.timeout(20):
            while not condition(record := await self.record()):
                await asyncio.sleep(0.01)
        return record

    async def depth(self) -> int:
        depth = await (await self.bus.work_queue("default", ack_wait_s=LEASE_S)).depth()
        return depth.pending + depth.in_flight


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    running = asyncio.get_running_loop().create_task(made.worker.run())
    yield made
    running.cancel()
    await asyncio.wait({running})


async def test_a_job_is_claimed_generated_committed_and_acknowledged(bench: Bench) -> None:
    await bench.jobs.submit(make_spec(plan="cloud"))
    record = await bench.until(lambda r: r.ended)
    assert (record.status, record.epoch, record.worker_id, record.final_steps) == ("completed", 1, "w1", 4)
    assert record.final is not None
    assert await bench.jobs.blob.get(record.final.key) == b"clip of " + f"{JOB_ID}.1".encode()
    async with asyncio.timeout(5):
        while await bench.depth():
            await asyncio.sleep(0.01)
    assert await bench.jobs.content("t", "c" * 64) is not None


async def test_a_refine_whose_draft_cannot_be_had_starts_from_noise_and_says_so(bench: Bench) -> None:
    await bench.jobs.submit(make_spec(plan="refine"))
    record = await bench.until(lambda r: r.ended)
    assert (record.status, record.plan) == ("completed", "cloud")
    assert "from noise" in record.notes[0]
    assert bench.model.commands[0].strength is None
    assert await bench.jobs.content("t", "c" * 64) is None  # these are not the frames the key stands for


async def test_a_failure_that_may_pass_is_tried_again(bench: Bench) -> None:
    bench.model.errors = [GenerationFailed("died")]
    await bench.jobs.submit(make_spec(plan="cloud"))
    record = await bench.until(lambda r: r.ended)
    assert (record.status, record.epoch, record.attempts) == ("completed", 2, 2)


async def test_a_failure_that_will_not_pass_is_the_outcome(bench: Bench) -> None:
    bench.model.errors = [InvalidRequest.field("steps", 4, "1 to 2")]
    await bench.jobs.submit(make_spec(plan="cloud"))
    record = await bench.until(lambda r: r.ended)
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.code == "invalid_request"
    assert len(bench.model.commands) == 1


async def test_a_bug_met_by_one_job_does_not_end_the_worker(bench: Bench) -> None:
    bench.model.errors = [ZeroDivisionError("oops")]
    await bench.jobs.submit(make_spec(plan="cloud"))
    record = await bench.until(lambda r: r.ended)
    assert record.status == "failed"
    other = make_spec(job_id="vid_01hzzzzzzzzzzzzzzzzzzzzzz1", plan="cloud")
    await bench.jobs.submit(other)
    async with asyncio.timeout(20):
        while not (await bench.jobs.find("t", other.id)).ended:
            await asyncio.sleep(0.01)
    assert (await bench.jobs.find("t", other.id)).status == "completed"


async def test_what_fails_every_time_is_given_up_and_kept_with_the_reason(bench: Bench) -> None:
    bench.model.errors = [GenerationFailed("died")] * 9
    await bench.jobs.submit(make_spec(plan="cloud"))
    record = await bench.until(lambda r: r.ended)
    assert (record.status, record.attempts) == ("failed", 3)
    (letter,) = bench.bus.dead
    assert letter.pool == "default"
    assert "died" in letter.reason


async def test_a_cancel_stops_the_model_and_frees_the_worker(bench: Bench) -> None:
    bench.model.hold = True
    await bench.jobs.submit(make_spec(plan="cloud"))
    await bench.until(lambda r: r.status == "in_progress")
    async with asyncio.timeout(5):
        await bench.model.running.wait()
    await bench.jobs.cancel("t", JOB_ID)
    async with asyncio.timeout(5):
        while not bench.model.stopped or await bench.depth():
            await asyncio.sleep(0.01)
    assert (await bench.record()).status == "cancelled"


async def test_a_worker_that_was_fenced_off_stops_and_does_not_commit(bench: Bench) -> None:
    bench.model.hold = True
    await bench.jobs.submit(make_spec(plan="cloud"))
    await bench.until(lambda r: r.status == "in_progress")
    later_ns = bench.clock.now_ns() + 3600 * 10**9
    await bench.jobs.change("t", JOB_ID, lambda r: claim(r, worker_id="w2", now_ns=later_ns, lease_s=60))
    async with asyncio.timeout(10):
        while not bench.model.stopped:
            await asyncio.sleep(0.01)
    record = await bench.record()
    assert (record.status, record.worker_id, record.epoch) == ("in_progress", "w2", 2)


async def test_a_drained_worker_gives_its_job_back_without_counting_it(bench: Bench) -> None:
    bench.model.hold = True
    await bench.jobs.submit(make_spec(plan="cloud"))
    await bench.until(lambda r: r.status == "in_progress")
    await bench.worker.drain(grace_s=0.1)
    record = await bench.record()
    assert (record.status, record.attempts, record.worker_id) == ("queued", 0, "")
    assert await bench.depth() == 1


async def test_a_message_without_a_job_is_dropped(bench: Bench) -> None:
    await bench.jobs.enqueue("t", JOB_ID, pool="default", token="x", trace={})
    async with asyncio.timeout(5):
        while await bench.depth():
            await asyncio.sleep(0.01)
    assert bench.model.commands == []
