"""What a pending job needs, as a table; and a pass over jobs of which one cannot be read."""

from dataclasses import replace

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.jobs.reconcile import Remedy, Sightings, Tally, reconcile, remedy
from adaptivegen.jobs.record import JobRecord, apply_manifest, claim, draft_stored, new_record
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobStore
from tests.jobs import JOB_ID, draft_manifest, make_spec, media

CREATED_NS = make_spec().created_at_ns
PATIENCE_S = 60.0
OTHER_ID = "vid_01hzzzzzzzzzzzzzzzzzzzzzz1"
DONE = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=CREATED_NS, final=media())
FRESH = new_record(make_spec())
DRAFT_ONLY = new_record(make_spec(plan="draft", want_final=False))
CLAIMED = claim(FRESH, worker_id="w1", now_ns=CREATED_NS, lease_s=300.0)
DRAFTED = draft_stored(DRAFT_ONLY, draft_manifest())


@pytest.mark.parametrize(
    ("record", "has_draft", "manifest", "after_s", "expected"),
    [
        (FRESH, False, None, PATIENCE_S - 1, "wait"),
        (FRESH, False, None, PATIENCE_S, "check-queue"),
        (CLAIMED, False, None, 300 + PATIENCE_S - 1, "wait"),
        (CLAIMED, False, None, 300 + PATIENCE_S, "check-queue"),
        (DRAFT_ONLY, False, None, PATIENCE_S - 1, "wait"),
        (DRAFT_ONLY, False, None, PATIENCE_S, "finish-draft-in-cloud"),
        (DRAFT_ONLY, True, None, 0, "index"),
        (DRAFTED, True, None, 0, "clear"),
        (FRESH, False, DONE, 0, "index"),
        (CLAIMED, False, DONE, 0, "index"),
        (apply_manifest(FRESH, DONE), False, DONE, 0, "clear"),
        (apply_manifest(FRESH, DONE.model_copy(update={"outcome": "failed"})), False, DONE, 0, "index"),
    ],
)
def test_what_a_pending_job_needs(
    record: JobRecord, has_draft: bool, manifest: Manifest | None, after_s: float, expected: Remedy
) -> None:
    found = remedy(
        record,
        draft=draft_manifest() if has_draft else None,
        upgrade_asked=False,
        manifest=manifest,
        quiet_s=after_s,
        patience_s=PATIENCE_S,
    )
    assert found == expected


async def test_a_job_is_quiet_for_as_long_as_this_process_saw_it_unchanged() -> None:
    clock = ManualClock()
    sightings = Sightings(clock)
    seen = []
    for record in (FRESH, FRESH, CLAIMED, CLAIMED, FRESH):
        sightings.begin()
        seen.append(sightings.quiet_s(record))
        await clock.advance(10)
    assert seen == [0.0, 10.0, 0.0, 10.0, 0.0]
    sightings.begin()  # a pass that does not see it, because its marker was gone
    sightings.begin()
    assert sightings.quiet_s(FRESH) == 0.0


async def one_pass(jobs: JobStore) -> Tally:
    return await reconcile(jobs, patience_s=PATIENCE_S, sightings=Sightings(jobs.clock))


@pytest.fixture
def jobs() -> JobStore:
    clock = ManualClock()
    return JobStore(blob=open_store("memory://"), bus=MemoryBus(clock), clock=clock)


async def test_a_job_that_cannot_be_read_does_not_keep_the_others_from_being_put_right(jobs: JobStore) -> None:
    await jobs.submit(make_spec())
    await jobs.submit(make_spec(job_id=OTHER_ID))
    await jobs.blob.put(f"jobs/t/{JOB_ID}/manifest", b"not a manifest")
    other = DONE.model_copy(update={"id": OTHER_ID})
    await jobs.blob.put(f"jobs/t/{OTHER_ID}/manifest", other.encode())
    tally = await one_pass(jobs)
    assert (tally.seen, tally.indexed, tally.failed) == (2, 1, 1)
    assert (await jobs.find("t", OTHER_ID)).status == "completed"


async def test_an_outcome_is_indexed_in_one_pass_and_its_marker_cleared_in_the_next(jobs: JobStore) -> None:
    await jobs.submit(make_spec())
    await jobs.blob.put(f"jobs/t/{JOB_ID}/draft", draft_manifest().encode())
    await jobs.blob.put(f"jobs/t/{JOB_ID}/manifest", DONE.encode())
    assert await one_pass(jobs) == replace(Tally(), seen=1, indexed=1)
    record = await jobs.find("t", JOB_ID)
    assert (record.final, record.draft) == (media(), draft_manifest().media)
    assert await one_pass(jobs) == replace(Tally(), seen=1, cleared=1)
    assert await one_pass(jobs) == Tally()


async def test_a_forgotten_index_is_rebuilt_by_a_pass(jobs: JobStore) -> None:
    await jobs.submit(make_spec())
    bucket = await jobs.bus.kv("jobs")
    await bucket.delete(f"t.{JOB_ID}")
    await one_pass(jobs)
    assert await bucket.get(f"t.{JOB_ID}") is not None
