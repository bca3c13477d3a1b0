"""Requests that were told when to ask again: each has a place before those that come later. Pure.

A refused request is known by its job's id, which a client that repeats it with its idempotency key keeps. Without such
places all that were refused at one moment would be told the same time, and whoever comes first then would take it. They
are this scheduler's alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from adaptivegen.placement import Tier

MAX_GROUPS = 4096
MAX_IN_GROUP = 256  # the oldest give way
LATE_S = 30.0  # by so much, or a tenth of the time it was told, a request may be late
Group = tuple[str, str, Tier]  # of one tenant, in one pool and tier


@dataclass(frozen=True, slots=True)
class Promise:
    """When a request may ask again, and the seconds of work that it will bring."""

    work_s: float
    at_s: float
    until_s: float


class Promises:
    """Promises by group and job, oldest first."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Group, OrderedDict[str, Promise]] = OrderedDict()
        self._group_of: dict[str, Group] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def add(self, job_id: str, group: Group, *, work_s: float, after_s: float, now_s: float) -> None:
        """A request was told to ask again after so long; a second time is a new promise."""
        self.take(job_id)
        promises = self._groups.setdefault(group, OrderedDict())
        self._groups.move_to_end(group)
        promises[job_id] = Promise(work_s, now_s + after_s, now_s + after_s + max(LATE_S, after_s / 10))
        self._group_of[job_id] = group
        if len(promises) > MAX_IN_GROUP:
            self.take(next(iter(promises)))
        while len(self._groups) > MAX_GROUPS:
            for old in list(self._groups[next(iter(self._groups))]):
                self.take(old)

    def take(self, job_id: str) -> None:
        """It was kept, or is not needed any more."""
        group = self._group_of.pop(job_id, None)
        if group is not None:
            del self._groups[group][job_id]
            if not self._groups[group]:
                del self._groups[group]

    def holds(self, job_id: str, *, now_s: float) -> bool:
        """Whether a request comes at the time it was told, and not much later."""
        group = self._group_of.get(job_id)
        promise = self._groups[group][job_id] if group is not None else None
        return promise is not None and promise.at_s - 1.0 <= now_s <= promise.until_s

    def work_s(self, group: Group, *, but: str, now_s: float) -> float:
        """Seconds of work that other requests of the group were promised a place for."""
        for job_id in [name for name, promise in self._groups.get(group, {}).items() if promise.until_s < now_s]:
            self.take(job_id)
        return sum(promise.work_s for name, promise in self._groups.get(group, {}).items() if name != but)
