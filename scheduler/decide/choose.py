"""Which of the weighed plans is taken, and in which words. Pure.

What may not be taken (`admission`) is said of its candidate; the order in which overload degrades is written there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adaptivegen.errors import whole_s
from adaptivegen.placement import Candidate, Plan
from scheduler.decide.admission import (
    LONG_LINE,
    Bar,
    bar_of_deadline,
    bar_of_drafts,
    bar_of_hour,
    bar_of_line,
    bar_of_tenant,
    worst,
)
from scheduler.decide.plans import Situation, charged
from scheduler.decide.qoe import WORST

WORTH_SAYING_S = 0.01
UNOFFERED: tuple[Plan, ...] = ("near-hit", "split")
TOLD_SCARCITY = 0.01  # QoE points of a cloud second, below which it is not worth a word


class Admitted(NamedTuple):
    """Candidates as far as they may be taken. bars: why others may not; tenant: why its tenant may have no job;
    unmeasured: why it may have no final of which nothing can be predicted, taken to need what others do on average;
    drafts: why no edge takes a draft."""

    candidates: tuple[Candidate, ...]
    bars: Mapping[Plan, Bar]
    tenant: Bar | None
    unmeasured: Bar | None
    drafts: Bar | None = None


class Choice(NamedTuple):
    """The plan and why; refusal: set where the plan is `refuse`."""

    plan: Plan
    reasons: tuple[str, ...]
    refusal: Bar | None = None


def admit(situation: Situation, candidates: Sequence[Candidate], *, now_ns: int) -> Admitted:
    """Bar what the tenant may not have or the cloud cannot do in time.

    A reduced final is one where no whole one is, or none but one that would give up its draft to be in time: then the
    scores decide between these.
    """
    view, query, pool = situation.view, situation.query, situation.pool
    full = bar_of_line(view, query, pool.pool, pool.wait_s, now_ns=now_ns)
    bars: dict[Plan, Bar] = {}
    for made in candidates:
        if made.feasible and made.makes_final:
            hour = bar_of_hour(view, query, made.gpu_s, now_ns=now_ns)
            bar = hour or full or bar_of_deadline(query, made, pool.wait_s)
            if bar is not None:
                bars[made.plan] = bar
    if any(made.feasible and made.plan == "reduced" and "reduced" not in bars for made in candidates):
        long = bar_of_line(view, query, pool.pool, pool.wait_s, now_ns=now_ns, share=LONG_LINE)
        if long is not None:
            bars |= {made.plan: long for made in candidates if _is_whole(made) and made.plan not in bars}
    whole = any(made.feasible and _is_whole(made) and made.plan not in bars for made in candidates)
    whole = whole and not (situation.refines and "refine" in bars and bars["refine"].soft)
    admitted = [_barred(made, bars.get(made.plan), whole=whole) for made in candidates]
    unmeasured = bar_of_hour(view, query, view.jobs.mean_s, now_ns=now_ns) or full
    return Admitted(
        charged(admitted, situation.scarcity),
        bars,
        bar_of_tenant(view, query, now_ns=now_ns),
        unmeasured,
        bar_of_drafts(situation.drafting),
    )


def _is_whole(made: Candidate) -> bool:
    return made.makes_final and made.plan != "reduced"


def _barred(made: Candidate, bar: Bar | None, *, whole: bool) -> Candidate:
    reason = bar.reason if bar is not None else ""
    if made.plan == "reduced" and made.feasible and whole:
        reason = "a final of all its steps is possible"
    return made.model_copy(update={"feasible": False, "reason": reason}) if reason else made


def choose(situation: Situation, admitted: Admitted) -> Choice:
    """The plan that is asked for where it can be, else the best of those that can."""
    query, candidates = situation.query, admitted.candidates
    by_plan = {candidate.plan: candidate for candidate in candidates}
    if by_plan["hit"].feasible:
        return Choice("hit", ("Plan hit: the same video is already stored, so it is served at once.",))
    if admitted.tenant is not None:
        return _refused(admitted.tenant, [])
    reasons: list[str] = []
    if query.requested_plan:
        asked = by_plan.get(query.requested_plan)  # type: ignore[call-overload]
        if asked is not None and asked.feasible:
            said = f"Plan {asked.plan} was asked for and is possible."
            return Choice(asked.plan, (said, *_details(situation, asked)))
        if asked is not None and _only_late(admitted, asked.plan) and not _any_final(candidates):
            return _late(situation, [asked], reasons)
        unknown = (
            "no node offers what it needs" if query.requested_plan in UNOFFERED else "this scheduler knows no such plan"
        )
        why = asked.reason if asked is not None else unknown
        reasons.append(f"Plan {query.requested_plan[:40]} was asked for and is not possible: {why}.")
        if query.requested_plan == "draft" and admitted.drafts is not None:
            return _refused(admitted.drafts, [])
    feasible = [candidate for candidate in candidates if candidate.feasible]
    if not feasible:
        return _without_feasible(situation, admitted, reasons)
    best = max(feasible, key=lambda candidate: candidate.score)  # the first listed wins a tie
    if admitted.drafts is not None and query.intent == "iterate" and best.score < WORST:  # that of having nothing
        return _refused(admitted.drafts, [f"{_comparison(best, feasible)} Having nothing is worth {WORST:g}."])
    reasons.append(_comparison(best, feasible))
    if situation.scarcity >= TOLD_SCARCITY and len({made.gpu_s for made in feasible if made.gpu_s}) > 1:
        reasons.append(f"A cloud second more than needed costs those who wait {situation.scarcity:.2f} QoE.")
    reasons.extend(_details(situation, best))
    reasons.extend(_obstacles(candidates, but=("hit", query.requested_plan or "")))
    return Choice(best.plan, tuple(reasons))


def _without_feasible(situation: Situation, admitted: Admitted, reasons: list[str]) -> Choice:
    """Late where only the deadline is in the way, else refused; where nothing is barred, nothing can be predicted."""
    by_plan = {candidate.plan: candidate for candidate in admitted.candidates}
    late = [made for made in admitted.candidates if _only_late(admitted, made.plan)]
    if admitted.drafts is not None and situation.query.intent == "iterate":
        return _refused(worst([admitted.drafts, *admitted.bars.values()]), [])
    if late:
        return _late(situation, _likely(late, situation.query.deadline_s), reasons)
    if admitted.bars:
        return _refused(worst(admitted.bars.values()), _obstacles(admitted.candidates, but=("hit", *admitted.bars)))
    if admitted.unmeasured is not None:
        return _refused(admitted.unmeasured, _obstacles(admitted.candidates, but=("hit",)))
    plan: Plan = "refine" if situation.refines else "cloud"
    said = f"Plan {plan} is taken although nothing can be predicted: {by_plan[plan].reason}."
    return Choice(plan, (*reasons, said))


def _likely(late: Sequence[Candidate], deadline_s: float | None) -> Sequence[Candidate]:
    """Of those that may be late the ones that more likely than not are not, else those of all steps."""
    whole = [made for made in late if _is_whole(made)]
    in_time = [made for made in late if _expected_by(deadline_s, made)]
    return [made for made in whole if made in in_time] or in_time or whole or late


def _expected_by(deadline_s: float | None, made: Candidate) -> bool:
    return made.final_s is not None and deadline_s is not None and made.final_s <= deadline_s


def _only_late(admitted: Admitted, plan: Plan) -> bool:
    """Whether its deadline is all that is in a plan's way."""
    return plan in admitted.bars and admitted.bars[plan].soft


def _any_final(candidates: Sequence[Candidate]) -> bool:
    return any(candidate.feasible and candidate.makes_final for candidate in candidates)


def _late(situation: Situation, late: Sequence[Candidate], reasons: Sequence[str]) -> Choice:
    """The best of those that are only late, which is said."""
    best = max(late, key=lambda candidate: candidate.score)
    may = "may" if _expected_by(situation.query.deadline_s, best) else "will"
    said = f"Plan {best.plan} is taken although it {may} be late: {best.reason}."
    return Choice(best.plan, (*reasons, said, *_details(situation, best)))


def _refused(bar: Bar, others: Sequence[str]) -> Choice:
    when = f" Ask again in {whole_s(bar.retry_after_s)} s." if bar.retry_after_s is not None else ""
    return Choice("refuse", (f"{bar.reason[0].upper()}{bar.reason[1:]}.{when}", *others), bar)


def _obstacles(candidates: Sequence[Candidate], *, but: Sequence[str]) -> list[str]:
    """Why plans are not possible; of one that the request does not allow there is nothing to tell."""
    told = [made for made in candidates if not made.feasible and made.plan not in (*but, "reduced", "near-hit")]
    return [f"Plan {made.plan} is not possible: {made.reason}." for made in told]


def _comparison(best: Candidate, feasible: list[Candidate]) -> str:
    others = [f"{other.plan} {other.score:.2f}" for other in feasible if other is not best]
    against = f", against {' and '.join(others)}" if others else ", and nothing else is possible"
    return f"Plan {best.plan} has the best score, {best.score:.2f} (QoE less cost){against}."


def _at_most(upper_s: float | None) -> str:
    return f" (mostly within {upper_s:.2f} s)" if upper_s else ""


def _moving(transfer_s: float) -> str:
    return f" and {transfer_s:.2f} s for moving clips" if transfer_s >= WORTH_SAYING_S else ""


def _details(situation: Situation, chosen: Candidate) -> list[str]:
    """What is expected of the chosen plan, and what had to be assumed."""
    reasons: list[str] = []
    if chosen.plan == "reduced":
        reasons.append(f"The final is reduced: {chosen.reason}.")
    if chosen.plan == "near-hit" and chosen.draft_s is not None:
        reasons.append(f"What is shown first, after {chosen.draft_s:.2f} s, is another video: {chosen.reason}.")
    elif chosen.draft_s is not None:
        reasons.append(
            f"The draft is expected after {chosen.draft_s:.2f} s{_at_most(chosen.draft_upper_s)}, its first look after"
            f" {chosen.first_look_s:.2f} s{_at_most(chosen.first_look_upper_s)}."
        )
    if chosen.makes_final:
        pool = situation.pool
        if pool.loads:
            reasons.append(
                f"No healthy worker serves {situation.cloud.name} yet: {pool.loads} is loading it, for about"
                f" {pool.load_s:.1f} s more."
            )
        if chosen.final_s is not None:
            reasons.append(
                f"The final is expected after {chosen.final_s:.1f} s{_at_most(chosen.final_upper_s)}, with"
                f" {chosen.gpu_s:.1f} cloud seconds{_moving(chosen.transfer_s)}."
            )
        else:
            reasons.append(
                f"No healthy worker serves {situation.cloud.name}: the final is queued and its time is not known."
            )
    if chosen.plan == "cloud" and situation.drafting.obstacle:
        reasons.append(f"There is no draft: {situation.drafting.obstacle}.")
    if situation.drafts(chosen.plan) and situation.drafting.note:
        note = situation.drafting.note
        reasons.append(f"{note[0].upper()}{note[1:]}.")
    for card in (situation.draft, situation.cloud):
        if card is not None and "mos" not in card.quality and not card.scores:
            reasons.append(f"The quality of {card.name} was not measured, so it is assumed.")
    return reasons
