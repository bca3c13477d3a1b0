"""A crash between any two writes: whatever was accepted is found and finished, once, by reconciling."""

from collections.abc import Awaitable, Callable

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, StorageFailure
from adaptivegen.jobs.reconcile import reconcile
from adaptivegen.jobs.record import MAX_CLAIMS, claim
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobMessage, JobStore
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
    sound = JobStore(blob=blob, bus=bus, clock=clock, ack_wait_s=30)
    return CrashingStore(blob=blob, bus=bus, clock=clock, ack_wait_s=30), sound, clock, bus


async def queued_ids(bus: MemoryBus) -> list[str]:
    queue = await bus.work_queue("default", ack_wait_s=30)
    found = []
    while (delivery := await queue.pull(timeout_s=0)) is not None:
        found.append(JobMessage.decode(delivery.data).id)
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
    await clock.advance(PATIENCE_S + 1)
    tally = await reconcile(sound, patience_s=PATIENCE_S)
    assert tally.failed == 0
    has_spec = [meta.key async for meta in sound.blob.list(f"jobs/t/{JOB_ID}/")] != []
    assert has_spec or not accepted
    if has_spec:
        assert set(await queued_ids(bus)) == {JOB_ID}
        assert (await sound.find("t", JOB_ID)).status == "queued"


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
    await reconcile(sound, patience_s=PATIENCE_S)
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
    await clock.advance(200)
    assert (await reconcile(sound, patience_s=PATIENCE_S)).requeued == 0
    await clock.advance(200)
    assert (await reconcile(sound, patience_s=PATIENCE_S)).requeued == 1
    assert (await reconcile(sound, patience_s=PATIENCE_S)).requeued == 0  # it was just touched


async def test_a_draft_only_job_without_its_draft_goes_to_the_cloud_and_with_it_is_done() -> None:
    _, sound, clock, _ = stores()
    await sound.submit(make_spec(plan="draft", want_final=False))
    await clock.advance(PATIENCE_S + 1)
    assert (await reconcile(sound, patience_s=PATIENCE_S)).requeued == 1
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
    await reconcile(sound, patience_s=PATIENCE_S)
    assert [key async for key in sound.pending()] != []
    await clock.advance(3600)
    await reconcile(sound, patience_s=PATIENCE_S)
    assert [key async for key in sound.pending()] == []
