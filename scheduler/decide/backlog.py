"""Work sent to a pool's queue that no worker has taken yet, and the wait it makes. Pure.

A worker's heartbeat tells only of the job at hand. What still waits is known from two sides: the jobs placed here (with
their predicted seconds), and the number of messages the broker holds. The queue is first in, first out, so when the
broker holds k messages the last k jobs placed here are those that wait; any beyond that were placed by another
scheduler or before this one started and are taken to be average.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

MAX_TRACKED = 1024  # jobs per pool whose work is kept one by one; the broker's count covers the rest
SETTLE_S = 2.0  # a job placed this recently may not have reached the queue yet
FIRST_GUESS_S = 10.0  # work of a job placed elsewhere, before any was placed here


class Backlog:
    """One pool's waiting work, oldest first."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[int, float]] = {}  # job id -> (placed at ns, predicted work in seconds)
        self._pending = 0
        self._mean_s = FIRST_GUESS_S

    def __repr__(self) -> str:
        return f"Backlog(jobs={len(self._jobs)}, pending={self._pending}, work_s={self.work_s:.3f})"

    @property
    def waiting(self) -> int:
        """Jobs taken to wait."""
        return max(len(self._jobs), self._pending)

    @property
    def work_s(self) -> float:
        """Predicted seconds of all of them."""
        return sum(work_s for _, work_s in self._jobs.values()) + self._untracked_s

    @property
    def _untracked_s(self) -> float:
        return max(0, self._pending - len(self._jobs)) * self._mean_s

    def dispatch(self, job_id: str, work_s: float, *, now_ns: int) -> None:
        """A job was placed; placing it again replaces the first."""
        self._jobs.pop(job_id, None)
        self._jobs[job_id] = (now_ns, work_s)
        self._mean_s += 0.1 * (work_s - self._mean_s)
        while len(self._jobs) > MAX_TRACKED:
            del self._jobs[next(iter(self._jobs))]

    def settle(self, job_id: str) -> None:
        """The job is over, or was never queued."""
        self._jobs.pop(job_id, None)

    def observe(self, pending: int, *, now_ns: int) -> None:
        """The broker holds `pending` undelivered messages now."""
        self._pending = max(0, pending)
        settled = [job_id for job_id, (at_ns, _) in self._jobs.items() if now_ns - at_ns >= SETTLE_S * 1e9]
        young = len(self._jobs) - len(settled)
        for job_id in settled[: max(0, len(settled) - max(0, self._pending - young))]:
            del self._jobs[job_id]

    def wait_s(self, free_at_s: Iterable[float]) -> float | None:
        """Seconds until the next job would start, on slots that become free at these times; None without slots.

        List scheduling: each waiting job, oldest first, goes to the slot that is free first.
        """
        slots = list(free_at_s)
        if not slots:
            return None
        late_s = self._untracked_s / len(slots)
        slots = [slot + late_s for slot in slots]
        heapq.heapify(slots)
        for _, work_s in self._jobs.values():
            heapq.heapreplace(slots, slots[0] + work_s)
        return slots[0]
