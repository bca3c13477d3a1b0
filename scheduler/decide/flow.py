"""One tenant's waiting jobs of one tier: their order, the tenant's counter, and how fast its work arrives. Pure."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import NamedTuple

from scheduler.decide.jobs import Newcomer, OpenJob

RATE_OVER_S = 300.0  # over which arrivals are averaged, newer ones for more
LEAST_SEEN_S = 60.0  # jobs that come at once tell of no higher rate than within a minute
AGED_S = 300.0  # a job that waits for longer goes in turns with those that go before it
UNAWAITED_AGED_S = 30.0  # the same of one that nobody waits for
LATEST_DRAFT_S = 60.0  # whatever is predicted, a job is taken to have its draft by then
IN_HAND = 0.1  # share of the time in which a final counts in full that is kept for what is not predicted
UNTOLD_S = 10.0  # after its prediction a draft is taken to be there though nobody told of it: word of it is lossy
AWAITED = 2**63  # in place of a deadline, of a job that somebody waits for
UNAWAITED = AWAITED + 1  # and of one that nobody does
Place = tuple[int, int, OpenJob]  # its deadline, its number, which is its alone, so that jobs are not compared


class Begun(NamedTuple):
    """A job that was started: its number, what its tenant was charged, and whether the one before it had jumped."""

    number: int
    charge: float
    jumped: bool = False


class Rate:
    """How fast work arrives. A single job tells of no rate: it may remain the only one."""

    def __init__(self) -> None:
        self._begun_s: float | None = None  # when the first job came
        self._arrived_s = 0.0  # work since then without that, less what is long ago
        self._at_s = 0.0

    def observe(self, work_s: float, *, now_s: float) -> None:
        """So much has arrived."""
        now_s = max(now_s, self._at_s)
        if self._begun_s is None:
            self._begun_s = now_s
        else:
            self._arrived_s = self._arrived_s * self._faded(now_s) + work_s
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        """Seconds of work per second, of late."""
        if self._begun_s is None or not self._arrived_s:
            return 0.0
        seen_s = max(LEAST_SEEN_S, now_s - self._begun_s)
        return self._arrived_s * self._faded(now_s) / (RATE_OVER_S * -math.expm1(-seen_s / RATE_OVER_S))

    def _faded(self, now_s: float) -> float:
        return math.exp(-max(0.0, now_s - self._at_s) / RATE_OVER_S)


class Flow:
    """Jobs whose deadline can still be met, the earliest first, then the others as they came. But those that somebody
    waits for go before those that nobody does when they would be late otherwise, and where one has waited for long, it
    goes in turns with those before it.

    work_s: of all of them; arriving: of all, awaited: of those that somebody waits for, urgent: with a deadline.
    """

    def __init__(self, counter: float) -> None:
        self.counter = self.base = counter
        self.weight = 1.0
        self.work_s = 0.0
        self.arriving, self.awaited, self.urgent = Rate(), Rate(), Rate()
        self._order: list[Place] = []  # as they go, but for what the time brings
        self._works_s: list[float] = []  # of these, in this order
        self._models: dict[str, int] = {}  # how many of these are of each
        self._places: dict[str, Place] = {}  # by number
        self._jumped = False  # whether the last that was begun was not the one that came first

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._order)

    def serves(self, models: frozenset[str]) -> bool:
        """Whether all that wait are of these models."""
        return self._models.keys() <= models

    @property
    def oldest(self) -> int:
        """The number of the job that came first."""
        return next(iter(self._places.values()))[1]

    def come(self, job: OpenJob, number: int) -> None:
        """A job comes; number: grows from one to the next."""
        self._put(job, number)
        rates = [self.arriving, *([self.awaited] if _rank(job) < UNAWAITED else [])]
        for rate in (*rates, *([self.urgent] if job.deadline_at_ns else [])):
            rate.observe(job.work_s, now_s=job.placed_at_ns / 1e9)

    def start(self, job: OpenJob) -> Begun:
        """It is begun, and charged."""
        before, self._jumped = self._jumped, self._jumps(job)
        begun = Begun(self.leave(job), job.work_s / self.weight, before)
        self.counter += begun.charge
        return begun

    def put_back(self, job: OpenJob, begun: Begun) -> None:
        """It was not begun after all: as if nothing had been."""
        self._put(job, begun.number)
        self._places = dict(sorted(self._places.items(), key=lambda item: item[1][1]))
        self._jumped = begun.jumped
        self.charge(-begun.charge)

    def _jumps(self, job: OpenJob) -> bool:
        """Whether one that came before it could be begun as well."""
        alike = (other for _, _, other in self._places.values() if other.model == job.model and not other.ready_at_ns)
        return next(alike, job) is not job

    def charge(self, more: float) -> None:
        """Work over weight was more than charged, or less; no less than since the tenant came back from idling."""
        self.counter = max(self.base, self.counter + more)

    def lift(self, floor: float) -> None:
        """It comes back from idling: nothing is saved up, nor can be by getting back what was charged before."""
        self.counter = self.base = max(self.counter, floor)

    def leave(self, job: OpenJob) -> int:
        """It will not be done; returns its number."""
        place = self._places.pop(job.job_id)
        index = bisect.bisect_left(self._order, place)
        del self._order[index], self._works_s[index]
        self._models[job.model] -= 1
        if not self._models[job.model]:
            del self._models[job.model]
        self.work_s = self.work_s - job.work_s if self._order else 0.0
        return place[1]

    def _put(self, job: OpenJob, number: int) -> None:
        place = (_rank(job), number, job)
        self._places[job.job_id] = place
        index = bisect.bisect_left(self._order, place)
        self._order.insert(index, place)
        self._works_s.insert(index, job.work_s)
        self._models[job.model] = self._models.get(job.model, 0) + 1
        self.work_s += job.work_s

    def drafted(self, job: OpenJob) -> None:
        """What its final begins from is there: the job as it is known now."""
        before = self._places[job.job_id]
        self._places[job.job_id] = place = (*before[:2], job)
        self._order[bisect.bisect_left(self._order, before)] = place

    def soonest(self, models: frozenset[str]) -> OpenJob | None:
        """The job of these models whose draft should be there first."""
        waiting = [job for _, _, job in self._places.values() if job.model in models]
        return min(waiting, key=lambda job: job.ready_at_ns, default=None)

    def ready(self, models: frozenset[str], *, now_ns: int) -> OpenJob | None:
        """The next of its jobs of these models whose drafts are there; with the others a worker would only wait.
        That it does for one with a deadline, which it could not meet after the job that is ready."""
        job = self._ready(models, now_ns=now_ns)
        if job is None:
            return None
        done_ns = now_ns + job.work_s * 1e9
        for urgent in self._met(now_ns):
            fits = urgent is not job and urgent.model in models and urgent.ready_at_ns <= done_ns
            if fits and done_ns + urgent.work_s * 1e9 > urgent.deadline_at_ns and job.deadline_at_ns == 0:
                return urgent
        return job

    def _ready(self, models: frozenset[str], *, now_ns: int) -> OpenJob | None:
        ready_by_ns, aged_ns = now_ns - round(UNTOLD_S * 1e9), now_ns - round(AGED_S * 1e9)

        def fit(job: OpenJob) -> bool:
            return job.model in models and (job.ready_at_ns <= ready_by_ns or job.placed_at_ns <= aged_ns)

        came = (job for _, _, job in self._places.values() if fit(job))  # nearly always the first of them is enough
        first = next(came, None)
        if first is None or (self._jumped and first.placed_at_ns <= aged_ns):
            return first
        urgent = next((job for job in self._met(now_ns) if fit(job)), None)
        turn = self._jumped and now_ns - first.placed_at_ns >= aged_s(first.awaited) * 1e9  # but not of a deadline
        return urgent or (None if turn or first.awaited else _pressing(first, came, now_ns)) or first

    def _met(self, now_ns: int) -> list[OpenJob]:
        """Those whose deadline can still be met, the earliest first."""
        if not self._order or self._order[0][0] >= AWAITED:
            return []
        dated = self._order[: bisect.bisect_left(self._order, AWAITED, key=_first)]
        return [job for _, _, job in dated if _can_be_met(job, now_ns)]

    def _served_s(self, first: int, models: frozenset[str]) -> list[float]:
        """Seconds of those of these models among the first so many as they go; nearly always all are of them."""
        if self.serves(models):
            return self._works_s[:first]
        return [job.work_s for _, _, job in self._order[:first] if job.model in models]

    def before(self, new: Newcomer, models: frozenset[str], *, now_ns: int) -> list[float]:
        """Seconds of the jobs of these models before a new one of this tenant."""
        if new.deadline_at_ns:
            met = self._met(now_ns)
            return [job.work_s for job in met if job.deadline_at_ns <= new.deadline_at_ns and job.model in models]
        first = self._awaited_until() if new.awaited else len(self._order)
        found = self._served_s(first, models)
        if first == len(self._order):
            return found
        left_s, turns = _spare_s(new, now_ns) - new.work_s - sum(found), len(found)
        for _, _, job in self._order[first:]:  # for which it can well wait, or which go in turns with those before it
            aged = turns > 0 and now_ns - job.placed_at_ns >= UNAWAITED_AGED_S * 1e9
            left_s, turns = left_s - job.work_s, turns - aged
            if left_s < 0 and not aged:
                break
            if job.model in models:
                found.append(job.work_s)
        return found

    def _awaited_until(self) -> int:
        """How many go before the first that nobody waits for."""
        if not self._order or self._order[-1][0] <= AWAITED:
            return len(self._order)
        return bisect.bisect_right(self._order, AWAITED, key=_first)

    def overtaking(self, new: Newcomer, *, now_ns: int) -> Rate:
        """What arrives and goes before one without a deadline."""
        pressed = not new.awaited and self.work_s > _spare_s(new, now_ns)
        return self.awaited if pressed else self.urgent

    def until(self, counter: float, models: frozenset[str]) -> list[float]:
        """Seconds of the jobs of these models that are begun before the tenant's counter is above this."""
        found: list[float] = []
        at = self.counter
        for _, _, job in self._order:
            if at > counter:
                break
            if job.model in models:
                found.append(job.work_s)
                at += job.work_s / self.weight
        return found


def _can_be_met(job: OpenJob, now_ns: int) -> bool:
    """Whether it has a deadline that it would meet if it were begun now, with fewer steps if need be."""
    return now_ns + job.least_s * 1e9 <= job.deadline_at_ns


def aged_s(awaited: bool) -> float:
    """How long a job waits before it goes in turns with those that go before it."""
    return AGED_S if awaited else UNAWAITED_AGED_S


def _rank(job: OpenJob) -> int:
    return job.deadline_at_ns or (AWAITED if job.awaited else UNAWAITED)


def _first(place: Place) -> int:
    return place[0]


def _pressing(unawaited: OpenJob, came: Iterable[OpenJob], now_ns: int) -> OpenJob | None:
    """Of jobs as they came after one that nobody waits for, one that somebody does: the first that can still be in time
    to count in full, if some of these might be late by letting that go first, with a single worker that did them one
    after another; else the first that is late."""
    awaited = [job for job in came if job.awaited and job.good_until_ns]
    first, done_ns = None, float(now_ns)
    for job in awaited:
        if done_ns + job.work_s * 1e9 > _good_until_ns(job):
            continue
        first, done_ns = first or job, done_ns + job.work_s * 1e9
        if done_ns + unawaited.work_s * 1e9 > _good_until_ns(job):
            return first
    return next((job for job in awaited if now_ns + job.work_s * 1e9 > _good_until_ns(job)), None)


def _good_until_ns(job: OpenJob) -> float:
    """Until when its final should be made, with something in hand for what is not predicted."""
    return job.good_until_ns - IN_HAND * max(0, job.good_until_ns - job.placed_at_ns)


def _spare_s(new: Newcomer, now_ns: int) -> float:
    """Seconds for which a new job can well wait."""
    return (1.0 - IN_HAND) * max(0.0, (new.good_until_ns - now_ns) / 1e9)
