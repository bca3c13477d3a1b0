"""The scheduler's parts around the decision: settings, time, heartbeats taken in, what comes over the wire."""

import math
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from adaptivegen.bus.base import Message
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import InvalidRequest, ModelNotFound, SettingsInvalid
from adaptivegen.nodes import DraftsOver, NodeReport, heartbeat_subject
from adaptivegen.placement import Outcome
from scheduler.decide.view import NodeTable, View
from scheduler.drains import Drains
from scheduler.placement import Placement
from scheduler.settings import SchedulerSettings
from scheduler.steady import SteadyTime
from scheduler.watch import MAX_REPORT_BYTES, Watch
from tests.unit.scheduler.builders import JOB, cards, of_plan, query, report, view


def settings(**changes: object) -> SchedulerSettings:
    return SchedulerSettings.model_validate({"node_id": "scheduler-1", **changes})


def make_watch(nodes: NodeTable) -> Watch:
    clock = ManualClock()
    unconnected = NatsBus(["nats://127.0.0.1:1"], name="test")
    seen = View(nodes=nodes, cards=cards(), decider="scheduler-1")
    return Watch(seen, unconnected, Drains(unconnected, nodes), clock=clock, time=SteadyTime(clock))


def heartbeat(sent: NodeReport, *, subject: str = "") -> Message:
    return Message(subject or heartbeat_subject(sent.kind, sent.node_id), sent.encode())


class JumpingClock(ManualClock):
    """A wall clock that an operator can set; monotonic time is not touched by that."""

    jump_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.jump_ns


def test_authentication_without_certificates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="tls_client_ca"):
        settings().require_mutual_tls()
    settings(auth="loopback").require_mutual_tls()
    pem = tmp_path / "cert.pem"
    pem.write_text("PEM")
    settings(tls_cert=pem, tls_key=pem, tls_client_ca=pem).require_mutual_tls()


def test_anchors_out_of_order_are_refused() -> None:
    for changes in ({"final_best_s": 200.0}, {"draft_best_s": 10.0}):
        with pytest.raises(ValidationError, match="best < worst"):
            settings(**changes)


def test_bounds_of_workers_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most max_workers, which is 3"):
        settings(min_workers=4, max_workers=3)
    assert settings(min_workers=0, drain_target_s=60.0).elastic().drain_target_s == 60.0


def test_settings_reach_the_weights() -> None:
    given = settings(draft_weight_render=0.3, cost_render=0.2)
    assert given.policy().qoe.draft_weight("render") == 0.3
    assert given.policy().costs.of(2.0, intent="render") == pytest.approx(0.4)


@pytest.mark.parametrize("jump_s", [300, -300])
async def test_steady_time_ignores_a_wall_clock_that_is_set(jump_s: int) -> None:
    clock = JumpingClock()
    time = SteadyTime(clock)
    before_ns = time.now_ns()
    clock.jump_ns = jump_s * 10**9
    await clock.advance(2.0)
    assert time.now_ns() - before_ns == 2 * 10**9


async def test_a_heartbeat_enters_the_table() -> None:
    nodes = NodeTable()
    watch = make_watch(nodes)
    watch.take(heartbeat(report("worker-1")))
    assert [node.report.node_id for node in nodes] == ["worker-1"]
    assert watch.malformed == 0


@pytest.mark.parametrize(
    "message",
    [
        Message("ag.node.edge.edge-1", b""),
        Message("ag.node.edge.edge-1", b"\xff\x00 not json"),
        Message("ag.node.edge.edge-1", b"[]"),
        Message("ag.node.edge.edge-1", b'{"node_id": "edge-1"}'),
        Message("ag.node.edge.edge-1", b"[" * 10_000),
        Message("ag.node.edge.edge-1", b" " * (MAX_REPORT_BYTES + 1) + report("edge-1").encode()),
        heartbeat(report("edge-1"), subject="ag.node.edge.edge-2"),
        heartbeat(report("edge-1"), subject="ag.node.worker.edge-1"),
        heartbeat(report("edge-1").model_copy(update={"remaining_s": math.nan})),
        heartbeat(report("edge-1").model_copy(update={"remaining_s": math.inf})),
    ],
)
async def test_a_malformed_heartbeat_is_counted_and_changes_nothing(message: Message) -> None:
    nodes = NodeTable()
    watch = make_watch(nodes)
    watch.take(message)
    assert watch.malformed == 1
    assert list(nodes) == []


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"job_ids": [1]}', DraftsOver(job_ids=("x",)).model_dump_json().encode() + b"}"]
)
async def test_malformed_word_of_drafts_is_counted(data: bytes) -> None:
    watch = make_watch(NodeTable())
    watch.drafted(Message("ag.draft.edge-1", data))
    assert watch.malformed == 1
    watch.drafted(Message("ag.draft.edge-1", DraftsOver(job_ids=("unknown",)).model_dump_json().encode()))
    assert watch.malformed == 1


async def test_heartbeats_beyond_the_table_are_counted() -> None:
    watch = make_watch(NodeTable(max_nodes=1))
    watch.take(heartbeat(report("edge-1")))
    watch.take(heartbeat(report("edge-2")))
    assert watch.refused == 1


def make_placement() -> Placement:
    clock = ManualClock()
    return Placement(view(), time=SteadyTime(clock), rng=random.Random(1))


async def test_each_placement_is_seen_by_the_next_until_its_outcome() -> None:
    placement = make_placement()
    idle_s = of_plan(await placement.place(query()), "cloud").final_s
    behind_s = of_plan(await placement.place(query(job_id="vid_" + "1" * 26)), "cloud").final_s
    assert idle_s is not None
    assert behind_s is not None
    assert behind_s > idle_s
    for job_id in (JOB, "vid_" + "1" * 26):
        over = Outcome(job_id=job_id, edge_id="edge-1", worker_id="worker-1", plan="refine", status="completed")
        await placement.observe(over)
    assert of_plan(await placement.place(query()), "cloud").final_s == pytest.approx(idle_s)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"edge_id": "a.b"}, "edge_id"),
        ({"edge_id": ""}, "edge_id"),
        ({"tenant": "../x"}, "tenant"),
        ({"job_id": ""}, "job_id"),
        ({"job_id": "x" * 65}, "job_id"),
        ({"frames": 0}, "frames"),
    ],
)
async def test_what_comes_over_the_wire_is_checked(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await make_placement().place(query(**changes))
    assert caught.value.param == field


async def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ModelNotFound, match="unheard-of"):
        await make_placement().place(query(cloud_model="unheard-of"))
