"""What an edge does with a request when it comes twice, dies half-way, or the scheduler answers oddly."""

import asyncio
from typing import Any

import pytest

from adaptivegen.errors import (
    AdaptiveGenError,
    BrokerUnavailable,
    Cancelled,
    Conflict,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    PermissionDenied,
    StorageFailure,
)
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import ContentEntry, Manifest
from tests.jobs import media
from tests.unit.edge.bench import Edge, edge

# ---- the same request twice ----------------------------------------------------------------------------------------


async def test_a_request_sent_twice_at_once_is_one_video_with_one_draft_and_one_message() -> None:
    async with edge() as made:
        made.placer.go.clear()
        async with asyncio.TaskGroup() as group:
            sent = [group.create_task(made.create(seed=None)) for _ in range(4)]
            await made.placer.asked.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            made.placer.go.set()
        records = [task.result() for task in sent]
        assert len({record.id for record in records}) == 1
        assert len({record.seed for record in records}) == 1
        assert await made.specs() == [records[0].id]
        assert await made.queued() == [records[0].id]
        while not made.model.started:
            await asyncio.sleep(0.001)
        assert made.model.started == [records[0].id]


async def test_a_retry_after_a_queue_that_did_not_answer_queues_and_drafts_what_the_first_made_durable() -> None:
    async with edge() as made:
        work_queue = made.bus.work_queue

        async def away(*args: object, **kwargs: object) -> Any:
            raise BrokerUnavailable("away")

        made.bus.work_queue = away  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            await made.create()
        made.bus.work_queue = work_queue  # type: ignore[method-assign]
        record = await made.create()
        assert await made.specs() == [record.id]
        assert await made.queued() == [record.id]
        while not made.model.started:
            await asyncio.sleep(0.001)
        assert made.accepted == [record.id]


async def test_a_retry_after_an_attempt_that_died_before_its_spec_takes_its_id() -> None:
    async with edge() as made:
        made.placer.error = InvalidRequest.field("plan", "x", "y")
        with pytest.raises(InvalidRequest):
            await made.create()
        made.placer.error = None
        record = await made.create()
        again = await made.create()
        assert (again.id, again.seed) == (record.id, record.seed)
        assert await made.queued() == [record.id]


async def test_a_key_with_another_body_is_refused() -> None:
    async with edge() as made:
        await made.create()
        with pytest.raises(Conflict):
            await made.create(seed=8)


# ---- schedulers that do not decide -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        NodeUnavailable("away"),
        InternalError("a bug in the scheduler"),
        PermissionDenied("not this edge"),
        Cancelled("draining"),
        Conflict("odd"),
        StorageFailure("odd"),
    ],
    ids=lambda error: error.code,
)
async def test_an_edge_decides_alone_whatever_goes_wrong_at_the_scheduler(error: AdaptiveGenError) -> None:
    async with edge() as made:
        made.placer.error = error
        record = await made.create()
        assert record.status == "queued"
        assert await made.decided_by(record) == "edge-1"


@pytest.mark.parametrize("changes", [{"job_id": "vid_other"}, {"plan": "hit"}], ids=["job", "hit"])
async def test_a_decision_that_is_not_on_this_request_is_not_followed(changes: dict[str, Any]) -> None:
    async with edge() as made:
        made.placer.changes = changes
        record = await made.create()
        assert await made.decided_by(record) == "edge-1"
        assert record.plan == "refine"


@pytest.mark.parametrize("error", [InvalidRequest.field("plan", 1, "2"), ModelNotFound("no model")])
async def test_what_the_client_did_wrong_is_told_to_the_client(error: AdaptiveGenError) -> None:
    async with edge() as made:
        made.placer.error = error
        with pytest.raises(type(error)):
            await made.create()
        assert await made.specs() == []


# ---- repeats and upgrades --------------------------------------------------------------------------------------------


async def finished(made: Edge) -> JobRecord:
    """A video with a final, known to the content index."""
    record = await made.create(key=None)
    spec = await made.jobs.spec("t", record.id)
    final = media()
    manifest = Manifest(id=record.id, tenant="t", outcome="completed", epoch=1, finished_at_ns=2, final=final)
    await made.jobs.finish(manifest)
    entry = ContentEntry(id=record.id, final=final, draft=None, final_steps=4, draft_steps=0)
    await made.jobs.index_content(spec, entry)
    return record


async def test_a_repeat_is_complete_at_once_and_a_damaged_index_entry_is_a_miss() -> None:
    async with edge() as made:
        first = await finished(made)
        again = await made.create(key="k2")
        assert (again.status, again.cached, again.final) == ("completed", True, media())
        assert again.id != first.id
        (entry,) = [meta.key async for meta in made.jobs.blob.list("content/")]
        await made.jobs.blob.put(entry, b"damaged")
        assert (await made.create(key="k3")).status == "queued"


async def test_a_repeat_that_died_half_way_is_completed_by_its_retry() -> None:
    async with edge() as made:
        await finished(made)
        put_if_absent = made.jobs.blob.put_if_absent

        async def dies(key: str, data: bytes) -> bool:
            if key.endswith("/spec"):
                raise StorageFailure("the process died here")
            return await put_if_absent(key, data)

        made.jobs.blob.put_if_absent = dies  # type: ignore[method-assign]
        with pytest.raises(StorageFailure):
            await made.create(key="k2")
        made.jobs.blob.put_if_absent = put_if_absent  # type: ignore[method-assign]
        assert (await made.create(key="k2")).status == "completed"


async def test_a_repeat_that_died_before_its_index_is_complete_for_its_retry() -> None:
    async with edge() as made:
        await finished(made)
        create = made.jobs.index.create

        async def dies(record: JobRecord, *, known: bool) -> JobRecord:
            raise BrokerUnavailable("the process died here")

        made.jobs.index.create = dies  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            await made.create(key="k2")
        made.jobs.index.create = create  # type: ignore[method-assign]
        again = await made.create(key="k2")
        assert (again.status, again.final) == ("completed", media())
        assert (await made.videos.get("t", again.id)).status == "completed"


async def test_a_cancelled_video_is_not_upgraded_and_a_finished_one_is_told_as_it_is() -> None:
    async with edge() as made:
        done = await finished(made)
        assert (await made.videos.upgrade("t", done.id)).status == "completed"
        other = await made.create(key="k2", seed=8)
        await made.videos.cancel("t", other.id)
        with pytest.raises(Conflict):
            await made.videos.upgrade("t", other.id)


async def test_a_video_without_its_draft_yet_is_not_upgraded() -> None:
    async with edge() as made:
        made.placer.changes = {"plan": "draft"}
        record = await made.create()
        with pytest.raises(Conflict, match="no draft yet"):
            await made.videos.upgrade("t", record.id)
        assert len(made.placer.queries) == 1  # nobody was asked for a place


async def test_a_video_that_cannot_be_read_does_not_hide_the_others() -> None:
    async with edge() as made:
        damaged, good = await made.create(key="a"), await made.create(key="b", seed=8)
        await (await made.bus.kv("jobs")).put(damaged.key, b'{"of": "another version"}')
        await made.jobs.blob.put(f"jobs/t/{damaged.id}/spec", b"likewise")
        page = await made.videos.list("t", after=None, limit=20, ascending=False)
        assert ([record.id for record in page.records], page.has_more, page.partial) == ([good.id], False, False)


async def test_an_upgrade_whose_message_was_lost_is_queued_by_asking_again() -> None:
    async with edge() as made:
        made.placer.changes = {"plan": "draft"}
        record = await made.create()
        made.model.go.set()
        while not (await made.videos.get("t", record.id)).ended:
            await asyncio.sleep(0.001)
        made.placer.changes = {}
        work_queue = made.bus.work_queue

        async def away(*args: object, **kwargs: object) -> Any:
            raise BrokerUnavailable("away")

        made.bus.work_queue = away  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            await made.videos.upgrade("t", record.id)
        made.bus.work_queue = work_queue  # type: ignore[method-assign]
        upgraded = await made.videos.upgrade("t", record.id)
        assert (upgraded.status, upgraded.want_final) == ("queued", True)
        assert await made.queued() == [record.id]
