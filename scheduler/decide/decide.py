"""The choice among plans for one request, with its reasons. Pure: same view, query, time and chance, same choice.

`decide` changes nothing; `record` then notes in the view the work that a decision sends out, so that the next one sees
it before any heartbeat does. Service and simulator call both.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from adaptivegen.errors import InvalidRequest, ModelNotFound
from adaptivegen.placement import Candidate, Decision, PlacementQuery, Plan
from scheduler.decide.plans import Situation, final_steps, look_at, weigh
from scheduler.decide.predict import draft_at, final_work, pool_factor
from scheduler.decide.view import View

MAX_PIXELS = 2**40  # of a whole clip; far beyond any model, near enough to keep the arithmetic sane


def decide(view: View, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Decision:
    """Choose a plan. Raises ModelNotFound for a cloud model without a card, InvalidRequest for impossible numbers."""
    _check(view, query)
    situation = look_at(view, query, now_ns=now_ns, rng=rng)
    candidates = weigh(situation)
    plan, reasons = _choose(situation, candidates)
    trial = situation.drafting.trial
    if trial is not None and plan in ("draft", "refine"):
        situation = replace(situation, drafting=trial)
        candidates = weigh(situation)
        reasons.append(f"For once {trial.note}: after {trial.done_s or 0.0:.2f} s as far as that is known.")
    refine = situation.cloud.refine if plan == "refine" else None
    return Decision(
        job_id=query.job_id,
        plan=plan,
        edge_id=query.edge_id,
        pool=situation.pool.pool,
        final_steps=final_steps(situation, plan),
        refine_t0=refine.t0 if refine else None,
        decided_by=view.decider,
        decided_at_ns=now_ns,
        reasons=tuple(reasons),
        candidates=candidates,
        view_digest=view.digest(),
        propensity=_propensity(situation, plan),
        **_drafter(situation, plan),
    )


def record(view: View, query: PlacementQuery, decision: Decision, *, now_ns: int) -> None:
    """Note the work the decision sends to the edge and to the pool, and what was predicted of the job."""
    if decision.plan in ("draft", "refine") and not query.draft_known:
        work = draft_at(view, query, decision.drafter)
        view.nodes.dispatch_draft(decision.drafter, work.total_s if work else 0.0, now_ns=now_ns)
        view.sent(decision.edge_id, decision.drafter, now_s=now_ns / 1e9)
        view.sessions.note(
            query.tenant, query.session, edge_id=decision.drafter, gain=decision.draft_gain, now_s=now_ns / 1e9
        )
    if decision.plan in ("refine", "cloud"):
        factor = pool_factor(view, decision.pool, query.cloud_model, now_ns=now_ns)
        work = final_work(view, query, steps=decision.final_steps, factor=factor)
        view.nodes.dispatch_final(decision.pool, query.job_id, work.total_s if work else 0.0, now_ns=now_ns)
    view.learned.expect(decision, draft_known=query.draft_known)


def _propensity(situation: Situation, plan: Plan) -> float:
    """The chance of the places that a plan uses."""
    of_draft = situation.drafting.propensity if plan in ("draft", "refine") else 1.0
    return of_draft * (situation.pool.propensity if plan in ("refine", "cloud") else 1.0)


def _drafter(situation: Situation, plan: Plan) -> dict[str, Any]:
    """What a decision says of where the draft is made; nothing of one that needs none or is made at home alone."""
    made, query = situation.drafting, situation.query
    if plan not in ("draft", "refine") or not made.places:
        return {}
    return {
        "draft_edge_id": made.edge_id if made.edge_id != query.edge_id else "",
        "backup_edge_id": made.backup,
        "backup_after_s": made.late_s if made.backup else 0.0,
        "draft_gain": made.gain,
        "draft_places": made.places,
    }


def _check(view: View, query: PlacementQuery) -> None:
    card = view.cards.get(query.cloud_model)
    if card is None:
        known = ", ".join(sorted(view.cards)) or "none"
        raise ModelNotFound(f"no model {query.cloud_model[:80]!r} is known here; known: {known}", param="cloud_model")
    for name, value in (("width", query.width), ("height", query.height), ("frames", query.frames)):
        if value <= 0:
            raise InvalidRequest.field(name, value, "1 or more")
    pixels = query.width * query.height * query.frames
    if pixels > MAX_PIXELS:
        raise InvalidRequest.field("width x height x frames", pixels, f"at most {MAX_PIXELS}")
    if query.final_steps and not card.limits.steps_min <= query.final_steps <= card.limits.steps_max:
        limit = f"0 (the default) or {card.limits.steps_min} to {card.limits.steps_max}"
        raise InvalidRequest.field("final_steps", query.final_steps, limit)


def _choose(situation: Situation, candidates: tuple[Candidate, ...]) -> tuple[Plan, list[str]]:
    query = situation.query
    by_plan = {candidate.plan: candidate for candidate in candidates}
    feasible = [candidate for candidate in candidates if candidate.feasible]
    if by_plan["hit"].feasible:
        return "hit", ["Plan hit: the same video is already stored, so it is served at once."]
    reasons: list[str] = []
    if query.requested_plan:
        asked = next((c for c in candidates if c.plan == query.requested_plan), None)
        if asked is not None and asked.feasible:
            return asked.plan, [f"Plan {asked.plan} was asked for and is possible.", *_details(situation, asked)]
        why = asked.reason if asked is not None else "this scheduler knows no such plan"
        reasons.append(f"Plan {query.requested_plan[:40]} was asked for and is not possible: {why}.")
    if not feasible:
        plan: Plan = "refine" if _can_refine(situation) else "cloud"
        reasons.append(f"Plan {plan} is taken although nothing can be predicted: {by_plan[plan].reason}.")
        return plan, reasons
    best = max(feasible, key=lambda candidate: candidate.score)  # the first listed wins a tie
    reasons.append(_comparison(best, feasible))
    reasons.extend(_details(situation, best))
    for candidate in candidates:
        if not candidate.feasible and candidate.plan not in ("hit", query.requested_plan):
            reasons.append(f"Plan {candidate.plan} is not possible: {candidate.reason}.")
    return best.plan, reasons


def _can_refine(situation: Situation) -> bool:
    refine = situation.cloud.refine
    return not situation.drafting.obstacle and refine is not None and situation.query.draft_model in refine.sources


def _comparison(best: Candidate, feasible: list[Candidate]) -> str:
    others = [f"{other.plan} {other.score:.2f}" for other in feasible if other is not best]
    against = f", against {' and '.join(others)}" if others else ", and nothing else is possible"
    return f"Plan {best.plan} has the best score, {best.score:.2f} (QoE less cost){against}."


def _at_most(upper_s: float | None) -> str:
    return f" (mostly within {upper_s:.2f} s)" if upper_s else ""


def _details(situation: Situation, chosen: Candidate) -> list[str]:
    """What is expected of the chosen plan, and what had to be assumed."""
    reasons: list[str] = []
    if chosen.draft_s is not None:
        reasons.append(
            f"The draft is expected after {chosen.draft_s:.2f} s{_at_most(chosen.draft_upper_s)}, its first look after"
            f" {chosen.first_look_s:.2f} s."
        )
    if chosen.plan in ("refine", "cloud"):
        if chosen.final_s is not None:
            reasons.append(
                f"The final is expected after {chosen.final_s:.1f} s{_at_most(chosen.final_upper_s)}, with"
                f" {chosen.gpu_s:.1f} cloud seconds."
            )
        else:
            reasons.append(
                f"No healthy worker serves {situation.cloud.name}: the final is queued and its time is not known."
            )
    if chosen.plan == "cloud" and situation.drafting.obstacle:
        reasons.append(f"There is no draft: {situation.drafting.obstacle}.")
    if chosen.plan in ("draft", "refine") and situation.drafting.note:
        note = situation.drafting.note
        reasons.append(f"{note[0].upper()}{note[1:]}.")
    for card in (situation.draft, situation.cloud):
        if card is not None and "mos" not in card.quality and not card.scores:
            reasons.append(f"The quality of {card.name} was not measured, so it is assumed.")
    return reasons
