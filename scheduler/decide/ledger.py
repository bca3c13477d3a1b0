"""All jobs that have not ended: how many a tenant has, what they will use, and the lines they wait in. Pure.

A scheduler knows of a job because it placed it, because another told of it, because a worker has come for it, or from
the store, which is looked through every few seconds (`recover`, `forget_missing`). A job that is handed to a worker is
started; the heartbeats of workers tell of those that were started without asking.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from adaptivegen.placement import Ticket
from scheduler.decide.jobs import OpenJob
from scheduler.decide.line import Line
from scheduler.decide.quota import Quotas
from scheduler.decide.usage import Usage

MAX_OPEN = 50_000
MAX_POOLS = 256
MAX_ENDED = 4096  # jobs that are known to have ended
UNCLAIMED_S = 10.0  # a job handed out for so long, that still is queued, was not taken
UNSEEN_S = 60.0  # a job placed for so long, that the store does not have, was never accepted
FIRST_GUESS_S = 10.0  # work of a job of which nothing is told, before any was placed here
LEARNING = 0.1  # weight of a job in the mean that such jobs are taken to have


class OpenJobs:
    """The jobs of one view. `revision` grows with every change."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._jobs: dict[str, OpenJob] = {}
        self._lines: dict[str, Line] = {}
        self._started_ns: dict[str, int] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._count: Counter[str] = Counter()
        self._reserved_s: dict[str, float] = {}
        self._mean_s = FIRST_GUESS_S
        self.usage = Usage()
        self.revision = 0

    def __repr__(self) -> str:
        return f"OpenJobs({len(self._jobs)}, started={len(self._started_ns)}, lines={self._lines})"

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    # ---- coming -----------------------------------------------------------------------------------------------

    def place(self, job: OpenJob) -> None:
        """A job was placed; placing it again replaces the first. Beyond the bounds it is not known."""
        self._remove(job.job_id)
        full = len(self._jobs) >= MAX_OPEN
        if full or (job.wants_final and job.pool not in self._lines and len(self._lines) >= MAX_POOLS):
            return
        self._ended.pop(job.job_id, None)
        self._jobs[job.job_id] = job
        self._count[job.tenant] += 1
        self._reserved_s[job.tenant] = self._reserved_s.get(job.tenant, 0.0) + job.gpu_s
        if job.wants_final:
            self._mean_s += LEARNING * (job.work_s - self._mean_s)
            self._lines.setdefault(job.pool, Line()).add(job, weight=self._quotas.of(job.tenant).weight)
        self.revision += 1

    def hear_of(self, job: OpenJob) -> None:
        """Another scheduler placed it; what is known already, or has ended, is not news."""
        if job.job_id not in self._jobs and job.job_id not in self._ended:
            self.place(job)

    # ---- work -------------------------------------------------------------------------------------------------

    def next(self, ticket: Ticket, *, now_ns: int) -> OpenJob | None:
        """Whose turn it is, now that a worker could begin the ticket's job; the job counts as started.

        A ticket is proof that its job waits, whatever was known of it; None where its job is known to have ended and
        nobody else waits.
        """
        if ticket.job_id not in self._ended:
            self._awaits(ticket, now_ns=now_ns)
        line = self._lines.get(ticket.pool)
        job = line.next((ticket.model,)) if line is not None else None
        if job is not None:
            self._start(job, now_ns=now_ns)
        return job

    def _awaits(self, ticket: Ticket, *, now_ns: int) -> None:
        known = self._jobs.get(ticket.job_id)
        if known is None or (known.pool, known.tenant) != (ticket.pool, ticket.tenant):
            guess_s = self._mean_s
            names = {"job_id": ticket.job_id, "tenant": ticket.tenant, "pool": ticket.pool, "model": ticket.model}
            self.place(OpenJob(**names, work_s=guess_s, gpu_s=guess_s, placed_at_ns=now_ns))
        elif self._started_ns.pop(ticket.job_id, None) is not None:
            self._lines[known.pool].add(known, weight=self._quotas.of(known.tenant).weight)
            self.revision += 1

    def started(self, job_ids: Iterable[str], *, now_ns: int) -> None:
        """A worker says that it works on these."""
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is not None and job.wants_final and job_id not in self._started_ns:
                self._start(job, now_ns=now_ns)

    def _start(self, job: OpenJob, *, now_ns: int) -> None:
        self._lines[job.pool].start(job)
        self._started_ns[job.job_id] = now_ns
        self.revision += 1

    # ---- ends -------------------------------------------------------------------------------------------------

    def settle(self, job_id: str, *, gpu_s: float | None, now_ns: int) -> None:
        """The job has ended. gpu_s: seconds of a worker that it took, at most those since it was placed.

        None where that is not told: it counts as predicted, or by the time since it was started where that is less.
        """
        job, started_ns = self._jobs.get(job_id), self._started_ns.get(job_id)
        self._remember_end(job_id)
        if job is None:
            return
        if gpu_s is None:
            gpu_s = min(job.gpu_s, (now_ns - started_ns) / 1e9) if started_ns is not None else 0.0
        used_s = max(0.0, min(gpu_s, (now_ns - job.placed_at_ns) / 1e9))
        if job.wants_final and (used_s or started_ns is not None):
            self._start(job, now_ns=now_ns)
            overhead_s = job.work_s - job.gpu_s if used_s else 0.0
            weight = self._quotas.of(job.tenant).weight
            self._lines[job.pool].correct(job, took_s=used_s + overhead_s, weight=weight)
        self._remove(job_id)
        self.usage.add(job.tenant, used_s, placed_at_s=job.placed_at_ns / 1e9, now_s=now_ns / 1e9)

    def settle_unknown(self, job_id: str, tenant: str, gpu_s: float, placed_at_ns: int, *, now_ns: int) -> None:
        """A job has ended that nothing was known of; nothing where its end was told before."""
        if job_id not in self._ended:
            self._remember_end(job_id)
            used_s = max(0.0, min(gpu_s, (now_ns - placed_at_ns) / 1e9))
            self.usage.add(tenant, used_s, placed_at_s=placed_at_ns / 1e9, now_s=now_ns / 1e9)

    def _remember_end(self, job_id: str) -> None:
        self._ended[job_id] = None
        self._ended.move_to_end(job_id)
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _remove(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        self._started_ns.pop(job_id, None)
        if job.wants_final:
            self._lines[job.pool].drop(job)
        self._count[job.tenant] -= 1
        self._reserved_s[job.tenant] -= job.gpu_s
        if not self._count[job.tenant]:
            del self._count[job.tenant], self._reserved_s[job.tenant]
        self.revision += 1

    # ---- the store --------------------------------------------------------------------------------------------

    def recover(self, job: OpenJob, *, queued: bool, now_ns: int) -> None:
        """The store has this open job; queued: no worker holds it, as its record says."""
        known = self._jobs.get(job.job_id)
        if known is None or known.wants_final != job.wants_final:
            self._ended.pop(job.job_id, None)
            self.place(job)
        if not job.wants_final or job.job_id not in self._jobs:
            return
        held_ns = self._started_ns.get(job.job_id)
        if not queued:
            self.started((job.job_id,), now_ns=now_ns)
        elif held_ns is not None and now_ns - held_ns >= UNCLAIMED_S * 1e9:
            del self._started_ns[job.job_id]
            self._lines[job.pool].add(self._jobs[job.job_id], weight=self._quotas.of(job.tenant).weight)
            self.revision += 1

    def forget_missing(self, is_open: Callable[[str], bool], *, since_ns: int, now_ns: int) -> int:
        """The store was looked through, beginning at `since_ns`: forget jobs it has no longer, or never had though they
        were placed long before that; returns how many."""
        old = [job for job in self._jobs.values() if since_ns - job.placed_at_ns >= UNSEEN_S * 1e9]
        gone = [job.job_id for job in old if not is_open(job.job_id)]
        for job_id in gone:
            self.settle(job_id, gpu_s=None, now_ns=now_ns)
        return len(gone)

    # ---- what is known ----------------------------------------------------------------------------------------

    def line(self, pool: str) -> Line:
        """A pool's line, to read; an empty one for a pool nothing is known of."""
        return self._lines.get(pool) or Line()

    def pools(self) -> frozenset[str]:
        """Pools in whose lines jobs wait or have waited."""
        return frozenset(self._lines)

    def count(self, tenant: str) -> int:
        """The tenant's jobs that have not ended."""
        return self._count.get(tenant, 0)

    def reserved_s(self, tenant: str) -> float:
        """Seconds of workers that they are predicted to need."""
        return self._reserved_s.get(tenant, 0.0)

    def next_end_s(self, tenant: str, *, now_ns: int) -> float | None:
        """Seconds until the first of them is predicted to end; None without any whose end is known."""
        ends = [job.ends_at_ns for job in self._jobs.values() if job.tenant == tenant and job.ends_at_ns]
        return max(0.0, (min(ends) - now_ns) / 1e9) if ends else None

    def tenants(self) -> list[str]:
        """Tenants that have any."""
        return sorted(self._count)
