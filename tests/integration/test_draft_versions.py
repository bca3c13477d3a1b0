"""A version of the draft model that is tried, at home or at a peer: whatever becomes of it, there is a draft."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.desired import DesiredModels
from adaptivegen.errors import (
    AdaptiveGenError,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    NodeUnavailable,
    ResourceExhausted,
)
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.lines import KEY, Line, Lines
from adaptivegen.placement import Attempt, DraftPlace
from adaptivegen.rpc.draft import DraftClient, DraftServicer
from adaptivegen.rpc.server import RpcServer
from edge_node.draft import places as places_module
from edge_node.draft.lend import Lending
from edge_node.draft.places import DraftPlaces, Made
from tests.cards import draft_card
from tests.draft_models import draft_models
from tests.integration.lending import CLOCK, Model, no_draft
from tests.jobs import make_spec

OLD = draft_card()
NEW = draft_card(name="new-draft", digest="f" * 64, limits=OLD.limits.model_copy(update={"steps_default": 6}))
CANARY = Line(stable=OLD.name, candidate=NEW.name, phase="canary", percent=50.0, rollout=3)


class Two:
    """Edge `edge-1` that asks and `edge-2` that lends, each with the version that serves and the one that is tried."""

    def __init__(self, jobs: JobStore, desired: DesiredModels, group: asyncio.TaskGroup, *, peer_has_it: bool) -> None:
        self.jobs, self.group, self.made = jobs, group, 0
        self.old, self.new = Model(b"old at home"), Model(b"new at home")
        self.peer_old, self.peer_new = Model(b"old at the peer"), Model(b"new at the peer")
        self.attempts: list[Attempt] = []
        self.failed: list[str] = []
        self.address = ""
        self.client = DraftClient(tls=None)
        self.places = DraftPlaces(
            node_id="edge-1",
            models=draft_models(OLD, self.old, (NEW, self.new), clock=CLOCK, desired=desired),
            peers=self.client,
            clock=CLOCK,
            attempted=self.attempts.append,
        )
        tried = [(NEW, self.peer_new)] if peer_has_it else []
        self.lending = Lending(
            node_id="edge-2",
            jobs=jobs,
            models=draft_models(OLD, self.peer_old, *tried, clock=CLOCK, desired=desired),
            clock=CLOCK,
            max_waiting=8,
            accepting=lambda: True,
        )

    async def make(self, *, at: str = "edge-1", backup: str = "", version: str = NEW.name, **changes: Any) -> Made:
        self.made += 1
        spec = make_spec(job_id=f"vid_{self.made:026d}")
        place = DraftPlace(edge_id="edge-2", address=self.address, draft_s=0.5, load_s=0.0)
        elsewhere = {"draft_edge_id": "" if at == "edge-1" else at, "backup_edge_id": backup}
        decision = spec.decision.model_copy(
            update={**elsewhere, "backup_after_s": changes.pop("after_s", 1000.0), "draft_places": (place,)}
        )
        spec = spec.model_copy(update={"decision": decision, "draft_model": version, "draft_steps": 3, **changes})
        spec = (await self.jobs.submit(spec))[0]
        return await self.places.make(spec, None, lambda step: None, group=self.group, failed=self.failed.append)


@asynccontextmanager
async def two(*, peer_has_it: bool = True) -> AsyncIterator[Two]:
    bus = MemoryBus(CLOCK)
    await (await bus.kv(POLICY_BUCKET)).put(KEY, Lines(lines={OLD.name: CANARY}, number=1).model_dump_json().encode())
    desired = DesiredModels(bus, CLOCK)
    await desired.read()
    jobs = JobStore(blob=open_store("memory://"), bus=bus, clock=CLOCK)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        made = Two(jobs, desired, group, peer_has_it=peer_has_it)
        server = RpcServer(rng=random.Random(1))
        DraftServicer(no_draft, made.lending.make, clock=CLOCK).add_to(server)
        made.address = f"127.0.0.1:{server.reserve(host='127.0.0.1', port=0, tls=None)}"
        await server.start()
        running = group.create_task(made.lending.run())
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            await made.client.close()
            await server.drain(grace_s=0.0)
            running.cancel()


def told(made: Made) -> tuple[bytes, str, str, int]:
    return made.generated.mp4, made.edge_id, made.version, made.steps


async def test_each_version_drafts_for_its_sessions_with_the_steps_that_were_decided() -> None:
    async with two() as edges:
        assert told(await edges.make()) == (b"new at home", "edge-1", "new-draft", 3)
        assert told(await edges.make(version=OLD.name)) == (b"old at home", "edge-1", "test-draft", 3)
        assert told(await edges.make(at="edge-2")) == (b"new at the peer", "edge-2", "new-draft", 3)
        assert told(await edges.make(at="edge-2", version=OLD.name)) == (b"old at the peer", "edge-2", "test-draft", 3)
        assert edges.failed == []


@pytest.mark.parametrize(
    "error",
    [
        GenerationFailed("a kernel of the new version"),
        InternalError("a bug"),
        InvalidRequest("I do not like this prompt"),
        NodeUnavailable("the model cannot be loaded"),
        ZeroDivisionError("by zero"),
    ],
)
async def test_whatever_a_tried_version_says_the_one_that_serves_drafts(error: Exception) -> None:
    async with two() as edges:
        edges.new.error = error
        made = await edges.make(backup="edge-2")
        assert told(made) == (b"old at home", "edge-1", "test-draft", OLD.limits.steps_default)
        assert made.note == "new-draft had failed at it, so test-draft made the draft"
        assert edges.failed == ["new-draft"]
        assert edges.peer_new.commands == []  # once is enough


async def test_a_tried_version_that_fails_at_a_peer_is_not_tried_at_home_nor_is_the_peer_blamed() -> None:
    async with two() as edges:
        edges.peer_new.error = GenerationFailed("a kernel of the new version")
        assert told(await edges.make(at="edge-2"))[:3] == (b"old at home", "edge-1", "test-draft")
        assert (edges.failed, edges.attempts, edges.new.commands) == (["new-draft"], [], [])


async def test_a_peer_without_the_version_is_no_failure_of_it() -> None:
    async with two(peer_has_it=False) as edges:
        assert told(await edges.make(at="edge-2"))[:3] == (b"new at home", "edge-1", "new-draft")
        assert edges.failed == [] and edges.peer_old.commands == []


async def test_a_version_that_is_busy_has_not_failed() -> None:
    async with two() as edges:
        edges.new.error = ResourceExhausted("16 generations wait")
        made = await edges.make()
        assert (made.version, made.note) == ("test-draft", "new-draft was not to be had, so test-draft made the draft")
        assert edges.failed == []


async def test_where_both_versions_fail_at_home_the_backup_helps_with_the_one_that_serves() -> None:
    async with two() as edges:
        edges.new.error, edges.old.error = GenerationFailed("new"), GenerationFailed("old")
        assert told(await edges.make(backup="edge-2"))[:3] == (b"old at the peer", "edge-2", "test-draft")
        assert edges.failed == ["new-draft", "test-draft"]
        edges.peer_old.error = GenerationFailed("at the peer")
        with pytest.raises(AdaptiveGenError, match="old"):
            await edges.make(backup="edge-2")


async def test_a_tried_version_that_says_nothing_is_stopped_and_the_other_drafts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places_module, "LEAST_S", 0.2)
    monkeypatch.setattr(places_module, "MOST_S", 0.2)
    async with two() as edges:
        edges.new.may_end.clear()
        assert told(await edges.make())[:3] == (b"old at home", "edge-1", "test-draft")
        assert edges.new.stopped.is_set() and edges.failed == ["new-draft"]


async def test_a_tried_version_that_hangs_before_its_first_step_has_failed_and_what_waits_behind_it_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places_module, "LEAST_S", 0.2)
    monkeypatch.setattr(places_module, "MOST_S", 0.2)
    async with two() as edges:
        edges.new.may_begin.clear()
        assert told(await edges.make())[:3] == (b"old at home", "edge-1", "test-draft")
        assert edges.new.stopped.is_set() and edges.failed == ["new-draft"]
        edges.new.stopped.clear()
        edges.new.has_turn.clear()
        waited = await edges.make()
        assert told(waited)[:3] == (b"old at home", "edge-1", "test-draft")
        assert waited.note == "new-draft was not to be had, so test-draft made the draft"
        assert edges.new.stopped.is_set() and edges.failed == ["new-draft"]


async def test_a_tried_version_whose_turn_comes_late_has_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "LEAST_S", 0.6)
    monkeypatch.setattr(places_module, "MOST_S", 0.6)
    async with two() as edges:
        edges.new.has_turn.clear()
        edges.new.may_begin.clear()
        loop = asyncio.get_running_loop()
        loop.call_later(0.4, edges.new.has_turn.set)
        loop.call_later(0.8, edges.new.may_begin.set)
        assert told(await edges.make())[:3] == (b"new at home", "edge-1", "new-draft")
        assert edges.failed == []


async def test_a_version_that_is_gone_from_this_edge_is_drafted_by_the_one_that_serves() -> None:
    async with two() as edges:
        edges.new.ready = False
        made = await edges.make()
        assert (made.version, made.note) == ("test-draft", "new-draft was not to be had, so test-draft made the draft")


async def test_a_second_copy_of_a_late_draft_is_made_with_the_same_version() -> None:
    async with two() as edges:
        edges.new.may_begin.clear()
        assert told(await edges.make(backup="edge-2", after_s=0.05))[:3] == (b"new at the peer", "edge-2", "new-draft")
        assert edges.attempts == [Attempt(node_id="edge-2", reporter="edge-1", ok=True)]


async def test_what_is_lent_is_what_the_job_and_the_version_say() -> None:
    async with two() as edges:
        await edges.make(at="edge-2")
        (command,) = edges.peer_new.commands
        assert (command.request.steps, command.request.prompt) == (3, make_spec().request.prompt)
