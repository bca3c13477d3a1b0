"""The plans a request could take, each with its predicted times, QoE, cost, and why it is possible or not. Pure.

Seams for later plans (near-hit, split): each is one more function here that returns a candidate.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from adaptivegen.models.card import ModelCard
from adaptivegen.placement import FINAL_PLANS, Candidate, PlacementQuery, Plan
from scheduler.decide.drafters import Drafting, draft_quality, drafting
from scheduler.decide.predict import PoolWait, draft_card, final_work, pool_wait
from scheduler.decide.qoe import qoe, quality_of
from scheduler.decide.view import View
from scheduler.decide.work import Work


@dataclass(frozen=True, slots=True)
class Situation:
    """One query against the view: everything the candidates share."""

    view: View
    query: PlacementQuery
    cloud: ModelCard
    draft: ModelCard | None
    drafting: Drafting
    pool: PoolWait

    def candidate(
        self,
        plan: Plan,
        reason: str,
        *,
        draft_s: float | None = None,
        look_s: float | None = None,
        final_s: float | None = None,
        gpu_s: float = 0.0,
    ) -> Candidate:
        """A feasible candidate with its QoE and score; times as predicted, without what outcomes say of such."""
        learned = self.view.learned
        draft_s = learned.centred_s(self.drafting.part, draft_s)
        final_s = learned.centred_s(f"final {plan}", final_s)
        settings, intent = self.view.policy.qoe, self.query.intent
        final_quality = self.final_quality(plan)
        shown_first = final_quality if plan == "hit" else draft_quality(self.view, self.query, self.draft)
        value = qoe(
            settings,
            intent=intent,
            draft_quality=shown_first,
            draft_s=draft_s,
            final_quality=final_quality,
            final_s=final_s,
        )
        return Candidate(
            plan=plan,
            feasible=True,
            reason=reason,
            first_look_s=look_s,
            draft_s=draft_s,
            final_s=final_s,
            draft_upper_s=learned.upper_s(self.drafting.part, draft_s),
            final_upper_s=learned.upper_s(f"final {plan}", final_s),
            qoe=value,
            gpu_s=gpu_s,
            score=value - self.view.policy.costs.of(gpu_s, intent=intent),
        )

    @property
    def refines(self) -> bool:
        """Whether a final can go on from the draft."""
        refine = self.cloud.refine
        return not self.drafting.obstacle and refine is not None and self.query.draft_model in refine.sources

    def starts_from_draft(self, plan: Plan) -> bool:
        """Whether the final of a plan does; a reduced one does where it can."""
        return plan == "refine" or (plan == "reduced" and self.refines)

    def drafts(self, plan: Plan) -> bool:
        """Whether an edge drafts under a plan."""
        return plan == "draft" or self.starts_from_draft(plan)

    def final_quality(self, plan: Plan) -> float:
        """Of a final under a plan; a hit is taken to have been made from noise."""
        query = self.query
        return quality_of(
            self.cloud,
            "refine" if self.starts_from_draft(plan) else "cloud",
            steps=final_steps(self, plan) or self.cloud.limits.steps_default,
            width=query.width,
            height=query.height,
            assumed=self.view.policy.qoe.unmeasured_final,
        )


def look_at(view: View, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Situation:
    """Collect what the candidates share; the cloud model's card must be in the view."""
    draft = draft_card(view, query)
    return Situation(
        view=view,
        query=query,
        cloud=view.cards[query.cloud_model],
        draft=draft,
        drafting=drafting(view, query, draft, now_ns=now_ns, rng=rng),
        pool=pool_wait(view, query, now_ns=now_ns, rng=rng),
    )


def weigh(situation: Situation) -> tuple[Candidate, ...]:
    """All candidates, feasible or not, in a fixed order."""
    return (_hit(situation), _draft(situation), _refine(situation), _cloud(situation), _reduced(situation))


def final_steps(situation: Situation, plan: Plan) -> int:
    """Steps of the final under a plan: as asked, else the plan's default, of a reduced one half of them; 0 for a plan
    without one."""
    if plan not in FINAL_PLANS:
        return 0
    cloud = situation.cloud
    refine = cloud.refine if situation.starts_from_draft(plan) else None
    whole = situation.query.final_steps or (refine.steps if refine else cloud.limits.steps_default)
    return max(cloud.limits.steps_min, math.ceil(whole / 2)) if plan == "reduced" else whole


def _impossible(plan: Plan, reason: str) -> Candidate:
    return Candidate(plan=plan, feasible=False, reason=reason)


def _hit(situation: Situation) -> Candidate:
    if not situation.query.content_known:
        return _impossible("hit", "no finished video with this content key is stored")
    reason = "the same video is already stored"
    return situation.candidate("hit", reason, draft_s=0.0, look_s=0.0, final_s=0.0)


def _draft(situation: Situation) -> Candidate:
    query, made = situation.query, situation.drafting
    if made.obstacle:
        return _impossible("draft", made.obstacle)
    if query.intent == "render" and query.requested_plan != "draft":
        return _impossible("draft", "a final is wanted (intent render), and this plan makes none")
    reason = f"edge {made.edge_id} drafts, and the final waits until it is asked for"
    return situation.candidate("draft", reason, draft_s=made.done_s, look_s=made.look_s)


def _refine(situation: Situation) -> Candidate:
    query, made, refine = situation.query, situation.drafting, situation.cloud.refine
    if refine is None or query.draft_model not in refine.sources:
        return _impossible("refine", f"{situation.cloud.name} does not continue drafts of {query.draft_model}")
    if made.obstacle:
        return _impossible("refine", made.obstacle)
    work = _final_work(situation, final_steps(situation, "refine"))
    if work is None:
        return _impossible("refine", f"the card of {situation.cloud.name} has no measured times")
    return _from_draft(situation, "refine", work, f"edge {made.edge_id} drafts, and {_who(situation)}")


def _from_draft(situation: Situation, plan: Plan, work: Work, reason: str) -> Candidate:
    made, wait_s = situation.drafting, situation.pool.wait_s
    return situation.candidate(
        plan,
        reason,
        draft_s=made.done_s,
        look_s=made.look_s,
        final_s=None if wait_s is None else max(wait_s, made.done_s or 0.0) + work.total_s,
        gpu_s=work.generate_s,
    )


def _from_noise(situation: Situation, plan: Plan, work: Work, reason: str) -> Candidate:
    wait_s = situation.pool.wait_s
    final_s = None if wait_s is None else wait_s + work.total_s
    return situation.candidate(plan, reason, final_s=final_s, gpu_s=work.generate_s)


def _reduced(situation: Situation) -> Candidate:
    """Of half the steps; whether it is needed is for `choose` to see."""
    if not situation.query.allow_reduced:
        return _impossible("reduced", "the request does not allow fewer steps")
    steps, refines = final_steps(situation, "reduced"), situation.refines
    whole = final_steps(situation, "refine" if refines else "cloud")
    if steps >= whole:
        return _impossible("reduced", f"{whole} steps are the fewest that {situation.cloud.name} can do with")
    work = _final_work(situation, steps)
    if work is None:
        return _impossible("reduced", f"the card of {situation.cloud.name} has no measured times")
    made = _from_draft if refines else _from_noise
    return made(situation, "reduced", work, f"{steps} steps in place of {whole}, and {_who(situation)}")


def _cloud(situation: Situation) -> Candidate:
    work = _final_work(situation, final_steps(situation, "cloud"))
    if work is None:
        return _impossible("cloud", f"the card of {situation.cloud.name} has no measured times")
    return _from_noise(situation, "cloud", work, f"without a draft, {_who(situation)}")


def _final_work(situation: Situation, steps: int) -> Work | None:
    return final_work(situation.view, situation.query, steps=steps, factor=situation.pool.factor)


def _who(situation: Situation) -> str:
    pool = situation.pool
    if pool.wait_s is None:
        return f"the final queues in pool {pool.pool} until a worker for {situation.cloud.name} is healthy"
    workers = "one worker" if pool.workers == 1 else f"{pool.workers} workers"
    return f"{workers} of pool {pool.pool} can start the final in {pool.wait_s:.1f} s"
