"""Requests that were told when to ask again: each has a place before those that come later. Pure.

A refused request is known by its job's id, which a client that repeats it with its idempotency key keeps. Without such
places all that were refused at one moment would be told the same time, and whoever comes first then would take it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_PROMISES = 8192
LATE_S = 30.0  # by so much, or a tenth of the time it was told, a request may be late


@dataclass(frozen=True, slots=True)
class Promise:
    """When a request may ask again, and the seconds of work that it will bring."""

    tenant: str
    pool: str
    work_s: float
    at_s: float
    until_s: float


class Promises:
    """Promises by job, oldest first; the oldest give way."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Promise] = OrderedDict()
        self._work_s: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, job_id: str, tenant: str, pool: str, *, work_s: float, after_s: float, now_s: float) -> None:
        """A request was told to ask again after so long; a second time is a new promise."""
        self.take(job_id)
        self._expire(now_s)
        until_s = now_s + after_s + max(LATE_S, after_s / 10)
        self._known[job_id] = Promise(tenant, pool, work_s, now_s + after_s, until_s)
        self._work_s[tenant, pool] = self._work_s.get((tenant, pool), 0.0) + work_s
        while len(self._known) > MAX_PROMISES:
            self.take(next(iter(self._known)))

    def take(self, job_id: str) -> None:
        """It was kept, or is not needed any more."""
        promise = self._known.pop(job_id, None)
        if promise is not None:
            key = promise.tenant, promise.pool
            self._work_s[key] -= promise.work_s
            if self._work_s[key] <= 1e-6:
                del self._work_s[key]

    def holds(self, job_id: str, *, now_s: float) -> bool:
        """Whether a request comes at the time it was told, and not much later."""
        promise = self._known.get(job_id)
        return promise is not None and promise.at_s - 1.0 <= now_s <= promise.until_s

    def work_s(self, tenant: str, pool: str) -> float:
        """Seconds of work that the tenant's other requests were promised a place for."""
        return self._work_s.get((tenant, pool), 0.0)

    def _expire(self, now_s: float) -> None:
        over = [job_id for job_id, promise in self._known.items() if promise.until_s < now_s]
        for job_id in over:
            self.take(job_id)
