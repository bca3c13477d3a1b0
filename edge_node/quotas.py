"""What tenants may have at an edge that has to decide alone: their quotas as schedulers told them last, and what this
edge has accepted since. Pure: times are given, in nanoseconds of this edge's clock.

An approximation, which errs towards accepting:
- Of the seconds of workers that were used when they were told, as much is believed to be over as of the hour has passed
  since; to them comes what this edge has decided on alone, by what schedulers have reckoned for such finals.
- Jobs that were open then count for a quarter of an hour, this edge's own until they end.
- Limits stand for a day; then, and before anything was heard, nothing is refused.
What other edges accept alone meanwhile is not known here.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from adaptivegen.errors import PermissionDenied, QuotaExceeded
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.standing import Standing, Standings, too_many_open

HOUR_S = 3600.0
OPEN_S = 900.0
LIMITS_S = 86_400.0
TOLD_AFTER_S = 30.0  # after which a job that is at the centre is in what schedulers tell
LEAST_RETRY_S = 1.0
OPEN_RETRY_S = 5.0  # when one of a tenant's jobs may have ended
MAX_OWN = 4096
MAX_MODELS = 64


@dataclass(frozen=True, slots=True)
class Own:
    """A job that this edge decided on alone. since_ns: when, or when it was handed over; here: it is in the spool;
    ended: it counts for the hour only."""

    tenant: str
    gpu_s: float
    since_ns: int
    here: bool
    ended: bool = False


class Quotas:
    """What this edge knows of tenants."""

    def __init__(self) -> None:
        self.told = Standings()
        self.as_of_ns: int | None = None  # when that was written; None: never heard
        self._own: OrderedDict[str, Own] = OrderedDict()  # by job
        self._per_step_s: OrderedDict[str, float] = OrderedDict()  # of a pixel of all frames, by model

    # ---- what is heard -----------------------------------------------------------------------------------------

    def hear(self, told: Standings, *, as_of_ns: int) -> None:
        """What a scheduler tells, in place of what was known. as_of_ns: when it was written, by this edge's clock."""
        self.told, self.as_of_ns = told, as_of_ns
        for job_id, own in list(self._own.items()):
            if not own.here and own.since_ns + TOLD_AFTER_S * 1e9 < as_of_ns:
                del self._own[job_id]

    def learn(self, query: PlacementQuery, decision: Decision) -> None:
        """What a scheduler reckons for a final: what one decided on here is reckoned with."""
        chosen = decision.chosen()
        pixels = query.width * query.height * query.frames
        if chosen is None or not decision.makes_final or chosen.gpu_s <= 0 or not pixels * decision.final_steps:
            return
        self._per_step_s[query.cloud_model] = chosen.gpu_s / (pixels * decision.final_steps)
        self._per_step_s.move_to_end(query.cloud_model)
        while len(self._per_step_s) > MAX_MODELS:
            self._per_step_s.popitem(last=False)

    def gpu_s(self, query: PlacementQuery, decision: Decision) -> float:
        """Seconds of a worker that a decision's final is reckoned with; 0 where there is none, or nothing is known."""
        if not decision.makes_final:
            return 0.0
        pixels = query.width * query.height * query.frames
        return self._per_step_s.get(query.cloud_model, 0.0) * pixels * decision.final_steps

    @property
    def reckoning(self) -> dict[str, float]:
        """What finals are reckoned with: seconds of a worker for a step and a pixel of all frames, by model."""
        return dict(self._per_step_s)

    def recall(self, reckoning: Mapping[str, float]) -> None:
        """What was reckoned with in a former life."""
        self._per_step_s.update(itertools.islice(reckoning.items(), MAX_MODELS))

    # ---- what is accepted here ----------------------------------------------------------------------------------

    def accepted(self, tenant: str, job_id: str, gpu_s: float, *, here: bool, now_ns: int) -> None:
        """A job that this edge decided on alone is accepted, or its final is asked for."""
        known = self._own.get(job_id)
        if known is not None:
            here, now_ns, gpu_s = known.here, known.since_ns, max(known.gpu_s, gpu_s)
        self._own[job_id] = Own(tenant, gpu_s, now_ns, here)
        while len(self._own) > MAX_OWN:
            self._own.popitem(last=False)

    def handed(self, job_id: str, *, now_ns: int) -> None:
        """The centre has a job that was in the spool."""
        own = self._own.get(job_id)
        if own is not None:
            self._own[job_id] = replace(own, since_ns=now_ns, here=False)

    def ended(self, job_id: str) -> None:
        """A job is over."""
        own = self._own.get(job_id)
        if own is not None:
            self._own[job_id] = replace(own, ended=True)

    # ---- what is refused ----------------------------------------------------------------------------------------

    def check(self, query: PlacementQuery, gpu_s: float, *, final: bool, now_ns: int) -> None:
        """Raise QuotaExceeded or PermissionDenied where the tenant may not have this job. gpu_s: as reckoned, 0 where
        that is not known; final: whether it makes one at all. A job that was accepted before is checked for its
        final only, one that this edge decided on not a second time."""
        age_s = LIMITS_S if self.as_of_ns is None else max(0.0, (now_ns - self.as_of_ns) / 1e9)
        if age_s >= LIMITS_S:
            return
        before = self._own.get(query.job_id)  # of requests of one key that come together both get here
        upgrade = query.draft_known
        if before is not None and gpu_s <= before.gpu_s and (before.gpu_s > 0 or not upgrade):
            return
        standing = self.told.of(query.tenant)
        if query.tier == "priority" and not standing.priority:
            reason = f"tenant {query.tenant} may not ask for the tier priority"
            raise PermissionDenied(_said(reason, age_s), param="service_tier")
        if not upgrade and before is None:
            self._check_open(query.tenant, standing, age_s)
            if standing.stored_bytes is not None and standing.stored >= standing.stored_bytes:
                reason = f"tenant {query.tenant} has {standing.stored} bytes of videos stored"
                limit = f"; allowed: {standing.stored_bytes:.0f}"
                raise QuotaExceeded(_said(reason + limit, age_s), param="stored_bytes")
        if final:
            self._check_hour(query.tenant, standing, gpu_s, age_s, now_ns)

    def _check_open(self, tenant: str, standing: Standing, age_s: float) -> None:
        if standing.concurrent_jobs is None:
            return
        own = sum(1 for job in self._own.values() if job.tenant == tenant and not job.ended)
        count = own + (standing.open_jobs if age_s < OPEN_S else 0)
        if count >= standing.concurrent_jobs:
            reason = too_many_open(tenant, count, allowed=standing.concurrent_jobs)
            again_s = OPEN_RETRY_S if standing.concurrent_jobs else None
            raise QuotaExceeded(_said(reason, age_s), param="concurrent_jobs", retry_after_s=again_s)

    def _check_hour(self, tenant: str, standing: Standing, gpu_s: float, age_s: float, now_ns: int) -> None:
        allowed_s = standing.gpu_seconds_per_hour
        if allowed_s is None:
            return
        heard_s = standing.used_gpu_s * max(0.0, 1.0 - age_s / HOUR_S)
        since_ns = now_ns - HOUR_S * 1e9
        own_s = sum(job.gpu_s for job in self._own.values() if job.tenant == tenant and job.since_ns > since_ns)
        left_s = allowed_s - heard_s - own_s
        if left_s > 0 and gpu_s <= left_s:
            return
        reason = (
            f"tenant {tenant} has used about {heard_s:.1f} seconds of workers in the last hour and was given"
            f" {own_s:.1f} here since; this would need {gpu_s:.1f}; allowed: {allowed_s:g} per hour"
        )
        again_s = None
        if allowed_s > 0 and gpu_s <= allowed_s:
            fades_s = standing.used_gpu_s / HOUR_S  # in a second
            over_s = gpu_s - left_s
            again_s = min(HOUR_S, max(LEAST_RETRY_S, over_s / fades_s if fades_s and over_s <= heard_s else HOUR_S))
        raise QuotaExceeded(_said(reason, age_s), param="gpu_seconds_per_hour", retry_after_s=again_s)


def _said(reason: str, age_s: float) -> str:
    return f"{reason} (as far as this edge knows, which decides alone by what was told {age_s:.0f} s ago)"
