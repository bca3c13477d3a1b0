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
from adaptivegen.rpc.admin_rows import AccuracyInfo, DecisionInfo, LineInfo, NodeInfo, PaceInfo, PoolInfo, TenantInfo
from scheduler.decide.recent import Compared, Recent
from scheduler.decide.view import View
from scheduler.explain import decision_rows
from scheduler.steady import SteadyTime

MAX_ROWS = 200  # of one kind
MAX_DECISIONS = 50
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class PlanCount:
    """How often a plan was decided since the scheduler was started; param: what a refusal was about."""

    plan: str
    param: str
    count: int


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
            decisions=tuple(decision_rows(self._recent, limit=MAX_DECISIONS)),
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
