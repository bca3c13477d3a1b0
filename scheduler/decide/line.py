"""Whose turn it is among the jobs of a pool that no worker has taken. Pure.

Each tier of service is a lane of its own. Within a lane tenants share by start-time fair queuing (Goyal, Vin and Cheng
1996): a job's start tag is where its tenant's earlier work ends, or the lane's virtual time where the tenant was idle,
and the least tag goes first. That serves the tenant who had least, as VTC (Sheng et al. 2024) does with its counters,
and one who was idle saves nothing up; but a tag never changes, so a line need not be sorted again. Work is charged as
predicted, over the tenant's weight, and put right when it is known.

Between lanes a better tier is a head start in time and not a right of way, so no lane starves.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adaptivegen.placement import TIERS, Tier
from scheduler.decide.jobs import OpenJob

HEAD_START_S: dict[Tier, float] = {"priority": 600.0, "default": 540.0, "flex": 0.0}
MAX_SIMULATED = 256  # jobs ahead that are laid out one by one; those before them are spread evenly
MAX_IDLE = 1024  # tenants without waiting jobs whose last tag is kept


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a job stands in its lane."""

    tag: float
    number: int
    job: OpenJob
    charge: float


class _Lane:
    """The jobs of one tier, by start tag."""

    def __init__(self) -> None:
        self._order: list[_Place] = []
        self._places: dict[str, _Place] = {}  # as they came
        self._ends: dict[str, float] = {}  # tag at which each tenant's work ends
        self._virtual = 0.0
        self._number = 0
        self.work_s = 0.0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def next_tag(self, tenant: str) -> float:
        """The tag that a job of this tenant would get now."""
        return max(self._virtual, self._ends.get(tenant, 0.0))

    def add(self, job: OpenJob, *, weight: float) -> None:
        """A job comes; one of its name must not be here."""
        charge, tag = job.work_s / weight, self.next_tag(job.tenant)
        self._number += 1
        place = _Place(tag, self._number, job, charge)
        self._ends[job.tenant] = tag + charge
        self._places[job.job_id] = place
        bisect.insort(self._order, place, key=_standing)
        self.work_s += job.work_s

    def remove(self, job_id: str, *, started: bool) -> None:
        """It leaves: a worker has taken it, or it will never be done and costs its tenant nothing."""
        place = self._places.pop(job_id)
        del self._order[bisect.bisect_left(self._order, _standing(place), key=_standing)]
        self.work_s = self.work_s - place.job.work_s if self._order else 0.0
        if started:
            over = place.tag if self._order else place.tag + place.charge  # nobody waits: whoever comes next is even
            self._virtual = max(self._virtual, over)
        else:
            self.charge(place.job.tenant, -place.charge)
        if len(self._ends) > MAX_IDLE + len(self._order):
            self._ends = {tenant: end for tenant, end in self._ends.items() if end > self._virtual}

    def charge(self, tenant: str, more: float) -> None:
        """A tenant's work was more than predicted, or less; told as work over weight."""
        self._ends[tenant] = max(0.0, self._ends.get(tenant, self._virtual) + more)

    def first(self, models: frozenset[str]) -> OpenJob | None:
        """The job whose turn it is among those of these models."""
        return next((place.job for place in self._order if place.job.model in models), None)

    def oldest_ns(self, models: frozenset[str]) -> int | None:
        """When the job that waits longest was placed."""
        return next((place.job.placed_at_ns for place in self._places.values() if place.job.model in models), None)

    def works_s(self, *, before: float | None = None) -> list[float]:
        """Seconds of the jobs in their order, all of them or those that a job with this tag would find ahead."""
        end = len(self._order) if before is None else bisect.bisect_right(self._order, before, key=_tag)
        return [place.job.work_s for place in self._order[:end]]


class Line:
    """The waiting jobs of one pool."""

    def __init__(self) -> None:
        self._lanes: dict[Tier, _Lane] = {tier: _Lane() for tier in TIERS}

    def __repr__(self) -> str:
        return f"Line(waiting={self.waiting}, work_s={self.work_s:.3f})"

    def __contains__(self, job: OpenJob) -> bool:
        return job.job_id in self._lanes[job.tier]

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(lane) for lane in self._lanes.values())

    @property
    def work_s(self) -> float:
        """Predicted seconds of all of them."""
        return sum(lane.work_s for lane in self._lanes.values())

    def add(self, job: OpenJob, *, weight: float = 1.0) -> None:
        """A job was placed in the pool; nothing where it waits already."""
        if job not in self:
            self._lanes[job.tier].add(job, weight=weight)

    def start(self, job: OpenJob) -> None:
        """A worker has taken it; nothing where it does not wait."""
        if job in self:
            self._lanes[job.tier].remove(job.job_id, started=True)

    def drop(self, job: OpenJob) -> None:
        """It will not be done from here; nothing where it does not wait."""
        if job in self:
            self._lanes[job.tier].remove(job.job_id, started=False)

    def correct(self, job: OpenJob, *, took_s: float, weight: float = 1.0) -> None:
        """A job that was started took so long, not as predicted."""
        self._lanes[job.tier].charge(job.tenant, (took_s - job.work_s) / weight)

    def next(self, models: Iterable[str]) -> OpenJob | None:
        """The job whose turn it is among those of these models; it stays until it is started."""
        served = frozenset(models)
        waits = {tier: oldest for tier, lane in self._lanes.items() if (oldest := lane.oldest_ns(served)) is not None}
        if not waits:
            return None
        return self._lanes[min(waits, key=lambda tier: waits[tier] - HEAD_START_S[tier] * 1e9)].first(served)

    def ahead_s(self, tenant: str, tier: Tier) -> list[float]:
        """Seconds of the jobs that would be done before a new one, in their order: all of better tiers, and those of
        its own that the tenant's share puts before it."""
        found: list[float] = []
        for other in TIERS[: TIERS.index(tier)]:
            found += self._lanes[other].works_s()
        lane = self._lanes[tier]
        return found + lane.works_s(before=lane.next_tag(tenant))

    def wait_s(self, free_at_s: Iterable[float], tenant: str, tier: Tier) -> float | None:
        """Seconds until a new job would start, on slots that become free at these times; None without slots."""
        return start_s(list(free_at_s), self.ahead_s(tenant, tier))


def start_s(slots: list[float], works_s: Sequence[float]) -> float | None:
    """When a slot is free after all this work. List scheduling: each job goes to the slot that is free first."""
    if not slots:
        return None
    spread, one_by_one = works_s[:-MAX_SIMULATED], works_s[-MAX_SIMULATED:]
    late_s = sum(spread) / len(slots)
    slots = [slot + late_s for slot in slots]
    heapq.heapify(slots)
    for work_s in one_by_one:
        heapq.heapreplace(slots, slots[0] + work_s)
    return slots[0]


def _standing(place: _Place) -> tuple[float, int]:
    return place.tag, place.number


def _tag(place: _Place) -> float:
    return place.tag
