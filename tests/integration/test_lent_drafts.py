"""A draft made at another edge over gRPC: looks and clip, refusals, failures, second copies, and that losers stop."""

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
    Cancelled,
    GenerationFailed,
    InvalidRequest,
    ModelDigestMismatch,
    NodeUnavailable,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.placement import Attempt, DraftPlace
from adaptivegen.rpc.draft import DraftClient, DraftOrder, DraftServicer, Lent, MadeDraft
from adaptivegen.rpc.server import RpcServer
from edge_node.draft.lend import Lending
from edge_node.draft.places import DraftPlaces
from tests.cards import draft_card
from tests.draft_models import draft_models
from tests.jobs import make_spec

CARD = draft_card()
CLOCK = SystemClock()
NEVER_S = 1000.0
BIG = random.Random(1).randbytes(3 * 256 * 1024 + 5)  # more than one chunk


class Model:
    """Stands where an edge's runner does: begins and ends when it is let, and knows whether it was stopped."""

    ready, busy = True, False

    def __init__(self, mp4: bytes) -> None:
        self.mp4 = mp4
        self.has_turn, self.may_begin, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.has_turn.set()
        self.may_begin.set()
        self.may_end.set()
        self.asked, self.stopped = asyncio.Event(), asyncio.Event()
        self.commands: list[GenerateCommand] = []
        self.error: Exception | None = None
        self.stubborn = False
        self.queued = 0
        self.shape = {"width": 128, "height": 128, "frames": 24}
        self.generate_ms = 5.0

    async def generate(
        self,
        command: GenerateCommand,
        start_mp4: bytes | None,
        on_step: Callable[[Step], None],
        *,
        on_begin: Callable[[], None] | None = None,
    ) -> Generated:
        self.commands.append(command)
        self.asked.set()
        try:
            await self.has_turn.wait()
            if on_begin is not None:
                on_begin()
            await self.may_begin.wait()
            on_step(Step(step=1, steps=2, stage="base", look_jpeg=b"look of " + self.mp4[:4]))
            await self.may_end.wait()
        except asyncio.CancelledError:
            if self.stubborn:
                await asyncio.sleep(0.5)
            self.stopped.set()
            raise
        if self.error is not None:
            raise self.error
        return Generated(self.mp4, **self.shape, generate_ms=self.generate_ms, encode_ms=1.0, familiarity=0.9)


class Pair:
    """Edge `home` that asks, edge `peer` that lends, on one store."""

    def __init__(
        self, jobs: JobStore, peer_address: str, home: Model, peer: Model, *, group: asyncio.TaskGroup
    ) -> None:
        self.jobs, self.home, self.peer, self.group = jobs, home, peer, group
        self.address = peer_address
        self.client = DraftClient(tls=None)
        self.attempts: list[Attempt] = []
        self.looks: list[Step] = []
        self.places = DraftPlaces(
            node_id="edge-1",
            models=draft_models(CARD, home, clock=CLOCK),
            peers=self.client,
            clock=CLOCK,
            attempted=self.attempts.append,
        )

    async def spec(self, *, at: str = "edge-2", backup: str = "", after_s: float = NEVER_S, **changes: Any) -> JobSpec:
        """A stored job that is to be drafted there."""
        spec = make_spec()
        place = DraftPlace(edge_id="edge-2", address=changes.pop("address", self.address), draft_s=0.5, load_s=0.0)
        decision = spec.decision.model_copy(
            update={
                "draft_edge_id": "" if at == "edge-1" else at,
                "backup_edge_id": backup,
                "backup_after_s": after_s,
                "draft_places": (place,),
            }
        )
        spec = spec.model_copy(update={"decision": decision, **changes})
        return (await self.jobs.submit(spec))[0]

    async def make(self, spec: JobSpec) -> tuple[bytes, str]:
        made = await self.places.make(spec, None, self.looks.append, group=self.group)
        return made.generated.mp4, made.edge_id

    async def borrow(self, spec: JobSpec, **changes: str) -> Lent:
        values = {"tenant": spec.tenant, "job_id": spec.id, "token": spec.draft_token, "model_digest": CARD.digest}
        order = DraftOrder(**{**values, **changes})
        return await self.client.borrow(self.address, order, lambda step: None, deadline_s=20.0)


@asynccontextmanager
async def pair(*, accepting: Callable[[], bool] = lambda: True) -> AsyncIterator[Pair]:
    jobs = JobStore(blob=open_store("memory://"), bus=MemoryBus(CLOCK), clock=CLOCK)
    home, peer = Model(b"home's draft"), Model(BIG)
    lending = Lending(
        node_id="edge-2",
        jobs=jobs,
        models=draft_models(CARD, peer, clock=CLOCK),
        clock=CLOCK,
        max_waiting=8,
        accepting=accepting,
    )
    server = RpcServer(rng=random.Random(1))
    DraftServicer(no_draft, lending.make, SystemClock()).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(lending.run())
        await asyncio.sleep(0)
        made = Pair(jobs, f"127.0.0.1:{port}", home, peer, group=group)
        try:
            yield made
            assert not running.done()
        finally:
            await made.client.close()
            await server.drain(grace_s=0.0)
            running.cancel()


async def no_draft(tenant: str, job_id: str, token: str) -> MadeDraft:
    raise NotFound("no draft here")


async def test_a_peer_makes_the_draft_and_shows_its_looks() -> None:
    async with pair() as two:
        spec = await two.spec()
        assert await two.make(spec) == (BIG, "edge-2")
        assert [(look.step, look.steps, look.stage) for look in two.looks] == [(1, 2, "base")]
        (command,) = two.peer.commands
        assert (command.request.prompt, command.request.seed) == (spec.request.prompt, spec.request.seed)
        assert two.home.commands == []
        assert two.attempts == [Attempt(node_id="edge-2", reporter="edge-1", ok=True)]
        assert list(two.places.links) == ["edge-2"]
        assert 0.0 <= two.places.links["edge-2"] < 5.0


async def test_what_a_peer_says_of_its_draft_arrives_whole() -> None:
    async with pair() as two:
        lent = await two.borrow(await two.spec())
        made = lent.generated
        assert (made.width, made.height, made.frames, made.familiarity) == (128, 128, 24, 0.9)
        assert (made.generate_ms, made.encode_ms) == (5.0, 1.0)
        assert lent.took_s >= 0.0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"token": "dt_guessed"}, PermissionDenied),
        ({"token": ""}, PermissionDenied),
        ({"model_digest": "f" * 64}, ModelDigestMismatch),
        ({"job_id": "vid_01hzzzzzzzzzzzzzzzzzzzzzz9"}, NotFound),
        ({"tenant": "other"}, NotFound),
        ({"tenant": "../other"}, InvalidRequest),
        ({"job_id": "vid/../../pending"}, InvalidRequest),
    ],
)
async def test_a_draft_is_lent_only_for_the_jobs_own_token_and_model(
    changes: dict[str, str], error: type[AdaptiveGenError]
) -> None:
    async with pair() as two:
        spec = await two.spec()
        with pytest.raises(error):
            await two.borrow(spec, **changes)
        assert two.peer.commands == []


async def test_a_job_without_a_token_is_lent_to_nobody() -> None:
    async with pair() as two:
        spec = await two.spec(draft_token="")
        with pytest.raises(PermissionDenied):
            await two.borrow(spec)


async def test_a_peer_that_drains_lends_no_more_and_the_draft_is_made_at_home() -> None:
    async with pair(accepting=lambda: False) as two:
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "node_unavailable")]


async def test_a_peer_that_cannot_be_reached_costs_no_draft() -> None:
    async with pair() as two:
        assert await two.make(await two.spec(address="127.0.0.1:1")) == (b"home's draft", "edge-1")
        assert [attempt.ok for attempt in two.attempts] == [False]


async def test_a_peer_whose_model_fails_is_told_of_and_home_drafts() -> None:
    async with pair() as two:
        two.peer.error = GenerationFailed("out of memory")
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "generation_failed")]


async def test_a_bug_at_the_peer_is_an_error_and_no_silence() -> None:
    async with pair() as two:
        two.peer.error = ZeroDivisionError("by zero")
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")


@pytest.mark.parametrize("error", [ResourceExhausted("16 generations wait"), InvalidRequest("no such size")])
async def test_being_busy_or_asked_wrongly_is_no_fault_of_the_peers(error: AdaptiveGenError) -> None:
    async with pair() as two:
        two.peer.error = error
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert two.attempts == []


@pytest.mark.parametrize("error", [Cancelled("stopped"), InvalidRequest("no such size")])
async def test_what_home_refuses_is_asked_of_nobody_else(error: AdaptiveGenError) -> None:
    async with pair() as two:
        two.home.error = error
        with pytest.raises(type(error)):
            await two.make(await two.spec(at="edge-1", backup="edge-2"))
        assert two.peer.commands == []


async def test_a_backup_that_loses_is_not_blamed() -> None:
    async with pair() as two:
        two.home.may_end.clear()
        two.peer.may_begin.clear()
        making = asyncio.ensure_future(two.make(await two.spec(at="edge-1", backup="edge-2", after_s=0.05)))
        await two.peer.asked.wait()
        two.home.may_end.set()
        assert await making == (b"home's draft", "edge-1")
        assert two.attempts == []


async def test_a_cancel_blames_nobody() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        two.home.may_begin.clear()
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.05)))
        await two.home.asked.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert two.attempts == []


async def test_no_more_than_its_share_is_lent_at_once() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        ids = [f"vid_01hzzzzzzzzzzzzzzzzzzzzz0{letter}" for letter in "abcdefghj"]
        specs = [await two.spec(id=job_id) for job_id in ids]
        making = [asyncio.ensure_future(two.borrow(spec)) for spec in specs]
        done, _ = await asyncio.wait(making, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [ResourceExhausted]
        two.peer.may_end.set()
        assert len([task for task in making if task not in done and (await task).generated.mp4 == BIG]) == 8


async def test_a_home_that_fails_is_helped_by_its_backup() -> None:
    async with pair() as two:
        two.home.error = NodeUnavailable("the model cannot be loaded")
        assert await two.make(await two.spec(at="edge-1", backup="edge-2")) == (BIG, "edge-2")


async def test_home_drafts_however_often_its_peer_fails() -> None:
    async with pair() as two:
        two.peer.error = GenerationFailed("always")
        spec = await two.spec()
        assert [(await two.make(spec))[1] for _ in range(30)] == ["edge-1"] * 30


async def test_retries_at_another_edge_end_with_their_budget() -> None:
    async with pair() as two:
        two.home.error = GenerationFailed("always")
        spec = await two.spec(at="edge-1", backup="edge-2")
        made = 0
        for _ in range(50):
            try:
                made += (await two.make(spec))[1] == "edge-2"
            except GenerationFailed:
                continue
        assert 10 <= made <= 14  # three at the start, then a fifth


@pytest.mark.parametrize("at", ["edge-1", "edge-2"])
async def test_when_every_place_fails_homes_own_error_is_raised(at: str) -> None:
    async with pair() as two:
        two.peer.error, two.home.error = NotFound("at the peer"), GenerationFailed("at home")
        with pytest.raises(GenerationFailed, match="at home"):
            await two.make(await two.spec(at=at, backup="edge-2" if at == "edge-1" else ""))


async def test_a_job_is_lent_to_one_caller_at_a_time() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        spec = await two.spec()
        making = asyncio.ensure_future(two.borrow(spec))
        await two.peer.asked.wait()
        with pytest.raises(ResourceExhausted):
            await two.borrow(spec)
        two.peer.may_end.set()
        assert (await making).generated.mp4 == BIG
        assert (await two.borrow(spec)).generated.mp4 == BIG


async def test_nothing_is_lent_while_too_much_waits() -> None:
    async with pair() as two:
        two.peer.queued = 8
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert two.peer.commands == [] and two.attempts == []


async def test_an_edge_that_was_not_to_draft_refuses() -> None:
    async with pair() as two:
        spec = await two.spec(at="edge-1")
        with pytest.raises(PermissionDenied):
            await two.borrow(spec)


@pytest.mark.parametrize("changes", [{"width": 64}, {"frames": 1}])
async def test_a_lent_clip_of_another_shape_is_not_taken(changes: dict[str, int]) -> None:
    async with pair() as two:
        two.peer.shape.update(changes)
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "internal")]


async def test_impossible_times_of_a_peer_are_refused() -> None:
    async with pair() as two:
        two.peer.generate_ms = float("nan")
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert two.places.links == {}


async def test_a_peer_that_says_nothing_until_another_drafts_is_told_of() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        assert await two.make(await two.spec(backup="edge-1", after_s=0.3)) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "deadline_exceeded")]


async def test_a_second_copy_is_made_when_the_first_does_not_start_and_the_first_is_stopped() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        assert await two.make(await two.spec(backup="edge-1", after_s=0.05)) == (b"home's draft", "edge-1")
        await two.peer.stopped.wait()


async def test_a_loser_that_does_not_stop_delays_nobody() -> None:
    async with pair() as two:
        two.home.may_begin.clear()
        two.home.stubborn = True
        assert await two.make(await two.spec(at="edge-1", backup="edge-2", after_s=0.05)) == (BIG, "edge-2")
        await two.home.stopped.wait()


async def test_of_two_copies_that_run_the_first_to_end_is_taken() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.3)))
        assert await making == (b"home's draft", "edge-1")
        await two.peer.stopped.wait()
        assert [look.look_jpeg for look in two.looks] == [b"look of " + BIG[:4]]  # never those of two copies


async def test_a_copy_that_waits_is_stopped_when_the_other_starts() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        two.home.may_begin.clear()
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.05)))
        await two.home.asked.wait()
        two.peer.may_begin.set()
        assert await making == (BIG, "edge-2")
        await two.home.stopped.wait()


async def test_second_copies_end_with_their_budget() -> None:
    async with pair() as two:
        spec = await two.spec(backup="edge-1", after_s=0.01)
        for number in range(10):
            two.peer.may_end.clear()
            making = asyncio.ensure_future(two.make(spec))
            if number:  # the one copy that the budget had at the start was made of the first
                await two.peer.asked.wait()
                await asyncio.sleep(0.05)
            two.peer.may_end.set()
            await making
            two.peer.asked.clear()
        assert len(two.home.commands) == 1


async def test_a_copy_that_was_stopped_may_be_begun_again_when_the_other_fails() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        two.home.may_begin.clear()
        two.peer.error = GenerationFailed("after it began")
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.05)))
        await two.home.asked.wait()
        two.peer.may_begin.set()
        await two.home.stopped.wait()
        two.home.may_begin.set()
        assert await making == (b"home's draft", "edge-1")


async def test_a_cancelled_draft_stops_the_peers_model() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        making = asyncio.ensure_future(two.make(await two.spec()))
        await two.peer.asked.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await two.peer.stopped.wait()


async def test_a_peer_that_says_nothing_is_not_waited_for() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with pair() as two:
        assert await two.make(await two.spec(address=f"127.0.0.1:{port}")) == (b"home's draft", "edge-1")
        assert [attempt.ok for attempt in two.attempts] == [False]
    silent.close()
