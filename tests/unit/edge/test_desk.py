"""The draft desk: drafts stored and handed out, failures that stay small, tokens."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Subscription
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import GenerationFailed, NodeUnavailable, NotFound, PermissionDenied
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.events import decode_event, make_event
from adaptivegen.jobs.record import JobRecord, claim
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.rpc.draft import DraftClient
from edge_node.draft.desk import KEPT_DRAFTS, DraftDesk, DraftTimes
from edge_node.draft.places import DraftPlaces
from edge_node.hub import EventHub
from tests.cards import draft_card
from tests.draft_models import draft_models
from tests.jobs import JOB_ID, make_spec

MP4 = b"a draft clip"


class ScriptedModel:
    """Stands where the runner does: two looks, then the clip, an error, or a wait until it is stopped."""

    ready, busy, queued = True, False, 0

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.running = asyncio.Event()
        self.commands: list[GenerateCommand] = []
        self.stopped = False

    async def generate(
        self,
        command: GenerateCommand,
        start_mp4: bytes | None,
        on_step: Callable[[Step], None],
        *,
        tenant: str = "",
        yields_s: float = 0.0,
        on_begin: Callable[[], None] | None = None,
    ) -> Generated:
        self.commands.append(command)
        on_step(Step(step=1, steps=2, stage="base", look_jpeg=b"look 1"))
        on_step(Step(step=2, steps=2, stage="base", look_jpeg=b"look 2"))
        self.running.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped = True
            raise
        if self.error is not None:
            raise self.error
        return Generated(mp4=MP4, width=128, height=128, frames=24, generate_ms=1.0, encode_ms=1.0, familiarity=0.9)


class Edge:
    """A desk on memory parts."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.bus = MemoryBus(clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=clock)
        self.model = ScriptedModel()
        self.times: list[DraftTimes] = []
        self.over: list[str] = []
        self.hub = EventHub(node_id="edge-1", jobs=self.jobs, clock=clock)
        self.desk = DraftDesk(
            node_id="edge-1",
            places=DraftPlaces(
                node_id="edge-1",
                models=draft_models(draft_card(), self.model, clock=clock),
                peers=DraftClient(tls=None),
                clock=clock,
                attempted=lambda attempt: None,
            ),
            jobs=self.jobs,
            hub=self.hub,
            clock=clock,
            observe=self.times.append,
            over=self.over.append,
        )

    async def begin(self, spec: JobSpec) -> None:
        _, record = await self.jobs.submit(spec)
        self.desk.begin(spec, record, None)

    async def record(self, job_id: str = JOB_ID) -> JobRecord:
        return await self.jobs.find("t", job_id)


@asynccontextmanager
async def edge() -> AsyncIterator[Edge]:
    made = Edge()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(made.desk.run())
        await asyncio.sleep(0)
        yield made
        assert not task.done()
        task.cancel()


async def events(subscription: Subscription, last: str) -> list[str]:
    """Types of the events up to `last`."""
    found: list[str] = []
    async for message in subscription:
        found.append(decode_event(message.data).type)
        if found[-1] == last:
            break
    return found


async def test_a_draft_is_stored_told_look_by_look_and_handed_to_its_worker() -> None:
    async with edge() as made:
        heard = await made.bus.subscribe(f"ag.events.t.{JOB_ID}")
        await made.begin(make_spec())
        assert (await made.desk.wait_for("t", JOB_ID, "dt_x")).mp4 == MP4
        assert await events(heard, "draft.completed") == [
            "draft.started",
            "draft.look",
            "draft.look",
            "draft.completed",
        ]
        assert made.over == [JOB_ID]
        record = await made.record()
        assert record.status == "queued"  # the final is still to come
        assert record.draft is not None and record.draft.sha256 == hashlib.sha256(MP4).hexdigest()
        assert record.draft.familiarity == 0.9
        assert await made.jobs.blob.get(record.draft.key) == MP4
        assert len(made.times) == 1 and made.times[0].first_look_s is not None
        (command,) = made.model.commands
        assert (command.request.width, command.request.steps, command.want_looks) == (128, 4, True)


async def test_a_draft_cancelled_before_it_began_leaves_nothing_behind() -> None:
    async with edge() as made:
        _, record = await made.jobs.submit(make_spec())
        made.desk.begin(make_spec(), record, None)
        made.desk.cancel("t", JOB_ID)
        with pytest.raises(NotFound):
            await made.desk.wait_for("t", JOB_ID, "dt_x")
        assert made.desk.active == 0
        assert made.model.commands == []


async def test_a_look_tells_the_state_the_job_has_by_then() -> None:
    async with edge() as made:
        made.model.go.clear()
        await made.hub.open("t", JOB_ID)
        heard = await made.bus.subscribe(f"ag.events.t.{JOB_ID}")
        _, record = await made.jobs.submit(make_spec())
        now_ns = record.updated_at_ns + 1
        claimed = await made.jobs.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=now_ns, lease_s=30))
        await made.hub.publish(make_event("started", claimed, producer="w1", now_ns=now_ns))
        made.desk.begin(make_spec(), record, None)
        made.model.go.set()
        async for message in heard:
            event = decode_event(message.data)
            if event.type == "draft.look":
                assert event.record.status == "in_progress"
            if event.type == "draft.completed":
                break


async def test_a_worker_that_comes_early_waits_for_the_draft() -> None:
    async with edge() as made:
        made.model.go.clear()
        await made.begin(make_spec())
        await made.model.running.wait()
        waiting = asyncio.get_running_loop().create_task(made.desk.wait_for("t", JOB_ID, "dt_x"))
        await asyncio.sleep(0)
        assert (made.desk.active, waiting.done()) == (1, False)
        made.model.go.set()
        assert (await waiting).mp4 == MP4
        await made.desk.drain()
        assert made.desk.active == 0


@pytest.mark.parametrize("token", ["", "dt_y", "dt_xx"])
async def test_a_wrong_token_gets_no_draft(token: str) -> None:
    async with edge() as made:
        await made.begin(make_spec())
        with pytest.raises(PermissionDenied):
            await made.desk.wait_for("t", JOB_ID, token)


async def test_a_token_that_is_not_ascii_gets_no_draft() -> None:
    async with edge() as made:
        await made.begin(make_spec())
        with pytest.raises(PermissionDenied):
            await made.desk.wait_for("t", JOB_ID, "dt_é")


async def test_another_tenants_or_an_unknown_draft_is_not_found() -> None:
    async with edge() as made:
        await made.begin(make_spec())
        for tenant, job_id in (("u", JOB_ID), ("t", "vid_01hzzzzzzzzzzzzzzzzzzzzzz9")):
            with pytest.raises(NotFound):
                await made.desk.wait_for(tenant, job_id, "dt_x")


@pytest.mark.parametrize("error", [GenerationFailed("the child died"), ZeroDivisionError("a bug")])
async def test_a_draft_that_fails_leaves_the_final_to_come_and_the_desk_open(error: Exception) -> None:
    async with edge() as made:
        made.model.error = error
        await made.begin(make_spec())
        with pytest.raises(NotFound, match="failed"):
            await made.desk.wait_for("t", JOB_ID, "dt_x")
        await made.desk.drain()
        record = await made.record()
        assert (record.status, record.draft) == ("queued", None)
        made.model.error = None
        other = make_spec(job_id="vid_01hzzzzzzzzzzzzzzzzzzzzzz1")
        await made.begin(other)
        assert (await made.desk.wait_for("t", other.id, "dt_x")).mp4 == MP4


@pytest.mark.parametrize(
    ("error", "code"), [(GenerationFailed("died"), "generation_failed"), (ZeroDivisionError("a bug"), "internal")]
)
async def test_a_job_that_is_only_a_draft_fails_with_it(error: Exception, code: str) -> None:
    async with edge() as made:
        made.model.error = error
        heard = await made.bus.subscribe(f"ag.events.t.{JOB_ID}")
        await made.begin(make_spec(plan="draft", want_final=False))
        assert (await events(heard, "failed"))[-1] == "failed"
        record = await made.record()
        assert record.status == "failed"
        assert record.error is not None and record.error.code == code


async def test_a_job_that_is_only_a_draft_ends_with_it() -> None:
    async with edge() as made:
        heard = await made.bus.subscribe(f"ag.events.t.{JOB_ID}")
        await made.begin(make_spec(plan="draft", want_final=False))
        assert (await events(heard, "completed"))[-2:] == ["draft.completed", "completed"]
        assert (await made.record()).status == "completed"


async def test_a_cancelled_draft_stops_the_model_and_its_waiting_worker_is_told() -> None:
    async with edge() as made:
        made.model.go.clear()
        await made.begin(make_spec())
        await made.model.running.wait()
        waiting = asyncio.get_running_loop().create_task(made.desk.wait_for("t", JOB_ID, "dt_x"))
        await asyncio.sleep(0)
        made.desk.cancel("t", JOB_ID)
        with pytest.raises(NotFound, match="cancelled"):
            await waiting
        assert made.model.stopped
        assert (made.desk.active, (await made.record()).draft) == (0, None)


async def test_only_the_newest_drafts_are_held_in_memory() -> None:
    async with edge() as made:
        ids = [f"vid_01hzzzzzzzzzzzzzzzzzzzzz{number:02d}" for number in range(KEPT_DRAFTS + 3)]
        for job_id in ids:
            await made.begin(make_spec(job_id=job_id))
            await made.desk.drain()
        assert (await made.desk.wait_for("t", ids[-1], "dt_x")).mp4 == MP4
        with pytest.raises(NotFound):
            await made.desk.wait_for("t", ids[0], "dt_x")


async def test_a_desk_that_is_not_open_refuses() -> None:
    made = Edge()
    _, record = await made.jobs.submit(make_spec())
    with pytest.raises(NodeUnavailable):
        made.desk.begin(make_spec(), record, None)


async def test_a_draft_says_which_version_made_it_and_a_failed_one_with_which_it_failed() -> None:
    async with edge() as made:
        spec = make_spec().model_copy(update={"draft_model": "new-draft"})  # not loaded here any more
        await made.begin(spec)
        handed = await made.desk.wait_for("t", JOB_ID, "dt_x")
        await made.desk.drain()
        record = await made.record()
        assert handed.made_with == record.drafted_with == "test-draft"
        assert record.notes == ("new-draft was not to be had, so test-draft made the draft",)
        (times,) = made.times
        assert (times.draft_model, times.made_with, times.failed_with) == ("new-draft", "test-draft", "")
        assert (times.node_s, times.pixels) == (0.002, 128.0 * 128 * 24)
        made.model.error = GenerationFailed("a kernel")
        other = make_spec(job_id=f"vid_{1:026d}", plan="draft", want_final=False)
        await made.begin(other)
        await made.desk.drain()
        assert (await made.record(other.id)).status == "failed"
        assert made.desk.times[other.id] == DraftTimes(
            made.desk.times[other.id].first_look_s, None, draft_model="test-draft", failed_with="test-draft"
        )
