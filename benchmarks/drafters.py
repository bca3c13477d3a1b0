"""What places drafts in `compare_drafters`: our deciding modules, or a known balancer, behind one protocol."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from adaptivegen.models.card import Refine
from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Attempt, Decision, Outcome, PlacementQuery
from benchmarks.cards import make_card
from scheduler.decide.baselines import Balancer
from scheduler.decide.decide import decide, record
from scheduler.decide.jobs import OpenJob
from scheduler.decide.view import NodeTable, View

CARDS = {
    "draft": make_card("draft", side=128, steps=4, step_ms=50, text_ms=20),
    "cloud": make_card("cloud", side=256, step_ms=500, refine=Refine(sources=("draft",), t0=0.5, steps=12)),
}


class Scheduler(Protocol):
    """Chooses the edge of each draft, and is told what a scheduler is told."""

    def place(self, number: int, home: str, now_s: float) -> str:
        """The edge that drafts."""
        ...

    def news(self) -> OpenJob | None:
        """What it tells the other scheduler of what it placed last."""
        ...

    def told(self, job: OpenJob, now_s: float) -> None:
        """What the other one tells."""
        ...

    def hear(self, report: NodeReport, now_s: float) -> None:
        """A heartbeat."""
        ...

    def ended(self, number: int, edge_id: str, took_s: float, now_s: float) -> None:
        """A draft that it placed is there; edge_id: who made it."""
        ...

    def attempted(self, edge_id: str, asking: str, ok: bool, now_s: float) -> None:
        """How it went at another edge."""
        ...


class Ours:
    """The deciding modules of the scheduler, as its services feed them."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._view = View(nodes=NodeTable(), cards=CARDS, decider=name)
        self._rng = rng
        self._decided: dict[int, Decision] = {}
        self._placed: OpenJob | None = None

    def place(self, number: int, home: str, now_s: float) -> str:
        """See Scheduler."""
        query = PlacementQuery(
            job_id=f"vid_{number:026d}",
            tenant="t",
            edge_id=home,
            intent="iterate",
            draft_model="draft",
            cloud_model="cloud",
            width=256,
            height=256,
            frames=24,
            requested_plan="draft",
            draft_digest=CARDS["draft"].digest,
        )
        now_ns = int(now_s * 1e9)
        decision = decide(self._view, query, now_ns=now_ns, rng=self._rng)
        self._placed = record(self._view, query, decision, now_ns=now_ns)
        self._decided[number] = decision
        return decision.draft_edge_id or home

    def news(self) -> OpenJob | None:
        """See Scheduler."""
        return self._placed

    def told(self, job: OpenJob, now_s: float) -> None:
        """See Scheduler."""
        self._view.hear_of(job, now_ns=int(now_s * 1e9))

    def hear(self, report: NodeReport, now_s: float) -> None:
        """See Scheduler."""
        self._view.hear(report, now_ns=int(now_s * 1e9))

    def ended(self, number: int, edge_id: str, took_s: float, now_s: float) -> None:
        """See Scheduler."""
        decision = self._decided.pop(number)
        outcome = Outcome(
            job_id=decision.job_id,
            edge_id=decision.edge_id,
            worker_id="",
            plan="draft",
            status="completed",
            decided_by=decision.decided_by,
            decided_at_ns=decision.decided_at_ns,
            draft_s=took_s,
            drafted_by=edge_id,
        )
        self._view.ended(outcome, now_ns=int(now_s * 1e9))

    def attempted(self, edge_id: str, asking: str, ok: bool, now_s: float) -> None:
        """See Scheduler."""
        self._view.attempted(Attempt(node_id=edge_id, reporter=asking, ok=ok), now_ns=int(now_s * 1e9))


class Baseline:
    """A known balancer."""

    def __init__(self, balancer: Balancer, names: Sequence[str], rng: random.Random) -> None:
        self._balancer, self._names, self._rng = balancer, names, rng
        self._sent: dict[int, str] = {}

    def place(self, number: int, home: str, now_s: float) -> str:
        """See Scheduler."""
        chosen = self._balancer.pick(self._names, home=home, now_s=now_s, rng=self._rng)
        self._balancer.sent(chosen, now_s=now_s)
        self._sent[number] = chosen
        return chosen

    def news(self) -> None:
        """See Scheduler: each balances by itself."""

    def told(self, job: OpenJob, now_s: float) -> None:
        """See Scheduler."""

    def hear(self, report: NodeReport, now_s: float) -> None:
        """See Scheduler."""
        self._balancer.hear(report, now_s=now_s)

    def ended(self, number: int, edge_id: str, took_s: float, now_s: float) -> None:
        """See Scheduler."""
        self._balancer.done(self._sent.pop(number), took_s=took_s, now_s=now_s)

    def attempted(self, edge_id: str, asking: str, ok: bool, now_s: float) -> None:
        """See Scheduler: none of the papers speaks of it."""
