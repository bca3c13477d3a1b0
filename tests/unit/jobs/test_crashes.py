"""A crash between any two writes: whatever was accepted is found and finished, once, by reconciling."""

import pytest

from adaptivegen.bus.memory import DEDUP_WINDOW_S, MemoryBus
from adaptivegen.errors import BrokerUnavailable, Conflict, NotFound, StorageFailure
from adaptivegen.jobs.record import MAX_CLAIMS, claim
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import IDEMPOTENCY_TTL_S, JobStore
from tests.jobs import JOB_ID, draft_manifest, make_spec, media
from tests.unit.jobs.crashing import HIT, PATIENCE_S, Reconciler, queued_ids, stores


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


async def test_claims_are_counted_over_restarts() -> None:
    _, sound, clock, _ = stores()
    await sound.submit(make_spec())
    for _ in range(MAX_CLAIMS):
        await sound.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=clock.now_ns(), lease_s=30))
    assert (await sound.find("t", JOB_ID)).attempts == MAX_CLAIMS
