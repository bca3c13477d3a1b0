"""From the spool to the centre: whatever step dies, the job is there once, and nothing of it is left behind."""

import hashlib
from pathlib import Path

import pytest

from adaptivegen.bus.memory import DEDUP_WINDOW_S
from adaptivegen.errors import BrokerUnavailable, Conflict, InternalError, StorageFailure
from adaptivegen.jobs.rating import Rating, decode_rating
from adaptivegen.jobs.record import claim
from adaptivegen.jobs.spec import JobSpec, Manifest, input_key
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.jobs.uploads import FRESH_S, UploadSweep
from adaptivegen.request import Reference
from edge_node.spool.handover import DAMAGED_NOTE
from tests.jobs import JOB_ID, make_spec, media
from tests.stamps import Stamps
from tests.unit.edge.spooling import DRAFT, DRAFT_KEY, Bench, bench, draft_only, refine
from tests.unit.jobs.crashing import CrashingStore, Reconciler, queued_ids

STEPS = 16  # more writes than a handover makes
UPLOADED = hashlib.sha256(b"upload").hexdigest()


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after the window of repeats"])
@pytest.mark.parametrize("writes", range(STEPS))
async def test_a_handover_that_dies_anywhere_is_finished_by_the_next_life_with_one_job(
    tmp_path: Path, writes: int, waits: bool
) -> None:
    made = await bench(tmp_path)
    await made.put(refine(), key="k")
    made.dying.light(writes)
    try:
        await made.hand_over(made.dying)
        died = False
    except (StorageFailure, BrokerUnavailable):
        died = True
        messages = await queued_ids(made.bus) if waits else []  # a worker has what came before
        await made.clock.advance(DEDUP_WINDOW_S + 1 if waits else 1)
        assert len(await made.start()) == 1
        spec, record = await made.hand_over()
        assert (spec.id, record.status) == (JOB_ID, "queued")
        assert set(messages) <= {JOB_ID}
    assert died == (writes < 9)
    assert set(await queued_ids(made.bus)) == {JOB_ID}
    assert made.files() == []
    record = await made.centre.find("t", JOB_ID)
    assert (record.status, record.draft) == ("queued", DRAFT.media)
    assert await made.centre.blob.get(DRAFT_KEY) == b"draft"
    assert await made.pending() == [JOB_ID]
    assert await made.centre.reserve(tenant="t", key="k", job_id="vid_other", body_digest="b") == JOB_ID
    assert (await Reconciler(made.centre).run()).failed == 0


@pytest.mark.parametrize("writes", range(STEPS))
async def test_an_ended_job_that_dies_on_its_way_ends_as_it_had(tmp_path: Path, writes: int) -> None:
    made = await bench(tmp_path)
    await made.put(refine())
    await made.spool.jobs.cancel("t", JOB_ID)
    made.dying.light(writes)
    try:
        await made.hand_over(made.dying)
    except (StorageFailure, BrokerUnavailable):
        await made.start()
        await made.hand_over()
    record = await made.centre.find("t", JOB_ID)
    assert (record.status, record.draft) == ("cancelled", DRAFT.media)
    assert (await queued_ids(made.bus), await made.pending(), made.files()) == ([], [], [])
    assert made.asked == []  # nobody is asked for a place for it


@pytest.mark.parametrize("writes", range(STEPS))
async def test_an_upgrade_asked_for_while_spooled_dies_nowhere(tmp_path: Path, writes: int) -> None:
    made = await bench(tmp_path)
    await made.put(draft_only())
    await made.spool.jobs.ask_final(refine())
    made.dying.light(writes)
    try:
        await made.hand_over(made.dying)
    except (StorageFailure, BrokerUnavailable):
        await made.start()
        await made.hand_over()
    record = await made.centre.find("t", JOB_ID)
    assert (record.status, record.want_final, record.plan) == ("queued", True, "refine")
    assert set(await queued_ids(made.bus)) == {JOB_ID}
    assert (await made.pending(), made.files()) == ([JOB_ID], [])


async def test_a_draft_that_completed_its_job_is_handed_over_complete_and_leaves_no_marker(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(draft_only())
    _, record = await made.hand_over()
    assert (record.status, record.draft) == ("completed", DRAFT.media)
    assert (await queued_ids(made.bus), await made.pending()) == ([], [])


async def test_the_decision_on_return_is_what_the_centre_has_and_the_notes_say_where_it_was(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(refine())
    await made.clock.advance(90)
    made.decided = refine().decision.model_copy(update={"pool": "fast", "decided_by": "scheduler-2"})
    spec, record = await made.hand_over()
    assert made.asked == [(JOB_ID, True)]
    assert (await made.centre.spec("t", JOB_ID)).decision == spec.decision
    assert (spec.decision.pool, spec.decision.decided_by) == ("fast", "scheduler-2")
    assert record.notes == ("accepted by edge-1 while it was cut off, handed over after 90 s",)


async def test_of_a_job_that_the_centre_had_begun_its_spec_and_its_holder_stand(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.centre.submit(refine().model_copy(update={"notes": ("first",)}))
    await made.centre.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=made.clock.now_ns(), lease_s=30))
    await made.put(refine(), begun=True)
    _, record = await made.hand_over()
    assert made.asked == []
    assert (record.status, record.worker_id, record.epoch) == ("in_progress", "w1", 1)
    assert (record.notes, record.draft) == (("first",), DRAFT.media)
    assert await queued_ids(made.bus) == [JOB_ID]  # the first submission's


async def test_a_draft_of_another_attempt_than_the_one_that_stands_is_not_handed_over(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.centre.submit(refine().model_copy(update={"content_key": "a" * 64}))
    await queued_ids(made.bus)
    await made.put(refine(), key="k")
    _, record = await made.hand_over()
    assert (record.status, record.draft) == ("queued", None)
    assert await made.centre.draft("t", JOB_ID) is None
    assert made.files() == []


async def test_a_job_that_has_its_final_by_then_keeps_it(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.centre.submit(refine())
    final = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=9, final=media("f"))
    await made.centre.finish(final)
    await queued_ids(made.bus)
    await made.put(refine(), begun=True)
    _, record = await made.hand_over()
    assert (record.status, record.final, record.draft) == ("completed", media("f"), DRAFT.media)
    assert (await queued_ids(made.bus), await made.pending()) == ([], [])


@pytest.mark.parametrize("body", ["b", "another body"])
async def test_a_key_that_belongs_to_another_video_is_left_to_it_and_both_stand(tmp_path: Path, body: str) -> None:
    made = await bench(tmp_path)
    await made.centre.reserve(tenant="t", key="k", job_id="vid_first", body_digest=body)
    await made.put(refine(), key="k", body="b")
    spec, record = await made.hand_over()
    assert record.status == "queued"
    assert "belongs to" in spec.decision.reasons[-1]
    assert await queued_ids(made.bus) == [JOB_ID]
    assert await made.centre.reserve(tenant="t", key="k", job_id="vid_x", body_digest=body) == "vid_first"


async def test_a_rating_and_an_upload_go_along_and_an_upload_that_another_needs_stays(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    other_id = JOB_ID[:-1] + "1"
    sha256 = hashlib.sha256(b"upload").hexdigest()
    reference = {"kind": "image", "sha256": sha256, "key": f"inputs/t/{sha256}"}
    request = type(refine().request).model_validate({**refine().request.model_dump(), "reference": reference})
    await made.spool.blob.put(reference["key"], b"upload")
    for job_id in (JOB_ID, other_id):
        spec = make_spec(job_id=job_id).model_copy(update={"request": request})
        await made.put(spec, draft=None)
    await made.spool.blob.put(f"ratings/t/{JOB_ID}", b"rating")
    await made.hand_over()
    assert await upload_at_the_centre(made) == b"upload"
    assert await made.centre.blob.get(f"ratings/t/{JOB_ID}") == b"rating"
    assert reference["key"] in made.spool.blob.sizes
    await made.hand_over()
    assert made.files() == []


@pytest.mark.parametrize("asked", [False, True], ids=["refine", "upgrade"])
@pytest.mark.parametrize("writes", range(STEPS))
async def test_an_upload_gets_there_with_its_job_whatever_dies_and_whatever_is_swept_there(
    tmp_path: Path, writes: int, asked: bool
) -> None:
    made = await bench(tmp_path)
    key = input_key("t", JOB_ID, UPLOADED, now_ns=made.clock.now_ns())
    await made.centre.blob.put(key, b"upload")  # it was on its way there when the edge was cut off
    await made.spool.blob.put(key, b"upload")
    await made.put(uploaded(draft_only() if asked else refine(), key), begun=True)
    if asked:
        await made.spool.jobs.ask_final(uploaded(refine(), key))
    await made.clock.advance(3600.0)
    made.dying.light(writes)
    try:
        await made.hand_over(made.dying)
    except (StorageFailure, BrokerUnavailable):
        await made.clock.advance(3600.0)
        await made.start()
        await made.hand_over()
    await made.centre.blob.delete(key)  # a sweep had looked before the job was there
    assert await upload_at_the_centre(made) == b"upload"
    assert (await made.centre.spec("t", JOB_ID)).upgrade == asked
    await Stamps(made.centre.blob).passes(2 * 3600.0)
    await UploadSweep(made.centre, Troubles()).sweep()
    assert await upload_at_the_centre(made) == b"upload"
    assert len([meta async for meta in made.centre.blob.list("inputs/")]) == 1
    assert made.files() == []


async def test_an_upload_that_an_attempt_has_stored_is_not_stored_again_while_it_is_fresh(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    key = input_key("t", JOB_ID, UPLOADED, now_ns=made.clock.now_ns())
    await made.spool.blob.put(key, b"upload")
    await made.put(uploaded(refine(), key))
    stored = set()
    for attempt in range(5):  # each dies before its spec is there
        await made.clock.advance(FRESH_S / 2)
        dying = CrashingStore(blob=made.centre.blob, bus=made.bus, clock=made.clock)
        dying.light(3)
        with pytest.raises(StorageFailure):
            await made.hand_over(dying)
        stored = {meta.key async for meta in made.centre.blob.list("inputs/")}
        assert len(stored) == 1 + attempt // 3
    await made.hand_over()
    assert {meta.key async for meta in made.centre.blob.list("inputs/")} == stored
    reference = (await made.centre.spec("t", JOB_ID)).request.reference
    assert reference is not None and reference.key == max(stored)
    assert await upload_at_the_centre(made) == b"upload"


async def test_an_upgrade_of_a_job_that_the_centre_has_goes_on_with_the_upload_that_is_there(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    there, here = (input_key("t", JOB_ID, UPLOADED, now_ns=now_ns) for now_ns in (10**9, 2 * 10**9))
    await made.centre.blob.put(there, b"upload")
    await made.centre.submit(uploaded(draft_only(), there))  # its answer was lost
    await made.spool.blob.put(here, b"upload")
    await made.put(uploaded(draft_only(), here), begun=True)
    await made.spool.jobs.ask_final(uploaded(refine(), here))
    await made.hand_over()
    assert (await made.centre.spec("t", JOB_ID)).upgrade
    assert await upload_at_the_centre(made) == b"upload"
    assert [meta.key async for meta in made.centre.blob.list("inputs/")] == [there]


def uploaded(spec: JobSpec, key: str) -> JobSpec:
    reference = Reference(kind="image", sha256=UPLOADED, key=key)
    return spec.model_copy(update={"request": spec.request.model_copy(update={"reference": reference})})


async def upload_at_the_centre(made: Bench) -> bytes:
    reference = (await made.centre.spec("t", JOB_ID)).request.reference
    assert reference is not None
    return await made.centre.blob.get(reference.key)


async def test_a_key_is_bound_in_the_spool_until_its_job_has_left_it(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(refine(), key="k")
    for spool in (made.spool, await made.start()):
        assert spool.bound("t", "k", "b") == JOB_ID
        assert spool.bound("other", "k", "b") is None
        with pytest.raises(Conflict):
            spool.bound("t", "k", "another body")
    await made.hand_over()
    assert made.spool.bound("t", "k", "b") is None


async def test_a_draft_that_was_damaged_is_left_out_and_the_job_says_so(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(refine())
    (tmp_path / "jobs" / DRAFT_KEY).write_bytes(b"tfard")
    _, record = await made.hand_over()
    assert (record.status, record.draft) == ("queued", None)
    assert record.notes[-1] == DAMAGED_NOTE
    assert made.asked == [(JOB_ID, False)]
    assert await made.centre.draft("t", JOB_ID) is None


async def test_an_upload_that_was_damaged_is_not_handed_over(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    reference = {"kind": "image", "sha256": "e" * 64, "key": f"inputs/t/{'e' * 64}"}
    request = type(refine().request).model_validate({**refine().request.model_dump(), "reference": reference})
    await made.spool.blob.put(reference["key"], b"upload")
    await made.put(refine().model_copy(update={"request": request}), draft=None)
    with pytest.raises(InternalError, match=reference["key"]):
        await made.hand_over()
    assert made.spool.state("t", JOB_ID) == "spooled"
    assert [meta.key async for meta in made.centre.blob.list("")] == []


@pytest.mark.parametrize(("here_ns", "there_ns", "last_ns"), [(1, 2, 2), (2, 1, 2)])
async def test_of_two_ratings_the_newer_stands(tmp_path: Path, here_ns: int, there_ns: int, last_ns: int) -> None:
    def rated(at_ns: int) -> bytes:
        return Rating(
            id=JOB_ID,
            tenant="t",
            at_ns=at_ns,
            intent="render",
            plan="refine",
            stars=3,
            draft_model="d",
            cloud_model="c",
        ).encode()

    made = await bench(tmp_path)
    await made.put(refine())
    key = f"ratings/t/{JOB_ID}"
    await made.spool.blob.put(key, rated(here_ns))
    await made.centre.blob.put(key, rated(there_ns))
    await made.hand_over()
    stands = decode_rating(await made.centre.blob.get(key))
    assert stands is not None and stands.at_ns == last_ns
