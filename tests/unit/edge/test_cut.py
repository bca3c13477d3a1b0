"""What one edge does with requests while broker or store fail under it; the ways of failing are the test's."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from adaptivegen.errors import (
    AdaptiveGenError,
    BrokerUnavailable,
    Conflict,
    NodeUnavailable,
    NotFound,
    StorageFailure,
    StorageFull,
    StorageReadOnly,
    Unavailable,
)
from adaptivegen.jobs.spec import ContentEntry, Manifest, job_key
from adaptivegen.jobs.store import JobStore
from edge_node.spool.rules import Later
from tests.unit.edge.bench import Edge, edge
from tests.unit.edge.cutting import Failing, connect, drafted, handed_over, partition
from tests.unit.edge.test_known import clip


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), StorageFailure("away")], ids=lambda error: error.code)
async def test_a_request_whose_way_to_the_centre_fails_is_kept_here_and_says_so(
    tmp_path: Path, error: AdaptiveGenError
) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = error
        record = await made.create()
        assert record.status == "queued"
        assert "kept at edge-1" in record.notes[0]
        assert made.accepted == [record.id]
        spec = await partition(made).spool.jobs.spec("t", record.id)
        assert spec.decision.decided_by == "edge-1"
        assert "cut off" in spec.decision.reasons[0]
        assert made.placer.queries == []  # nobody was asked for a place before it is known that there is a job
        assert await made.create() == record
        with pytest.raises(Conflict):
            await made.create(seed=8)


async def test_after_a_request_and_a_probe_failed_the_centre_is_not_asked_until_it_has_answered_for_a_while(
    tmp_path: Path,
) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = StorageFailure("away")
        for number in range(2):
            await made.create(key=None, seed=number)
        assert not partition(made).reach.cut_off  # is it the way there, or these calls?
        await partition(made).reach.probe()
        asked = centre.calls
        await made.create(key=None, seed=3)
        assert centre.calls == asked
        centre.away = None
        await partition(made).reach.probe()
        assert partition(made).reach.cut_off  # one good answer is none yet
        await connect(made)
        record = await made.create(key=None, seed=4)
        assert await made.specs() == [record.id]


async def test_a_scheduler_that_does_not_answer_is_no_cut(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        made.placer.error = NodeUnavailable("away")
        for number in range(3):
            record = await made.create(key=None, seed=number)
            assert record.notes == ()
        assert len(await made.specs()) == 3
        assert (len(partition(made).spool), partition(made).reach.cut_off) == (0, False)


@pytest.mark.parametrize("error", [StorageFull("full"), StorageReadOnly("read-only")], ids=lambda error: error.code)
async def test_a_store_that_refuses_is_no_cut(tmp_path: Path, error: AdaptiveGenError) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = error
        with pytest.raises(type(error)):
            await made.create()
        assert len(partition(made).spool) == 0


@pytest.mark.parametrize("where", ["before the spec", "after the spec", "at the queue"])
async def test_a_submission_cut_in_its_midst_is_one_job_whose_outcome_only_the_centre_changes(
    tmp_path: Path, where: str
) -> None:
    async with edge(tmp_path) as made:
        work_queue, put_if_absent = made.bus.work_queue, made.jobs.blob.put_if_absent

        async def cut(*args: object, **kwargs: object) -> Any:
            raise BrokerUnavailable("away")

        async def cut_at_spec(key: str, data: bytes) -> bool:
            if key.endswith("/spec"):
                if where == "after the spec":  # it is written, and its answer is lost
                    await put_if_absent(key, data)
                raise StorageFailure("away")
            return await put_if_absent(key, data)

        if where == "at the queue":
            made.bus.work_queue = cut  # type: ignore[method-assign]
        else:
            made.jobs.blob.put_if_absent = cut_at_spec  # type: ignore[method-assign]
        record = await made.create()
        assert partition(made).spool.state("t", record.id) == "begun"
        partition(made).reach.trip(BrokerUnavailable("away"))
        with pytest.raises(Unavailable) as raised:
            await made.videos.cancel("t", record.id)
        assert raised.value.retry_after_s
        await drafted(made, record.id)
        made.bus.work_queue = work_queue  # type: ignore[method-assign]
        made.jobs.blob.put_if_absent = put_if_absent  # type: ignore[method-assign]
        await connect(made)
        await handed_over(made)
        assert await made.specs() == [record.id]
        assert await made.queued() == [record.id]
        told = await made.videos.get("t", record.id)
        assert told.draft is not None
        assert (await made.videos.cancel("t", record.id)).status == "cancelled"


@pytest.mark.parametrize("late", [False, True], ids=["no other attempt", "another attempt's spec comes later"])
async def test_a_job_whose_submission_or_handover_died_can_be_cancelled_while_it_waits_and_stays_so(
    tmp_path: Path, late: bool
) -> None:
    async with edge(tmp_path) as made:
        put_if_absent, died = made.jobs.blob.put_if_absent, [True]

        async def dying(key: str, data: bytes) -> bool:
            if died and key.endswith("/spec"):
                raise StorageFailure("away")
            return await put_if_absent(key, data)

        made.jobs.blob.put_if_absent = dying  # type: ignore[method-assign]
        record = await made.create()
        spec = await partition(made).spool.jobs.spec("t", record.id)
        await drafted(made, record.id)
        with pytest.raises(StorageFailure):
            await handed_over(made)
        assert partition(made).spool.state("t", record.id) == "begun"
        assert (await made.videos.cancel("t", record.id)).status == "cancelled"
        assert (await made.videos.cancel("t", record.id)).status == "cancelled"
        assert (await made.videos.get("t", record.id)).status == "cancelled"
        died.clear()
        if late:
            await made.jobs.submit(spec)
        await handed_over(made)
        assert (await made.jobs.find("t", record.id)).status == "cancelled"
        assert (await made.jobs.from_store("t", record.id)).status == "cancelled"
        assert await made.queued() == ([record.id] if late else [])


async def test_a_job_that_ended_at_the_centre_by_another_attempt_is_not_cancelled_here(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        put_if_absent = made.jobs.blob.put_if_absent

        async def dying(key: str, data: bytes) -> bool:
            if key.endswith("/spec"):
                raise StorageFailure("away")
            return await put_if_absent(key, data)

        made.jobs.blob.put_if_absent = dying  # type: ignore[method-assign]
        record = await made.create()
        ended = Manifest(id=record.id, tenant="t", outcome="completed", epoch=0, finished_at_ns=9, final=clip("f")[0])
        await made.jobs.blob.put(job_key("t", record.id, "manifest"), ended.encode())  # a repeat's, its spec not yet
        with pytest.raises(Unavailable, match="handed over"):
            await made.videos.cancel("t", record.id)
        assert (await partition(made).spool.jobs.find("t", record.id)).status == "queued"


@pytest.mark.parametrize(
    ("refused", "of_tenant"), [("quota_exceeded", True), ("overloaded", False), ("permission_denied", None)]
)
async def test_a_refusal_with_a_time_is_a_hint_for_the_way_back_and_never_an_error(
    tmp_path: Path, refused: str, of_tenant: bool | None
) -> None:
    async with edge(tmp_path) as made:
        record = await made.create()
        spec = await made.jobs.spec("t", record.id)
        retry_after_s = 12.0 if of_tenant is not None else None
        made.placer.changes = {"plan": "refuse", "refused": refused, "retry_after_s": retry_after_s}
        again = await made.videos.placing.again(spec, True)
        assert again == (Later(12.0, of_tenant, refused) if of_tenant is not None else None)


async def test_a_hit_while_cut_off_is_of_the_tenants_own_and_complete_at_once(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        record = await made.create(key=None)
        spec = await made.jobs.spec("t", record.id)
        media, data = clip("a")
        await made.jobs.blob.put(media.key, data)
        entry = ContentEntry(id=record.id, final=media, draft=None, final_steps=4, draft_steps=0)
        held = partition(made)
        await held.known.remember("t", spec.content_key, entry, made.jobs.blob)
        centre.away = StorageFailure("away")
        held.reach.trip(centre.away)
        hit = await made.create(key=None)
        assert (hit.status, hit.plan, hit.cached, hit.final) == ("completed", "hit", True, media)
        read = b"".join([piece async for piece in made.videos.read(media, start=0, end=None)])
        assert read == data
        assert made.videos.only_here(media)
        strangers = await made.videos.create(
            "stranger", {"prompt": record.prompt, "seed": 7}, upload=None, idempotency_key=None
        )
        assert strangers.status == "queued"
        with pytest.raises(Unavailable):
            await made.videos.get("stranger", hit.id)
        page = await made.videos.list("stranger", after=None, limit=10, ascending=True)
        assert ([video.id for video in page.records], page.partial) == ([strangers.id], True)
        centre.away = None
        await connect(made)
        made.model.go.set()
        await handed_over(made)
        assert await made.queued() == [record.id, strangers.id]
        assert (await made.jobs.from_store("t", hit.id)).final == media


async def test_a_draft_that_is_finished_when_the_centre_has_gone_is_kept_told_and_handed_over(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        record = await made.create()
        while not made.model.started:
            await asyncio.sleep(0.001)
        centre.away = StorageFailure("away")
        made.model.go.set()
        while (await partition_draft(made, record.id)) is None:
            await asyncio.sleep(0.001)
        while made.desk.drafting("t", record.id):
            await asyncio.sleep(0.001)
        partition(made).reach.trip(centre.away)
        told = await made.videos.get("t", record.id)
        assert told.draft is not None
        assert "sheltered" in told.notes
        centre.away = None
        await connect(made)
        await handed_over(made)
        assert (await made.jobs.from_store("t", record.id)).draft == told.draft
        assert await made.queued() == [record.id]


async def partition_draft(made: Edge, job_id: str) -> object:
    try:
        return (await partition(made).spool.jobs.find("t", job_id)).draft
    except NotFound:
        return None


async def test_a_cancel_and_a_handover_do_not_meet(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = StorageFailure("away")
        record = await made.create()
        await drafted(made, record.id)
        centre.away = None
        await connect(made)
        async with partition(made).spool.lock("t", record.id):
            cancelling = asyncio.create_task(made.videos.cancel("t", record.id))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not cancelling.done()
            await handed_over(made)
        assert (await cancelling).status == "cancelled"
        manifest = await made.jobs.manifest("t", record.id)  # at the centre: there it counts
        assert manifest is not None and manifest.outcome == "cancelled"


async def test_without_a_spool_a_cut_is_an_error_as_before() -> None:
    async with edge() as made:
        centre = Failing(made)
        centre.away = StorageFailure("away")
        with pytest.raises(StorageFailure):
            await made.create()
        assert isinstance(made.sides.of("t", "vid_x"), JobStore)
