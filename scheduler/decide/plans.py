"""The plans a request could take, each with its predicted times, QoE, cost, and why it is possible or not. Pure.

Near-hit and split are weighed only where nodes offer the parts that they need (`offered`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.models.pairs import latent_bytes
from adaptivegen.placement import FINAL_PLANS, Candidate, PlacementQuery, Plan
from scheduler.decide.drafters import Drafting, draft_quality, drafting
from scheduler.decide.learned import final_part, look_part
from scheduler.decide.moves import NO_MOVES, draft_card
from scheduler.decide.offered import NOTHING, Offered, handing_latents, near_quality, offered
from scheduler.decide.predict import PoolWait, final_work, pool_wait, standing_of
from scheduler.decide.qoe import qoe, scarcity
from scheduler.decide.split import split_obstacle, split_work
from scheduler.decide.steps import half_of
from scheduler.decide.view import View
from scheduler.decide.work import Work

NEAR_ENOUGH = 0.9  # similarity of prompts from which their videos may stand in for one another; not measured yet
RARE = 0.05  # chances below do not count for what 95 % of the jobs do not exceed


class Situation(NamedTuple):
    """One query against the view: everything the candidates share.

    scarcity: QoE that a cloud second costs others; refines: whether a final can go on from the draft; who: makes a
    final, in words; offered: what nodes can do besides the usual.
    """

    view: View
    query: PlacementQuery
    cloud: ModelCard
    draft: ModelCard | None
    drafting: Drafting
    draft_quality: float
    pool: PoolWait
    scarcity: float
    refines: bool
    who: str
    offered: Offered = NOTHING

    def candidate(
        self,
        plan: Plan,
        reason: str,
        *,
        draft_s: float | None = None,
        look_s: float | None = None,
        final_s: float | None = None,
        gpu_s: float = 0.0,
        later_s: float = 0.0,
        shown: float | None = None,
    ) -> Candidate:
        """A feasible candidate with its QoE and score; times as predicted, without what outcomes say of such, and the
        final's without moving it. later_s: by which the final may well be later than outcomes say; shown: quality of
        what is shown first, where no edge drafts that: then its time is that of no draft."""
        learned = self.view.learned
        transfer_s = self.transfer_s(plan) if final_s is not None else 0.0
        final_s = final_s + transfer_s if final_s is not None else None
        draft_upper_s = draft_s
        look_upper_s = look_s if draft_s is not None else None  # of a split's nothing is learned
        if shown is None and draft_s:  # a hit, or what is there already, is no later than it is told
            drafted, load_s = self.drafting.part, self.drafting.load_s
            draft_s, draft_upper_s = learned.told_s(drafted, draft_s, later_s=load_s)
            look_s, look_upper_s = learned.told_s(look_part(drafted), look_s, later_s=load_s)
        part = final_part(plan, standing_of(self.query), self.pool.pool)
        final_s, upper_s = learned.told_s(part, final_s, later_s=later_s)
        settings, intent = self.view.policy.qoe, self.query.intent
        final_quality = self.final_quality(plan)
        if shown is None:
            shown = final_quality if plan == "hit" else self.draft_quality
        value = qoe(
            settings,
            intent=intent,
            draft_quality=shown,
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
            first_look_upper_s=look_upper_s,
            draft_upper_s=draft_upper_s,
            final_upper_s=upper_s,
            qoe=value,
            gpu_s=gpu_s,
            score=value - self.view.policy.costs.of(gpu_s, intent=intent),
            moved_bytes=self.moved_bytes(plan),
            transfer_s=transfer_s,
            load_s=self.pool.load_s if self.finals(plan) else 0.0,
        )

    def transfer_s(self, plan: Plan) -> float:
        """Seconds of a final's time in which it, or the draft it begins from, is moved."""
        if plan == "split":
            return self.offered.latents_s
        moves = self.pool.moves
        if moves is NO_MOVES:
            return 0.0
        if plan == "hit":
            return (1.0 - self.view.hits.cached(self.query.edge_id)) * moves.download_s
        fetch_s = moves.fetch_s if self.starts_from_draft(plan) else 0.0
        return fetch_s + moves.upload_s + moves.download_s

    def moved_bytes(self, plan: Plan) -> float:
        """Bytes that move between nodes; of a draft that is in the store already only the way to the worker."""
        clips, query = self.pool.clips, self.query
        if plan == "hit":
            return (1.0 - self.view.hits.cached(query.edge_id)) * clips.final_bytes
        if plan == "split":  # the file is the draft model's, and goes to the store
            return latent_bytes(self.cloud) + clips.draft_bytes
        ways = 0
        if self.drafts(plan) and not query.draft_known:
            ways += 2 if self.drafting.edge_id != query.edge_id else 1  # to the store, and from the edge that lends it
        moved = ways * clips.draft_bytes
        if self.starts_from_draft(plan):
            moved += clips.handed_bytes
        if plan == "near-hit":
            moved += query.near_bytes
        return moved + (2 * clips.final_bytes if self.finals(plan) else 0.0)

    def finals(self, plan: Plan) -> bool:
        """Whether a worker makes a final, or begins it, under a plan; beside a similar video only where wanted."""
        return plan in FINAL_PLANS or (plan == "near-hit" and self.query.intent == "render")

    def starts_from_draft(self, plan: Plan) -> bool:
        """Whether the final of a plan does; a reduced one does where it can."""
        return plan == "refine" or (plan == "reduced" and self.refines)

    def drafts(self, plan: Plan) -> bool:
        """Whether an edge drafts under a plan."""
        return plan == "draft" or self.starts_from_draft(plan)

    def final_quality(self, plan: Plan) -> float:
        """Of a final under a plan; a hit is taken to have been made from noise."""
        query = self.query
        return self.view.readings.quality(
            self.cloud,
            "refine" if self.starts_from_draft(plan) else "split" if plan == "split" else "cloud",
            steps=final_steps(self, plan) or self.cloud.limits.steps_default,
            width=query.width,
            height=query.height,
            assumed=self.view.policy.qoe.unmeasured_final,
        )


def look_at(view: View, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Situation:
    """Collect what the candidates share; the cloud model's card must be in the view."""
    draft, cloud = draft_card(view, query), view.cards[query.cloud_model]
    made, pool = drafting(view, query, draft, now_ns=now_ns, rng=rng), pool_wait(view, query, now_ns=now_ns, rng=rng)
    quality, scarce = draft_quality(view, query, draft), _scarcity(view, query, cloud, pool)
    refines = not made.obstacle and cloud.refine is not None and query.draft_model in cloud.refine.sources
    extra = offered(view, query, cloud, pool, now_ns=now_ns)
    if refines:
        pool = handing_latents(view, query, made.edge_id, (draft, cloud), pool, now_ns=now_ns)
    return Situation(view, query, cloud, draft, made, quality, pool, scarce, refines, _who(pool, cloud), extra)


def _scarcity(view: View, query: PlacementQuery, cloud: ModelCard, pool: PoolWait) -> float:
    """What a cloud second costs those who wait in this pool; nothing is known where it has no worker."""
    if pool.wait_s is None or not pool.backlog_s:
        return 0.0
    quality = view.readings.quality(
        cloud,
        "refine" if cloud.refine else "cloud",
        steps=cloud.refine.steps if cloud.refine else cloud.limits.steps_default,
        width=query.width,
        height=query.height,
        assumed=view.policy.qoe.unmeasured_final,
    )
    return scarcity(view.policy.qoe, final_quality=quality, wait_s=pool.backlog_s, work_s=pool.mean_s)


def weigh(situation: Situation) -> tuple[Candidate, ...]:
    """All candidates, feasible or not, in a fixed order."""
    made = (_hit(situation), _draft(situation), _refine(situation), _cloud(situation), _reduced(situation))
    plans = situation.offered.plans
    return (*made, *(_OFFERED[plan](situation) for plan in plans)) if plans else made


def weigh_final(situation: Situation, plan: Plan) -> Candidate:
    """The candidate of a final that begins from a draft, as `weigh` has it."""
    return _refine(situation) if plan == "refine" else _reduced(situation)


def charged(candidates: Sequence[Candidate], scarcity: float) -> tuple[Candidate, ...]:
    """What a final takes beyond the cheapest that can be had costs, besides its price, what others lose by that."""
    finals_s = [made.gpu_s for made in candidates if made.feasible and made.makes_final]
    if not scarcity or not finals_s:
        return tuple(candidates)
    cheapest_s = min(finals_s)

    def charge(made: Candidate) -> Candidate:
        beyond_s = made.gpu_s - cheapest_s
        if not made.feasible or beyond_s <= 0.0:
            return made
        return made.model_copy(update={"score": made.score - scarcity * beyond_s})

    return tuple([charge(made) for made in candidates])


def final_steps(situation: Situation, plan: Plan) -> int:
    """Steps of the final under a plan: as asked, else the plan's default, of a reduced one half of them; 0 for a plan
    without one."""
    if not situation.finals(plan):
        return 0
    cloud = situation.cloud
    if plan == "split":
        return situation.query.final_steps or (cloud.split.steps if cloud.split else 0)
    refine = cloud.refine if situation.starts_from_draft(plan) else None
    whole = situation.query.final_steps or (refine.steps if refine else cloud.limits.steps_default)
    return half_of(whole, cloud.limits.steps_min) if plan == "reduced" else whole


def _impossible(plan: Plan, reason: str) -> Candidate:
    return Candidate(plan=plan, feasible=False, reason=reason)


# What most requests are told of these plans, made once.
_UNKNOWN = _impossible("hit", "no finished video with this content key is stored")
_FINAL_WANTED = _impossible("draft", "a final is wanted (intent render), and this plan makes none")
_WHOLE_WANTED = _impossible("reduced", "the request does not allow fewer steps")


def _hit(situation: Situation) -> Candidate:
    if not situation.query.content_known:
        return _UNKNOWN
    cached = situation.view.hits.cached(situation.query.edge_id)
    download_s = situation.pool.moves.download_s if 1.0 - cached > RARE else 0.0
    reason = f"the same video is already stored, and with a chance of {100 * cached:.0f} % in the cache"
    late_s = cached * download_s  # it is fetched as a whole or not at all
    return situation.candidate("hit", reason, draft_s=0.0, look_s=0.0, final_s=0.0, later_s=late_s)


def _draft(situation: Situation) -> Candidate:
    query, made = situation.query, situation.drafting
    if made.obstacle:
        return _impossible("draft", made.obstacle)
    if query.intent == "render" and query.requested_plan != "draft":
        return _FINAL_WANTED
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
    latents = ", which takes the draft's latents" if situation.pool.hands_latents else ""
    return _from_draft(situation, "refine", work, f"edge {made.edge_id} drafts, and {situation.who}{latents}")


def _from_draft(situation: Situation, plan: Plan, work: Work, reason: str) -> Candidate:
    made, wait_s = situation.drafting, situation.pool.wait_s
    return situation.candidate(
        plan,
        reason,
        draft_s=made.done_s,
        look_s=made.look_s,
        final_s=None if wait_s is None else max(wait_s, made.done_s or 0.0) + work.total_s,
        gpu_s=work.generate_s,
        later_s=situation.pool.load_s + made.load_s,
    )


def _from_noise(situation: Situation, plan: Plan, work: Work, reason: str) -> Candidate:
    wait_s = situation.pool.wait_s
    final_s = None if wait_s is None else wait_s + work.total_s
    return situation.candidate(plan, reason, final_s=final_s, gpu_s=work.generate_s, later_s=situation.pool.load_s)


def _reduced(situation: Situation) -> Candidate:
    """Of half the steps; whether it is needed is for `choose` to see."""
    if not situation.query.allow_reduced:
        return _WHOLE_WANTED
    steps, refines = final_steps(situation, "reduced"), situation.refines
    whole = final_steps(situation, "refine" if refines else "cloud")
    if steps >= whole:
        return _impossible("reduced", f"{whole} steps are the fewest that {situation.cloud.name} can do with")
    work = _final_work(situation, steps)
    if work is None:
        return _impossible("reduced", f"the card of {situation.cloud.name} has no measured times")
    made = _from_draft if refines else _from_noise
    return made(situation, "reduced", work, f"{steps} steps in place of {whole}, and {situation.who}")


def _cloud(situation: Situation) -> Candidate:
    work = _final_work(situation, final_steps(situation, "cloud"))
    if work is None:
        return _impossible("cloud", f"the card of {situation.cloud.name} has no measured times")
    return _from_noise(situation, "cloud", work, f"without a draft, {situation.who}")


def _near_hit(situation: Situation) -> Candidate:
    """A similar video in place of a draft. Its final is made from noise: a video that is redrawn keeps its ground and
    light, whatever the prompt says (docs/models.md)."""
    query, similarity = situation.query, situation.query.near_similarity
    if similarity < NEAR_ENOUGH:
        found = f"the nearest has a similarity of {similarity:.2f}" if similarity else "none is known"
        return _impossible("near-hit", f"no video of a similar prompt is stored: {found}, needed: {NEAR_ENOUGH:g}")
    if query.has_reference or query.draft_known:
        begun = "frames of its own" if query.has_reference else "a draft that is there already"
        return _impossible("near-hit", f"the request begins from {begun}")
    shown = near_quality(situation.view, query)
    soon_s, reason = (
        situation.offered.near_s,
        f"a video whose prompt has a similarity of {similarity:.2f} is shown first",
    )
    if not situation.finals("near-hit"):
        return situation.candidate("near-hit", reason, draft_s=soon_s, look_s=soon_s, shown=shown)
    work = _final_work(situation, final_steps(situation, "near-hit"))
    if work is None:
        return _impossible("near-hit", f"the card of {situation.cloud.name} has no measured times")
    wait_s = situation.pool.wait_s
    return situation.candidate(
        "near-hit",
        f"{reason}, and {situation.who}",
        draft_s=soon_s,
        look_s=soon_s,
        final_s=None if wait_s is None else wait_s + work.total_s,
        gpu_s=work.generate_s,
        later_s=situation.pool.load_s,
        shown=shown,
    )


def _split(situation: Situation) -> Candidate:
    """The first steps by a worker, the rest by the asking edge, at a size that its model offers."""
    query, cloud, draft, extra = situation.query, situation.cloud, situation.draft, situation.offered
    if draft is None:
        return _impossible("split", f"no model card {query.draft_model} is known here")
    shape = {"width": query.width, "height": query.height, "frames": query.frames}
    obstacle = split_obstacle(cloud, draft, **shape) or extra.obstacle
    if query.has_reference or query.draft_known:
        obstacle = f"the request begins from {'frames of its own' if query.has_reference else 'a draft'}"
    if obstacle:
        return _impossible("split", obstacle)
    work = split_work(cloud, draft, **shape, steps=final_steps(situation, "split"))
    if work is None:
        return _impossible("split", f"the cards of {cloud.name} and {draft.name} have no measured times")
    begin, finish, wait_s = (
        work.begin.times(situation.pool.factor),
        work.finish.times(extra.edge_factor),
        situation.pool.wait_s,
    )
    reason = f"{situation.who}, and edge {query.edge_id} finishes it: the pair is resumable"
    if wait_s is None:
        return situation.candidate("split", reason, gpu_s=begin.generate_s)
    begun_s = max(wait_s + begin.generate_s, extra.edge_wait_s - extra.latents_s)  # moving comes on top
    return situation.candidate(
        "split",
        reason,
        look_s=wait_s + begin.first_look_s,
        final_s=begun_s + finish.total_s,
        gpu_s=begin.generate_s,
        later_s=situation.pool.load_s,
    )


_OFFERED: Mapping[Plan, Callable[[Situation], Candidate]] = {"near-hit": _near_hit, "split": _split}


def _final_work(situation: Situation, steps: int) -> Work | None:
    return final_work(situation.view, situation.query, steps=steps, factor=situation.pool.factor)


def _who(pool: PoolWait, cloud: ModelCard) -> str:
    """In words, who makes a final, and when it can be begun."""
    if pool.wait_s is None:
        return f"the final queues in pool {pool.pool} until a worker for {cloud.name} is healthy"
    if pool.loads:
        return (
            f"{pool.loads} of pool {pool.pool} is loading {cloud.name}, for about {pool.load_s:.1f} s more,"
            f" and the final can start in {pool.wait_s:.1f} s"
        )
    workers = "one worker" if pool.workers == 1 else f"{pool.workers} workers"
    return f"{workers} of pool {pool.pool} can start the final in {pool.wait_s:.1f} s"
