"""How many steps a final has that must be in time and may have fewer for that: settled when its turn has come. Pure.

When a job is placed, nobody knows whether its final will be in time: what 95 % of such do not exceed is far above what
most of them take. When a worker asks for it, all that is unknown is how long the generation itself takes. So a reduced
final gets all its steps where there is room for them by then, and one of all steps loses half of them where it would be
late otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from adaptivegen.models.card import ModelCard
from adaptivegen.placement import Decision, PlacementQuery, Plan
from scheduler.decide.jobs import OpenJob, StepChoice
from scheduler.decide.work import Work

SETTLED: tuple[Plan, ...] = ("refine", "cloud", "reduced")
ROOM = 1.15  # times what is predicted: all steps are taken where there is time for so much
HANDING_S = 0.15  # from a turn until the model begins, and from its end until the final is there


def may_be_settled(query: PlacementQuery, plan: Plan) -> bool:
    """Whether the steps of a final may be, so that fewer of them can save it when its turn comes late."""
    return query.deadline_s is not None and query.allow_reduced and plan in SETTLED


def step_choice(
    decision: Decision, cloud: ModelCard, *, asked: int, work: Callable[[int], Work | None]
) -> StepChoice | None:
    """Between which numbers of steps the final of a decision is settled; None where there is no choice. asked: steps
    that the request names, 0 for none; work: what a worker needs for so many."""
    if not decision.settles:
        return None
    refine = cloud.refine if decision.refine_t0 is not None else None
    whole = asked or (refine.steps if refine else cloud.limits.steps_default)
    fewer = half_of(whole, cloud.limits.steps_min)
    whole_work, fewer_work, chosen = work(whole), work(fewer), decision.chosen()
    if fewer >= whole or decision.final_steps not in (whole, fewer) or whole_work is None or fewer_work is None:
        return None
    moves_s = chosen.transfer_s if chosen is not None else 0.0
    return StepChoice(whole=whole, whole_s=whole_work.total_s, fewer=fewer, fewer_s=fewer_work.total_s, moves_s=moves_s)


def half_of(steps: int, least: int) -> int:
    """The steps of a reduced final in place of so many."""
    return max(least, -(-steps // 2))


def settled(job: OpenJob, *, begins_ns: int) -> int:
    """The steps of a job whose model is free then, and which may still wait for its draft; 0: as decided."""
    choice = job.steps
    if choice is None or not job.deadline_at_ns:
        return 0
    left_s = (job.deadline_at_ns - max(begins_ns, job.ready_at_ns)) / 1e9 - HANDING_S - choice.moves_s
    if choice.whole_s * ROOM <= left_s or choice.fewer_s > left_s:  # late in any case, it may as well be good
        return choice.whole
    return choice.fewer
