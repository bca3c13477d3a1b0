"""Uploads that no job refers to: taken back where that is certain, else swept once their submission must be over."""

import asyncio
import time

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import AdaptiveGenError, StorageFailure
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import Deleted, JobSpec, input_key, job_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.sweep import Sweep
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.jobs.uploads import ABANDONED_S, SWEEP_EVERY_S, SWEPT, UploadSweep, submit
from adaptivegen.request import Reference
from scheduler.surveys import StorageSurvey
from tests.jobs import make_spec
from tests.stamps import Stamps
from tests.unit.jobs.crashing import CrashingStore
from tests.unit.scheduler.builders import view

A, B, C = (f"vid_01hzzzzzzzzzzzzzzzzzzzzzz{digit}" for digit in "012")
SHA256 = "e" * 64


class Made:
    """A job store whose own clock and whose objects' are moved together by `later`. ahead_s: of its clock, before the
    objects'."""

    def __init__(self, *, ahead_s: float = 0.0) -> None:
        self.clock = ManualClock(start_ns=time.time_ns() + round(ahead_s * 1e9))
        self.blob, self.bus = open_store("memory://"), MemoryBus(self.clock)
        self.stamps = Stamps(self.blob)
        self.jobs = JobStore(blob=self.blob, bus=self.bus, clock=self.clock)
        self.sweep = UploadSweep(self.jobs, Troubles())

    async def later(self, seconds: float) -> None:
        await self.stamps.passes(seconds)
        await self.clock.advance(seconds)

    async def upload(self, job_id: str, *, attempt: int = 0) -> JobSpec:
        """The spec of an attempt to submit a job, with its upload stored."""
        key = input_key("t", job_id, SHA256, now_ns=self.clock.now_ns() + attempt * 10**6)
        await self.blob.put(key, b"a clip")
        request = make_spec().request.model_copy(update={"reference": Reference(kind="video", sha256=SHA256, key=key)})
        return make_spec(job_id=job_id).model_copy(update={"request": request})

    async def uploads(self) -> set[str]:
        return {meta.key async for meta in self.blob.list("inputs/")}


@pytest.fixture
def made() -> Made:
    return Made()


def key_of(spec: JobSpec) -> str:
    assert spec.request.reference is not None
    return spec.request.reference.key


async def test_an_upload_whose_submission_died_is_removed_and_one_that_a_job_has_stays(made: Made) -> None:
    accepted, _ = await made.upload(A), await made.upload(B)
    await made.jobs.submit(accepted)
    assert await made.sweep.sweep() == 0  # the submission may be under way
    assert len(await made.uploads()) == 2
    await made.later(ABANDONED_S + 1)
    assert await made.sweep.sweep() == 1
    assert await made.uploads() == {key_of(accepted)}
    for _ in range(3):
        await made.later(ABANDONED_S)
        assert await made.sweep.sweep() == 0


@pytest.mark.parametrize("ahead_s", [10 * ABANDONED_S, -10 * ABANDONED_S])
async def test_a_scheduler_whose_clock_is_hours_off_judges_age_by_the_stores(ahead_s: float) -> None:
    made = Made(ahead_s=ahead_s)
    first = await made.upload(A)
    assert await made.sweep.sweep() == 0  # its submission is under way
    await made.later(ABANDONED_S + 1)
    second = await made.upload(B)
    assert await made.sweep.sweep() == 1
    assert await made.uploads() == {key_of(second)}
    assert key_of(first) not in await made.uploads()


async def test_an_upload_that_was_left_after_the_stores_clock_was_set_back_is_removed(made: Made) -> None:
    await made.upload(A)
    await made.later(ABANDONED_S + 1)
    assert await made.sweep.sweep() == 1
    await made.stamps.passes(-24 * ABANDONED_S)  # what is there is of tomorrow now
    await made.upload(B)
    assert await made.sweep.sweep() == 0
    await made.later(ABANDONED_S + 1)
    assert await made.sweep.sweep() == 1
    assert await made.uploads() == set()


async def test_a_submission_that_dies_anywhere_leaves_no_upload_without_a_job() -> None:
    for writes in range(20):
        made = Made()
        dying = CrashingStore(blob=made.blob, bus=made.bus, clock=made.clock)
        spec = await made.upload(A)
        dying.light(writes)
        try:
            await submit(dying, spec)
            died = False
        except AdaptiveGenError:
            died = True
        await made.later(ABANDONED_S + 1)
        await made.sweep.sweep()
        there = job_key("t", A, "spec") in {meta.key async for meta in made.blob.list("jobs/")}
        assert await made.uploads() == ({key_of(spec)} if there else set())
        if not died:
            assert there and writes > 2
            return
    raise AssertionError("the fuse never lasted")


async def test_of_two_attempts_of_one_job_the_upload_of_the_one_that_lost_goes_at_once(made: Made) -> None:
    first, second = await made.upload(A), await made.upload(A, attempt=1)
    await submit(made.jobs, first)
    standing, _ = await submit(made.jobs, second)
    assert key_of(standing) == key_of(first)
    assert await made.uploads() == {key_of(first)}
    await submit(made.jobs, first)  # the same attempt once more: its upload is the job's
    assert await made.uploads() == {key_of(first)}


async def test_what_is_uploaded_for_a_deleted_video_goes_at_once(made: Made) -> None:
    await submit(made.jobs, await made.upload(A))
    await remove(made.jobs, "t", A)
    assert await made.uploads() == set()
    with pytest.raises(Deleted):
        await submit(made.jobs, await made.upload(A, attempt=1))
    assert await made.uploads() == set()


async def test_a_later_attempt_of_a_job_keeps_its_upload_while_the_first_ones_is_swept(made: Made) -> None:
    first = await made.upload(A)
    await made.later(ABANDONED_S + 1)
    sweep, spec_read, go_on = UploadSweep(made.jobs, Troubles()), asyncio.Event(), asyncio.Event()
    read = made.jobs.first_spec

    async def slow(tenant: str, job_id: str) -> JobSpec:
        try:
            return await read(tenant, job_id)
        finally:
            spec_read.set()
            await go_on.wait()

    made.jobs.first_spec = slow  # type: ignore[method-assign]
    sweeping = asyncio.get_running_loop().create_task(sweep.sweep())
    await spec_read.wait()  # there is none
    second = await made.upload(A)
    assert key_of(second) != key_of(first)
    made.jobs.first_spec = read  # type: ignore[method-assign]
    await made.jobs.submit(second)
    go_on.set()
    assert await sweeping == 1
    assert await made.uploads() == {key_of(second)}


async def test_an_upload_that_cannot_be_judged_keeps_no_other_from_it_and_is_judged_later(made: Made) -> None:
    ill, gone, damaged = await made.upload(A), await made.upload(B), await made.upload(C)
    await made.blob.put(job_key("t", C, "spec"), b"of a newer version")
    get = made.blob.get

    async def failing(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if key == job_key("t", A, "spec"):
            raise StorageFailure("input/output error")
        return await get(key, start=start, end=end)

    made.blob.get = failing  # type: ignore[method-assign]
    await made.later(ABANDONED_S + 1)
    assert await made.sweep.sweep() == 1
    assert await made.uploads() == {key_of(ill), key_of(damaged)}
    assert key_of(gone) not in await made.uploads()
    made.blob.get = get  # type: ignore[method-assign]
    assert await made.sweep.sweep() == 1
    assert await made.uploads() == {key_of(damaged)}  # what refers to it is not known


async def test_the_sweep_of_a_scheduler_removes_uploads_every_hour(made: Made) -> None:
    sweep = Sweep(made.jobs, clock=made.clock)
    await made.upload(A)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(sweep.run(interval_s=10.0))
        for _ in range(round(SWEEP_EVERY_S / 10) - 1):
            await made.later(10.0)
        assert len(await made.uploads()) == 1
        while await made.uploads():
            await made.later(10.0)
            await asyncio.sleep(0.001)
        assert made.clock.monotonic_s() <= 2 * SWEEP_EVERY_S + 10.0
        running.cancel()


async def test_what_was_judged_is_not_read_again_by_the_next_scheduler(made: Made) -> None:
    kept = await made.upload(A)
    await submit(made.jobs, kept)
    await made.later(ABANDONED_S + 1)
    await made.sweep.sweep()
    reads = []
    get = made.blob.get

    async def counted(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        reads.append(key)
        return await get(key, start=start, end=end)

    made.blob.get = counted  # type: ignore[method-assign]
    assert await UploadSweep(made.jobs, Troubles()).sweep() == 0
    assert reads == [SWEPT]
    await made.blob.put(SWEPT, b"damaged")
    assert await UploadSweep(made.jobs, Troubles()).sweep() == 0
    assert await made.uploads() == {key_of(kept)}


async def test_uploads_count_as_what_a_tenant_has_stored_and_are_freed_with_their_video(made: Made) -> None:
    await submit(made.jobs, await made.upload(A))
    await made.blob.put(f"inputs/t/{SHA256}", b"of an earlier version, which goes with no video")
    seen = view()
    await StorageSurvey(seen, made.blob, made.bus, clock=made.clock).count()
    assert seen.stored.by_tenant == {"t": 6}
    assert (await remove(made.jobs, "t", A)).freed_bytes == 6
