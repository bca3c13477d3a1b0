"""The parts of a scheduler and how they are wired to one another. No decisions, no order of start or drain."""

from __future__ import annotations

import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.card import ModelCard
from adaptivegen.models.pushed import PushedModels
from scheduler.admin import Admin
from scheduler.api.stream import Streams
from scheduler.audit import Audit
from scheduler.decide.balanced import placing_of
from scheduler.decide.view import NodeTable, View
from scheduler.decision_log import DecisionLog
from scheduler.drains import Drains
from scheduler.herald import Herald
from scheduler.lines import ServedLines
from scheduler.metrics import SchedulerMetrics
from scheduler.placement import Placement
from scheduler.policies import Policies
from scheduler.purge import Purger
from scheduler.quotas import TenantQuotas
from scheduler.rollouts import Rollouts
from scheduler.scaling import Scaling
from scheduler.settings import SchedulerSettings
from scheduler.snapshot import Snapshots
from scheduler.standings import StandingsTold
from scheduler.steady import SteadyTime
from scheduler.surveys import StorageSurvey
from scheduler.watch import Watch


@dataclass(frozen=True, slots=True)
class Parts:
    """What serves, and what is to run meanwhile."""

    view: View
    placement: Placement
    admin: Admin
    streams: Streams
    metrics: SchedulerMetrics
    running: tuple[Coroutine[Any, Any, None], ...]


def build(
    settings: SchedulerSettings,
    cards: Mapping[str, ModelCard],
    jobs: JobStore,
    blob: BlobStore,
    bus: Bus,
    log: DecisionLog | None,
    *,
    clock: Clock,
    time: SteadyTime,
    rng: random.Random,
) -> Parts:
    """Wire the parts; all of what is to run must be run."""
    view = _view(settings, cards)
    placing = placing_of(settings.placing, view)
    drains = Drains(bus, view.nodes)
    herald = Herald(view, bus, clock=clock, time=time)
    scaling = Scaling(view, bus, drains, settings.elastic(), clock=clock, time=time)
    policies = Policies(view, bus, blob, clock=clock, time=time)
    quotas = TenantQuotas(view.quotas, bus, blob, clock=clock, time=time)
    lines = ServedLines(bus, blob, clock=clock, time=time)
    library = settings.library()
    pushed = PushedModels(blob, library, settings.models_dir, max_bytes=settings.models_max_bytes)
    rollouts = Rollouts(view, lines, library, blob, clock=clock, time=time, pushed=pushed)
    placement = Placement(
        view,
        time=time,
        rng=rng,
        log=log,
        placed=herald.placed,
        heard=rollouts.heard,
        unknown=rollouts.look_for,
        placing=placing,
    )
    admin = Admin(
        view,
        jobs,
        recent=placement.recent,
        drains=drains,
        scaling=scaling,
        policies=policies,
        quotas=quotas,
        rollouts=rollouts,
        purger=Purger(jobs, lambda: view.cards, clock=clock),
        audit=Audit(blob, node_id=settings.node_id, time=time),
        time=time,
    )
    snapshots = Snapshots(view, admin, plans=placement.plans, recent=placement.recent, clock=clock, time=time)
    streams = Streams(snapshots.take, clock=clock)
    watch = Watch(view, bus, drains, clock=clock, time=time, placing=placing)
    survey = StorageSurvey(view, blob, bus, clock=clock)
    metrics = SchedulerMetrics(view, scaling, time=time, plans=placement.plans, lines=rollouts.known)
    standings = StandingsTold(view, bus, clock=clock, time=time)
    parts = (watch, scaling, policies, quotas, lines, rollouts, herald, streams, survey, standings)
    running = (*(part.run() for part in parts), survey.listen())
    return Parts(view, placement, admin, streams, metrics, running)


def _view(settings: SchedulerSettings, cards: Mapping[str, ModelCard]) -> View:
    """A view of nothing yet."""
    return View(
        nodes=NodeTable(),
        cards=cards,
        decider=settings.node_id,
        default_pool=settings.pool,
        policy=settings.policy(),
        select=settings.select(),
        admission=settings.admission(),
    )
