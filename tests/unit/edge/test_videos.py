"""What an edge does with a request when it comes twice, dies half-way, or the scheduler answers oddly."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import (
    AdaptiveGenError,
    BrokerUnavailable,
    Cancelled,
    Conflict,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NodeUnavailable,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    StorageFailure,
)
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import ContentEntry, Manifest
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.media.upload import UploadLimits
from adaptivegen.models.registry import load_card
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.rpc.draft import DraftClient
from edge_node.draft.desk import DraftDesk
from edge_node.draft.places import DraftPlaces
from edge_node.hub import EventHub
from edge_node.videos import EdgeIdentity, Videos
from tests.jobs import media

BODY = {"prompt": "a red circle moves left over a sunset sky", "seed": 7}


class HeldModel:
    """Drafts that begin and wait."""

    ready = True
    queued = 0

    def __init__(self) -> None:
        self.started: list[str] = []
        self.go = asyncio.Event()

    async def generate(
        self, command: GenerateCommand, start_mp4: bytes | None, on_step: Callable[[Step], None]
    ) -> Generated:
        self.started.append(command.request_id)
        await self.go.wait()
        return Generated(mp4=b"draft", width=128, height=128, frames=24, generate_ms=1.0, encode_ms=1.0)


class ScriptedPlacer:
    """A scheduler that answers as told; by default with a refine here."""

    def __init__(self) -> None:
        self.error: AdaptiveGenError | None = None
        self.changes: dict[str, Any] = {}
        self.queries: list[PlacementQuery] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def place(self, query: PlacementQuery) -> Decision:
        self.queries.append(query)
        self.asked.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        decision = Decision(
            job_id=query.job_id,
            plan="hit" if query.content_known else "refine",
            edge_id=query.edge_id,
            pool="default",
            final_steps=4,
            refine_t0=0.5,
            decided_by="scheduler-1",
            decided_at_ns=1,
            reasons=("because",),
        )
        return decision.model_copy(update=self.changes)


class Edge:
    """The application service of one edge on memory parts."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.bus = MemoryBus(clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=clock)
        self.model = HeldModel()
        self.placer = ScriptedPlacer()
        self.accepted: list[str] = []
        self.hub = EventHub(node_id="edge-1", jobs=self.jobs, clock=clock)
        card = load_card("pocket-draft")
        self.desk = DraftDesk(
            node_id="edge-1",
            places=DraftPlaces(
                node_id="edge-1",
                runner=self.model,  # type: ignore[arg-type]
                card=card,
                peers=DraftClient(tls=None),
                clock=clock,
                attempted=lambda attempt: None,
            ),
            jobs=self.jobs,
            hub=self.hub,
            card=card,
            clock=clock,
            observe=lambda times: None,
        )
        self.videos = Videos(
            identity=EdgeIdentity("edge-1", "127.0.0.1:1", "default", "pocket-cloud"),
            jobs=self.jobs,
            hub=self.hub,
            desk=self.desk,
            runner=self.model,  # type: ignore[arg-type]
            draft_card=card,
            placer=self.placer,
            clock=clock,
            rng=random.Random(1),
            max_waiting_drafts=8,
            borrows=True,
            upload_limits=UploadLimits(max_bytes=1000),
            on_accepted=lambda record, decision, fresh: self.accepted.append(record.id),
        )

    async def create(self, key: str | None = "k", **changes: object) -> JobRecord:
        return await self.videos.create("t", {**BODY, **changes}, upload=None, idempotency_key=key)

    async def queued(self) -> list[str]:
        queue = await self.bus.work_queue("default", ack_wait_s=30)
        found = []
        while (delivery := await queue.pull(timeout_s=0)) is not None:
            found.append(JobMessage.decode(delivery.data).id)
        return found

    async def specs(self) -> list[str]:
        return [job_id async for _, job_id in self.jobs.specs()]

    async def decided_by(self, record: JobRecord) -> str:
        return (await self.jobs.spec("t", record.id)).decision.decided_by


@asynccontextmanager
async def edge() -> AsyncIterator[Edge]:
    made = Edge()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.hub.run()), group.create_task(made.desk.run())]
        await asyncio.sleep(0)
        yield made
        for task in tasks:
            assert not task.done()
            task.cancel()


# ---- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "retry_after_s"),
    [
        ("quota_exceeded", QuotaExceeded, 9.0),
        ("overloaded", Overloaded, 3.0),
        ("permission_denied", PermissionDenied, None),
    ],
)
async def test_a_refusal_is_the_clients_to_hear_and_leaves_nothing_behind(
    code: str, error: type[AdaptiveGenError], retry_after_s: float | None
) -> None:
    async with edge() as made:
        made.placer.changes = {
            "plan": "refuse",
            "refused": code,
            "refused_param": "pool",
            "retry_after_s": retry_after_s,
        }
        with pytest.raises(error, match="because") as refused:
            await made.create()
        assert (refused.value.param, refused.value.retry_after_s) == ("pool", retry_after_s)
        assert (await made.specs(), await made.queued(), made.accepted) == ([], [], [])
        made.placer.changes = {}
        assert (await made.create()).status == "queued"  # the same key, asked again


async def test_a_refusal_for_no_known_reason_is_no_decision() -> None:
    async with edge() as made:
        made.placer.changes = {"plan": "refuse", "refused": "mood"}
        record = await made.create()
        assert await made.decided_by(record) == "edge-1"


async def test_what_a_request_may_wait_for_reaches_the_scheduler() -> None:
    async with edge() as made:
        await made.create(service_tier="flex", deadline_s=30, allow_reduced=True)
        asked = made.placer.queries[-1]
        assert (asked.tier, asked.deadline_s, asked.allow_reduced) == ("flex", 30.0, True)


async def test_an_upgrade_may_be_refused_and_leaves_the_draft_as_it_is() -> None:
    async with edge() as made:
        made.placer.changes = {"plan": "draft", "final_steps": 0}
        record = await made.create(intent="iterate")
        made.model.go.set()
        while (await made.videos.get("t", record.id)).status != "completed":
            await asyncio.sleep(0.001)
        made.placer.changes = {"plan": "refuse", "refused": "overloaded", "retry_after_s": 5.0}
        with pytest.raises(Overloaded):
            await made.videos.upgrade("t", record.id)
        assert (await made.videos.get("t", record.id)).status == "completed"


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

        async def dies(record: JobRecord) -> JobRecord:
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
        listed, more = await made.videos.list("t", after=None, limit=20, ascending=False)
        assert ([record.id for record in listed], more) == ([good.id], False)


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
