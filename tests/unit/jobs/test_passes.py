"""Passes of the reconciler: what is queued again, handed over, listed and cleared, and what is left alone."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.errors import BrokerUnavailable, StorageFailure
from adaptivegen.jobs.reconcile import OVERDUE, UNREADABLE_AFTER, keep_reconciling, reindex
from adaptivegen.jobs.record import NO_DRAFT_NOTE, JobRecord, claim
from adaptivegen.jobs.spec import job_key
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.jobs.troubles import Troubles
from tests.jobs import JOB_ID, draft_manifest, make_spec
from tests.unit.jobs.crashing import HIT, PATIENCE_S, CrashingStore, Reconciler, queued_ids, stores


async def test_a_draft_stored_while_the_job_is_handed_to_the_cloud_ends_it_all_the_same() -> None:
    _, sound, clock, bus = stores()
    await sound.submit(make_spec(plan="draft", want_final=False))
    change, raced = sound.index.change, False

    async def racing(tenant: str, job_id: str, step: Callable[[JobRecord], JobRecord]) -> JobRecord:
        nonlocal raced
        if not raced:
            raced = True
            assert (await sound.store_draft("t", JOB_ID, draft_manifest())).status == "completed"
        return await change(tenant, job_id, step)

    sound.index.change = racing  # type: ignore[method-assign]
    assert (await Reconciler(sound).patient(clock)).requeued == 0
    record = await sound.find("t", JOB_ID)
    assert (record.status, record.want_final) == ("completed", False)
    assert await queued_ids(bus) == []


async def test_jobs_that_merely_wait_are_not_queued_again_however_long() -> None:
    _, sound, clock, bus = stores()
    ids = [f"vid_01hzzzzzzzzzzzzzzzzzzzzz{n:02d}" for n in range(30)]
    for job_id in ids:
        await sound.submit(make_spec(job_id=job_id))
    passes = Reconciler(sound)
    for _ in range(OVERDUE):
        assert (await passes.run()).requeued == 0
        await clock.advance(PATIENCE_S)
    assert sorted(await queued_ids(bus)) == ids


async def test_messages_of_ended_jobs_do_not_hide_a_lost_one_for_ever() -> None:
    _, sound, clock, bus = stores()
    lost, ended = (f"vid_01hzzzzzzzzzzzzzzzzzzzzz{n:02d}" for n in range(2))
    await sound.submit(make_spec(job_id=lost))
    assert await queued_ids(bus) == [lost]
    await sound.submit(make_spec(job_id=ended))
    await sound.cancel("t", ended)  # its message stays in the queue, and no worker is there to drop it
    passes = Reconciler(sound)
    requeued = []
    for _ in range(2 * OVERDUE + 2):
        requeued.append((await passes.run()).requeued)
        await clock.advance(PATIENCE_S)
    assert sum(requeued) == 2 and max(requeued) == 1  # once in ten patiences, and no more
    assert lost in await queued_ids(bus)


async def test_lost_messages_are_all_queued_again_and_lost_ones_among_others_in_the_end() -> None:
    _, sound, clock, bus = stores()
    ids = [f"vid_01hzzzzzzzzzzzzzzzzzzzzz{n:02d}" for n in range(10)]
    for job_id in ids:
        await sound.submit(make_spec(job_id=job_id))
    assert sorted(await queued_ids(bus)) == ids  # and all lost
    assert (await Reconciler(sound).patient(clock)).requeued == len(ids)

    queue = await bus.work_queue("default", ack_wait_s=30)
    delivery = await queue.pull(timeout_s=0)
    assert delivery is not None
    lost = JobMessage.decode(delivery.data).id
    await delivery.ack()  # one lost among nine that wait
    seen: list[str] = []
    passes = Reconciler(sound)
    for _ in range(2 * len(ids)):
        await passes.patient(clock)
        depth = await queue.depth()
        assert depth.pending + depth.in_flight <= len(ids) + 1
        delivery = await queue.pull(timeout_s=0)
        assert delivery is not None
        done = JobMessage.decode(delivery.data).id
        seen.append(done)
        await sound.finish(HIT.model_copy(update={"id": done}))
        await delivery.ack()
        if not (await sound.find("t", lost)).ended:
            continue
        break
    assert lost in seen


async def test_two_passes_at_once_queue_one_message() -> None:
    _, sound, clock, bus = stores()
    await sound.submit(make_spec())
    assert await queued_ids(bus) == [JOB_ID]
    two = Reconciler(sound), Reconciler(sound)
    for passes in two:
        await passes.run()
    await clock.advance(PATIENCE_S + 1)
    queue = await bus.work_queue("default", ack_wait_s=30)
    depth, looked, both = queue.depth, [], asyncio.Event()

    async def meeting() -> object:
        """What is in the queue; told when both passes have looked."""
        looked.append(await depth())
        if len(looked) == 2:
            both.set()
        await both.wait()
        return looked[0]

    queue.depth = meeting  # type: ignore[method-assign, assignment]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for passes in two:
            group.create_task(passes.run())
    assert await queued_ids(bus) == [JOB_ID]


async def test_jobs_of_a_broker_that_lost_everything_are_listed_again() -> None:
    _, sound, clock, _ = stores()
    await sound.submit(make_spec())
    await sound.finish(HIT)
    assert await reindex(sound) == 0
    fresh = JobStore(blob=sound.blob, bus=MemoryBus(clock), clock=clock)
    assert await fresh.index.ids("t") == []
    assert await reindex(fresh) == 1
    assert await fresh.index.ids("t") == [JOB_ID]
    assert await fresh.index.tenants_and_ids() == [("t", JOB_ID)]
    assert await reindex(fresh) == 0


async def test_the_list_is_not_said_to_be_complete_when_the_broker_was_away_for_a_moment_while_it_was_made() -> None:
    _, sound, clock, _ = stores()
    for digit in "01":
        await sound.submit(make_spec(job_id=f"{JOB_ID[:-1]}{digit}"))
    fresh = CrashingStore(blob=sound.blob, bus=MemoryBus(clock), clock=clock)
    fresh.light(3)  # looks at the list, and indexes one
    bus = fresh.bus
    with pytest.raises(BrokerUnavailable):
        await reindex(fresh)
    fresh.fuse.left = 1000
    assert not await fresh.index.complete()
    assert await reindex(JobStore(blob=sound.blob, bus=bus, clock=clock)) == 1
    assert len(await fresh.index.ids("t")) == 2


async def test_a_job_that_can_never_be_read_keeps_the_list_from_being_complete_for_some_tries_only() -> None:
    _, sound, clock, _ = stores()
    other = f"{JOB_ID[:-1]}1"
    for job_id in (JOB_ID, other):
        await sound.submit(make_spec(job_id=job_id))
    blob = sound.blob
    get = blob.get

    async def failing(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if key == job_key("t", JOB_ID, "spec"):
            raise StorageFailure("input/output error")
        return await get(key, start=start, end=end)

    blob.get = failing  # type: ignore[method-assign]
    fresh, troubles = JobStore(blob=blob, bus=MemoryBus(clock), clock=clock), Troubles()
    passes = 0
    with capture_logs() as logs:
        while not await fresh.index.complete():
            await reindex(fresh, troubles)
            assert await fresh.index.ids("t") == [other]
            await clock.advance(10.0)
            passes += 1
    assert UNREADABLE_AFTER < passes < 60
    assert [log["job_id"] for log in logs if log["event"] == "reindex_failed"] == [JOB_ID]
    blob.get = get  # type: ignore[method-assign]
    await fresh.find("t", JOB_ID)
    assert await fresh.index.ids("t") == [JOB_ID, other]


async def test_reconciling_goes_on_after_a_pass_that_failed() -> None:
    crashing, sound, clock, bus = stores()
    await sound.submit(make_spec())
    assert await queued_ids(bus) == [JOB_ID]
    crashing.light(0)
    passes = asyncio.get_running_loop().create_task(
        keep_reconciling(crashing, patience_s=PATIENCE_S, interval_s=10.0, clock=clock)
    )
    await clock.advance(PATIENCE_S + 1)
    assert await queued_ids(bus) == []
    crashing.fuse.left = 1000
    queue = await bus.work_queue("default", ack_wait_s=30)
    async with asyncio.timeout(10):
        while not (await queue.depth()).pending:
            await clock.advance(11)
            await asyncio.sleep(0.001)
    passes.cancel()
    await asyncio.wait({passes})


async def test_an_open_job_is_left_alone_while_its_lease_runs_and_queued_again_after() -> None:
    _, sound, clock, bus = stores()
    await sound.submit(make_spec())
    assert await queued_ids(bus) == [JOB_ID]
    await sound.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=clock.now_ns(), lease_s=300))
    passes = Reconciler(sound)
    assert (await passes.run()).requeued == 0
    await clock.advance(200)
    assert (await passes.run()).requeued == 0
    await clock.advance(200)
    assert (await passes.run()).requeued == 1
    assert (await passes.run()).requeued == 0  # it was just touched


async def test_a_draft_only_job_without_its_draft_goes_to_the_cloud_and_with_it_is_done() -> None:
    _, sound, clock, _ = stores()
    await sound.submit(make_spec(plan="draft", want_final=False))
    assert (await Reconciler(sound).patient(clock)).requeued == 1
    record = await sound.find("t", JOB_ID)
    assert (record.status, record.plan, record.want_final) == ("queued", "cloud", True)
    assert record.notes == (NO_DRAFT_NOTE,)

    other = make_spec(job_id="vid_01hzzzzzzzzzzzzzzzzzzzzzz1", plan="draft", want_final=False)
    await sound.submit(other)
    await sound.store_draft("t", other.id, draft_manifest())
    assert (await sound.find("t", other.id)).status == "completed"
    assert [job_id async for _, job_id, _ in sound.pending()] == [JOB_ID]


async def test_an_abandoned_marker_is_cleared_after_an_hour() -> None:
    _, sound, clock, _ = stores()
    await sound.blob.put(f"pending/t.{JOB_ID}", b"")
    (marked,) = [at_ns async for _, _, at_ns in sound.pending()]
    ahead_s = (marked - clock.now_ns()) / 1e9  # the store's clock is the machine's
    await clock.advance(ahead_s + 10)
    await Reconciler(sound).run()
    assert [key async for key in sound.pending()] != []
    await clock.advance(3600)
    await Reconciler(sound).run()
    assert [key async for key in sound.pending()] == []
