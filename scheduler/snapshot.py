"""What the dashboard shows, taken at one moment: rows of the admin service, and what was decided and seen lately.

Bounded, since one is made and sent every second: of many nodes, tenants or paces only the first are in it, and how
many there are in all. The whole lists are the admin service's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from adaptivegen.clock import Clock
from adaptivegen.rpc.admin import AdminBackend
from adaptivegen.rpc.admin_rows import AccuracyInfo, LineInfo, NodeInfo, PaceInfo, PoolInfo, TenantInfo
from scheduler.decide.recent import Compared, Decided, Recent
from scheduler.decide.view import View
from scheduler.steady import SteadyTime

MAX_ROWS = 200  # of one kind
MAX_REASONS, MAX_REASON_CHARS = 20, 500
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class PlanCount:
    """How often a plan was decided since the scheduler was started; param: what a refusal was about."""

    plan: str
    param: str
    count: int


@dataclass(frozen=True, slots=True)
class DecisionInfo:
    """One of the last decisions. draft_s, final_s, qoe, moved_bytes: as predicted of the chosen
    plan; refused: code of the error."""

    at_ns: int
    job_id: str
    tenant: str
    plan: str
    edge_id: str
    draft_edge_id: str
    pool: str
    draft_s: float | None
    final_s: float | None
    qoe: float | None
    moved_bytes: float | None
    reasons: tuple[str, ...]
    refused: str
    refused_param: str


@dataclass(frozen=True, slots=True)
class InAll:
    """How many rows there are, also those that are left out of a snapshot; healthy: of the nodes."""

    nodes: int
    healthy: int
    pools: int
    tenants: int
    paces: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A scheduler at one moment. at_ns: wall nanoseconds; nodes: those first that are not healthy; compared: predicted
    against observed, of the last finished jobs; decisions: newest first."""

    scheduler: str
    at_ns: int
    open_jobs: int
    nodes: tuple[NodeInfo, ...]
    pools: tuple[PoolInfo, ...]
    tenants: tuple[TenantInfo, ...]
    lines: tuple[LineInfo, ...]
    plans: tuple[PlanCount, ...]
    compared: tuple[Compared, ...]
    accuracies: tuple[AccuracyInfo, ...]
    paces: tuple[PaceInfo, ...]
    decisions: tuple[DecisionInfo, ...]
    in_all: InAll


class Snapshots:
    """Takes snapshots of one scheduler. plans: how often each was decided, with what refusals were about."""

    def __init__(
        self,
        view: View,
        admin: AdminBackend,
        *,
        plans: Mapping[tuple[str, str], int],
        recent: Recent,
        clock: Clock,
        time: SteadyTime,
    ) -> None:
        self._view = view
        self._admin = admin
        self._plans = plans
        self._recent = recent
        self._clock = clock
        self._time = time

    async def take(self) -> Snapshot:
        """Everything as it is now; needs neither broker nor store.

        Of thousands of nodes and tenants this takes a while: between the parts placements get their turn.
        """
        nodes = sorted(await self._admin.nodes(), key=lambda node: node.state == "healthy")
        await self._clock.sleep(0)
        tenants = await self._admin.tenants()
        await self._clock.sleep(0)
        pools, predictions = await self._admin.pools(), await self._admin.predictions()
        return Snapshot(
            scheduler=self._view.decider,
            at_ns=self._time.now_ns(),
            open_jobs=len(self._view.jobs),
            nodes=_first(nodes),
            pools=_first(pools),
            tenants=_first(tenants),
            lines=_first(await self._admin.lines()),
            plans=tuple(PlanCount(plan, param, count) for (plan, param), count in sorted(self._plans.items())),
            compared=self._recent.compared(),
            accuracies=_first(predictions.accuracies),
            paces=_first(predictions.paces),
            decisions=tuple(_decision_info(one) for one in reversed(self._recent.decisions)),
            in_all=InAll(
                nodes=len(nodes),
                healthy=sum(node.state == "healthy" for node in nodes),
                pools=len(pools),
                tenants=len(tenants),
                paces=len(predictions.paces),
            ),
        )


def _first(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(rows[:MAX_ROWS])


def _decision_info(decided: Decided) -> DecisionInfo:
    decision = decided.decision
    chosen = decision.chosen()
    return DecisionInfo(
        at_ns=decision.decided_at_ns,
        job_id=decision.job_id,
        tenant=decided.tenant,
        plan=decision.plan,
        edge_id=decision.edge_id,
        draft_edge_id=decision.draft_edge_id,
        pool=decision.pool,
        draft_s=chosen.draft_s if chosen else None,
        final_s=chosen.final_s if chosen else None,
        qoe=chosen.qoe if chosen else None,
        moved_bytes=chosen.moved_bytes if chosen else None,
        reasons=tuple(reason[:MAX_REASON_CHARS] for reason in decision.reasons[:MAX_REASONS]),
        refused=decision.refused,
        refused_param=decision.refused_param,
    )
