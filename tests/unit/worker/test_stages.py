"""While the model works on one job, a worker prepares the next and stores the last."""

import asyncio
from typing import Any

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.errors import GenerationFailed
from adaptivegen.generation.messages import Step
from adaptivegen.jobs.store import JobMessage
from core_cloud.progress import Progress, expect
from core_cloud.stages import MOST_AT_HAND, AtHand, Stages
from core_cloud.turns import OutOfOrder
from tests.cards import cloud_card
from tests.jobs import JOB_ID
from tests.unit.worker.bench import LEASE_S, Wrapped, cloud, done
from tests.unit.worker.test_turns import Scheduler, begun, started, submit, until_all_ended

FIRST, SECOND, THIRD, FOURTH = (JOB_ID[:-1] + letter for letter in "1234")
MESSAGE = OutOfOrder(JobMessage(tenant="t", id=JOB_ID), {})


async def status(parts: Any, job_id: str) -> str:
    return str((await parts.jobs.find("t", job_id)).status)


async def in_progress(parts: Any, *job_ids: str) -> bool:
    return all([await status(parts, job_id) == "in_progress" for job_id in job_ids])


async def a_while(parts: Any, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        await parts.clock.advance(0.05)
        await asyncio.sleep(0.001)


async def test_the_next_job_is_claimed_while_the_model_works_and_begins_when_it_is_free() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND, THIRD)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        await a_while(parts, 1.0)
        assert (begun(parts), parts.worker.stages.at_hand) == ([FIRST], (FIRST, SECOND))
        assert await status(parts, THIRD) == "queued"  # one is enough
        parts.runner.go.set()
        records = await until_all_ended(parts, FIRST, SECOND, THIRD)
        assert [(record.status, record.epoch) for record in records] == [("completed", 1)] * 3
        assert begun(parts) == [FIRST, SECOND, THIRD]
        assert parts.worker.stages.at_hand == ()


async def test_who_asks_ahead_says_when_the_model_should_be_free() -> None:
    scheduler = Scheduler()
    async with cloud(turns=scheduler, ahead_s=60.0) as parts:
        parts.runner.go.clear()
        parts.runner.clock, parts.runner.pace_s = parts.clock, 0.2
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        assert scheduler.free_in_s[0] == 0.0 < scheduler.free_in_s[1] == pytest.approx(0.9, rel=0.9)
        parts.runner.go.set()
        await until_all_ended(parts, FIRST, SECOND)


async def test_a_worker_that_is_told_so_claims_nothing_before_the_model_is_free() -> None:
    async with cloud(ahead_s=0.0) as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: started(parts, 1))
        await a_while(parts, 1.0)
        assert await status(parts, SECOND) == "queued"
        parts.runner.go.set()
        await until_all_ended(parts, FIRST, SECOND)


async def test_uploads_keep_nobody_from_the_model_but_there_are_not_more_and_more_of_them() -> None:
    stored = asyncio.Event()

    async def slow(key: str, data: bytes) -> None:
        await stored.wait()
        await parts.blob.put(key, data)

    async with cloud(jobs=lambda jobs: Wrapped(jobs, blob=Wrapped(jobs.blob, put=slow))) as parts:
        await submit(parts, FIRST, SECOND, THIRD, FOURTH)
        await parts.until(lambda: started(parts, MOST_AT_HAND))
        await a_while(parts, 1.0)
        assert begun(parts) == [FIRST, SECOND, THIRD]
        assert parts.worker.stages.at_hand == ()  # none of them needs the model
        stored.set()
        records = await until_all_ended(parts, FIRST, SECOND, THIRD, FOURTH)
        assert [(record.status, record.epoch) for record in records] == [("completed", 1)] * 4


async def test_the_message_of_a_job_that_was_begun_out_of_turn_is_settled_with_it() -> None:
    async with cloud(turns=Scheduler(SECOND)) as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        assert begun(parts) == [SECOND]
        await a_while(parts, 60.0)  # twice a lease: its message has come here, and to nobody else
        record = await parts.jobs.find("t", SECOND)
        assert (record.epoch, parts.runner.stopped) == (1, 0)
        parts.runner.errors = [GenerationFailed("died")]
        parts.runner.go.set()
        began_s = parts.clock.monotonic_s()
        records = await until_all_ended(parts, FIRST, SECOND)
        assert [(record.status, record.epoch) for record in records] == [("completed", 1), ("completed", 2)]
        assert parts.clock.monotonic_s() - began_s < LEASE_S / 2  # given back with its message, and tried again at once


async def test_a_second_message_of_a_job_that_is_at_hand_is_put_off() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST)
        await parts.until(lambda: in_progress(parts, FIRST))
        await parts.jobs.enqueue("t", FIRST, pool="default", token="again", trace={})
        await a_while(parts, 2.0)
        record = await parts.jobs.find("t", FIRST)
        assert (record.epoch, parts.runner.stopped) == (1, 0)
        parts.runner.go.set()
        (record,) = await until_all_ended(parts, FIRST)
        assert (record.status, record.epoch) == ("completed", 1)


async def test_a_job_behind_one_that_killed_the_model_is_given_back_and_not_counted() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        parts.runner.errors, parts.runner.ready = [GenerationFailed("died")], False
        parts.runner.go.set()

        async def given_back() -> bool:
            return await status(parts, SECOND) == "queued"

        await parts.until(given_back)
        assert ((await parts.jobs.find("t", SECOND)).attempts, begun(parts)) == (0, [FIRST])
        parts.runner.ready = True
        await until_all_ended(parts, FIRST, SECOND)


async def test_a_drain_gives_back_what_waits_behind_at_once_and_lets_the_model_finish() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        draining = asyncio.get_running_loop().create_task(parts.worker.drain(grace_s=20.0))
        async with asyncio.timeout(5):
            while (record := await parts.jobs.find("t", SECOND)).status != "queued":
                await asyncio.sleep(0.01)
        assert (record.attempts, record.worker_id) == (0, "")
        assert await status(parts, FIRST) == "in_progress"
        parts.runner.go.set()
        await parts.until(lambda: done(draining))
        assert await status(parts, FIRST) == "completed"
        assert begun(parts) == [FIRST]


async def test_a_job_that_is_cancelled_while_it_waits_behind_another_makes_room_for_the_next() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        await parts.jobs.cancel("t", SECOND)
        await submit(parts, THIRD)
        await parts.until(lambda: in_progress(parts, THIRD))
        assert parts.runner.stopped == 0
        parts.runner.go.set()
        await until_all_ended(parts, FIRST, THIRD)
        assert begun(parts) == [FIRST, THIRD]


async def test_a_worker_whose_model_has_just_failed_takes_nothing_ahead() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND, THIRD)
        await parts.until(lambda: in_progress(parts, FIRST, SECOND))
        parts.runner.errors = [GenerationFailed("died")]
        go, parts.runner.go = parts.runner.go, asyncio.Event()  # the first fails, the second goes on
        go.set()
        await parts.until(lambda: started(parts, 2))
        await a_while(parts, 3.0)
        assert [await status(parts, job_id) for job_id in (FIRST, SECOND, THIRD)] == ["queued", "in_progress", "queued"]
        parts.runner.go.set()
        await until_all_ended(parts, FIRST, SECOND, THIRD)


# ---- when the next may be taken -----------------------------------------------------------------------------


async def test_room_comes_shortly_before_the_model_should_be_free_or_when_it_is() -> None:
    clock, free, claim = ManualClock(), asyncio.Event(), asyncio.Event()
    stages, progress = Stages(clock), Progress(expect(cloud_card(), steps=8, width=256, height=256, frames=24))

    async def work(job: AtHand) -> None:
        await claim.wait()
        stages.claimed(job, JOB_ID, MESSAGE)
        async with stages.model(job, progress):
            await free.wait()

    assert stages.room_in_s(ahead_s=0.3) == 0.0
    async with asyncio.TaskGroup() as group:
        stages.begin(group, work)
        assert stages.room_in_s(ahead_s=0.3) is None  # one is being claimed
        claim.set()
        await asyncio.sleep(0.01)
        whole_s = progress.expectation.total_s
        assert stages.remaining_s == pytest.approx(whole_s)
        room = group.create_task(stages.room(lambda: 0.3))
        impatient = group.create_task(stages.room(lambda: 60.0))
        await clock.advance(1.0)
        await asyncio.sleep(0.01)
        assert not impatient.done()  # no step is done: it may be a slow one
        progress.observe(Step(step=4, steps=8, stage="base"), elapsed_s=1.0)
        left_s = stages.remaining_s
        assert stages.room_in_s(ahead_s=0.3) == pytest.approx(left_s - 0.3)
        await clock.advance(0.2)
        assert stages.remaining_s == pytest.approx(left_s - 0.2)
        assert stages.room_in_s(ahead_s=0.0) is None
        await asyncio.sleep(0.01)
        await clock.advance(left_s - 0.55)
        assert not room.done()
        await clock.advance(0.1)
        await asyncio.sleep(0.01)
        assert room.done()
        sooner = group.create_task(stages.room(lambda: 0.01))
        await asyncio.sleep(0.01)
        assert not sooner.done()
        free.set()  # sooner than was predicted
        await asyncio.sleep(0.01)
        assert sooner.done()
    assert stages.room_in_s(ahead_s=0.3) == 0.0


async def test_nobody_waits_for_room_in_what_is_closed() -> None:
    stages, never = Stages(ManualClock()), asyncio.Event()

    async def work(job: AtHand) -> None:
        await never.wait()

    async with asyncio.TaskGroup() as group:
        stages.begin(group, work)
        room = group.create_task(stages.room(lambda: 0.3))
        await asyncio.sleep(0.01)
        assert not room.done()
        stages.close()
        await asyncio.sleep(0.01)
        assert room.done()
        never.set()
