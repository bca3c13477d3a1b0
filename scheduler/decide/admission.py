"""What a tenant may have now, and what the cloud can still do in time. Pure.

A *bar* is why a plan cannot be taken although it could be carried out. Overload degrades in one order, and each step is
said in the decision's reasons:

    1. a final of fewer steps, where the request allows it (plan `reduced`)
    2. the draft now and the final late, with the time at which it is expected: where only its deadline is in the way
    3. a refusal, with the time after which to ask again

Quotas and a full line bar a plan for good; a deadline does not (step 2). The longer a line, the fewer tiers may join
it: `flex` up to half of the longest wait, `default` up to four fifths, `priority` up to all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from adaptivegen.errors import Overloaded, PermissionDenied, QuotaExceeded
from adaptivegen.placement import Candidate, PlacementQuery, Tier
from scheduler.decide.ledger import MAX_OPEN
from scheduler.decide.view import View

LEAST_RETRY_S = 1.0
SHARE_OF_WAIT: dict[Tier, float] = {"priority": 1.0, "default": 0.8, "flex": 0.5}
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
            reason = f"tenant {query.tenant} has {count} jobs that have not ended; allowed: {quota.concurrent_jobs:g}"
            return Bar(QuotaExceeded.code, reason, "concurrent_jobs", max(LEAST_RETRY_S, retry_s or LEAST_RETRY_S))
        if len(jobs) >= MAX_OPEN:
            reason = f"{MAX_OPEN} jobs have not ended, which is all that are kept at a time"
            return Bar(Overloaded.code, reason, "jobs", UNSERVED_RETRY_S)
    stored = view.stored_bytes.get(query.tenant, 0)
    if stored >= quota.stored_bytes:
        reason = f"tenant {query.tenant} has {stored} bytes of videos stored; allowed: {quota.stored_bytes:.0f}"
        return Bar(QuotaExceeded.code, reason, "stored_bytes", None)
    return None


def bar_of_final(
    view: View, query: PlacementQuery, made: Candidate, *, pool: str, wait_s: float | None, now_ns: int
) -> Bar | None:
    """Why this final may not be made, or not in time; None where it may. wait_s: its time in line."""
    return (
        _over_hourly(view, query, made.gpu_s, now_ns=now_ns)
        or _line_is_full(view, query, pool, wait_s)
        or _too_late(query, made, wait_s)
    )


def _over_hourly(view: View, query: PlacementQuery, gpu_s: float, *, now_ns: int) -> Bar | None:
    allowed_s, jobs, now_s = view.quotas.of(query.tenant).gpu_seconds_per_hour, view.jobs, now_ns / 1e9
    if math.isinf(allowed_s):
        return None
    used_s, reserved_s = jobs.usage.used_s(query.tenant, now_s=now_s), jobs.reserved_s(query.tenant)
    over_s = used_s + reserved_s + gpu_s - allowed_s
    if over_s <= 0:
        return None
    reason = (
        f"tenant {query.tenant} has used {used_s:.1f} seconds of workers in the last hour and has jobs for"
        f" {reserved_s:.1f} more; this would need {gpu_s:.1f}; allowed: {allowed_s:g} per hour"
    )
    retry_s = jobs.usage.free_in_s(query.tenant, over_s, now_s=now_s) if gpu_s <= allowed_s else None
    return Bar(QuotaExceeded.code, reason, "gpu_seconds_per_hour", retry_s)


def _line_is_full(view: View, query: PlacementQuery, pool: str, wait_s: float | None) -> Bar | None:
    most_s, tier = view.admission.max_wait_s * SHARE_OF_WAIT[query.tier], query.tier
    if wait_s is None:  # nobody serves it now: as if one worker came
        waiting_s, retry_s = view.jobs.line(pool).work_s, UNSERVED_RETRY_S
        state = f"no worker of pool {pool} is there, and {waiting_s:.0f} s of work wait for one"
    else:
        waiting_s, retry_s = wait_s, max(LEAST_RETRY_S, wait_s - most_s)
        state = f"a worker of pool {pool} is expected to be free in {waiting_s:.0f} s"
    if waiting_s <= most_s:
        return None
    return Bar(Overloaded.code, f"{state}; allowed for tier {tier}: {most_s:.0f} s", "pool", retry_s)


def _too_late(query: PlacementQuery, made: Candidate, wait_s: float | None) -> Bar | None:
    deadline_s = query.deadline_s
    if deadline_s is None or (made.final_upper_s is not None and made.final_upper_s <= deadline_s):
        return None
    expected = "is not known" if made.final_upper_s is None else f"is mostly within {made.final_upper_s:.2f} s"
    reason = f"its deadline is {deadline_s:g} s, and the time of the final {expected}"
    return Bar(Overloaded.code, reason, "deadline_s", max(LEAST_RETRY_S, wait_s or UNSERVED_RETRY_S), soft=True)


def worst(bars: Iterable[Bar]) -> Bar:
    """The one to refuse with: of several the one that is over first."""
    return min(bars, key=lambda bar: math.inf if bar.retry_after_s is None else bar.retry_after_s)
