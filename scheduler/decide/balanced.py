"""Known policies behind the port of `placing`, so that ours can be measured against them on a running system. Pure.

A load balancer picks the edge that drafts, among all that can, by nothing but what its paper or its proxy uses
(`baselines`); its plan is always `refine`, for it knows neither models nor costs. The others fix the plan, and draft at
home. None predicts, refuses, shortens or hedges. Their finals are begun as they came, as far as their drafts are there:
none of them knows deadlines, or for which final somebody waits. What stands below them is the same as below ours:
health checks and ejections, hits, plans that a client asks for, a second try of a failed draft elsewhere, and finals
that workers pull, fairly among tenants.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Attempt, Candidate, Decision, DraftPlace, PlacementQuery, Plan
from scheduler.decide.baselines import (
    AlwaysHome,
    Balancer,
    LeastRequest,
    PeakEwma,
    Prequal,
    RoundRobin,
    TwoChoices,
)
from scheduler.decide.decide import check
from scheduler.decide.drafters import NEVER_S
from scheduler.decide.jobs import OpenJob
from scheduler.decide.node import Node
from scheduler.decide.placing import Ours, Placing, PlacingName
from scheduler.decide.underway import Underway
from scheduler.decide.view import Verdict, View

SPLIT = 0.5  # share of the requests that a static split gives to the cloud
FIXABLE: tuple[Plan, ...] = ("draft", "refine", "cloud")
BALANCERS: Mapping[str, Callable[[], Balancer]] = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "two_choices": TwoChoices,
    "peak_ewma": PeakEwma,
    "prequal": Prequal,
    "peak_ewma_turns": PeakEwma,
}
IN_TURNS = frozenset(("peak_ewma_turns",))  # whose finals go in our order, to tell what that does by itself
PATIENT_S = 5.0  # nothing is predicted of a draft, but whoever asks for it is to be as patient as with ours


class Fixed:
    """The same plan for all."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __repr__(self) -> str:
        return f"plan {self._plan} for all"

    def next(self) -> Plan:
        """The plan of the next request."""
        return self._plan


class Split:
    """Plan `refine` for a share of the requests, evenly spread, `draft` for the others, whatever they want."""

    def __init__(self, share: float) -> None:
        self._share, self._owed = share, 0.0

    def __repr__(self) -> str:
        return f"plan refine for a share of {self._share:g}, else draft"

    def next(self) -> Plan:
        """The plan of the next request."""
        self._owed += self._share
        if self._owed < 1.0:
            return "draft"
        self._owed -= 1.0
        return "refine"


class Balanced(Ours):
    """A fixed plan, and drafts where a balancer says. A decision moves the balancer's own pointers, nothing else."""

    def __init__(self, view: View, *, name: str, balancer: Balancer, plans: Fixed | Split) -> None:
        super().__init__(view)
        self._name = name
        self._balancer = balancer
        self._plans = plans
        self._underway = Underway()

    def __repr__(self) -> str:
        return f"Balanced({self._name}, {self._plans!r})"

    def decide(self, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Decision:
        """See Placing."""
        check(self._view, query)
        able = self._able(query, now_ns=now_ns)
        obstacles = self._obstacles(query, able)
        plan, why = self._plan(query, obstacles)
        picked, backup = "", ""
        if plan in ("draft", "refine") and not query.draft_known:
            names = sorted(able)
            picked = self._balancer.pick(names, home=query.edge_id, now_s=now_ns / 1e9, rng=rng)
            others = [name for name in names if name not in (picked, query.edge_id)]
            backup = rng.choice(others) if picked == query.edge_id and others else ""  # else home is the second try
            why = (*why, f"Edge {picked} drafts: {self._name} picked it among {', '.join(names)}.")
        cloud = self._view.cards[query.cloud_model]
        refine = cloud.refine if plan == "refine" else None
        steps = query.final_steps or (refine.steps if refine else cloud.limits.steps_default)
        return Decision(
            job_id=query.job_id,
            plan=plan,
            edge_id=query.edge_id,
            pool=self._pool(query, now_ns=now_ns),
            final_steps=steps if plan in ("refine", "cloud") else 0,
            refine_t0=refine.t0 if refine else None,
            decided_by=self._view.decider,
            decided_at_ns=now_ns,
            reasons=why,
            candidates=tuple(_candidate(option, obstacles[option]) for option in ("hit", *FIXABLE)),
            view_digest=self._view.digest(),
            draft_edge_id=picked if picked != query.edge_id else "",
            backup_edge_id=backup,
            backup_after_s=NEVER_S if backup else 0.0,
            draft_places=tuple(_place(able[name], name == picked) for name in (picked, backup) if name in able),
        )

    def record(self, query: PlacementQuery, decision: Decision, *, now_ns: int) -> OpenJob | None:
        """See Placing."""
        if decision.makes_draft and not query.draft_known:
            self._sent(decision.drafter, now_s=now_ns / 1e9)
        if self._name not in IN_TURNS:
            query = query.model_copy(update={"deadline_s": None, "intent": "iterate"})
        return super().record(query, decision, now_ns=now_ns)

    def attempted(self, attempt: Attempt, *, now_ns: int) -> None:
        """See Placing; after a failure at another edge the one that asked drafts itself."""
        super().attempted(attempt, now_ns=now_ns)
        if not attempt.ok:
            self._sent(attempt.reporter, now_s=now_ns / 1e9)

    def _sent(self, edge_id: str, *, now_s: float) -> None:
        self._balancer.sent(edge_id, now_s=now_s)
        self._underway.sent(edge_id, now_s=now_s)

    def hear(self, report: NodeReport, *, now_ns: int) -> Verdict:
        """See Placing; the balancer hears what is over before what is under way."""
        verdict, now_s = super().hear(report, now_ns=now_ns), now_ns / 1e9
        if verdict == "accepted" and report.kind == "edge":
            for took_s in self._underway.hear(report, now_s=now_s):
                if took_s is None:
                    self._balancer.lost(report.node_id, now_s=now_s)
                else:
                    self._balancer.done(report.node_id, took_s=took_s, now_s=now_s)
            self._balancer.hear(report, now_s=now_s)
        return verdict

    def _able(self, query: PlacementQuery, *, now_ns: int) -> dict[str, Node | None]:
        """Edges that can draft for this one, by id; None of one that has not reported yet and asks."""
        fit = self._view.in_rotation("edge", query.draft_model, now_ns=now_ns, asker=query.edge_id)
        able: dict[str, Node | None] = {}
        for node in fit:
            lends = node.report.lends_by(query.draft_digest) and node.report.grpc_address
            if lends or node.report.node_id == query.edge_id:
                able[node.report.node_id] = node
        home = self._view.nodes.get(query.edge_id)
        if home is None or home.condition(now_ns) == "stale":  # it lives, since it asks
            able[query.edge_id] = home
        return able

    def _obstacles(self, query: PlacementQuery, able: Mapping[str, Node | None]) -> dict[Plan, str]:
        """Why each plan is not possible; empty where it is."""
        cloud = self._view.cards[query.cloud_model]
        drafts = "" if able or query.draft_known else "no edge can draft"
        continues = cloud.refine is not None and query.draft_model in cloud.refine.sources
        return {
            "hit": "" if query.content_known else "no finished video with this content key is stored",
            "draft": drafts,
            "refine": drafts if continues else f"{cloud.name} does not continue drafts of {query.draft_model}",
            "cloud": "",
        }

    def _plan(self, query: PlacementQuery, obstacles: Mapping[Plan, str]) -> tuple[Plan, tuple[str, ...]]:
        """The plan and why: a hit, else what is asked for, else what is fixed, else what is left."""
        if not obstacles["hit"]:
            return "hit", ("Plan hit: the same video is already stored, so it is served at once.",)
        asked = next((plan for plan in FIXABLE if plan == query.requested_plan), None)
        wanted = asked or self._plans.next()
        said = "was asked for" if asked else f"is fixed by {self._name}, which is for comparisons ({self._plans!r})"
        if not obstacles[wanted]:
            return wanted, (f"Plan {wanted} {said}.",)
        return "cloud", (f"Plan {wanted} {said} and is not possible: {obstacles[wanted]}.",)

    def _pool(self, query: PlacementQuery, *, now_ns: int) -> str:
        """The first pool by name with a worker for the model; nothing here knows which is sooner."""
        pools = sorted(self._view.workers(query.cloud_model, now_ns=now_ns, line=query.line))
        return (
            pools[0] if pools else self._view.nodes.last_pool(query.cloud_model, query.line) or self._view.default_pool
        )


def placing_of(name: PlacingName, view: View) -> Placing:
    """The policy of this name over a view."""
    if name == "ours":
        return Ours(view)
    if name in BALANCERS:
        return Balanced(view, name=name, balancer=BALANCERS[name](), plans=Fixed("refine"))
    plans: Mapping[str, Fixed | Split] = {
        "always_edge": Fixed("draft"),
        "always_cloud": Fixed("cloud"),
        "static_split": Split(SPLIT),
    }
    return Balanced(view, name=name, balancer=AlwaysHome(), plans=plans[name])


def _candidate(plan: Plan, obstacle: str) -> Candidate:
    return Candidate(plan=plan, feasible=not obstacle, reason=obstacle or "possible; nothing is predicted of it")


def _place(node: Node | None, picked: bool) -> DraftPlace:
    """Where a draft is asked for."""
    report = node.report if node is not None else None
    name, address = (report.node_id, report.grpc_address) if report is not None else ("", "")
    return DraftPlace(edge_id=name, address=address, draft_s=PATIENT_S, load_s=0.0, chance=1.0 if picked else 0.0)
