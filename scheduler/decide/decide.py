"""The choice among plans for one request, with its reasons. Pure: same view, query, time and chance, same choice.

`decide` changes nothing; `record` then notes in the view the work that a decision sends out, so that the next one sees
it before any heartbeat does. Service and simulator call both.
"""

from __future__ import annotations

import random
from typing import Any

from adaptivegen.drafting import yields_s
from adaptivegen.errors import InvalidRequest, ModelNotFound
from adaptivegen.placement import Candidate, Decision, PlacementQuery, Plan
from scheduler.decide.admission import bar_of_deadline
from scheduler.decide.choose import Admitted, Choice, admit, choose
from scheduler.decide.flow import LATEST_DRAFT_S
from scheduler.decide.jobs import OpenJob, SentDraft
from scheduler.decide.moves import draft_card
from scheduler.decide.plans import Situation, final_steps, look_at, weigh, weigh_final
from scheduler.decide.predict import draft_at, draft_wait_s, final_work, newcomer, standing_of
from scheduler.decide.split import split_work
from scheduler.decide.steps import Worth, may_be_settled, settled, step_choice
from scheduler.decide.view import View

LONGEST_S = 7 * 86400.0  # of a deadline
MAX_PIXELS = 2**40  # of a whole clip; far beyond any model, near enough to keep the arithmetic sane


def decide(view: View, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Decision:
    """Choose a plan, or refuse. Raises ModelNotFound for a cloud model without a card, InvalidRequest for impossible
    numbers."""
    check(view, query)
    situation = look_at(view, query, now_ns=now_ns, rng=rng)
    admitted = admit(situation, weigh(situation), now_ns=now_ns)
    choice = choose(situation, admitted)
    plan, trial = choice.plan, situation.drafting.trial
    if situation.drafts(plan):
        late = _late_trials(situation, plan) if plan not in admitted.bars else frozenset()
        if trial is not None and trial.edge_id not in late:
            situation = situation._replace(drafting=trial)
            admitted = admit(situation, weigh(situation), now_ns=now_ns)
            said = f"For once {trial.note}: after {trial.done_s or 0.0:.2f} s as far as that is known."
            choice = choice._replace(reasons=(*choice.reasons, said))
        situation = situation._replace(drafting=situation.drafting.without_trials(late))
    refine = situation.cloud.refine if situation.starts_from_draft(plan) else None
    return Decision(
        job_id=query.job_id,
        plan=plan,
        edge_id=query.edge_id,
        pool=situation.pool.pool,
        final_steps=final_steps(situation, plan),
        refine_t0=refine.t0 if refine else None,
        decided_by=view.decider,
        decided_at_ns=now_ns,
        draft_yields_s=yields_s(query.intent, deadline_s=query.deadline_s),
        settles=_settles(situation, admitted, plan),
        reasons=choice.reasons,
        candidates=admitted.candidates,
        view_digest=view.digest(),
        propensity=_propensity(situation, plan),
        **_drafter(situation, plan),
        **_refusal(choice),
    )


def _settles(situation: Situation, admitted: Admitted, plan: Plan) -> bool:
    """Whether the steps of a final are settled when its turn comes; not where all of them are barred for good."""
    bar = admitted.bars.get("refine" if situation.starts_from_draft(plan) else "cloud")
    return may_be_settled(situation.query, plan) and (bar is None or bar.soft)


def _late_trials(situation: Situation, plan: Plan) -> frozenset[str]:
    """Edges whose trial is not made since the plan, which comes in time without it, would be late for its sake."""
    query, made = situation.query, situation.drafting
    if query.deadline_s is None or not situation.starts_from_draft(plan):
        return frozenset()
    late = []
    for offer in made.trials.offers:
        tried = weigh_final(situation._replace(drafting=made.at(offer)), plan)
        if tried.feasible and bar_of_deadline(query, tried, situation.pool.wait_s) is not None:
            late.append(offer.edge_id)
    return frozenset(late)


def record(view: View, query: PlacementQuery, decision: Decision, *, now_ns: int) -> OpenJob | None:
    """Note the work the decision sends to the edge and to the pool, and what was predicted of the job; returns the job
    that is open now, None where there is none."""
    if not query.draft_known:
        view.hits.asked(query.edge_id, query.tenant, query.content_known)
    sent = _sent(view, query, decision, now_ns=now_ns)
    if sent is not None:
        view.send(sent, tenant=query.tenant, now_ns=now_ns)
    if decision.plan == "split":
        _finishing(view, query, decision, now_ns=now_ns)
    if decision.plan == "refuse":
        _promise(view, query, decision, now_ns=now_ns)
    if not (decision.makes_draft or decision.makes_final):
        return None
    job = _open_job(view, query, decision, sent, now_ns=now_ns)
    view.jobs.place(job)
    factor = view.draft_factor(decision.drafter, query.draft_model, now_ns=now_ns, asker=query.edge_id)
    known, standing = query.draft_known, standing_of(query)
    if sent is not None and view.loads.left_s(decision.drafter, query.draft_model, now_ns=now_ns) is not None:
        return job  # its times would tell of a model that is loaded again, not of drafts and finals
    drafter = view.nodes.get(decision.drafter)
    view.learned.expect(
        decision,
        draft_known=known,
        draft_class=drafter.report.node_class if drafter is not None else "",
        draft_factor=factor,
        standing=standing,
        steps=job.steps,
    )
    return job


def _sent(view: View, query: PlacementQuery, decision: Decision, *, now_ns: int) -> SentDraft | None:
    """The draft that a decision has made; None where it has none made."""
    if query.draft_known or not decision.makes_draft:
        return None
    work = draft_at(view, query, decision.drafter, now_ns=now_ns)
    return SentDraft(
        edge_id=decision.drafter,
        asked_by=decision.edge_id,
        work_s=work.total_s if work else 0.0,
        session=query.session,
        gain=decision.draft_gain,
    )


def _finishing(view: View, query: PlacementQuery, decision: Decision, *, now_ns: int) -> None:
    """The edge that asked will have the rest of a split to do; it counts from now on, though it comes later."""
    draft, cloud = draft_card(view, query), view.cards[query.cloud_model]
    shape = {"width": query.width, "height": query.height, "frames": query.frames}
    work = split_work(cloud, draft, **shape, steps=decision.final_steps) if draft is not None else None
    factor = view.draft_factor(query.edge_id, query.draft_model, now_ns=now_ns, asker=query.edge_id)
    work_s = work.finish.times(factor).total_s if work else 0.0
    view.nodes.dispatch_draft(query.edge_id, work_s, now_ns=now_ns)


def _open_job(view: View, query: PlacementQuery, decision: Decision, sent: SentDraft | None, *, now_ns: int) -> OpenJob:
    chosen = decision.chosen()
    known: dict[str, Any] = {"job_id": query.job_id, "tenant": query.tenant, "tier": query.tier, "sent": sent}
    if decision.makes_final:
        new = newcomer(view, query, now_ns=now_ns)
        known |= {"pool": decision.pool, "model": query.cloud_model, "deadline_at_ns": new.deadline_at_ns}
        known |= {"awaited": new.awaited, "good_until_ns": new.good_until_ns}
        work = final_work(view, query, steps=decision.final_steps, factor=1.0)
        if work is not None:
            factor = chosen.gpu_s / work.generate_s if chosen and chosen.gpu_s and work.generate_s else 1.0
            work = work.times(factor)  # of the pool, as it was weighed
            known |= {"work_s": work.total_s, "gpu_s": work.generate_s}
            known["steps"] = step_choice(
                decision,
                asked=query.final_steps,
                work=lambda steps: final_work(view, query, steps=steps, factor=factor),
                worth=Worth(view.policy.qoe, view.cards[query.cloud_model], query.intent, query.width, query.height),
            )
        known["ready_at_ns"] = _ready_at_ns(view, query, decision, chosen, now_ns=now_ns)
    ends_s = chosen and (chosen.final_s if decision.makes_final else chosen.draft_s)
    ends_at_ns = now_ns + round(ends_s * 1e9) if ends_s else 0
    job = OpenJob(**known, placed_at_ns=now_ns, decided_at_ns=now_ns, ends_at_ns=ends_at_ns)
    return _foreseen(view, query, job, now_ns=now_ns) if job.steps is not None else job


def _foreseen(view: View, query: PlacementQuery, job: OpenJob, *, now_ns: int) -> OpenJob:
    """A job whose steps are settled when its turn comes, with the time that it will need of a worker if as much waits
    then as now, so that the line is not told longer than it will be."""
    workers = view.workers(query.cloud_model, now_ns=now_ns, line=query.line).get(job.pool, [])
    sharing_s = view.jobs.line(job.pool).sharing_s(job.tier, frozenset((job.model,)))
    slots = sum(node.slots for node in workers)
    after_s = job.work_s + (job.steps.moves_s if job.steps is not None else 0.0)
    begins_ns = max(now_ns, job.ends_at_ns - round(after_s * 1e9))
    told = settled(job, begins_ns=begins_ns, wait_s=sharing_s / max(1, slots))
    return job.expecting(told.steps) if told.steps else job


def _ready_at_ns(
    view: View, query: PlacementQuery, decision: Decision, chosen: Candidate | None, *, now_ns: int
) -> int:
    """When the draft should be there that a final begins from, whoever decided who makes it; 0 where none is waited
    for or nothing is known. What was just sent to that edge is counted, this draft included."""
    if not decision.makes_draft or query.draft_known:
        return 0
    if chosen is not None and chosen.draft_s is not None:
        left_s = chosen.draft_s
    else:
        left_s = draft_wait_s(view, view.nodes.get(decision.drafter), query.draft_model, now_ns=now_ns)
    return now_ns + round(min(left_s, LATEST_DRAFT_S) * 1e9)


def _promise(view: View, query: PlacementQuery, decision: Decision, *, now_ns: int) -> None:
    """A place for a request that was refused for a full line, when it asks again as it was told."""
    finals = [candidate.gpu_s for candidate in decision.candidates if candidate.gpu_s]
    if query.keeps_id and decision.refused_param == "pool" and decision.retry_after_s and finals:
        view.jobs.promises.add(
            query.job_id,
            (query.tenant, decision.pool, query.tier),
            work_s=min(finals),
            after_s=decision.retry_after_s,
            now_s=now_ns / 1e9,
        )


def _refusal(choice: Choice) -> dict[str, Any]:
    bar = choice.refusal
    if bar is None:
        return {}
    return {"refused": bar.code, "refused_param": bar.param, "retry_after_s": bar.retry_after_s}


def _propensity(situation: Situation, plan: Plan) -> float:
    """The chance of the places that a plan uses."""
    of_draft = situation.drafting.propensity if situation.drafts(plan) else 1.0
    return of_draft * (situation.pool.propensity if final_steps(situation, plan) else 1.0)


def _drafter(situation: Situation, plan: Plan) -> dict[str, Any]:
    """What a decision says of where the draft is made; nothing of one that needs none or is made at home alone."""
    made, query = situation.drafting, situation.query
    if not situation.drafts(plan) or not made.places:
        return {}
    return {
        "draft_edge_id": made.edge_id if made.edge_id != query.edge_id else "",
        "backup_edge_id": made.backup,
        "backup_after_s": made.backup_after_s if made.backup else 0.0,
        "tied_after_s": made.tied_after_s if made.backup else 0.0,
        "draft_gain": made.gain,
        "draft_places": made.places,
    }


def check(view: View, query: PlacementQuery) -> None:
    """Raise ModelNotFound or InvalidRequest for what no policy could place."""
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
    if query.deadline_s is not None and not 0.0 < query.deadline_s <= LONGEST_S:  # nor if it is no number
        raise InvalidRequest.field("deadline_s", query.deadline_s, f"above 0, to {LONGEST_S:g}")
    if query.final_steps and not card.limits.steps_min <= query.final_steps <= card.limits.steps_max:
        limit = f"0 (the default) or {card.limits.steps_min} to {card.limits.steps_max}"
        raise InvalidRequest.field("final_steps", query.final_steps, limit)
