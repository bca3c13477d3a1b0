"""Whose turn it is among the jobs of a pool that no worker has taken, and how long a new one would wait. Pure.

Each tier of service is a lane of its own; a better one is a head start in time and not a right of way, so no lane
starves. Within a lane tenants share by virtual token counters (VTC, Sheng et al. 2024): what a tenant's started jobs
need, over its weight, is added to its counter, and the least counter goes first. Who comes back from being idle is
lifted to the least counter of those that wait, so that nobody saves anything up. Work is counted as predicted and put
right when it is known.

Within a tenant, jobs whose deadline can still be met go first (`flow`), then those whose final somebody waits for and
that would be late otherwise, then all as they came; one whose deadline cannot be met is no more urgent than these:
earliest-deadline-first collapses when there is too much to do (TetriServe).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from adaptivegen.placement import TIERS, Tier
from scheduler.decide.flow import Begun, Flow, aged_s
from scheduler.decide.jobs import Newcomer, OpenJob

HEAD_START_S: dict[Tier, float] = {"priority": 600.0, "default": 540.0, "flex": 0.0}
MAX_SIMULATED = 256  # jobs ahead that are laid out one by one; those before them are spread evenly
MAX_IDLE = 1024  # tenants without waiting jobs that are remembered
LONGEST_WAIT_S = 1e9
SELDOM = 256  # arrivals, between two looks for tenants to be forgotten
ROUNDS = 16  # of looking for a wait that holds what arrives during it


class Ahead(NamedTuple):
    """What a newcomer finds before it: seconds of jobs, and of what arrives, the seconds per second and at most how
    many of them go before it, too."""

    works_s: list[float]
    arriving: list[tuple[float, float]]


class _Lane:
    """The jobs of one tier."""

    def __init__(self) -> None:
        self.jobs: dict[str, OpenJob] = {}
        self.work_s = 0.0
        self._flows: dict[str, Flow] = {}
        self._begun: dict[str, Begun] = {}  # jobs that were started and have not ended
        self._left = 0.0  # the counter of whoever left last
        self._number = 0

    @property
    def known(self) -> bool:
        """Whether anybody has or had jobs here."""
        return bool(self._flows)

    def come(self, job: OpenJob, *, weight: float) -> None:
        """A job comes; one of its name must not be here."""
        flow = self._flows.get(job.tenant)
        if flow is None:
            flow = self._flows[job.tenant] = Flow(self._floor())
        if not flow.waiting:
            flow.lift(self._floor())
        flow.weight = weight
        self._number += 1
        flow.come(job, self._number)
        self._joined(job)
        if len(self._flows) > 2 * MAX_IDLE and self._number % SELDOM == 0:
            self._forget()

    def start(self, job: OpenJob) -> None:
        """A worker has taken it."""
        self._begun[job.job_id] = self._flows[job.tenant].start(job)
        self._parted(job)

    def drafted(self, job: OpenJob) -> None:
        """The draft of one that waits is there."""
        self.jobs[job.job_id] = job
        self._flows[job.tenant].drafted(job)

    def put_back(self, job: OpenJob, *, weight: float) -> None:
        """One that was started was not done."""
        begun, flow = self._begun.pop(job.job_id, None), self._flows.get(job.tenant)
        if begun is None or flow is None:
            self.come(job, weight=weight)
        else:
            flow.put_back(job, begun)
            self._joined(job)

    def resized(self, job: OpenJob, *, before_s: float) -> None:
        """One that was started needs a worker for another time than before."""
        begun, flow = self._begun.get(job.job_id), self._flows.get(job.tenant)
        if begun is not None and flow is not None and before_s:
            more = begun.charge * (job.work_s / before_s - 1.0)
            self._begun[job.job_id] = begun._replace(charge=begun.charge + more)
            flow.charge(more)

    def drop(self, job: OpenJob) -> None:
        """It will never be done, and costs its tenant nothing."""
        self._flows[job.tenant].leave(job)
        self._parted(job)

    def work_of_s(self, models: frozenset[str]) -> float:
        """Predicted seconds of those of these models; nearly always that is all of them."""
        if all(flow.serves(models) for flow in self._backlogged()):
            return self.work_s
        return sum(job.work_s for job in self.jobs.values() if job.model in models)

    def end(self, job: OpenJob, took_s: float) -> None:
        """One that was started has ended after so long, not as predicted."""
        begun, flow = self._begun.pop(job.job_id, None), self._flows.get(job.tenant)
        if begun is not None and flow is not None and job.work_s:
            flow.charge(begun.charge * (took_s / job.work_s - 1.0))

    def first(self, models: frozenset[str], *, now_ns: int) -> OpenJob | None:
        """The job whose turn it is among those of these models: of the tenants that have one whose draft should be
        there; else of all, since then a worker can only wait."""
        flows = sorted(self._backlogged(), key=lambda flow: (flow.counter, flow.oldest))
        ready = (flow.ready(models, now_ns=now_ns) for flow in flows)
        others = (flow.soonest(models) for flow in flows)
        return next((job for job in itertools.chain(ready, others) if job is not None), None)

    def share(self, tenant: str, weight: float) -> float:
        """The share of what is done that a tenant with this weight would have if its jobs waited, too."""
        others = sum(flow.weight for name, flow in self._flows.items() if flow.waiting and name != tenant)
        return weight / (weight + others)

    def everything(self, for_s: float, models: frozenset[str], *, now_ns: int) -> Ahead:
        """All of these models, and all that arrives in so many seconds."""
        rates = [flow.arriving.per_s(now_ns / 1e9) for flow in self._flows.values()]
        works_s = [job.work_s for job in self.jobs.values() if job.model in models]
        return Ahead(works_s, [(rate, rate * for_s) for rate in rates])

    def older(self, than_s: float, models: frozenset[str], *, now_ns: int) -> Ahead:
        """What has waited for longer than so many seconds."""
        until_ns = now_ns - than_s * 1e9
        jobs = self.jobs.values()
        return Ahead([job.work_s for job in jobs if job.placed_at_ns < until_ns and job.model in models], [])

    def ahead(self, new: Newcomer, models: frozenset[str], *, now_ns: int) -> Ahead:
        """What the newcomer's share puts before it, of this lane."""
        flow = self._flows.get(new.tenant)
        own_s = flow.before(new, models, now_ns=now_ns) if flow is not None else []
        counter = flow.counter if flow is not None else 0.0
        if flow is None or not flow.waiting:
            counter = max(counter, self._floor())
        all_own_s, now_s = sum(own_s), now_ns / 1e9
        until = counter + all_own_s / new.weight
        works_s: list[float] = []
        arriving = []
        if flow is not None and not new.deadline_at_ns:  # its own that are worth more go first, after a while in turns
            rate = flow.overtaking(new, now_ns=now_ns).per_s(now_s)
            arriving.append((rate, rate * aged_s(new.awaited) + all_own_s))
        for tenant, other in self._flows.items():
            if tenant != new.tenant:
                found_s = other.until(until, models)
                works_s += found_s
                gap_s = (until - max(other.counter, self._left)) * other.weight - sum(found_s)
                if gap_s > 0:
                    arriving.append((other.arriving.per_s(now_s), gap_s))
        return Ahead(works_s + own_s, arriving)

    def _joined(self, job: OpenJob) -> None:
        self.jobs[job.job_id] = job
        self.work_s += job.work_s

    def _parted(self, job: OpenJob) -> None:
        del self.jobs[job.job_id]
        self.work_s = self.work_s - job.work_s if self.jobs else 0.0
        if not self.jobs:
            self._left = max(self._left, self._flows[job.tenant].counter)

    def _floor(self) -> float:
        """The counter to which whoever comes back is lifted."""
        return min((flow.counter for flow in self._backlogged()), default=self._left)

    def _backlogged(self) -> Iterator[Flow]:
        return (flow for flow in self._flows.values() if flow.waiting)

    def _forget(self) -> None:
        """Tenants that wait for nothing; of those that used least first."""
        idle = sorted((flow.counter, name) for name, flow in self._flows.items() if not flow.waiting)
        for _, name in idle[: max(0, len(idle) - MAX_IDLE)]:
            del self._flows[name]


class Line:
    """The waiting jobs of one pool."""

    def __init__(self) -> None:
        self._lanes: dict[Tier, _Lane] = {tier: _Lane() for tier in TIERS}

    def __repr__(self) -> str:
        return f"Line(waiting={self.waiting}, work_s={self.work_s:.3f})"

    def __contains__(self, job: OpenJob) -> bool:
        return job.job_id in self._lanes[job.tier].jobs

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(lane.jobs) for lane in self._lanes.values())

    def sharing_s(self, tier: Tier, models: frozenset[str]) -> float:
        """Predicted seconds of those that share workers of these models with a job of this tier: of its tier, and of
        those that go before it."""
        lanes = [self._lanes[other] for other in TIERS if HEAD_START_S[other] >= HEAD_START_S[tier]]
        return sum(lane.work_of_s(models) for lane in lanes)

    @property
    def work_s(self) -> float:
        """Predicted seconds of all of them."""
        return sum(lane.work_s for lane in self._lanes.values())

    def share(self, new: Newcomer) -> float:
        """The share of what is done of its tier that a newcomer's tenant would have."""
        return self._lanes[new.tier].share(new.tenant, new.weight)

    def add(self, job: OpenJob, *, weight: float = 1.0) -> None:
        """A job was placed in the pool; nothing where it waits already."""
        if job not in self:
            self._lanes[job.tier].come(job, weight=weight)

    def start(self, job: OpenJob) -> None:
        """A worker has taken it; nothing where it does not wait."""
        if job in self:
            self._lanes[job.tier].start(job)

    def drafted(self, job: OpenJob) -> None:
        """The draft of one that waits is there: the job as it is known now; nothing where it does not wait."""
        if job in self:
            self._lanes[job.tier].drafted(job)

    def put_back(self, job: OpenJob, *, weight: float = 1.0) -> None:
        """One that was started waits again, where it was and uncharged; nothing where it waits already."""
        if job not in self:
            self._lanes[job.tier].put_back(job, weight=weight)

    def resized(self, job: OpenJob, *, before_s: float) -> None:
        """A job that was started needs a worker for another time than before."""
        self._lanes[job.tier].resized(job, before_s=before_s)

    def drop(self, job: OpenJob) -> None:
        """It will not be done from here; nothing where it does not wait."""
        if job in self:
            self._lanes[job.tier].drop(job)

    def end(self, job: OpenJob, *, took_s: float) -> None:
        """A job that was started has ended: it took so long, not as predicted."""
        self._lanes[job.tier].end(job, took_s)

    def next(self, models: Iterable[str], *, now_ns: int) -> OpenJob | None:
        """The job whose turn it is among those of these models; it stays until it is started.

        Of each lane the one that is due, and of these the one that was placed first, with the lane's head start.
        """
        served = frozenset(models)
        due = [job for lane in self._lanes.values() if (job := lane.first(served, now_ns=now_ns)) is not None]
        return min(due, key=lambda job: job.placed_at_ns - HEAD_START_S[job.tier] * 1e9, default=None)

    def wait_s(self, free_at_s: Iterable[float], new: Newcomer, models: frozenset[str], *, now_ns: int) -> float | None:
        """Seconds until a new job would start, on slots that become free at these times, of workers that serve these
        models; None without slots.

        Before it go all of better tiers, what waits in worse ones for longer than its head start, what its tenant's
        share puts before it, and of what arrives until then as much as would go before it, if it goes on arriving so.
        """
        slots, found = list(free_at_s), self._found(new, models, now_ns=now_ns)
        if len(found) == 1:  # as nearly always: everything is of one tier
            works_s = found[0].works_s
        else:
            works_s = list(itertools.chain.from_iterable(part.works_s for part in found))
        wait_s = begin_s(slots, works_s)
        arriving = [one for part in found for one in part.arriving if one[0] > 0]
        return wait_s if wait_s is None or not arriving else _with_arrivals(wait_s, arriving, len(slots))

    def ahead_s(self, new: Newcomer, models: frozenset[str], *, now_ns: int) -> float:
        """Seconds of the jobs that now wait before a new one."""
        return sum(sum(part.works_s) for part in self._found(new, models, now_ns=now_ns))

    def _found(self, new: Newcomer, models: frozenset[str], *, now_ns: int) -> list[Ahead]:
        """What a new job finds, by lane."""
        mine_s = HEAD_START_S[new.tier]
        found: list[Ahead] = []
        for tier, lane in self._lanes.items():
            if not lane.known:
                continue
            by_s = HEAD_START_S[tier] - mine_s
            if tier == new.tier:
                found.append(lane.ahead(new, models, now_ns=now_ns))
            elif by_s > 0:
                found.append(lane.everything(by_s, models, now_ns=now_ns))
            else:
                found.append(lane.older(-by_s, models, now_ns=now_ns))
        return found


def _with_arrivals(wait_s: float, arriving: Sequence[tuple[float, float]], slots: int) -> float:
    """The wait in which what arrives during it is done, too."""
    longer_s = wait_s
    for _ in range(ROUNDS):
        more_s = sum(min(rate * longer_s, most_s) for rate, most_s in arriving) / slots
        before_s, longer_s = longer_s, min(wait_s + more_s, LONGEST_WAIT_S)
        if longer_s - before_s <= 0.01 * before_s:
            break
    return longer_s


def begin_s(slots: list[float], works_s: Sequence[float]) -> float | None:
    """When a slot is free after all this work. List scheduling: each job goes to the slot that is free first."""
    if not slots:
        return None
    if len(works_s) > MAX_SIMULATED:
        spread, works_s = works_s[:-MAX_SIMULATED], works_s[-MAX_SIMULATED:]
        evenly_s = sum(spread) / len(slots) + sum(slots) / len(slots)
        slots = [max(slot, evenly_s) for slot in slots]
    if len(slots) == 1:  # it does one after another, and needs no heap
        return sum(works_s, slots[0])
    heapq.heapify(slots)
    for work_s in works_s:
        heapq.heapreplace(slots, slots[0] + work_s)
    return slots[0]
