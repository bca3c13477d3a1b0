"""What does not count against a job, and workers that are not well, on virtual time."""

import asyncio
import json
from typing import Any

from adaptivegen.errors import BrokerUnavailable, GenerationFailed, StorageFailure
from adaptivegen.jobs.record import MAX_CLAIMS, claim
from adaptivegen.jobs.spec import Manifest
from core_cloud.claims import OTHER_MODEL_PAUSE_S
from core_cloud.outcome import MAX_REMEMBERED, Uncounted
from core_cloud.worker import UNWELL_FROM
from tests.cards import cloud_card
from tests.jobs import JOB_ID, make_spec, media
from tests.unit.worker.bench import LEASE_S, Cloud, ScriptedRunner, cloud, is_set, make_worker, spec_of


async def test_claims_whose_answers_are_lost_do_not_count() -> None:
    async with cloud() as parts:
        bucket, left = await parts.bus.kv("jobs"), 2 * MAX_CLAIMS
        update = bucket.update

        async def lost(key: str, value: bytes, *, revision: int) -> int:
            nonlocal left
            made = await update(key, value, revision=revision)
            if left and json.loads(value)["status"] == "in_progress":
                left -= 1
                raise BrokerUnavailable("no answer")
            return made

        bucket.update = lost  # type: ignore[method-assign]
        await parts.jobs.submit(spec_of())
        record = await parts.until_ended()
        assert (record.status, len(parts.runner.commands), left) == ("completed", 1, 0)


async def outage(parts: Cloud, bucket: Any, seconds: float) -> None:
    """The broker's buckets away for a while."""
    get, update = bucket.get, bucket.update

    async def away(*args: object, **kwargs: object) -> Any:
        raise BrokerUnavailable("away")

    bucket.get = bucket.update = away
    until_s = parts.clock.monotonic_s() + seconds

    async def over() -> bool:
        return parts.clock.monotonic_s() >= until_s

    await parts.until(over, tick_s=0.5)
    bucket.get, bucket.update = get, update


async def test_outages_longer_than_the_lease_do_not_count_however_many() -> None:
    async with cloud() as parts:
        bucket = await parts.bus.kv("jobs")
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        for _ in range(MAX_CLAIMS + 1):
            await parts.until(lambda: is_set(parts.runner.running), tick_s=0.5)
            parts.runner.running.clear()
            await outage(parts, bucket, 3 * LEASE_S)
        parts.runner.go.set()
        assert (await parts.until_ended()).status == "completed"


async def test_a_job_waits_for_a_worker_of_its_model_and_no_other_takes_it() -> None:
    async with cloud() as parts:
        asked = spec_of().request.model_copy(update={"model": "other-model"})
        await parts.jobs.submit(spec_of().model_copy(update={"request": asked, "cloud_model": "other-model"}))
        until_s = parts.clock.monotonic_s() + 5 * OTHER_MODEL_PAUSE_S

        async def passed() -> bool:
            return parts.clock.monotonic_s() >= until_s

        await parts.until(passed, tick_s=0.5)
        assert (parts.runner.commands, (await parts.record()).status) == ([], "queued")
        able, model = ScriptedRunner(), cloud_card(name="other-model")
        worker = make_worker("1", parts.jobs, parts.bus, able, parts.clock, node_id="w2", card=model)
        other = asyncio.get_running_loop().create_task(worker.run())
        assert (await parts.until_ended()).status == "completed"
        assert (len(parts.runner.commands), len(able.commands)) == (0, 1)
        other.cancel()
        await asyncio.wait({other})


async def test_a_drain_in_the_middle_of_a_claim_gives_the_job_back() -> None:
    async with cloud() as parts:
        bucket, claimed, go = await parts.bus.kv("jobs"), asyncio.Event(), asyncio.Event()
        update = bucket.update

        async def slow(key: str, value: bytes, *, revision: int) -> int:
            made = await update(key, value, revision=revision)
            claimed.set()
            await go.wait()
            return made

        bucket.update = slow  # type: ignore[method-assign]
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        async with asyncio.timeout(10):
            await claimed.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.worker.drain(grace_s=2.0))
            await asyncio.sleep(0.1)
            go.set()
        record = await parts.record()
        assert (record.status, record.attempts, record.worker_id) == ("queued", 0, "")


async def test_a_worker_whose_model_is_not_loaded_takes_no_job() -> None:
    async with cloud() as parts:
        parts.runner.ready = False
        await parts.jobs.submit(spec_of())
        for _ in range(20):
            await parts.clock.advance(1.0)
            await asyncio.sleep(0.002)
        assert (await parts.record()).attempts == 0
        parts.runner.ready = True
        assert (await parts.until_ended()).status == "completed"


async def test_a_worker_whose_model_fails_time_and_again_leaves_jobs_to_others() -> None:
    async with cloud() as parts:
        parts.runner.errors = [GenerationFailed("the GPU fell off the bus")] * 30
        ids = [f"vid_01hzzzzzzzzzzzzzzzzzzzzz{n:02d}" for n in range(8)]
        for job_id in ids:
            await parts.jobs.submit(make_spec(job_id=job_id, plan="cloud"))
        for _ in range(300):
            await parts.clock.advance(0.1)
            await asyncio.sleep(0.001)
        tried_in_30_s = len(parts.runner.commands)
        assert UNWELL_FROM < tried_in_30_s <= UNWELL_FROM + 6  # with pauses of 1, 2, 4, 8, 16 s between


async def test_failures_in_a_row_are_forgotten_with_a_success() -> None:
    async with cloud() as parts:
        parts.runner.errors = [GenerationFailed("once")]
        await parts.jobs.submit(spec_of())
        await parts.until_ended()

        async def forgotten() -> bool:
            return parts.worker._failures == 0

        await parts.until(forgotten)


async def test_a_lease_of_a_clock_far_ahead_is_no_reason_to_wait() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        ahead_ns = parts.clock.now_ns() + 24 * 3600 * 10**9
        await parts.jobs.change("t", JOB_ID, lambda r: claim(r, worker_id="w9", now_ns=ahead_ns, lease_s=LEASE_S))
        parts.worker.pause(False)
        record = await parts.until_ended()
        assert (record.status, record.worker_id) == ("completed", "w1")


async def test_the_content_index_is_written_by_whoever_meets_the_job_next() -> None:
    async with cloud() as parts:
        put_if_absent, left = parts.blob.put_if_absent, 1

        async def hiccup(key: str, data: bytes) -> bool:
            nonlocal left
            if key.startswith("content/") and left:
                left -= 1
                raise StorageFailure("a hiccup")
            return await put_if_absent(key, data)

        parts.blob.put_if_absent = hiccup  # type: ignore[method-assign]
        await parts.jobs.submit(spec_of())
        await parts.until_ended()
        assert left == 0
        found = await parts.jobs.content("t", "c" * 64)
        assert found is not None and found.id == JOB_ID


async def test_a_repeats_own_manifest_is_no_content() -> None:
    async with cloud() as parts:
        parts.worker.pause(True)
        await parts.jobs.submit(spec_of())
        hit = Manifest(
            id=JOB_ID, tenant="t", outcome="completed", epoch=0, finished_at_ns=1, final=media(), cached=True
        )
        await parts.blob.put(f"jobs/t/{JOB_ID}/manifest", hit.encode())
        parts.worker.pause(False)
        await parts.until_ended()
        assert await parts.jobs.content("t", "c" * 64) is None


def test_what_does_not_count_is_remembered_within_bounds() -> None:
    uncounted = Uncounted()
    for number in range(MAX_REMEMBERED + 1):
        uncounted.add(f"job-{number}", number)
    uncounted.add("job-1", 7)
    assert uncounted.of("job-0") == frozenset()
    assert uncounted.of("job-1") == {1, 7}
    uncounted.forget("job-1")
    assert uncounted.of("job-1") == frozenset()


async def test_two_workers_of_one_name_do_not_take_each_others_job() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        twin = parts.twin()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(twin.run())
            await parts.jobs.submit(spec_of())
            await parts.until(lambda: is_set(parts.runner.running))
            for number in range(3):
                await parts.jobs.enqueue("t", JOB_ID, pool="default", token=f"again-{number}", trace={})
            began_s = parts.clock.monotonic_s()

            async def later() -> bool:
                return parts.clock.monotonic_s() > began_s + 3 * LEASE_S

            await parts.until(later, tick_s=0.5)
            record = await parts.record()
            assert (record.status, record.attempts) == ("in_progress", 1)
            parts.runner.go.set()
            assert (await parts.until_ended()).status == "completed"
            running.cancel()
        assert len(parts.runner.commands) == 1
