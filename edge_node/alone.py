"""Partition mode: what an edge decides when no scheduler answers. Pure.

With only its own state in view it keeps the default promise (a draft now, a final from the cloud when a worker takes
the job) and says that it decided alone and why.
"""

from __future__ import annotations

from adaptivegen.drafting import yields_s
from adaptivegen.models.card import ModelCard
from adaptivegen.placement import Candidate, Decision, PlacementQuery, Plan


def decide_alone(
    query: PlacementQuery,
    *,
    draft_card: ModelCard,
    cloud_card: ModelCard,
    can_draft: bool,
    pool: str,
    why: str,
    now_ns: int,
) -> Decision:
    """The asked-for plan where the edge can do its part of it, else refine, else cloud."""
    can_refine = cloud_card.refine is not None and draft_card.name in cloud_card.refine.sources
    candidates = (
        _candidate("refine", can_draft and can_refine, can_draft=can_draft, can_refine=can_refine),
        _candidate("draft", can_draft, can_draft=can_draft, can_refine=True),
        _candidate("cloud", True, can_draft=True, can_refine=True),
    )
    feasible = {candidate.plan for candidate in candidates if candidate.feasible}
    reasons = [f"the edge decided alone: {why}"]
    plan: Plan
    if query.requested_plan in feasible:
        plan = "draft" if query.requested_plan == "draft" else "refine" if query.requested_plan == "refine" else "cloud"
        reasons.append(f"plan {plan} was asked for")
    else:
        plan = "refine" if "refine" in feasible else "cloud"
        if query.requested_plan:
            reasons.append(f"plan {query.requested_plan} was asked for and is not possible here")
        reasons.append(f"{plan} is the default when nothing is known of the cloud")
    refine = cloud_card.refine if plan == "refine" else None
    steps = query.final_steps or (refine.steps if refine else cloud_card.limits.steps_default)
    return Decision(
        job_id=query.job_id,
        plan=plan,
        edge_id=query.edge_id,
        pool=pool,
        final_steps=0 if plan == "draft" else steps,
        refine_t0=refine.t0 if refine else None,
        decided_by=query.edge_id,
        decided_at_ns=now_ns,
        draft_yields_s=yields_s(query.intent, deadline_s=query.deadline_s),
        reasons=tuple(reasons),
        candidates=candidates,
    )


def known_alone(query: PlacementQuery, *, pool: str, why: str, now_ns: int) -> Decision:
    """A hit of what this edge has itself."""
    candidate = Candidate(plan="hit", feasible=True, reason="this edge has kept the same video")
    return Decision(
        job_id=query.job_id,
        plan="hit",
        edge_id=query.edge_id,
        pool=pool,
        final_steps=0,
        refine_t0=None,
        decided_by=query.edge_id,
        decided_at_ns=now_ns,
        reasons=(f"the edge decided alone: {why}", "the same video was rendered before, and is kept here"),
        candidates=(candidate,),
    )


def _candidate(plan: Plan, feasible: bool, *, can_draft: bool, can_refine: bool) -> Candidate:
    if feasible:
        reason = "possible as far as this edge knows"
    elif not can_draft:
        reason = "the draft model is not ready or its queue is full"
    else:
        reason = "the cloud model does not refine drafts of this edge's model" if not can_refine else "not possible"
    return Candidate(plan=plan, feasible=feasible, reason=reason)
