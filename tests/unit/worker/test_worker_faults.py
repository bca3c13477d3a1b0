"""The worker when others are faster, parts are away or messages are odd; on virtual time."""

import asyncio
from typing import Literal

import pytest

from adaptivegen.errors import BrokerUnavailable, StorageFailure
from adaptivegen.jobs.record import MAX_CLAIMS, claim
from adaptivegen.jobs.spec import Manifest
from adaptivegen.nodes import STORE_GET, STORE_PUT
from adaptivegen.request import Reference, VideoTask
from core_cloud.outcome import MAX_UNCLAIMED
from tests.jobs import JOB_ID, media
from tests.unit.worker.bench import LEASE_S, Failing, Wrapped, cloud, done, is_set, spec_of


async def test_a_refine_starts_from_the_stored_draft_at_the_decided_strength() -> None:
    async with cloud() as parts:
        await parts.jobs.submit(spec_of("refine"))
        await parts.put_draft(b"draft clip")
        record = await parts.until_ended()
        command, start = parts.runner.commands[-1]
        assert (start, command.strength, command.request.steps) == (b"draft clip", 0.5, 4)
        assert (record.plan, record.notes) == ("refine", ())
        assert set(parts.transfers.told(now_s=parts.clock.monotonic_s())) == {STORE_GET, STORE_PUT}


async def test_an_upload_counts_without_the_ones_that_failed() -> None:
    failures = [StorageFailure("away"), StorageFailure("away")]

    async def slow(key: str, data: bytes) -> None:
        await parts.clock.sleep(3.0)
        if failures:
            raise failures.pop()
        await parts.blob.put(key, data)

    async with cloud(jobs=lambda jobs: Wrapped(jobs, blob=Wrapped(jobs.blob, put=slow))) as parts:
        await parts.jobs.submit(spec_of("cloud"))
        await parts.until_ended()
        way = parts.transfers.told(now_s=parts.clock.monotonic_s())[STORE_PUT]
        assert not failures and way.seconds(len(b"final clip")) == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize(
    ("plan", "kind", "asked", "task"),
    [
        ("refine", None, None, "refine"),  # only a draft from noise shares its layout with the final
        ("refine", "image", None, "animate"),
        ("refine", "video", None, "restyle"),
        ("refine", "video", "extend", "extended"),
        ("refine", "video", "interpolate", "interpolated"),
        ("cloud", None, None, "restyle"),
        ("cloud", "image", None, "animate"),
        ("cloud", "video", None, "restyle"),
        ("cloud", "video", "extend", "extend"),
    ],
)
async def test_the_model_is_told_what_its_start_is_for(
    plan: str, kind: Literal["image", "video"] | None, asked: VideoTask | None, task: str
) -> None:
    spec = spec_of(plan)
    reference = Reference(kind=kind, sha256="e" * 64, key="inputs/e.mp4") if kind else None
    wanted = spec.request.model_copy(update={"reference": reference, "task": asked})
    spec = spec.model_copy(update={"request": wanted})
    async with cloud() as parts:
        await parts.blob.put("inputs/e.mp4", b"uploaded clip")
        await parts.jobs.submit(spec)
        await parts.put_draft(b"draft clip")
        await parts.until_ended()
        command, start = parts.runner.commands[-1]
        uploaded = b"uploaded clip" if kind else None
        assert (command.task, start) == (task, b"draft clip" if plan == "refine" else uploaded)


@pytest.mark.parametrize(("familiarity", "said"), [(None, 0), (0.8, 0), (0.2, 1)])
async def test_a_prompt_the_model_knows_little_of_is_answered_and_noted(familiarity: float | None, said: int) -> None:
    async with cloud() as parts:
        parts.runner.familiarity = familiarity
        await parts.jobs.submit(spec_of("cloud"))
        record = await parts.until_ended()
        assert (record.status, len(record.notes)) == ("completed", said)
        assert all("0.20" in note for note in record.notes)


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
        await parts.until(lambda: done(parts.loop), tick_s=1.0)


async def test_a_job_cancelled_while_it_is_given_back_does_not_end_the_worker() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        async with asyncio.timeout(10):
            await parts.runner.running.wait()
        manifest = Manifest(id=JOB_ID, tenant="t", outcome="cancelled", epoch=1, finished_at_ns=1)
        await parts.jobs.finish(manifest)  # as a cancel whose hint was lost
        (current,) = parts.worker.stages.tasks()
        current.cancel("drain")
        await asyncio.wait({current}, timeout=10)
        assert current.done() and current.exception() is None
        assert not parts.loop.done()


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
        await parts.until(lambda: is_set(parts.runner.running))
        later_ns = parts.clock.now_ns() + 3600 * 10**9
        await parts.jobs.change("t", JOB_ID, lambda r: claim(r, worker_id="w2", now_ns=later_ns, lease_s=60))
        (current,) = parts.worker.stages.tasks()
        current.cancel("drain")
        await asyncio.wait({current}, timeout=10)
        record = await parts.record()
        assert (record.status, record.worker_id) == ("in_progress", "w2")
        assert await parts.jobs.manifest("t", JOB_ID) is None
        assert not parts.bus.dead


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
