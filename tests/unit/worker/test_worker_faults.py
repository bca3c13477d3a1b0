"""The worker when others are faster, parts are away or messages are odd; on virtual time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import WorkQueue
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, GenerationFailed, StorageFailure, StorageFull, StorageReadOnly
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.record import MAX_CLAIMS, JobRecord, claim
from adaptivegen.jobs.spec import JobSpec, Manifest
from adaptivegen.jobs.store import JobStore
from core_cloud.drafts import DraftSource
from core_cloud.outcome import MAX_UNCLAIMED
from core_cloud.worker import Worker
from tests.cards import cloud_card
from tests.jobs import JOB_ID, draft_manifest, make_spec, media

LEASE_S = 30.0


class ScriptedRunner:
    """A runner that does what the test says: answers, raises, or works until it is let go or stopped."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.commands: list[tuple[GenerateCommand, bytes | None]] = []
        self.running = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.stopped = 0

    async def generate(
        self, command: GenerateCommand, start_mp4: bytes | None, on_step: Callable[[Step], None]
    ) -> Generated:
        self.commands.append((command, start_mp4))
        on_step(Step(step=1, steps=command.request.steps, stage="base"))
        self.running.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        return Generated(mp4=b"final clip", width=256, height=256, frames=24, generate_ms=1.0, encode_ms=1.0)

    async def cancel(self, request_id: str) -> None:
        raise AssertionError(f"nobody cancels by id here: {request_id}")


@dataclass
class Cloud:
    """One worker on memory parts."""

    clock: ManualClock
    bus: MemoryBus
    blob: BlobStore
    jobs: JobStore
    runner: ScriptedRunner
    worker: Worker
    loop: asyncio.Task[None] = field(init=False)

    async def record(self) -> JobRecord:
        return await self.jobs.find("t", JOB_ID)

    async def queue(self) -> WorkQueue:
        return await self.bus.work_queue("default", ack_wait_s=LEASE_S)

    async def until(self, reached: Callable[[], Awaitable[bool]], *, tick_s: float = 0.05) -> None:
        """Let time pass until `reached`."""
        async with asyncio.timeout(20):
            while not await reached():
                await self.clock.advance(tick_s)
                await asyncio.sleep(0.001)

    async def until_ended(self) -> JobRecord:
        async def ended() -> bool:
            return (await self.record()).ended and await self.settled()

        await self.until(ended)
        return await self.record()

    async def settled(self) -> bool:
        depth = await (await self.queue()).depth()
        return depth.pending == depth.in_flight == 0

    async def put_draft(self, mp4: bytes) -> None:
        await self.blob.put(draft_manifest().media.key, mp4)
        await self.jobs.store_draft("t", JOB_ID, draft_manifest())


@asynccontextmanager
async def cloud(**replaced: Any) -> AsyncIterator[Cloud]:
    """A worker that runs until the block is left."""
    clock = ManualClock()
    bus, blob, runner = MemoryBus(clock), open_store("memory://"), ScriptedRunner()
    jobs = JobStore(blob=blob, bus=bus, clock=clock)
    worker = Worker(
        node_id="w1",
        jobs=replaced.get("jobs", lambda store: store)(jobs),
        bus=replaced.get("bus", lambda broker: broker)(bus),
        runner=runner,  # type: ignore[arg-type]
        drafts=DraftSource(jobs=jobs, wait_s=1.0, tls=None),
        card=cloud_card(),
        clock=clock,
        pool="default",
        lease_s=LEASE_S,
    )
    parts = Cloud(clock, bus, blob, jobs, runner, worker)
    async with asyncio.TaskGroup() as group:
        parts.loop = group.create_task(worker.run())
        yield parts
        parts.loop.cancel()


def spec_of(plan: str = "cloud") -> JobSpec:
    return make_spec(plan=plan).model_copy(update={"edge_grpc_address": ""})


async def test_a_refine_starts_from_the_stored_draft_at_the_decided_strength() -> None:
    async with cloud() as parts:
        await parts.jobs.submit(spec_of("refine"))
        await parts.put_draft(b"draft clip")
        record = await parts.until_ended()
        command, start = parts.runner.commands[-1]
        assert (start, command.strength, command.request.steps) == (b"draft clip", 0.5, 4)
        assert (record.plan, record.notes) == ("refine", ())


async def test_a_job_claimed_too_often_is_poison() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        for _ in range(MAX_CLAIMS):
            await parts.jobs.change(
                "t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=parts.clock.now_ns(), lease_s=LEASE_S)
            )
        parts.worker.pause(False)
        record = await parts.until_ended()
        assert (record.status, parts.runner.commands) == ("failed", [])
        assert record.error is not None and record.error.code == "poison"
        assert len(parts.bus.dead) == 1


async def test_a_job_another_worker_holds_waits_until_its_lease_is_over() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        began_s = parts.clock.monotonic_s()
        await parts.jobs.change(
            "t", JOB_ID, lambda r: claim(r, worker_id="w2", now_ns=parts.clock.now_ns(), lease_s=LEASE_S)
        )
        parts.worker.pause(False)

        async def taken() -> bool:
            return bool(parts.runner.commands)

        await parts.until(taken, tick_s=0.5)
        assert parts.clock.monotonic_s() - began_s >= LEASE_S
        record = await parts.until_ended()
        assert (record.status, record.worker_id, record.epoch) == ("completed", "w1", 2)


async def test_a_job_cancelled_before_it_is_pulled_is_never_generated() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        await parts.jobs.cancel("t", JOB_ID)
        parts.worker.pause(False)
        assert (await parts.until_ended()).status == "cancelled"
        assert parts.runner.commands == []


async def test_a_final_that_comes_second_is_deleted_again() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        async with asyncio.timeout(10):
            await parts.runner.running.wait()
        other = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=2, finished_at_ns=1, final=media("a"))
        await parts.blob.put(media("a").key, b"theirs")
        await parts.blob.put(f"jobs/t/{JOB_ID}/manifest", other.encode())
        parts.runner.go.set()
        record = await parts.until_ended()
        assert record.final == media("a")
        assert [meta.key async for meta in parts.blob.list("out/")] == [media("a").key]


async def test_what_a_dead_attempt_uploaded_is_deleted_and_the_draft_is_not() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        draft = f"out/t/{JOB_ID}/0/{'d' * 64}.mp4"
        for key in (draft, f"out/t/{JOB_ID}/1/{'e' * 64}.mp4", f"out/t/{JOB_ID}/10/{'e' * 64}.mp4"):
            await parts.blob.put(key, b"uploaded")
        parts.worker.pause(False)
        record = await parts.until_ended()
        assert record.final is not None
        assert {meta.key async for meta in parts.blob.list("out/")} == {draft, record.final.key}


async def test_draining_lets_the_job_at_hand_finish() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        async with asyncio.timeout(10):
            await parts.runner.running.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.worker.drain(grace_s=10.0))
            parts.runner.go.set()
        assert (await parts.until_ended()).status == "completed"
        await asyncio.wait({parts.loop}, timeout=10)
        assert parts.loop.done()


async def test_a_job_cancelled_while_it_is_given_back_does_not_end_the_worker() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        async with asyncio.timeout(10):
            await parts.runner.running.wait()
        manifest = Manifest(id=JOB_ID, tenant="t", outcome="cancelled", epoch=1, finished_at_ns=1)
        await parts.jobs.finish(manifest)  # as a cancel whose hint was lost
        parts.worker._draining.set()
        current = parts.worker._current
        assert current is not None
        current.cancel("drain")
        await asyncio.wait({parts.loop}, timeout=10)
        assert parts.loop.done() and parts.loop.exception() is None


async def test_a_job_delivered_often_and_then_taken_by_another_is_left_to_that_one() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        queue = await parts.queue()
        for _ in range(2 * MAX_UNCLAIMED):
            delivery = await queue.pull(timeout_s=0)
            assert delivery is not None
            await delivery.nak(0.0)
        parts.runner.go.clear()
        parts.worker.pause(False)
        await parts.until(lambda: _set(parts.runner.running))
        later_ns = parts.clock.now_ns() + 3600 * 10**9
        await parts.jobs.change("t", JOB_ID, lambda r: claim(r, worker_id="w2", now_ns=later_ns, lease_s=60))
        current = parts.worker._current
        assert current is not None
        current.cancel("drain")
        await asyncio.wait({current}, timeout=10)
        record = await parts.record()
        assert (record.status, record.worker_id) == ("in_progress", "w2")
        assert await parts.jobs.manifest("t", JOB_ID) is None
        assert not parts.bus.dead


async def _set(event: asyncio.Event) -> bool:
    return event.is_set()


class Failing:
    """A job store whose named method fails `times` times before it works."""

    def __init__(self, jobs: JobStore, method: str, error: Exception, times: int) -> None:
        self._jobs = jobs
        self._method = method
        self._error = error
        self.left = times

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._jobs, name)
        if name != self._method:
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self._error
            return await found(*args, **kwargs)

        return call


@pytest.mark.parametrize("method", ["spec", "find", "change", "finish"])
@pytest.mark.parametrize("error", [BrokerUnavailable("away"), StorageFailure("away")], ids=["broker", "store"])
async def test_a_broker_or_store_that_is_away_for_a_moment_costs_time_and_no_job(method: str, error: Exception) -> None:
    async with cloud(jobs=lambda jobs: Failing(jobs, method, error, times=1)) as parts:
        await parts.jobs.submit(spec_of())

        async def ended() -> bool:
            return (await parts.record()).ended and await parts.settled()

        await parts.until(ended, tick_s=0.5)
        assert (await parts.record()).status == "completed"
        assert not parts.loop.done()


async def test_a_message_that_is_no_job_is_put_aside_and_the_next_is_served() -> None:
    async with cloud() as parts:
        await (await parts.queue()).publish(b"\xff not a job", msg_id="garbage", headers={})
        await parts.jobs.submit(spec_of())
        assert (await parts.until_ended()).status == "completed"
        assert [letter.data for letter in parts.bus.dead] == [b"\xff not a job"]


@pytest.mark.parametrize("message", ['{"tenant": "../x", "id": "ID"}', '{"tenant": "t", "id": "vid_*"}'])
async def test_a_message_whose_ids_could_not_be_keys_is_put_aside(message: str) -> None:
    async with cloud() as parts:
        data = message.replace("ID", JOB_ID).encode()
        await (await parts.queue()).publish(data, msg_id="odd", headers={})
        await parts.until(parts.settled)
        assert [letter.data for letter in parts.bus.dead] == [data]


async def test_a_job_that_ended_without_the_index_knowing_is_not_generated_again() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        other = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=1, final=media("a"))
        await parts.blob.put(f"jobs/t/{JOB_ID}/manifest", other.encode())
        parts.worker.pause(False)
        record = await parts.until_ended()
        assert (record.final, parts.runner.commands) == (media("a"), [])


async def test_an_unreadable_spec_is_waited_for_and_then_fails_the_job_once() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        await parts.blob.put(f"jobs/t/{JOB_ID}/spec", b"of a version yet to come")
        parts.worker.pause(False)
        await parts.until(parts.settled, tick_s=2.0)
        record = await parts.record()
        assert (record.status, record.attempts) == ("failed", 0)
        assert record.error is not None and "spec" in record.error.message
        assert len(parts.bus.dead) == 1
        assert 60 < parts.clock.monotonic_s() < 600


async def test_a_spec_that_becomes_readable_in_time_is_run() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        good = await parts.blob.get(f"jobs/t/{JOB_ID}/spec")
        await parts.blob.put(f"jobs/t/{JOB_ID}/spec", b"half a rollout")
        parts.worker.pause(False)
        for _ in range(MAX_UNCLAIMED):
            await parts.clock.advance(1.0)
        await parts.blob.put(f"jobs/t/{JOB_ID}/spec", good)
        await parts.until(parts.settled, tick_s=2.0)
        assert (await parts.record()).status == "completed"


@pytest.mark.parametrize("error", [StorageFull("no space"), StorageReadOnly("read-only")], ids=["full", "read-only"])
async def test_a_store_that_is_full_for_long_delays_a_job_and_never_fails_it(error: StorageFailure) -> None:
    async with cloud(jobs=lambda jobs: Failing(jobs, "finish", error, times=3 * MAX_CLAIMS)) as parts:
        await parts.jobs.submit(spec_of())

        async def ended() -> bool:
            return (await parts.record()).ended and await parts.settled()

        await parts.until(ended, tick_s=2.0)
        record = await parts.record()
        assert (record.status, record.attempts) == ("completed", 1)
        assert record.last_error is not None and record.last_error.code == type(error).code
        assert not parts.bus.dead


async def test_a_store_that_fails_for_a_moment_does_not_cost_the_generation() -> None:
    async with cloud() as parts:
        blob, left = parts.blob, 3

        async def put(key: str, data: bytes) -> None:
            nonlocal left
            if key.startswith("out/") and left:
                left -= 1
                raise StorageFailure("connection reset")
            await blob.put(key, data)

        await parts.jobs.submit(spec_of())
        parts.jobs.blob = Wrapped(blob, put=put)
        assert (await parts.until_ended()).epoch == 1
        assert len(parts.runner.commands) == 1


async def test_poison_tells_what_the_last_attempt_died_of() -> None:
    async with cloud() as parts:
        parts.runner.errors = [GenerationFailed("signal SIGKILL")] * 2
        parts.runner.go.set()
        await parts.jobs.submit(spec_of())

        async def twice() -> bool:
            return (await parts.record()).attempts == 2 and (await parts.record()).last_error is not None

        await parts.until(twice)
        parts.worker.pause(True)
        await parts.jobs.change(
            "t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=parts.clock.now_ns(), lease_s=LEASE_S)
        )
        parts.worker.pause(False)
        record = await parts.until_ended()
        assert record.error is not None and record.error.code == "poison"
        assert "SIGKILL" in record.error.message


class HungBroker:
    """A bus whose deliveries never hear an answer to `in_progress`."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def work_queue(self, *args: Any, **kwargs: Any) -> Any:
        queue = await self._bus.work_queue(*args, **kwargs)

        async def pull(*, timeout_s: float) -> Any:
            delivery = await queue.pull(timeout_s=timeout_s)
            return delivery and Wrapped(delivery, in_progress=asyncio.Event().wait)

        return Wrapped(queue, pull=pull)


class Wrapped:
    """Another object, with some of its methods replaced."""

    def __init__(self, inner: object, **methods: Any) -> None:
        self._inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_broker_that_hangs_does_not_keep_the_model_running_beyond_the_lease() -> None:
    async with cloud(bus=HungBroker) as parts:
        parts.runner.go.clear()
        began_s = parts.clock.monotonic_s()
        await parts.jobs.submit(spec_of())

        async def stopped() -> bool:
            return parts.runner.stopped == 1

        await parts.until(stopped, tick_s=0.5)
        assert parts.clock.monotonic_s() - began_s < LEASE_S
        record = await parts.record()
        parts.runner.go.set()
        assert record.attempts <= 1

        async def given_back() -> bool:
            return (await parts.record()).attempts == 0 or (await parts.record()).ended

        await parts.until(given_back)  # nobody's fault: the attempt does not count


async def test_an_upload_is_stopped_when_the_job_is_lost() -> None:
    async with cloud() as parts:
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def put(key: str, data: bytes) -> None:
            if not key.startswith("out/"):
                await blob.put(key, data)
                return
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.set()
                raise

        blob = parts.blob
        await parts.jobs.submit(spec_of())
        parts.jobs.blob = Wrapped(blob, put=put)
        async with asyncio.timeout(10):
            await begun.wait()
        await parts.jobs.cancel("t", JOB_ID)

        async def done() -> bool:
            return stopped.is_set() and await parts.settled()

        await parts.until(done)
        assert (await parts.record()).status == "cancelled"


async def test_a_worker_paused_while_it_waits_for_a_job_takes_none() -> None:
    async with cloud() as parts:
        queue, opened = await parts.queue(), asyncio.Event()
        pull = queue.pull

        async def noted(*, timeout_s: float) -> Any:
            opened.set()
            return await pull(timeout_s=timeout_s)

        queue.pull = noted  # type: ignore[method-assign]
        await parts.until(lambda: _set(opened), tick_s=1.0)
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        for _ in range(50):
            await parts.clock.advance(1.0)
            await asyncio.sleep(0.002)
        assert parts.runner.commands == []
        assert (await parts.record()).attempts == 0
        parts.worker.pause(False)
        assert (await parts.until_ended()).status == "completed"


async def test_a_drain_in_the_middle_of_a_job_ends_within_its_grace() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        async with asyncio.timeout(10):
            await parts.runner.running.wait()
        async with asyncio.timeout(2.0):
            await parts.worker.drain(grace_s=1.0)
        record = await parts.record()
        assert (record.status, record.attempts) == ("queued", 0)
        depth = await (await parts.queue()).depth()
        assert depth.pending + depth.in_flight == 1
