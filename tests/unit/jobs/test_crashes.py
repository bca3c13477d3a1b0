"""A crash between any two writes: whatever was accepted is found and finished, once, by reconciling."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import DEDUP_WINDOW_S, MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, Conflict, NotFound, StorageFailure
from adaptivegen.jobs.reconcile import OVERDUE, Sightings, Tally, keep_reconciling, reconcile, reindex
from adaptivegen.jobs.record import MAX_CLAIMS, JobRecord, claim
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import IDEMPOTENCY_TTL_S, JobMessage, JobStore
from tests.jobs import JOB_ID, draft_manifest, make_spec, media

PATIENCE_S = 60.0


class Fuse:
    """Lets `count` writes through and fails every one after them, as a crash would."""

    def __init__(self, count: int) -> None:
        self.left = count

    def burn(self, error: type[Exception]) -> None:
        if self.left == 0:
            raise error("the process died here")
        self.left -= 1


class CrashingStore(JobStore):
    """A job store over real parts whose writes go through a fuse."""

    fuse: Fuse

    def light(self, count: int) -> None:
        self.fuse = Fuse(count)
        blob, bus, fuse = self.blob, self.bus, self.fuse

        def fused(method: Callable[..., Awaitable[object]], error: type[Exception]) -> Callable[..., Awaitable[object]]:
            async def call(*args: object, **kwargs: object) -> object:
                fuse.burn(error)
                return await method(*args, **kwargs)

            return call

        class Blob:
            def __getattr__(self, name: str) -> object:
                method = getattr(blob, name)
                return fused(method, StorageFailure) if name in ("put", "put_if_absent", "delete") else method

        class Bus:
            def __getattr__(self, name: str) -> object:
                method = getattr(bus, name)
                return fused(method, BrokerUnavailable) if name in ("kv", "work_queue") else method

        self.blob, self.bus = Blob(), Bus()  # type: ignore[assignment]


def stores() -> tuple[CrashingStore, JobStore, ManualClock, MemoryBus]:
    """A store that crashes, and one on the same parts that does not."""
    clock = ManualClock()
    blob, bus = open_store("memory://"), MemoryBus(clock)
    sound = JobStore(blob=blob, bus=bus, clock=clock)
    return CrashingStore(blob=blob, bus=bus, clock=clock), sound, clock, bus


class Reconciler:
    """The reconciler of one process, over its passes."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._sightings = Sightings(jobs.clock)

    async def run(self) -> Tally:
        """One pass."""
        return await reconcile(self._jobs, patience_s=PATIENCE_S, sightings=self._sightings)

    async def patient(self, clock: ManualClock) -> Tally:
        """A pass that sees what there is, and after the patience one that acts; what the second did."""
        await self.run()
        await clock.advance(PATIENCE_S + 1)
        return await self.run()


async def queued_ids(bus: MemoryBus) -> list[str]:
    """What is in the queue, which is empty, and has lost it, after this."""
    queue = await bus.work_queue("default", ack_wait_s=30)
    found = []
    while (delivery := await queue.pull(timeout_s=0)) is not None:
        found.append(JobMessage.decode(delivery.data).id)
        await delivery.ack()
    return found


@pytest.mark.parametrize("writes", range(8))
async def test_a_submission_that_dies_anywhere_is_run_or_leaves_nothing_that_looks_alive(writes: int) -> None:
    crashing, sound, clock, bus = stores()
    crashing.light(writes)
    accepted = True
    try:
        await crashing.submit(make_spec())
    except (StorageFailure, BrokerUnavailable):
        accepted = False
    tally = await Reconciler(sound).patient(clock)
    assert tally.failed == 0
    has_spec = [meta.key async for meta in sound.blob.list(f"jobs/t/{JOB_ID}/")] != []
    assert has_spec or not accepted
    if has_spec:
        assert set(await queued_ids(bus)) == {JOB_ID}
        assert (await sound.find("t", JOB_ID)).status == "queued"


HIT = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=0, finished_at_ns=2, final=media("a"), cached=True)


@pytest.mark.parametrize("retried_as", ["hit", "refine"])
@pytest.mark.parametrize("writes", range(6))
async def test_a_cached_repeat_that_dies_anywhere_is_whole_or_nothing_and_a_retry_completes_it(
    writes: int, retried_as: str
) -> None:
    crashing, sound, clock, _ = stores()
    crashing.light(writes)
    try:
        await crashing.record_hit(make_spec(plan="hit"), draft_manifest(), HIT)
        died = False
    except (StorageFailure, BrokerUnavailable):
        died = True
    assert died == (writes < 4)
    try:
        assert (await sound.find("t", JOB_ID)).final == media("a")
    except NotFound:
        assert died
    if retried_as == "hit":
        await sound.record_hit(make_spec(plan="hit"), draft_manifest(), HIT)
    else:
        await sound.submit(make_spec())  # the cache forgot the entry meanwhile
        if writes < 2:  # nothing of the repeat was stored: this is a job of its own
            await sound.finish(HIT)
        assert (await Reconciler(sound).patient(clock)).failed == 0
    assert (await sound.find("t", JOB_ID)).final == media("a")


@pytest.mark.parametrize("writes", range(7))
async def test_an_upgrade_that_dies_anywhere_is_run_or_can_be_asked_for_again(writes: int) -> None:
    crashing, sound, clock, bus = stores()
    await sound.submit(make_spec(plan="draft", want_final=False))
    await sound.store_draft("t", JOB_ID, draft_manifest())
    crashing.light(writes)
    try:
        await crashing.ask_final(make_spec(plan="refine"))
        answered = True
    except (StorageFailure, BrokerUnavailable):
        answered = False
    marked = [job_id async for _, job_id, _ in sound.pending()] != []
    passes = Reconciler(sound)
    for _ in range(2):
        assert (await passes.patient(clock)).failed == 0
    queued = await queued_ids(bus)
    record = await sound.find("t", JOB_ID)
    assert queued == ([JOB_ID] if record.want_final else [])
    assert record.want_final == marked
    assert marked or not answered
    await clock.advance(PATIENCE_S + 1)
    asked = await sound.ask_final(make_spec(plan="refine"))
    assert (asked.status, asked.want_final, asked.plan) == ("queued", True, "refine")
    await passes.patient(clock)
    assert await queued_ids(bus) == [JOB_ID]
    assert [job_id async for _, job_id, _ in sound.pending()] == [JOB_ID]


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


async def test_a_key_is_remembered_when_the_broker_lost_everything() -> None:
    _, sound, clock, _ = stores()
    assert await sound.reserve(tenant="t", key="k", job_id="vid_1", body_digest="b") == "vid_1"
    fresh = JobStore(blob=sound.blob, bus=MemoryBus(clock), clock=clock)
    for _ in range(2):
        assert await fresh.reserve(tenant="t", key="k", job_id="vid_2", body_digest="b") == "vid_1"
    with pytest.raises(Conflict):
        await fresh.reserve(tenant="t", key="k", job_id="vid_2", body_digest="other")
    await clock.advance(IDEMPOTENCY_TTL_S)
    assert await fresh.reserve(tenant="t", key="k", job_id="vid_3", body_digest="other") == "vid_3"


async def test_retries_of_a_client_do_not_fill_the_queue() -> None:
    _, sound, clock, bus = stores()
    await sound.submit(make_spec())
    for _ in range(5):
        await clock.advance(DEDUP_WINDOW_S + 1)
        await sound.submit(make_spec())
    assert await queued_ids(bus) == [JOB_ID]


async def test_reading_a_record_of_another_version_leaves_it_and_its_worker_alone() -> None:
    _, sound, clock, bus = stores()
    await sound.submit(make_spec())
    held = await sound.change("t", JOB_ID, lambda r: claim(r, worker_id="w9", now_ns=clock.now_ns(), lease_s=30))
    bucket = await bus.kv("jobs")
    newer = held.encode().replace(b'"plan":"refine"', b'"plan":{"kind":"refine"}')
    assert newer != held.encode()
    await bucket.put(held.key, newer)
    record = await sound.find("t", JOB_ID)
    assert (record.status, record.worker_id, record.epoch) == ("in_progress", "w9", 1)
    stored = await bucket.get(held.key)
    assert stored is not None and stored.value == newer
    changed = await sound.change("t", JOB_ID, lambda r: r.model_copy(update={"notes": ("x",)}))
    assert (changed.status, changed.worker_id, changed.lease_expires_at_ns) == (
        "in_progress",
        "w9",
        held.lease_expires_at_ns,
    )


async def test_a_marker_cleared_while_an_upgrade_is_asked_for_is_put_back() -> None:
    _, sound, _, _ = stores()
    await sound.submit(make_spec(plan="draft", want_final=False))
    await sound.store_draft("t", JOB_ID, draft_manifest())
    await sound.ask_final(make_spec(plan="refine"))
    await sound.clear("t", JOB_ID)  # by a pass that read the record before the upgrade
    assert [job_id async for _, job_id, _ in sound.pending()] == [JOB_ID]


async def test_of_two_submissions_of_one_id_both_go_on_with_the_first_spec() -> None:
    _, sound, _, bus = stores()
    first, _ = await sound.submit(make_spec())
    second, record = await sound.submit(make_spec(plan="cloud").model_copy(update={"draft_token": "dt_other"}))
    assert second == first
    assert (record.plan, await queued_ids(bus)) == ("refine", [JOB_ID])


@pytest.mark.parametrize("reading", ["change", "reconcile"])
async def test_a_record_of_another_version_is_rebuilt_with_its_epoch(reading: str) -> None:
    _, sound, clock, bus = stores()
    await sound.submit(make_spec())
    held = await sound.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=clock.now_ns(), lease_s=30))
    bucket = await bus.kv("jobs")
    await bucket.put(held.key, held.encode().replace(b'"in_progress"', b'"paused"'))
    if reading == "change":
        record = await sound.change("t", JOB_ID, lambda r: r)
    else:
        await queued_ids(bus)
        assert (await Reconciler(sound).patient(clock)).requeued == 1
        record = await sound.find("t", JOB_ID)
    assert (record.status, record.epoch, record.attempts) == ("queued", 1, 1)
    stored = await bucket.get(held.key)
    assert stored is not None and stored.value == record.encode()


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


@pytest.mark.parametrize("writes", range(6))
async def test_a_commit_that_dies_anywhere_has_one_outcome_after_reconciling(writes: int) -> None:
    crashing, sound, clock, _ = stores()
    await sound.submit(make_spec())
    await sound.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=clock.now_ns(), lease_s=30))
    first = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=2, final=media("a"))
    crashing.light(writes)
    try:
        await crashing.finish(first)
        died = False
    except (StorageFailure, BrokerUnavailable):
        died = True
    second = first.model_copy(update={"epoch": 2, "final": media("b")})
    record, won = await sound.finish(second)
    expected = media("b") if died and writes == 0 else media("a")
    assert record.final == expected
    assert won == (expected == media("b"))
    await Reconciler(sound).run()
    assert [key async for key in sound.pending()] == []
    assert (await sound.find("t", JOB_ID)).final == expected


async def test_the_outcome_stands_when_the_index_forgets_it() -> None:
    _, sound, _, bus = stores()
    await sound.submit(make_spec())
    await sound.cancel("t", JOB_ID)
    await (await bus.kv("jobs")).delete(f"t.{JOB_ID}")
    assert (await sound.find("t", JOB_ID)).status == "cancelled"


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

    other = make_spec(job_id="vid_01hzzzzzzzzzzzzzzzzzzzzzz1", plan="draft", want_final=False)
    await sound.submit(other)
    await sound.store_draft("t", other.id, draft_manifest())
    assert (await sound.find("t", other.id)).status == "completed"
    assert [job_id async for _, job_id, _ in sound.pending()] == [JOB_ID]


async def test_claims_are_counted_over_restarts() -> None:
    _, sound, clock, _ = stores()
    await sound.submit(make_spec())
    for _ in range(MAX_CLAIMS):
        await sound.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=clock.now_ns(), lease_s=30))
    assert (await sound.find("t", JOB_ID)).attempts == MAX_CLAIMS


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
