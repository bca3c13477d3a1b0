"""Advice on pools and orders to scale them, over the broker's policy bucket; who is forgotten, and what goes along."""

from __future__ import annotations

import math
import re
from typing import cast

import pytest
from prometheus_client import generate_latest

from adaptivegen.bus.base import Bus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, InvalidRequest, NotFound, Unavailable
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.nodes import NodeReport, drain_key
from scheduler.decide.elastic import ElasticSettings
from scheduler.decide.learned import draft_part
from scheduler.decide.ledger import MAX_POOLS
from scheduler.decide.view import FORGET_AFTER_S, NodeTable, View
from scheduler.drains import BY_OPERATOR, Drains
from scheduler.metrics import SchedulerMetrics
from scheduler.scaling import LISTEN_S as SCALING_LISTENS_S
from scheduler.scaling import Scaling
from scheduler.steady import SteadyTime
from scheduler.watch import LISTEN_S, Watch
from tests.unit.scheduler.away import AwayBus
from tests.unit.scheduler.builders import cards, open_job, report


class Scheduler:
    """The parts that scale, around one table, and the nodes that report to it."""

    def __init__(self, *reports: NodeReport) -> None:
        self.clock = ManualClock()
        self.time = SteadyTime(self.clock)
        self.bus = AwayBus(self.clock)
        self.view = View(nodes=NodeTable(), cards=cards(), decider="scheduler-1")
        self.nodes = self.view.nodes
        bus = cast(Bus, self.bus)
        self.drains = Drains(bus, self.nodes)
        self.scaling = Scaling(self.view, bus, self.drains, ElasticSettings(), clock=self.clock, time=self.time)
        self.watch = Watch(self.view, bus, self.drains, clock=self.clock, time=self.time)
        self.beats = 0
        self.hear(*reports)

    def hear(self, *reports: NodeReport) -> None:
        self.beats += 1
        for sent in reports:
            self.view.hear(sent.model_copy(update={"seq": self.beats}), now_ns=self.time.now_ns())

    async def listen(self, *reports: NodeReport) -> Scheduler:
        """Until everybody can have been heard; these still are."""
        self.scaling.tick()
        await self.clock.advance(SCALING_LISTENS_S)
        self.hear(*reports)
        self.scaling.tick()
        return self

    async def why(self, node_id: str) -> bytes | None:
        entry = await (await self.bus.kv(POLICY_BUCKET)).get(drain_key(node_id))
        return entry.value if entry else None


WORKERS = tuple(report(f"worker-{number}") for number in (1, 2, 3))


async def test_an_order_drains_and_a_later_one_puts_back() -> None:
    parts = await Scheduler().listen(*WORKERS)
    order = await parts.scaling.order("default", 1)
    assert (len(order.drain), order.put_back, order.missing) == (2, (), 0)
    assert [await parts.why(node_id) for node_id in order.drain] == [b"scaled in %d" % WORKERS[0].started_at_ns] * 2
    assert parts.nodes.drained == set(order.drain)
    again = await parts.scaling.order("default", 1)
    assert (again.drain, again.put_back, again.missing) == ((), (), 0)
    back = await parts.scaling.order("default", 4)
    assert (set(back.put_back), back.missing) == (set(order.drain), 1)
    assert parts.nodes.drained == frozenset()


async def test_an_operators_drain_is_not_undone_by_scaling() -> None:
    parts = await Scheduler().listen(*WORKERS)
    await parts.drains.drain("worker-2")
    order = await parts.scaling.order("default", 3)
    assert (order.put_back, order.missing) == ((), 1)
    assert await parts.why("worker-2") == BY_OPERATOR


async def test_a_drain_by_an_operator_at_the_same_moment_is_neither_overwritten_nor_undone() -> None:
    parts = await Scheduler().listen(*WORKERS)
    other = Drains(cast(Bus, parts.bus), NodeTable())
    await other.drain("worker-1")
    assert not await parts.drains.scale_in("worker-1", started_at_ns=1)
    assert not await parts.drains.scale_out("worker-1")
    assert await parts.drains.scale_in("worker-2", started_at_ns=1)
    await other.drain("worker-2")
    await parts.drains.sweep(unheard=True)
    assert (await parts.why("worker-1"), await parts.why("worker-2")) == (BY_OPERATOR, BY_OPERATOR)


async def test_an_order_sees_what_another_scheduler_drained() -> None:
    parts = await Scheduler().listen(*WORKERS)
    await Drains(cast(Bus, parts.bus), NodeTable()).scale_in("worker-1", started_at_ns=WORKERS[0].started_at_ns)
    order = await parts.scaling.order("default", 2)
    assert (order.drain, order.put_back, order.missing) == ((), (), 0)


@pytest.mark.parametrize("workers", [-1, 4097])
async def test_a_number_out_of_range_is_refused(workers: int) -> None:
    with pytest.raises(InvalidRequest, match="0 to 4096"):
        await Scheduler(*WORKERS).scaling.order("default", workers)


async def test_an_unknown_pool_and_an_absent_broker_are_said() -> None:
    parts = await Scheduler().listen(*WORKERS)
    with pytest.raises(NotFound, match="known: default"):
        await parts.scaling.order("other", 1)
    parts.bus.away = True
    with pytest.raises(BrokerUnavailable):
        await parts.scaling.order("default", 1)


async def test_nothing_is_ordered_or_advised_before_everybody_can_have_been_heard() -> None:
    parts = Scheduler(WORKERS[0])
    parts.scaling.tick()
    assert parts.scaling.advice == {}
    with pytest.raises(Unavailable, match="heard") as refused:
        await parts.scaling.order("default", 3)
    assert refused.value.retry_after_s
    await parts.listen(*WORKERS)
    assert parts.scaling.advice["default"].load.workers == 3
    assert (await parts.scaling.order("default", 3)).missing == 0


async def test_advice_follows_the_pools_and_stands_while_the_broker_is_away() -> None:
    parts = Scheduler()
    parts.view.jobs.place(open_job(work_s=600.0, placed_at_ns=parts.time.now_ns()))
    await parts.listen(*WORKERS, report("worker-9", pool="other"))
    assert set(parts.scaling.advice) == {"default", "other"}
    assert parts.scaling.advice["default"].load.waiting_s == 600.0
    parts.bus.away = True
    before = dict(parts.scaling.advice)
    for _ in range(3):
        await parts.clock.advance(60.0)
        parts.scaling.tick()
    assert parts.scaling.advice == before
    parts.bus.away = False
    parts.scaling.tick()
    assert parts.scaling.advice == before  # nobody has been heard yet
    await parts.listen(*WORKERS)
    assert parts.scaling.advice["default"].load.at_s > before["default"].load.at_s


async def test_a_pool_that_is_gone_is_advised_on_no_more() -> None:
    parts = await Scheduler().listen(report("worker-9", pool="other"))
    assert set(parts.scaling.advice) == {"other"}
    await parts.clock.advance(FORGET_AFTER_S + 1)
    parts.view.expire(now_ns=parts.time.now_ns())
    parts.scaling.tick()
    assert parts.scaling.advice == {}


async def test_invented_pools_do_not_crowd_out_those_with_workers() -> None:
    parts = Scheduler()
    invented = [report(f"worker-a{number}", pool=f"a{number}") for number in range(MAX_POOLS)]
    await parts.listen(*invented, *WORKERS)
    assert len(parts.scaling.advice) == MAX_POOLS
    assert parts.scaling.advice["default"].load.workers == 3


async def test_a_node_scaled_in_and_gone_leaves_nothing_behind_and_an_operators_drain_stands() -> None:
    parts = Scheduler(*WORKERS)
    await parts.drains.scale_in("worker-1", started_at_ns=WORKERS[0].started_at_ns)
    await parts.drains.scale_in("never-heard-of", started_at_ns=5)
    await parts.drains.drain("worker-2")
    await parts.watch.follow_nodes()
    await parts.clock.advance(LISTEN_S + 1)
    await parts.watch.follow_nodes()
    assert await parts.why("never-heard-of") == b"scaled in 5"  # it may be heard yet
    await parts.clock.advance(FORGET_AFTER_S)
    await parts.watch.follow_nodes()
    assert list(parts.nodes) == []
    for node_id, why in (("worker-1", None), ("never-heard-of", None), ("worker-2", BY_OPERATOR)):
        assert await parts.why(node_id) == why


async def test_a_worker_that_was_scaled_in_and_starts_anew_is_in_rotation() -> None:
    parts = Scheduler(*WORKERS)
    await parts.drains.scale_in("worker-1", started_at_ns=WORKERS[0].started_at_ns)
    await parts.watch.follow_nodes()
    assert parts.nodes.drained == {"worker-1"}
    parts.hear(WORKERS[0].model_copy(update={"started_at_ns": WORKERS[0].started_at_ns + 1}))
    await parts.watch.follow_nodes()
    assert parts.nodes.drained == frozenset()
    assert await parts.why("worker-1") is None


async def test_nobody_is_forgotten_for_not_being_heard_while_the_broker_was_away() -> None:
    parts = Scheduler(*WORKERS)
    await parts.watch.follow_nodes()
    parts.bus.away = True
    for _ in range(3):
        await parts.clock.advance(FORGET_AFTER_S)
        with pytest.raises(BrokerUnavailable):
            await parts.watch.follow_nodes()
    parts.bus.away = False
    await parts.watch.follow_nodes()
    assert len(list(parts.nodes)) == 3
    parts.hear(WORKERS[0])
    await parts.clock.advance(LISTEN_S + 1)
    await parts.watch.follow_nodes()
    assert [node.report.node_id for node in parts.nodes] == ["worker-1"]


async def test_metrics_tell_of_nodes_pools_and_predictions() -> None:
    parts = Scheduler()
    parts.view.jobs.place(open_job(work_s=600.0, placed_at_ns=parts.time.now_ns()))
    await parts.listen(*WORKERS, report("edge-1"))
    parts.hear(report("edge-1", repeats_cached=3))
    for known in (True, False):
        parts.view.hits.asked("edge-1", "acme", known)
    for off, upper in ((0.5, 1.0), (-0.5, 1.0), (2.0, 1.0)):  # two of three are within what was told
        parts.view.learned.spreads.observe(draft_part(), off, upper=upper, centre=0.0)
    text = generate_latest(SchedulerMetrics(parts.view, parts.scaling, time=parts.time).registry).decode()
    off_by = (math.exp(0.5) - 1.0, 1.0 - math.exp(-0.5), math.exp(2.0) - 1.0)
    error = re.search(r'adaptivegen_scheduler_prediction_error{part="draft"} (.*)', text)
    assert error is not None
    assert float(error.group(1)) == pytest.approx(sum(off_by) / 3)
    for line in (
        'adaptivegen_scheduler_nodes{kind="worker",state="healthy"} 3.0',
        'adaptivegen_scheduler_backlog_gpu_seconds{pool="default"} 600.0',
        'adaptivegen_scheduler_workers{pool="default"} 3.0',
        f'adaptivegen_scheduler_workers_desired{{pool="default"}} {parts.scaling.advice["default"].workers}.0',
        "# TYPE adaptivegen_scheduler_outcomes_covered_total counter",
        'adaptivegen_scheduler_outcomes_total{part="draft"} 3.0',
        'adaptivegen_scheduler_outcomes_covered_total{part="draft"} 2.0',
        'adaptivegen_scheduler_repeat_requests_total{edge="edge-1",what="known"} 2.0',
        'adaptivegen_scheduler_repeats_seen_total{edge="edge-1",what="known"} 1.0',
        'adaptivegen_scheduler_repeats_seen_total{edge="edge-1",what="cached"} 3.0',
        'adaptivegen_scheduler_repeat_chance{edge="edge-1",what="cached"} 0.79',
        'adaptivegen_scheduler_repeat_brier{edge="edge-1",what="known"} 0.4',
    ):
        assert line in text, line
