"""How many steps a final has that must be in time and may have fewer: settled when its turn has come. Pure.

When a job is placed, nobody knows whether its final will be in time: what 95 % of such do not exceed is far above what
most of them take. When a worker asks for it, all that is unknown is how long the generation itself takes. So a reduced
final gets all its steps where there is room for them by then, and one of all steps loses half of them where it would be
late otherwise, or where so much waits that others lose more by these steps than it gains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from adaptivegen.models.card import ModelCard, ScoredPlan
from adaptivegen.placement import AS_DECIDED, Decision, PlacementQuery, Plan, ToldSteps
from scheduler.decide.jobs import OpenJob, StepChoice
from scheduler.decide.qoe import NEVER_S, QoeSettings, quality_of, scarce_from
from scheduler.decide.work import Work

SETTLED: tuple[Plan, ...] = ("refine", "cloud", "reduced")
ROOM = 1.15  # times what is predicted: all steps are taken where there is time for so much
LEAST_S = 1e-3  # of a worker, between two numbers of steps
HANDING_S = 0.15  # from a turn until the model begins, and from its end until the final is there


class Worth(NamedTuple):
    """What the worth of steps is worked out from: who asks for a final of what size, and by which function of QoE."""

    settings: QoeSettings
    cloud: ModelCard
    intent: str
    width: int
    height: int

    def of(self, plan: ScoredPlan, steps: int) -> float:
        """The quality of a final made so, 1 to 5."""
        assumed = self.settings.unmeasured_final
        return quality_of(self.cloud, plan, steps=steps, width=self.width, height=self.height, assumed=assumed)


def may_be_settled(query: PlacementQuery, plan: Plan) -> bool:
    """Whether the steps of a final may be, so that fewer of them can save it when its turn comes late, or others."""
    return query.deadline_s is not None and query.allow_reduced and plan in SETTLED


def step_choice(
    decision: Decision, *, asked: int, work: Callable[[int], Work | None], worth: Worth
) -> StepChoice | None:
    """Between which numbers of steps the final of a decision is settled; None where there is no choice. asked: steps
    that the request names, 0 for none; work: what a worker needs for so many."""
    if not decision.settles:
        return None
    cloud = worth.cloud
    refine = cloud.refine if decision.refine_t0 is not None else None
    whole = asked or (refine.steps if refine else cloud.limits.steps_default)
    fewer = half_of(whole, cloud.limits.steps_min)
    usual = cloud.refine.steps if cloud.refine else cloud.limits.steps_default
    whole_work, fewer_work, usual_work, chosen = work(whole), work(fewer), work(usual), decision.chosen()
    if fewer >= whole or decision.final_steps not in (whole, fewer):
        return None
    if whole_work is None or fewer_work is None or usual_work is None:
        return None
    made: ScoredPlan = "cloud" if refine is None else "refine"
    lost = (1.0 - worth.settings.draft_weight(worth.intent)) * (worth.of(made, whole) - worth.of(made, fewer))
    price = lost / max(LEAST_S, whole_work.total_s - fewer_work.total_s)
    quality = worth.of("refine" if cloud.refine else "cloud", usual)
    dear_from_s = scarce_from(worth.settings, price, final_quality=quality, work_s=usual_work.total_s)
    return StepChoice(
        whole=whole,
        whole_s=whole_work.total_s,
        fewer=fewer,
        fewer_s=fewer_work.total_s,
        moves_s=chosen.transfer_s if chosen is not None else 0.0,
        dear_from_s=dear_from_s if lost > 0.0 else NEVER_S,  # where nobody has measured it, steps may be worth a lot
    )


def half_of(steps: int, least: int) -> int:
    """The steps of a reduced final in place of so many."""
    return max(least, -(-steps // 2))


def settled(job: OpenJob, *, begins_ns: int, wait_s: float) -> ToldSteps:
    """The steps of a job whose model is free then, and which may still wait for its draft. wait_s: what waits for the
    same workers, and is not behind it by its tier, in seconds of all of these."""
    choice = job.steps
    if choice is None or not job.deadline_at_ns:
        return AS_DECIDED
    if wait_s >= choice.dear_from_s:
        return ToldSteps(choice.fewer, others_wait=True)
    left_s = (job.deadline_at_ns - max(begins_ns, job.ready_at_ns)) / 1e9 - HANDING_S - choice.moves_s
    if choice.whole_s * ROOM <= left_s or choice.fewer_s > left_s:  # late in any case, it may as well be good
        return ToldSteps(choice.whole)
    return ToldSteps(choice.fewer)
