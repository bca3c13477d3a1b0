"""What becomes of a job whose parts fail: put aside, given back, delayed, failed with a reason."""

import asyncio
from typing import Any

import pytest

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.errors import GenerationFailed, StorageFailure, StorageFull, StorageReadOnly
from adaptivegen.jobs.record import MAX_CLAIMS, claim
from core_cloud.outcome import MAX_UNCLAIMED
from tests.jobs import JOB_ID
from tests.unit.worker.bench import LEASE_S, Failing, Wrapped, cloud, is_set, spec_of


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
            record = await parts.record()
            return (record.status, record.attempts) == ("queued", 2) and record.last_error is not None

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
        await parts.until(lambda: is_set(opened), tick_s=1.0)
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
