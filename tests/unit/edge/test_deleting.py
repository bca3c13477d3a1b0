"""What an edge does when its clients delete videos, and when others have."""

import asyncio
from pathlib import Path

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.errors import Conflict, InvalidRequest, NotFound, Unavailable
from adaptivegen.jobs import sharing
from adaptivegen.jobs.purges import Purge, PurgeNames, note, tell
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import ContentEntry, Deleted, Manifest, Media, job_key, media_key
from adaptivegen.request import Reference
from adaptivegen.rpc.video import Page
from edge_node.purges import Purges
from edge_node.spool.handover import GONE_NOTE
from tests.jobs import JOB_ID, make_spec
from tests.unit.edge.bench import Edge, edge
from tests.unit.edge.spooling import Bench, bench, refine
from tests.unit.edge.test_drain import Draining
from tests.unit.edge.test_known import opened, remember
from tests.unit.jobs.crashing import queued_ids

OWNER = "vid_01hzzzzzzzzzzzzzzzzzzzzzz9"


def made_by(job_id: str) -> Media:
    sha256 = "a" * 64
    key = media_key("t", job_id, 1, sha256)
    return Media(key=key, sha256=sha256, size_bytes=4, width=8, height=8, frames=1, fps=1)


async def finished(made: Edge) -> JobRecord:
    """A video that went all the way, found by repeats."""
    await sharing.note_repeats(made.jobs)
    record = await made.create(key="k1")
    final = made_by(record.id)
    await made.jobs.blob.put(final.key, b"clip")
    done = Manifest(id=record.id, tenant="t", outcome="completed", epoch=1, finished_at_ns=2, final=final)
    await made.jobs.finish(done)
    spec = await made.jobs.spec("t", record.id)
    entry = ContentEntry(id=record.id, final=final, draft=None, final_steps=4, draft_steps=4)
    await made.jobs.index_content(spec, entry)
    return await made.jobs.find("t", record.id)


async def test_a_deleted_video_is_not_found_and_deleting_it_again_is_no_error() -> None:
    async with edge() as made:
        record = await finished(made)
        for _ in range(2):
            await made.videos.delete("t", record.id)
        for ask in (
            made.videos.get("t", record.id),
            made.videos.media("t", record.id, "video"),
            made.videos.cancel("t", record.id),
            made.videos.upgrade("t", record.id),
            anext(aiter(made.videos.watch("t", record.id, after=None))),
        ):
            with pytest.raises(NotFound):
                await ask
        assert await made.videos.list("t", after=None, limit=10, ascending=False) == Page([], has_more=False)
        assert [meta.key async for meta in made.jobs.blob.list("out/")] == []


async def test_only_its_tenant_deletes_a_video_and_only_what_is_one() -> None:
    async with edge() as made:
        record = await finished(made)
        with pytest.raises(NotFound):
            await made.videos.delete("other", record.id)
        with pytest.raises(InvalidRequest):
            await made.videos.delete("t", "../jobs")
        assert (await made.videos.get("t", record.id)).status == "completed"


async def test_a_video_in_the_making_is_cancelled_with_its_draft_and_its_watchers_are_told() -> None:
    async with edge() as made:
        record = await made.create()
        while not made.model.started:
            await asyncio.sleep(0.001)
        kinds: list[str] = []
        watching = asyncio.Event()

        async def watch() -> None:
            async for event in made.videos.watch("t", record.id, after=None):
                kinds.append(event.type)
                watching.set()

        task = asyncio.create_task(watch())
        await watching.wait()
        await made.videos.delete("t", record.id)
        await task
        assert kinds[-1] == "cancelled"
        assert (made.desk.active, made.desk.drafting("t", record.id)) == (0, False)


async def test_the_idempotency_key_of_a_deleted_video_makes_no_other() -> None:
    async with edge() as made:
        record = await finished(made)
        await made.videos.delete("t", record.id)
        with pytest.raises(Conflict, match="was deleted") as raised:
            await made.create(key="k1")
        assert raised.value.param == "idempotency_key"
        assert (await made.create(key="k2")).status == "queued"


async def test_a_repeat_is_a_hit_while_another_holds_the_content_and_made_anew_afterwards() -> None:
    async with edge() as made:
        first = await finished(made)
        second = await made.create(key="k2")
        await made.videos.delete("t", first.id)
        third = await made.create(key="k3")
        assert (second.status, third.status, third.final) == ("completed", "completed", first.final)
        assert await made.jobs.blob.get(made_by(first.id).key) == b"clip"
        for record in (second, third):
            await made.videos.delete("t", record.id)
        assert (await made.create(key="k4")).status == "queued"


async def test_a_repeat_of_what_is_going_this_moment_is_decided_on_anew() -> None:
    async with edge() as made:
        first = await finished(made)
        await made.jobs.blob.put(job_key("t", first.id, "closed"), b"[]")  # by a removal elsewhere
        second = await made.create(key="k2")
        assert (second.status, [query.content_known for query in made.placer.queries[-2:]]) == ("queued", [True, False])
        assert [meta.key async for meta in made.jobs.blob.list("content/")] == []


async def test_what_waits_in_a_spool_is_not_deleted_before_it_is_handed_over(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        record = await finished(made)
        assert made.partition is not None
        made.partition.reach.trip(Unavailable("away"))
        spooled = await made.create(key="k2", prompt="a blue square")
        assert made.partition.spool.state("t", spooled.id) == "spooled"
        with pytest.raises(Unavailable, match="handed over"):
            await made.videos.delete("t", spooled.id)
        with pytest.raises(Unavailable):
            await made.videos.delete("t", OWNER)  # which may be at the centre
        assert (await made.videos.get("t", spooled.id)).status == "queued"
        assert (await made.jobs.find("t", record.id)).status == "completed"


# ---- deleted by others -------------------------------------------------------------------------------------------


async def test_a_purge_takes_finals_off_the_disk_and_stops_only_drafts_of_deleted_videos(tmp_path: Path) -> None:
    async with edge(tmp_path) as made, asyncio.TaskGroup() as group:
        assert made.partition is not None
        known = made.partition.known
        entries = {name: await remember(known, name) for name in "ab"}
        records = [await made.create(key=name, prompt=name) for name in ("one", "two")]
        await asyncio.sleep(0.05)
        task = group.create_task(
            Purges(jobs=made.jobs, desk=made.desk, partition=made.partition, clock=made.clock).run()
        )
        await asyncio.sleep(0)
        await remove(made.jobs, "t", records[0].id)
        hint = Purge(tenant="t", videos=(records[1].id,), sha256=(entries["a"].final.sha256,), deleted=True)
        await tell(made.bus, hint)  # the second video was not deleted
        async with asyncio.timeout(10):
            while known.has(entries["a"].final.key) or made.desk.drafting("t", records[0].id):
                await asyncio.sleep(0.01)
        assert await known.find("t", "a") is None
        assert await known.find("t", "b") == entries["b"]
        assert made.desk.drafting("t", records[1].id)
        task.cancel()


async def test_finals_purged_while_an_edge_was_away_are_dropped_when_it_comes_back(tmp_path: Path) -> None:
    blob, clock = open_store("memory://"), Bench(tmp_path / "spool").clock
    known = await opened(tmp_path / "known")

    def life() -> PurgeNames:
        return PurgeNames(blob, path=tmp_path / "looked", clock=clock, drop=known.drop, drop_all=known.drop_all)

    await life().look()
    entries = {name: await remember(known, name) for name in "ab"}
    await clock.advance(3 * 86400)
    await note(blob, [entries["a"].final.sha256], clock=clock)
    await clock.advance(3 * 86400)
    back = life()
    await back.look()
    assert (await known.find("t", "a"), await known.find("t", "b")) == (None, entries["b"])
    again = await remember(known, "a")
    await back.look()  # the same name again lets go of nothing
    assert await known.find("t", "a") == again
    await note(blob, [again.final.sha256], clock=clock)  # and another purge of the same does
    await back.look()
    assert await known.find("t", "a") is None
    await clock.advance(40 * 86400)  # longer than names are kept
    await life().look()
    assert len(known) == 0


async def test_a_final_that_is_dropped_while_it_is_copied_is_not_kept(tmp_path: Path) -> None:
    known = await opened(tmp_path)
    put = known.blob.put

    async def slow(key: str, data: bytes) -> None:
        await put(key, data)
        if key.startswith("out/"):
            await known.drop([key.rpartition("/")[2].removesuffix(".mp4")])

    known.blob.put = slow  # type: ignore[method-assign]
    await remember(known, "a")
    assert (await known.find("t", "a"), len(known)) == (None, 0)


# ---- on the way from a spool --------------------------------------------------------------------------------------


async def test_a_repeat_answered_while_cut_off_is_made_anew_where_its_content_was_deleted_meanwhile(
    tmp_path: Path,
) -> None:
    made = await bench(tmp_path)
    await made.put(refine(), draft=None)
    final = made_by(OWNER)
    hit = Manifest(
        id=JOB_ID, tenant="t", outcome="completed", epoch=0, finished_at_ns=2, final=final, plan="hit", cached=True
    )
    await made.spool.jobs.finish(hit)
    await made.centre.blob.put(job_key("t", OWNER, "closed"), b"[]")
    _, record = await made.hand_over()
    assert (record.status, record.final) == ("queued", None)
    assert GONE_NOTE in record.notes
    assert (made.asked, await queued_ids(made.bus), made.files()) == ([(JOB_ID, False)], [JOB_ID], [])


async def test_a_repeat_answered_while_cut_off_holds_its_content_once_it_is_handed_over(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await sharing.note_repeats(made.centre)
    await made.centre.submit(make_spec(job_id=OWNER))
    final = made_by(OWNER)
    await made.centre.blob.put(final.key, b"clip")
    await made.centre.finish(
        Manifest(id=OWNER, tenant="t", outcome="completed", epoch=1, finished_at_ns=2, final=final)
    )
    await made.put(refine(), draft=None)
    await made.spool.jobs.finish(
        Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=0, finished_at_ns=2, final=final, cached=True)
    )
    _, record = await made.hand_over()
    assert (record.status, record.final) == ("completed", final)
    assert (await remove(made.centre, "t", OWNER)).kept


async def test_a_job_that_was_deleted_at_the_centre_leaves_the_spool_and_is_not_brought_back(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    key = f"inputs/t/{JOB_ID}/{'e' * 64}"
    reference = Reference(kind="image", sha256="e" * 64, key=key)
    spec = refine()
    spec = spec.model_copy(update={"request": spec.request.model_copy(update={"reference": reference})})
    await made.put(spec, begun=True)
    await made.spool.blob.put(key, b"upload")
    await made.centre.submit(spec)
    await remove(made.centre, "t", JOB_ID)
    with pytest.raises(Deleted):
        await made.hand_over()
    one = Draining(made)
    async with asyncio.TaskGroup() as group:
        pass_ = group.create_task(one.drainer.drain())
        while not pass_.done():
            await one.goes_on(0.1)
    assert pass_.result()
    assert (one.handed, len(made.spool)) == ([], 0)
    assert made.files() == []
    with pytest.raises(NotFound):
        await made.centre.find("t", JOB_ID)
