"""Deleting videos on memory parts: what goes, what repeats still need, and removals that die half-way."""

import asyncio

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import AdaptiveGenError, NotFound
from adaptivegen.jobs import sharing
from adaptivegen.jobs.purges import SUBJECT, decode_purge
from adaptivegen.jobs.reconcile import Sightings, reconcile, reindex
from adaptivegen.jobs.record import claim
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import ContentEntry, Deleted, DraftManifest, JobSpec, Manifest, Media, job_key, media_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.sweep import SETTLED_S, Sweep
from adaptivegen.request import Reference
from tests.jobs import make_spec
from tests.stamps import Stamps
from tests.unit.jobs.crashing import stores

A, B, C = (f"vid_01hzzzzzzzzzzzzzzzzzzzzzz{digit}" for digit in "012")
LEFT = ["closed", "spec"]  # of a deleted video: that nobody may refer to its media, and the tombstone


def clip(job_id: str, epoch: int) -> Media:
    sha256 = f"{job_id[-1]}{epoch}" + "0" * 62
    return Media(
        key=media_key("t", job_id, epoch, sha256), sha256=sha256, size_bytes=7, width=8, height=8, frames=1, fps=1
    )


async def make(jobs: JobStore, job_id: str) -> JobSpec:
    """A finished video with an upload, a draft, a final and a rating, found by repeats."""
    sha256 = "e" * 64
    reference = Reference(kind="image", sha256=sha256, key=f"inputs/t/{job_id}/{sha256}")
    spec = make_spec(job_id=job_id)
    spec = spec.model_copy(update={"request": spec.request.model_copy(update={"reference": reference})})
    await jobs.blob.put(reference.key, b"upload")
    await jobs.submit(spec)
    draft, final = clip(job_id, 0), clip(job_id, 1)
    for media in (draft, final):
        await jobs.blob.put(media.key, b"a clip!")
    await jobs.store_draft("t", job_id, DraftManifest(media=draft, steps=4, completed_at_ns=2))
    done = Manifest(id=job_id, tenant="t", outcome="completed", epoch=1, finished_at_ns=3, final=final)
    await jobs.finish(done)
    entry = ContentEntry(id=job_id, final=final, draft=draft, final_steps=4, draft_steps=4)
    await jobs.index_content(spec, entry)
    await jobs.blob.put(f"ratings/t/{job_id}", b"{}")
    return spec


async def repeat(jobs: JobStore, job_id: str) -> bool:
    """A repeat of the request, as an edge answers it; False where it has to be made anew."""
    known = await jobs.content("t", "c" * 64)
    if known is None or not await sharing.hold(jobs, "t", job_id, known.final):
        return False
    manifest = Manifest(
        id=job_id, tenant="t", outcome="completed", epoch=0, finished_at_ns=4, final=known.final, cached=True
    )
    draft = DraftManifest(media=known.draft, steps=0, completed_at_ns=4) if known.draft else None
    await jobs.record_hit(make_spec(job_id=job_id), draft, manifest)
    return True


async def keys(jobs: JobStore, prefix: str = "") -> list[str]:
    return sorted([meta.key async for meta in jobs.blob.list(prefix)])


async def left_of(jobs: JobStore, job_id: str) -> list[str]:
    """Objects of a video, but for what says that it was deleted."""
    return [key for key in await keys(jobs) if job_id in key and key.rpartition("/")[2] not in LEFT]


@pytest.fixture
async def jobs() -> JobStore:
    clock = ManualClock()
    made = JobStore(blob=open_store("memory://"), bus=MemoryBus(clock), clock=clock)
    await sharing.note_repeats(made)
    return made


async def test_media_stay_until_all_repeats_of_earlier_versions_have_their_notes(jobs: JobStore) -> None:
    await make(jobs, A)
    assert await repeat(jobs, B)
    for key in [*await keys(jobs, "holders/"), sharing.COMPLETE]:
        await jobs.blob.delete(key)
    done = await remove(jobs, "t", A)
    assert (done.unclear, done.freed_bytes) == (True, 6)  # its upload
    sweep, clock = Sweep(jobs, clock=jobs.clock), jobs.clock
    assert isinstance(clock, ManualClock)
    await sweep.sweep()
    await clock.advance(SETTLED_S)
    assert await sweep.sweep() == 1
    assert len(await keys(jobs, "out/")) == 2
    assert (await remove(jobs, "t", B)).freed_bytes == 14


async def test_a_deleted_video_is_not_found_and_nothing_of_it_is_left_after_the_sweep(jobs: JobStore) -> None:
    await make(jobs, A)
    heard = await jobs.bus.subscribe(SUBJECT)
    done = await remove(jobs, "t", A)
    assert (done.freed_bytes, done.kept, done.cancelled) == (20, False, None)
    with pytest.raises(Deleted):
        await jobs.find("t", A)
    assert await jobs.index.ids("t") == []
    assert await jobs.content("t", "c" * 64) is None
    assert await left_of(jobs, A) == [f"deleting/t.{A}"]
    told = decode_purge((await anext(aiter(heard))).data)
    assert (told.videos, told.freed_bytes, told.deleted, len(told.sha256)) == ((A,), 20, True, 2)
    assert len(await keys(jobs, "purged/")) == 2
    sweep = Sweep(jobs, clock=jobs.clock)
    assert await sweep.sweep() == 0
    assert isinstance(jobs.clock, ManualClock)
    await jobs.clock.advance(SETTLED_S)
    assert await sweep.sweep() == 1
    assert await left_of(jobs, A) == []


async def test_deleting_again_changes_nothing_and_what_never_was_is_not_found(jobs: JobStore) -> None:
    await make(jobs, A)
    await remove(jobs, "t", A)
    stone = await jobs.tombstone("t", A)
    assert (await remove(jobs, "t", A)).freed_bytes == 0
    assert await jobs.tombstone("t", A) == stone
    with pytest.raises(NotFound):
        await remove(jobs, "t", B)
    with pytest.raises(NotFound):
        await remove(jobs, "other", A)
    assert await left_of(jobs, B) == []


async def test_media_stay_until_the_last_video_that_refers_to_them_is_deleted(jobs: JobStore) -> None:
    await make(jobs, A)
    assert await repeat(jobs, B)
    first = await remove(jobs, "t", A)
    assert (first.kept, first.freed_bytes) == (True, 6)
    final = (await jobs.find("t", B)).final
    assert final is not None
    assert await jobs.blob.get(final.key) == b"a clip!"
    assert await repeat(jobs, C)  # still found by its content key
    await remove(jobs, "t", B)
    assert await jobs.blob.get(final.key) == b"a clip!"
    last = await remove(jobs, "t", C)
    assert (last.freed_bytes, await keys(jobs, "out/"), await keys(jobs, "holders/t/")) == (14, [], [])
    assert not await repeat(jobs, "vid_01hzzzzzzzzzzzzzzzzzzzzzz3")


async def test_a_repeat_of_a_deleted_repeat_keeps_the_owners_media(jobs: JobStore) -> None:
    await make(jobs, A)
    assert await repeat(jobs, B)
    done = await remove(jobs, "t", B)
    assert done.freed_bytes == 0
    assert (await jobs.find("t", A)).final is not None
    assert len(await keys(jobs, "out/")) == 2


async def test_a_repeat_that_read_the_index_before_the_media_went_is_made_anew(jobs: JobStore) -> None:
    await make(jobs, A)
    known = await jobs.content("t", "c" * 64)
    assert known is not None
    await remove(jobs, "t", A)
    assert not await sharing.hold(jobs, "t", B, known.final)
    assert not await sharing.hold(jobs, "t", B, known.final)  # another attempt: the note is left
    assert await keys(jobs, "out/") == []


async def test_a_repeat_under_way_holds_the_media_and_the_removal_goes_on_when_it_died(jobs: JobStore) -> None:
    await make(jobs, A)
    known = await jobs.content("t", "c" * 64)
    assert known is not None
    assert await sharing.hold(jobs, "t", B, known.final)  # and then this edge dies
    done = await remove(jobs, "t", A)
    assert (done.kept, done.unclear) == (True, True)
    sweep, clock = Sweep(jobs, clock=jobs.clock), jobs.clock
    assert isinstance(clock, ManualClock)
    for _ in range(3):
        await sweep.sweep()
        await clock.advance(SETTLED_S)
    assert len(await keys(jobs, "out/")) == 2
    await clock.advance(sharing.ABANDONED_S + 10 * 365 * 86400)  # ahead of the store's clock, which is what counts
    assert await sweep.sweep() == 0
    assert len(await keys(jobs, "out/")) == 2
    await Stamps(jobs.blob).passes(sharing.ABANDONED_S + 1)
    await clock.advance(SETTLED_S)
    assert await sweep.sweep() == 1
    assert await keys(jobs, "out/") == []


async def test_a_note_of_a_video_that_was_made_anew_holds_nothing(jobs: JobStore) -> None:
    spec = await make(jobs, A)
    known = await jobs.content("t", spec.content_key)
    assert known is not None
    assert await sharing.hold(jobs, "t", B, known.final)
    await jobs.submit(make_spec(job_id=B))
    assert (await remove(jobs, "t", A)).freed_bytes == 20


async def test_an_open_video_is_cancelled_and_its_worker_takes_back_what_it_made(jobs: JobStore) -> None:
    await jobs.submit(make_spec(job_id=A))
    await jobs.change("t", A, lambda r: claim(r, worker_id="w", now_ns=1, lease_s=30))
    done = await remove(jobs, "t", A)
    assert done.cancelled is not None
    assert done.cancelled.status == "cancelled"
    late = clip(A, 1)
    await jobs.blob.put(late.key, b"a clip!")
    with pytest.raises(Deleted):
        await jobs.finish(Manifest(id=A, tenant="t", outcome="completed", epoch=1, finished_at_ns=3, final=late))
    draft = clip(A, 0)
    await jobs.blob.put(draft.key, b"a clip!")
    with pytest.raises(Deleted):
        await jobs.store_draft("t", A, DraftManifest(media=draft, steps=4, completed_at_ns=2))
    assert await left_of(jobs, A) == [f"deleting/t.{A}"]


async def test_nothing_brings_a_deleted_video_back(jobs: JobStore) -> None:
    spec = await make(jobs, A)
    before = await jobs.find("t", A)
    await remove(jobs, "t", A)
    with pytest.raises(Deleted):
        await jobs.submit(spec)
    with pytest.raises(Deleted):
        await jobs.resume(spec)
    with pytest.raises(Deleted):
        await jobs.index.create(before, known=True)  # its spec was read before, by another
    with pytest.raises(Deleted):
        await jobs.ask_final(spec)
    await jobs.blob.put(f"pending/t.{A}", b"")
    await reconcile(jobs, patience_s=60.0, sightings=Sightings(jobs.clock))
    assert await reindex(jobs) == 0
    assert await jobs.index.complete()
    assert await left_of(jobs, A) == [f"deleting/t.{A}"]
    assert await jobs.index.ids("t") == []


async def test_a_damaged_video_can_be_deleted(jobs: JobStore) -> None:
    await make(jobs, A)
    await jobs.blob.put(job_key("t", A, "spec"), b"not a spec")
    assert (await remove(jobs, "t", A)).freed_bytes == 20
    with pytest.raises(Deleted):
        await jobs.find("t", A)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_removal_that_died_anywhere_is_completed_and_costs_others_nothing(shared: bool) -> None:
    for writes in range(40):
        dying, sound, clock, _ = stores()
        await sharing.note_repeats(sound)
        await make(sound, A)
        assert not shared or await repeat(sound, B)
        dying.light(writes)
        try:
            await remove(dying, "t", A)
            died = False
        except AdaptiveGenError:
            died = True
        sweep = Sweep(sound, clock=clock)
        await sweep.sweep()
        await clock.advance(SETTLED_S)
        await sweep.sweep()
        if await sound.tombstone("t", A) is None:
            assert writes == 0  # nothing was begun
            continue
        if shared:
            assert (await sound.find("t", B)).final is not None
            assert len(await keys(sound, "out/")) == 2
            await remove(sound, "t", B)
        assert await left_of(sound, A) == []
        assert await keys(sound, "out/") == []
        if not died:
            return
    raise AssertionError("the fuse never lasted")


async def test_two_removals_and_a_repeat_at_once_never_leave_a_video_without_its_media(jobs: JobStore) -> None:
    for round_number in range(20):
        owner, other = (f"vid_01hzzzzzzzzzzzzzzzzzzzz{round_number:02d}{letter}" for letter in "ab")
        await make(jobs, owner)
        results = await asyncio.gather(
            remove(jobs, "t", owner), repeat(jobs, other), remove(jobs, "t", owner), return_exceptions=True
        )
        if results[1] is True:
            final = (await jobs.find("t", other)).final
            assert final is not None
            assert await jobs.blob.get(final.key) == b"a clip!"
            await remove(jobs, "t", other)
        await remove(jobs, "t", owner)
        assert await keys(jobs, "out/") == []
