"""What a tenant may have now, and what the cloud can still do in time. Pure.

A *bar* is why a plan cannot be taken although it could be carried out. Overload degrades in one order, and each step is
said in the decision's reasons:

    1. a final of fewer steps, where the request allows it (plan `reduced`): from three quarters of the longest wait on,
       and where its deadline or its tenant's quota has room for that and no more, or for no other than one without its
       draft, which takes a worker longer still
    2. the draft now and the final late, with the time at which it is expected: where only its deadline is in the way
    3. a refusal, with the time after which to ask again

Where no edge has room for a further draft, a final is made without one if that is worth what it takes; who asked for a
draft alone, or iterates and would not have the worth of it, is refused (`bar_of_drafts`).

Quotas and a full line bar a plan for good; a deadline does not (step 2). The longer a line, the fewer tiers may join
it: `flex` up to half of the longest wait, `default` up to four fifths, `priority` up to all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from adaptivegen.errors import Overloaded, PermissionDenied, QuotaExceeded
from adaptivegen.placement import Candidate, PlacementQuery, Tier
from adaptivegen.standing import too_many_open
from scheduler.decide.drafters import Drafting
from scheduler.decide.ledger import MAX_OPEN
from scheduler.decide.predict import newcomer
from scheduler.decide.steps import ROOM, may_be_settled
from scheduler.decide.view import View

LEAST_RETRY_S = 1.0
SHARE_OF_WAIT: dict[Tier, float] = {"priority": 1.0, "default": 0.8, "flex": 0.5}
LONGEST_RETRY_S = 3600.0
LONG_LINE = 0.75  # share of what a tier may wait, from which on those get fewer steps who allow it
KEPT_SLACK = 1.25  # by so much a line may be longer than predicted for who asks again at the time it was told
UNSERVED_RETRY_S = 30.0  # while no worker serves a model it is not known when one will


@dataclass(frozen=True, slots=True)
class Bar:
    """Why a plan is not taken. `soft`: it may be taken late; code, param, retry_after_s: of the refusal it makes."""

    code: str
    reason: str
    param: str
    retry_after_s: float | None
    soft: bool = False


def bar_of_tenant(view: View, query: PlacementQuery, *, now_ns: int) -> Bar | None:
    """Why a tenant may have no further job of any plan; None where it may."""
    quota, jobs = view.quotas.of(query.tenant), view.jobs
    if query.tier == "priority" and not quota.priority:
        reason = f"tenant {query.tenant} may not ask for the tier priority"
        return Bar(PermissionDenied.code, reason, "service_tier", None)
    if query.job_id not in jobs:  # else it is asked for a second time, or its final is
        count = jobs.count(query.tenant)
        if count >= quota.concurrent_jobs:
            retry_s = jobs.next_end_s(query.tenant, now_ns=now_ns)
            reason = too_many_open(query.tenant, count, allowed=quota.concurrent_jobs)
            again_s = max(LEAST_RETRY_S, retry_s or 0.0) if quota.concurrent_jobs else None
            return Bar(QuotaExceeded.code, reason, "concurrent_jobs", again_s)
        if len(jobs) >= MAX_OPEN:
            reason = f"{MAX_OPEN} jobs have not ended, which is all that are kept at a time"
            return Bar(Overloaded.code, reason, "jobs", UNSERVED_RETRY_S)
    stored = view.stored.of(query.tenant)
    if stored >= quota.stored_bytes:
        reason = f"tenant {query.tenant} has stored {stored} bytes (videos, uploads); allowed: {quota.stored_bytes:.0f}"
        return Bar(QuotaExceeded.code, reason, "stored_bytes", None)
    return None


def bar_of_hour(view: View, query: PlacementQuery, gpu_s: float, *, now_ns: int) -> Bar | None:
    """Why a tenant may have no further final of so many seconds this hour; None where it may."""
    allowed_s, jobs, now_s = view.quotas.of(query.tenant).gpu_seconds_per_hour, view.jobs, now_ns / 1e9
    if math.isinf(allowed_s):
        return None
    used_s = jobs.usage.used_s(query.tenant, now_s=now_s)
    reserved_s = jobs.reserved_s(query.tenant, but=query.job_id)
    over_s = used_s + reserved_s + gpu_s - allowed_s
    if over_s <= 0:
        return None
    reason = (
        f"tenant {query.tenant} has used {used_s:.1f} seconds of workers in the last hour and has jobs for"
        f" {reserved_s:.1f} more; this would need {gpu_s:.1f}; allowed: {allowed_s:g} per hour"
    )
    retry_s = jobs.usage.free_in_s(query.tenant, over_s, now_s=now_s) if gpu_s <= allowed_s else None
    return Bar(QuotaExceeded.code, reason, "gpu_seconds_per_hour", retry_s)


def bar_of_line(
    view: View, query: PlacementQuery, pool: str, wait_s: float | None, *, now_ns: int, share: float = 1.0
) -> Bar | None:
    """Why nobody of the query's tier may join a line that is longer than this share of what the tier may wait; None
    where it is not. wait_s: as predicted, None without workers."""
    most_s = share * view.admission.max_wait_s * SHARE_OF_WAIT[query.tier]
    if wait_s is None:
        waiting_s = _without_workers_s(view, query, pool, now_ns=now_ns)
    else:
        waiting_s = _with_promises_s(view, query, pool, wait_s, most_s, now_ns=now_ns)
    if waiting_s <= most_s:
        return None
    if wait_s is None:
        again_s = UNSERVED_RETRY_S
        state = f"no worker of pool {pool} is there, and with those known one would be free in {waiting_s:.0f} s"
    else:
        again_s = min(LONGEST_RETRY_S, max(LEAST_RETRY_S, waiting_s - most_s))
        state = f"a worker of pool {pool} is expected to be free in {waiting_s:.0f} s"
    return Bar(Overloaded.code, f"{state}; allowed for tier {query.tier}: {most_s:.0f} s", "pool", again_s)


def _with_promises_s(
    view: View, query: PlacementQuery, pool: str, wait_s: float, most_s: float, *, now_ns: int
) -> float:
    """The wait, with those of the same tenant that were told to ask again before; for whoever was told so and comes in
    time it may be somewhat longer than was predicted then. A line that is short waits for nobody."""
    promises, line, now_s = view.jobs.promises, view.jobs.line(pool), now_ns / 1e9
    if promises.holds(query.job_id, now_s=now_s):
        return wait_s / KEPT_SLACK
    if wait_s <= most_s / 2:
        return wait_s
    promised_s = promises.work_s((query.tenant, pool, query.tier), but=query.job_id, now_s=now_s)
    if not promised_s:
        return wait_s
    new = newcomer(view, query, now_ns=now_ns)
    ahead_s = line.ahead_s(new, frozenset((query.cloud_model,)), now_ns=now_ns)
    pace = wait_s / ahead_s if ahead_s else 1.0  # of the clock, for a second of work
    return wait_s + promised_s * pace / line.share(new)


def _without_workers_s(view: View, query: PlacementQuery, pool: str, *, now_ns: int) -> float:
    """The wait if the pool's workers that were heard of lately, or one, came back now."""
    known = [node.report for node in view.nodes if node.report.kind == "worker" and node.report.pool == pool]
    served = frozenset((query.cloud_model, *(name for report in known for name in report.models)))
    slots = [0.0] * max(1, len(known))
    line = view.jobs.line(pool)
    return line.wait_s(slots, newcomer(view, query, now_ns=now_ns), served, now_ns=now_ns) or 0.0


def bar_of_deadline(query: PlacementQuery, made: Candidate, wait_s: float | None) -> Bar | None:
    """Why a final will be too late; None where it will not, or where it is expected in time with some room and its
    steps are settled later. wait_s: as predicted, None without workers."""
    deadline_s = query.deadline_s
    if deadline_s is None or (made.final_upper_s is not None and made.final_upper_s <= deadline_s):
        return None
    if may_be_settled(query, made.plan) and made.final_s is not None and made.final_s * ROOM <= deadline_s:
        return None
    expected = "is not known" if made.final_upper_s is None else f"is mostly within {made.final_upper_s:.2f} s"
    reason = f"its deadline is {deadline_s:g} s, and the time of the final {expected}"
    again_s = UNSERVED_RETRY_S if wait_s is None else max(LEAST_RETRY_S, wait_s)
    return Bar(Overloaded.code, reason, "deadline_s", again_s, soft=True)


def bar_of_drafts(made: Drafting) -> Bar | None:
    """Why there is no draft though edges could make it: too many wait; None where that is not why."""
    if made.room_s is None:
        return None
    again_s = min(LONGEST_RETRY_S, max(LEAST_RETRY_S, made.room_s))
    return Bar(Overloaded.code, made.obstacle, "drafts", again_s)


def worst(bars: Iterable[Bar]) -> Bar:
    """The one to refuse with: of several the one that is over first."""
    return min(bars, key=lambda bar: math.inf if bar.retry_after_s is None else bar.retry_after_s)
