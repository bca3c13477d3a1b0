"""Rollouts of one or two schedulers on one store: what is due is done once, and all know what is in force."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.desired import DesiredModels
from adaptivegen.errors import Conflict, InvalidRequest, ModelNotFound
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.models.lines import KEY, Line
from adaptivegen.models.registry import ModelLibrary
from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Outcome
from scheduler.decide.view import NodeTable, View
from scheduler.lines import ServedLines
from scheduler.rollouts import Rollouts
from scheduler.steady import SteadyTime
from tests.added_models import add_draft, add_model
from tests.unit.scheduler.test_ratings import rating

LINE, GOOD, OTHER = "pocket-cloud", "pocket-cloud-mixed", "pocket-cloud-pruned"
EAGER = {"stages": (10.0, 50.0), "stage_s": 10.0, "min_outcomes": 3, "max_more_failures": 1.0, "max_slower": 10.0}


class Broker:
    """What schedulers and nodes share."""

    def __init__(self, clock: ManualClock | None = None, store: str = "memory://") -> None:
        self.clock = clock or ManualClock()
        self.bus = MemoryBus(self.clock)
        self.blob = open_store(store)


class One:
    """A scheduler as far as rollouts go."""

    def __init__(self, shared: Broker, name: str = "scheduler-1", library: ModelLibrary | None = None) -> None:
        self.shared, self.time = shared, SteadyTime(shared.clock)
        library = library or ModelLibrary()
        self.view = View(nodes=NodeTable(), cards=library.cards(), decider=name)
        self.lines = ServedLines(shared.bus, shared.blob, clock=shared.clock, time=self.time)
        self.rollouts = Rollouts(self.view, self.lines, library, shared.blob, clock=shared.clock, time=self.time)
        self.beats = 0

    def hears(self, *loaded: str, node: str = "worker-1", refused: dict[str, str] | None = None) -> None:
        self.beats += 1
        report = NodeReport(
            node_id=node,
            kind="worker",
            seq=self.beats,
            sent_at_ns=0,
            started_at_ns=1,
            pool="default",
            models=loaded,
            line=LINE,
            refused=refused or {},
        )
        self.view.hear(report, now_ns=self.time.now_ns())

    def ends(self, number: int, version: str, **changes: object) -> None:
        known: dict[str, object] = {
            "job_id": f"vid_{number:026d}",
            "edge_id": "edge-1",
            "worker_id": "worker-1",
            "plan": "cloud",
            "status": "completed",
            "line": LINE,
            "cloud_model": version,
            "made_with": version,
            "gpu_s": 1.0,
            "pixels": 1e6,
        }
        self.rollouts.heard(Outcome.model_validate({**known, **changes}))

    def beats_of(self, node: str, line: str, *loaded: str, kind: Literal["edge", "worker"] = "edge") -> None:
        self.beats += 1
        report = NodeReport(
            node_id=node, kind=kind, seq=self.beats, sent_at_ns=0, started_at_ns=1, pool="", models=loaded, line=line
        )
        self.view.hear(report, now_ns=self.time.now_ns())

    async def look(self) -> str:
        """Read what is in force and do what is due; the phase after it."""
        await self.lines.read()
        await self.rollouts.look()
        return self.line.phase

    @property
    def line(self) -> Line:
        return self.lines.in_force.lines[LINE]

    async def actions(self) -> list[str]:
        return [change.action for change in reversed(await self.rollouts.history(50))]

    async def begin(self, version: str = GOOD, **values: object) -> None:
        self.hears(LINE)
        await self.rollouts.start(LINE, version, {**EAGER, **values}, by="ada", reason="")

    async def until_canary(self, version: str = GOOD) -> None:
        await self.begin(version)
        self.hears(LINE, version)
        assert await self.look() == "loading"
        assert await self.look() == "canary"


async def test_a_rollout_goes_from_one_node_to_everybody() -> None:
    one = One(Broker())
    await one.until_canary()
    assert one.line.percent == 10.0
    number = 0
    for percent in (50.0, None):
        await one.shared.clock.advance(11.0)
        one.hears(LINE, GOOD)
        for _ in range(12):
            number += 1
            one.ends(number, GOOD)
            one.ends(1000 + number, LINE)
        await one.look()
        assert percent is None or one.line.percent == percent
    assert (one.line.stable, one.line.previous, one.line.phase) == (GOOD, LINE, "steady")
    assert await one.actions() == ["start", "load", "widen", "widen", "promote"]
    assert one.lines.newest is not None and one.lines.newest.plans == {}


async def test_of_two_schedulers_that_see_the_same_one_does_what_is_due() -> None:
    shared = Broker()
    first, second = One(shared), One(shared, "scheduler-2")
    await first.begin()
    await second.lines.read()
    second.rollouts.follow(second.lines.in_force)
    for one in (first, second):
        one.hears(LINE, GOOD)
    await first.rollouts.look()
    await second.rollouts.look()  # it has not read of that yet
    assert await first.actions() == ["start", "load"]
    assert await second.look() == "canary" == await second.look()
    assert await first.look() == "canary"
    assert await first.actions() == ["start", "load", "widen"]


async def test_harm_that_one_scheduler_has_seen_ends_it_for_all() -> None:
    shared = Broker()
    first, second = One(shared), One(shared, "scheduler-2")
    await first.until_canary()
    await second.look()
    for number in range(40):
        first.ends(number, LINE)
        first.ends(1000 + number, GOOD, failed_with=GOOD, made_with=LINE)
    assert await first.look() == "steady" == await second.look()
    assert (second.line.stable, second.line.candidate) == (LINE, None)
    last = (await second.rollouts.history(1))[0]
    assert (last.action, last.by) == ("rollback", "scheduler-1 by itself") and "failures" in last.reason


async def test_a_version_that_no_node_can_load_is_rolled_back() -> None:
    one = One(Broker())
    await one.begin()
    one.hears(LINE, refused={GOOD: "model_digest_mismatch: base.onnx"})
    assert await one.look() == "steady"
    assert "base.onnx" in (await one.rollouts.history(1))[0].reason


async def test_a_scheduler_that_comes_later_goes_on_with_what_is_in_force() -> None:
    shared = Broker()
    await One(shared).until_canary()
    later = One(shared, "scheduler-2")
    later.hears(LINE, GOOD)
    assert await later.look() == "canary"
    info = later.rollouts.known()[0]
    assert (info.candidate, info.percent, info.sessions) == (GOOD, 10.0, 0)  # it has heard of none
    await shared.clock.advance(100.0)
    later.hears(LINE, GOOD)
    assert await later.look() == "canary" and later.line.percent == 10.0


async def test_what_is_in_force_survives_a_broker_that_lost_its_data_and_nodes_hear_of_it() -> None:
    shared = Broker()
    one = One(shared)
    await one.until_canary()
    nodes = DesiredModels(shared.bus, shared.clock)
    await nodes.read()
    assert nodes.of(LINE) == one.line and nodes.of("another") == Line(stable="another")
    bucket = await shared.bus.kv(POLICY_BUCKET)
    await bucket.delete(KEY)
    await nodes.read()
    assert nodes.of(LINE).candidate == GOOD  # what was read last stands
    later = One(shared, "scheduler-2")
    await later.lines.read()
    entry = await bucket.get(KEY)
    assert entry is not None
    fresh = DesiredModels(shared.bus, shared.clock)
    await fresh.read()
    assert fresh.of(LINE) == one.line


async def test_a_damaged_copy_changes_nothing_at_nodes() -> None:
    shared = Broker()
    one = One(shared)
    await one.until_canary()
    nodes = DesiredModels(shared.bus, shared.clock)
    await nodes.read()
    for bad in (b"", b"[]", b'{"lines": {"pocket-cloud": {"stable": "../x"}}}', b'{"lines": 3}'):
        await (await shared.bus.kv(POLICY_BUCKET)).put(KEY, bad)
        await nodes.read()
        assert nodes.of(LINE) == one.line


async def test_paused_time_does_not_count() -> None:
    one = One(Broker())
    await one.until_canary()
    with pytest.raises(Conflict, match="is not paused; nothing was changed"):
        await one.rollouts.steer(LINE, "resume", by="otto", reason="")
    await one.rollouts.steer(LINE, "pause", by="otto", reason="")
    before = await one.actions()
    with pytest.raises(Conflict, match="is paused already; nothing was changed"):
        await one.rollouts.steer(LINE, "pause", by="otto", reason="")
    assert await one.actions() == before
    await one.shared.clock.advance(10 * 86400.0)
    one.hears(LINE, GOOD)
    assert await one.look() == "canary"
    await one.rollouts.steer(LINE, "resume", by="otto", reason="")
    for number in range(20):
        one.ends(number, GOOD)
    assert await one.look() == "canary" and one.line.percent == 10.0  # neither over its time nor wider


async def test_what_went_before_the_canary_is_not_compared() -> None:
    one = One(Broker())
    await one.begin()
    for number in range(40):
        one.ends(number, LINE, gpu_s=9.0)  # while a second model is loaded beside it
    one.hears(LINE, GOOD)
    assert [await one.look(), await one.look()] == ["loading", "canary"]
    (info,) = one.rollouts.known()
    assert {gate.name: gate.stable for gate in info.gates}["seconds of a node"] is None


async def test_a_card_that_was_installed_since_is_found_when_its_model_is_asked_for(tmp_path: Path) -> None:
    shared = Broker()
    one = One(shared, library=ModelLibrary(tmp_path))
    add_model(tmp_path, "pocket-later")
    assert "pocket-later" not in one.view.cards
    one.rollouts.look_for("pocket-later")
    assert "pocket-later" in one.view.cards
    (tmp_path / "pocket-bad").mkdir()
    (tmp_path / "pocket-bad" / "card.json").write_bytes(b"\xff{")
    await shared.clock.advance(60.0)
    one.rollouts.look_for("pocket-bad")  # what cannot be read takes nothing else along
    assert "pocket-bad" not in one.view.cards and "pocket-later" in one.view.cards


async def test_stars_count_for_the_version_that_made_the_final() -> None:
    one = One(Broker())
    await one.until_canary()
    (watched,) = one.rollouts._watched.values()
    await one.rollouts.read_ratings(watched)
    for number in range(40):
        stars, version = (1, GOOD) if number % 2 else (5, LINE)
        known = rating(1, id=f"vid_{number:026d}", stars=stars, made_with=version)
        await one.shared.blob.put(known.key, known.encode())
    await one.rollouts.read_ratings(watched)
    one.hears(LINE, GOOD)
    assert await one.look() == "steady"
    assert "stars" in (await one.rollouts.history(1))[0].reason


@pytest.mark.parametrize("behind_s", [300, -300])
async def test_ratings_since_the_canary_began_are_read_however_wrong_the_schedulers_clock_is(
    tmp_path: Path, behind_s: int
) -> None:
    """behind_s: by how much the store's clock is behind the scheduler's."""
    shared = Broker(ManualClock(start_ns=time.time_ns() + behind_s * 10**9), f"file://{tmp_path}")
    one = One(shared)
    await one.until_canary()
    await shared.clock.advance(20.0)  # the store is not asked at once
    (watched,) = one.rollouts._watched.values()
    for number, (age_s, version) in enumerate([(60, LINE), (10, GOOD), (0, LINE), (0, GOOD)]):
        known = rating(1, id=f"vid_{number:026d}", made_with=version)
        await shared.blob.put(known.key, known.encode())
        stamp_s = time.time() - age_s
        os.utime(tmp_path / known.key, (stamp_s, stamp_s))
    await one.rollouts.read_ratings(watched)
    assert (watched.evidence.candidate.stars.count, watched.evidence.stable.stars.count) == (2, 1)
    known = rating(1, id="vid_later", made_with=GOOD)
    await shared.blob.put(known.key, known.encode())
    await one.rollouts.read_ratings(watched)
    assert watched.evidence.candidate.stars.count == 3


async def test_what_cannot_be_started_is_refused_by_the_field_that_is_wrong() -> None:
    one = One(Broker())
    with pytest.raises(Conflict, match="no healthy node"):
        await one.rollouts.start(LINE, GOOD, {}, by="ada", reason="")
    one.hears(LINE)
    for line, version, values, kind, said in (
        (LINE, "pocket-9", {}, ModelNotFound, "pocket-9"),
        ("pocket-9", GOOD, {}, ModelNotFound, "pocket-9"),
        (LINE, "pocket-draft", {}, InvalidRequest, "draft model"),
        (LINE, LINE, {}, Conflict, "already"),
        (LINE, GOOD, {"risk": 0.9}, InvalidRequest, "risk"),
        (LINE, GOOD, {"stages": (5.0, 1.0)}, InvalidRequest, "stages"),
        (LINE, GOOD, {"max_fewer_stars": float("nan")}, InvalidRequest, "max_fewer_stars"),
    ):
        with pytest.raises(kind, match=said):
            await one.rollouts.start(line, version, values, by="ada", reason="")
    allowed = "1 to 16 percentages above 0, to 100, each above the one before"
    for stages, shown in (((50.0, 10.0), "50,10"), ((float("nan"),), "nan"), ((0.0, 101.0), "0,101")):
        with pytest.raises(InvalidRequest) as refused:
            await one.rollouts.start(LINE, GOOD, {"stages": stages}, by="ada", reason="")
        assert refused.value.message == f"stages is '{shown}'; allowed: {allowed}"
    with pytest.raises(InvalidRequest, match=r"risk is 0.9; allowed: above 0, below 0.5"):
        await one.rollouts.start(LINE, GOOD, {"risk": 0.9}, by="ada", reason="")
    assert await one.actions() == []
    await one.begin()
    with pytest.raises(Conflict, match="is being tried"):
        await one.rollouts.start(LINE, OTHER, {}, by="ada", reason="")


async def test_operators_see_gates_and_what_nodes_have_loaded() -> None:
    one = One(Broker())
    await one.until_canary()
    one.ends(1, GOOD)
    (info,) = one.rollouts.known()
    assert (info.line, info.stable, info.candidate, info.sessions) == (LINE, LINE, GOOD, 1)
    assert [gate.name for gate in info.gates] == ["measured quality", "failures", "seconds of a node", "stars"]
    assert info.gates[2].worse_low is None  # too few to say
    assert info.nodes[0].loaded == (LINE, GOOD)
    await one.rollouts.steer(LINE, "rollback", by="otto", reason="enough")
    (after,) = one.rollouts.known()
    assert (after.candidate, after.gates) == ("", ())


DRAFTS, NEW_DRAFT = "pocket-draft", "pocket-draft-2"


async def test_a_draft_model_is_rolled_out_at_edges_by_what_their_drafts_did(tmp_path: Path) -> None:
    add_draft(tmp_path, NEW_DRAFT)
    add_model(tmp_path, "pocket-cloud-2", sources=(DRAFTS, NEW_DRAFT))
    one = One(Broker(), library=ModelLibrary(tmp_path))

    def hear(*loaded: str) -> None:
        one.beats_of("worker-1", "pocket-cloud-2", "pocket-cloud-2", kind="worker")
        for edge in ("edge-1", "edge-2"):
            one.beats_of(edge, DRAFTS, *loaded)

    hear(DRAFTS)
    await one.rollouts.start(DRAFTS, NEW_DRAFT, EAGER, by="ada", reason="")
    assert one.lines.in_force.lines[DRAFTS].trial_node == "edge-1"
    hear(DRAFTS, NEW_DRAFT)
    for _ in range(2):
        await one.lines.read()
        await one.rollouts.look()
    assert one.lines.in_force.lines[DRAFTS].phase == "canary"
    assert [node.node_id for node in one.rollouts.known()[1].nodes] == ["edge-1", "edge-2"]
    for number in range(60):
        version = NEW_DRAFT if number % 2 else DRAFTS
        failed = {"draft_failed_with": NEW_DRAFT, "drafted_with": DRAFTS} if version == NEW_DRAFT else {}
        told = {"draft_line": DRAFTS, "draft_model": version, "drafted_with": version, "draft_node_s": 0.5}
        one.ends(number, LINE, **{**told, "draft_pixels": 1e6, **failed})
    hear(DRAFTS, NEW_DRAFT)
    await one.rollouts.look()
    assert one.lines.in_force.lines[DRAFTS].phase == "steady"
    last = (await one.rollouts.history(1))[0]
    assert (last.action, last.line) == ("rollback", DRAFTS) and "failures" in last.reason


async def test_a_draft_model_that_a_final_in_service_would_not_continue_is_refused(tmp_path: Path) -> None:
    add_draft(tmp_path, NEW_DRAFT)
    add_model(tmp_path, "pocket-cloud-2", sources=(DRAFTS, NEW_DRAFT))
    one = One(Broker(), library=ModelLibrary(tmp_path))
    one.beats_of("edge-1", DRAFTS, DRAFTS)
    with pytest.raises(InvalidRequest, match="does not continue"):  # no worker is known: all that is installed counts
        await one.rollouts.start(DRAFTS, NEW_DRAFT, {}, by="ada", reason="")
    one.beats_of("worker-1", "pocket-cloud-2", "pocket-cloud-2", kind="worker")
    one.beats_of("worker-2", "pocket-cloud-2", "pocket-cloud-2", LINE, kind="worker")
    with pytest.raises(InvalidRequest, match=f"{LINE} does not continue drafts of {NEW_DRAFT}"):
        await one.rollouts.start(DRAFTS, NEW_DRAFT, {}, by="ada", reason="")
    one.beats_of("worker-2", "pocket-cloud-2", "pocket-cloud-2", kind="worker")
    await one.rollouts.start(DRAFTS, NEW_DRAFT, {}, by="ada", reason="")
