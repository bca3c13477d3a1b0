"""All jobs that have not ended: how many a tenant has, what they will use, and the lines they wait in. Pure.

A scheduler knows of a job because it placed it, because another told of it, because a worker has come for it, or from
the store, which is looked through every few seconds and is right where they differ (`recover`, `forget_missing`). A job
is *handed out* when a worker is told its turn, and *at work* when that worker's heartbeat or the store says so; one
that was handed out and is not at work soon waits again, as if nothing had been. Only what was at work is charged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from adaptivegen.placement import Ticket, ToldSteps
from scheduler.decide.flow import LATEST_DRAFT_S
from scheduler.decide.jobs import OpenJob
from scheduler.decide.line import Line
from scheduler.decide.promises import Promises
from scheduler.decide.quota import Quotas
from scheduler.decide.steps import settled
from scheduler.decide.usage import Usage

MAX_OPEN = 50_000
FURTHEST_S = 30 * 86400.0  # that another scheduler's times of a job are believed to be ahead
MAX_POOLS = 256
MAX_ENDED = 4096  # jobs that are known to have ended
UNCLAIMED_S = 10.0  # a job handed out for so long, that still is queued, was not taken
UNSEEN_S = 60.0  # a job known for so long, that the store does not have, was never accepted
SHOWS_S = 1.5  # within which a worker's heartbeat names the job that it was told
FIRST_GUESS_S = 10.0  # work of a job of which nothing is told, before any was placed here
LEARNING = 0.1  # weight of a job in the mean that such jobs are taken to have


class OpenJobs:
    """The jobs of one view. `revision` grows with every change."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._jobs: dict[str, OpenJob] = {}
        self._of_tenant: dict[str, dict[str, OpenJob]] = {}
        self._reserved_s: dict[str, float] = {}
        self._lines: dict[str, Line] = {}
        self._since_ns: dict[str, int] = {}  # when they became known here
        self._started_ns: dict[str, int] = {}  # handed out or at work
        self._at_work: set[str] = set()  # of these
        self._generated: set[str] = set()  # of these: their workers' models have been at them
        self._behind: set[str] = set()  # of these: that wait at their workers behind another
        self._shown: dict[str, frozenset[str]] = {}  # by worker: what it showed last
        self._handed: dict[str, dict[str, int]] = {}  # by worker: the jobs it was told and has not shown, and when
        self._ended: OrderedDict[str, int] = OrderedDict()  # and when
        self._mean_s = FIRST_GUESS_S
        self.usage = Usage()
        self.promises = Promises()
        self.revision = 0

    def __repr__(self) -> str:
        return f"OpenJobs({len(self._jobs)}, started={len(self._started_ns)}, lines={self._lines})"

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    # ---- coming -----------------------------------------------------------------------------------------------

    def place(self, job: OpenJob) -> None:
        """A job was placed here; placing it again replaces the first. Beyond the bounds it is not known."""
        if job.wants_final and job.work_s > 0:
            self._mean_s += LEARNING * (job.work_s - self._mean_s)
        self._put(job, now_ns=job.placed_at_ns)

    def hear_of(self, job: OpenJob, *, now_ns: int) -> None:
        """Another scheduler has just placed it. News are a job that is not known, and the final of a draft that is."""
        known = self._jobs.get(job.job_id)
        if (known is not None and not known.guessed and known.wants_final >= job.wants_final) or (
            known is None and job.job_id in self._ended and not job.wants_final
        ):
            return

        def here(at_ns: int, most_s: float) -> int:
            """By this clock, within bounds; 0 stays."""
            return now_ns + min(round(most_s * 1e9), max(0, at_ns - job.placed_at_ns)) if at_ns else 0

        times = {
            "placed_at_ns": now_ns,
            "ends_at_ns": here(job.ends_at_ns, FURTHEST_S),
            "deadline_at_ns": here(job.deadline_at_ns, FURTHEST_S),
            "good_until_ns": here(job.good_until_ns, FURTHEST_S),
            "ready_at_ns": here(job.ready_at_ns, LATEST_DRAFT_S),
        }
        self._replace(job.model_copy(update=times), now_ns=now_ns)

    def _put(self, job: OpenJob, *, now_ns: int) -> None:
        self._remove(job.job_id)
        self._tidy(job.pool)
        if len(self._jobs) >= MAX_OPEN or (
            job.wants_final and job.pool not in self._lines and len(self._lines) >= MAX_POOLS
        ):
            return
        if job.wants_final and not job.work_s:
            job = job.model_copy(update={"work_s": self._mean_s, "gpu_s": self._mean_s})
        self._ended.pop(job.job_id, None)
        self.promises.take(job.job_id)
        self._jobs[job.job_id] = job
        self._since_ns[job.job_id] = now_ns
        self._of_tenant.setdefault(job.tenant, {})[job.job_id] = job
        self._reserved_s[job.tenant] = self._reserved_s.get(job.tenant, 0.0) + job.gpu_s
        if job.wants_final:
            self._lines.setdefault(job.pool, Line()).add(job, weight=self._weight(job))
        self.revision += 1

    def _replace(self, job: OpenJob, *, now_ns: int) -> None:
        """What is known better now; if a worker has it, it still does."""
        started_ns, at_work = self._started_ns.get(job.job_id), job.job_id in self._at_work
        self._put(job, now_ns=self._since_ns.get(job.job_id, now_ns))
        if started_ns is not None and job.wants_final and job.job_id in self._jobs:
            self._start(job.job_id, now_ns=started_ns, at_work=at_work)

    def drafted(self, job_id: str) -> None:
        """The draft of a job is there, or will never be: a worker that begins it waits for nothing."""
        job = self._jobs.get(job_id)
        if job is None or not job.ready_at_ns:
            return
        job = job.model_copy(update={"ready_at_ns": 0})
        self._jobs[job_id] = self._of_tenant[job.tenant][job_id] = job
        if job.wants_final:
            self._lines[job.pool].drafted(job)
        self.revision += 1

    # ---- work -------------------------------------------------------------------------------------------------

    def next(self, ticket: Ticket, *, now_ns: int, slots: int = 1) -> OpenJob | None:
        """Whose turn it is, now or soon, when a worker can begin the ticket's job; the job counts as handed out. slots:
        of the workers of this pool, between which what waits is shared.

        A ticket is proof that its job waits, unless it was handed out a moment ago. None: begin that job.
        """
        started_ns = self._started_ns.get(ticket.job_id)
        known = self._jobs.get(ticket.job_id)
        if known is None or (known.pool, known.tenant) != (ticket.pool, ticket.tenant):
            self._put(self._guess(ticket, now_ns), now_ns=now_ns)
        elif started_ns is not None and now_ns - started_ns >= UNCLAIMED_S * 1e9:
            self._put_back(ticket.job_id)
        line = self._lines.get(ticket.pool)
        begins_ns = now_ns + round(ticket.free_in_s * 1e9)
        job = line.next((ticket.model, *ticket.models), now_ns=begins_ns) if line is not None else None
        if line is not None and job is not None:
            self._start(job.job_id, now_ns=now_ns, at_work=False)
            sharing_s = line.sharing_s(job.tier, frozenset((ticket.model, *ticket.models)))
            told = settled(job, begins_ns=begins_ns, wait_s=sharing_s / max(1, slots))
            job = self._settled(job, told) if told.steps else job
            self._handed.setdefault(ticket.worker_id, {})[job.job_id] = now_ns
        return job

    def _settled(self, job: OpenJob, told: ToldSteps) -> OpenJob:
        """A job that was just started, with so many steps."""
        known = self._jobs[job.job_id] = self._of_tenant[job.tenant][job.job_id] = job.with_steps(told)
        self._lines[job.pool].resized(known, before_s=job.work_s)
        self._reserved_s[job.tenant] += known.gpu_s - job.gpu_s
        return known

    def _guess(self, ticket: Ticket, now_ns: int) -> OpenJob:
        """All that its message says."""
        pool, model, tenant = ticket.pool, ticket.model, ticket.tenant
        return OpenJob(job_id=ticket.job_id, tenant=tenant, pool=pool, model=model, placed_at_ns=now_ns, guessed=True)

    def shown(
        self,
        worker_id: str,
        job_ids: Iterable[str],
        *,
        now_ns: int,
        generating: Iterable[str] = (),
        behind: Iterable[str] = (),
    ) -> None:
        """A worker says which jobs it works on, at which of them its model is or has been, and which wait behind these;
        one that it was told and does not show waits again."""
        at_hand = frozenset(job_ids)
        self._tried_anew(worker_id, at_hand, now_ns=now_ns)
        for job_id in generating:
            if job_id in self._behind:
                self._behind.discard(job_id)
                self._started_ns[job_id] = now_ns
            if job_id in self._jobs:
                self._generated.add(job_id)
        for job_id in at_hand:
            job = self._jobs.get(job_id)
            if job is not None and job.wants_final and job_id not in self._at_work:
                self._start(job_id, now_ns=now_ns, at_work=True)
        self._behind.update(job_id for job_id in behind if job_id in self._at_work and job_id not in self._generated)
        handed = self._handed.get(worker_id)
        if not handed:
            return
        for job_id, at_ns in list(handed.items()):
            if job_id in at_hand or job_id not in self._started_ns:
                del handed[job_id]
            elif now_ns - at_ns >= SHOWS_S * 1e9:
                del handed[job_id]
                if job_id not in self._at_work and self._started_ns[job_id] == at_ns:  # else another has it by now
                    self._put_back(job_id)
        if not handed:
            del self._handed[worker_id]

    def _tried_anew(self, worker_id: str, at_hand: frozenset[str], *, now_ns: int) -> None:
        """What is at work, and what a worker shows that has not shown it before, begins there: whoever had it has given
        it back, though nobody has said so yet."""
        for job_id in at_hand - self._shown.get(worker_id, frozenset()):
            if job_id in self._at_work:
                self._started_ns[job_id] = now_ns
                self._generated.discard(job_id)
                self._behind.discard(job_id)
        if at_hand:
            self._shown[worker_id] = at_hand
        else:
            self._shown.pop(worker_id, None)

    def gone(self, worker_id: str) -> None:
        """The worker was silent for so long that it is forgotten."""
        self._handed.pop(worker_id, None)
        self._shown.pop(worker_id, None)

    def _start(self, job_id: str, *, now_ns: int, at_work: bool) -> None:
        job = self._jobs[job_id]
        self._lines[job.pool].start(job)
        self._started_ns[job_id] = now_ns
        if at_work:
            self._at_work.add(job_id)
        self.revision += 1

    def _put_back(self, job_id: str) -> None:
        job = self._jobs[job_id]
        del self._started_ns[job_id]
        self._no_longer_at_work(job_id)
        self._lines[job.pool].put_back(job, weight=self._weight(job))
        self.revision += 1

    def _no_longer_at_work(self, job_id: str) -> None:
        for jobs in (self._at_work, self._generated, self._behind):
            jobs.discard(job_id)

    # ---- ends -------------------------------------------------------------------------------------------------

    def settle(self, job_id: str, *, gpu_s: float | None, now_ns: int, decided_at_ns: int = 0) -> None:
        """The job has ended. gpu_s: seconds of a worker that it took, at most those since it was placed;
        decided_at_ns: of its decision, as its outcome tells, 0 where none does.

        None where that is not told: of one that was at work, and not only behind another, it counts as predicted, or by
        the time since then where that is less.
        """
        job = self._jobs.get(job_id)
        self._remember_end(job_id, now_ns)
        if job is None:
            return
        if gpu_s is None:
            at_work = job_id in self._at_work and job_id not in self._behind
            gpu_s = min(job.gpu_s, (now_ns - self._started_ns[job_id]) / 1e9) if at_work else 0.0
        used_s = max(0.0, min(gpu_s, (now_ns - job.placed_at_ns) / 1e9))
        if job.wants_final:
            if used_s and job_id not in self._started_ns:
                self._start(job_id, now_ns=now_ns, at_work=True)
            overhead_s = job.work_s - job.gpu_s if used_s else 0.0
            self._lines[job.pool].end(job, took_s=used_s + overhead_s)
        self._remove(job_id)
        decided_at_s = (decided_at_ns or job.decided_at_ns or job.placed_at_ns) / 1e9
        self.usage.add(job.tenant, used_s, decided_at_s=decided_at_s, now_s=now_ns / 1e9)

    def settle_unknown(self, job_id: str, tenant: str, gpu_s: float, decided_at_ns: int, *, now_ns: int) -> None:
        """A job has ended that nothing was known of; nothing where its end was told before."""
        if job_id not in self._ended:
            self._remember_end(job_id, now_ns)
            used_s = max(0.0, min(gpu_s, (now_ns - decided_at_ns) / 1e9))
            self.usage.add(tenant, used_s, decided_at_s=decided_at_ns / 1e9, now_s=now_ns / 1e9)

    def _remember_end(self, job_id: str, now_ns: int) -> None:
        self._ended[job_id] = now_ns
        self._ended.move_to_end(job_id)
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _remove(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        del self._since_ns[job_id]
        self._started_ns.pop(job_id, None)
        self._no_longer_at_work(job_id)
        if job.wants_final:
            self._lines[job.pool].end(job, took_s=0.0)  # what is charged still: its end has settled that before
            self._lines[job.pool].drop(job)
        del self._of_tenant[job.tenant][job_id]
        self._reserved_s[job.tenant] -= job.gpu_s
        if not self._of_tenant[job.tenant]:
            del self._of_tenant[job.tenant], self._reserved_s[job.tenant]
        self.revision += 1

    def _tidy(self, pool: str) -> None:
        """Lines of pools that have no job any more give way to others."""
        if len(self._lines) >= MAX_POOLS and pool not in self._lines:
            used = {job.pool for job in self._jobs.values()}
            self._lines = {pool: line for pool, line in self._lines.items() if pool in used}

    def _weight(self, job: OpenJob) -> float:
        return self._quotas.of(job.tenant).weight

    # ---- the store --------------------------------------------------------------------------------------------

    def recover(self, job: OpenJob, *, queued: bool, now_ns: int, since_ns: int = 0) -> None:
        """The store has this open job; queued: no worker holds it, as its record says; since_ns: when that was looked
        for, so that one that has ended meanwhile does not come back."""
        if self._ended.get(job.job_id, -1) >= since_ns > 0:
            return
        known = self._jobs.get(job.job_id)
        untold = known is not None and job.good_until_ns and not known.good_until_ns  # by a scheduler of before
        if known is None or known.guessed or untold or _kind(known) != _kind(job):
            self._replace(job, now_ns=now_ns)
        elif known.ready_at_ns and not job.ready_at_ns:
            self.drafted(job.job_id)
        if not job.wants_final or job.job_id not in self._jobs:
            return
        held_ns = self._started_ns.get(job.job_id)
        if not queued:
            if job.job_id not in self._at_work:
                self._start(job.job_id, now_ns=now_ns if held_ns is None else held_ns, at_work=True)
        elif held_ns is not None and now_ns - held_ns >= UNCLAIMED_S * 1e9:
            self._put_back(job.job_id)

    def forget_missing(self, is_open: Callable[[str], bool], *, since_ns: int, now_ns: int) -> int:
        """The store was looked through, beginning at `since_ns`: forget jobs it has no longer, or never had though they
        were known long before that; returns how many."""
        old = [job_id for job_id, known_ns in self._since_ns.items() if since_ns - known_ns >= UNSEEN_S * 1e9]
        gone = [job_id for job_id in old if not is_open(job_id)]
        for job_id in gone:
            self.settle(job_id, gpu_s=None, now_ns=now_ns)
        return len(gone)

    # ---- what is known ----------------------------------------------------------------------------------------

    def get(self, job_id: str) -> OpenJob | None:
        """The job, if it is open."""
        return self._jobs.get(job_id)

    def has_ended(self, job_id: str) -> bool:
        """Whether it is known to have ended, not long ago."""
        return job_id in self._ended

    def told(self, worker_id: str) -> tuple[str, ...]:
        """Jobs that a worker was told to begin, and that it has not shown yet; the newest last."""
        handed = self._handed.get(worker_id)
        return tuple(handed) if handed else ()

    def left_s(self, job_id: str, *, now_ns: int) -> float:
        """Seconds that a worker will still have a job that it has begun, where that does not tell: all of its work, and
        what its draft is still waited for, until it generates; then what is left of the work. 0 of one that is not
        known."""
        job, started_ns = self._jobs.get(job_id), self._started_ns.get(job_id)
        if job is None or started_ns is None:
            return 0.0
        if job_id in self._generated:
            return max(0.0, job.work_s - (now_ns - started_ns) / 1e9)
        return job.work_s + max(0.0, (job.ready_at_ns - now_ns) / 1e9)

    @property
    def mean_s(self) -> float:
        """Seconds of work that a final takes on average."""
        return self._mean_s

    def line(self, pool: str) -> Line:
        """A pool's line, to read; an empty one for a pool nothing is known of."""
        return self._lines.get(pool) or Line()

    def pools(self) -> frozenset[str]:
        """Pools in whose lines jobs wait or have waited."""
        return frozenset(self._lines)

    def count(self, tenant: str) -> int:
        """The tenant's jobs that have not ended."""
        return len(self._of_tenant.get(tenant, ()))

    def reserved_s(self, tenant: str, *, but: str = "") -> float:
        """Seconds of workers that they are predicted to need, `but` one of them."""
        own = self._jobs.get(but)
        less_s = own.gpu_s if own is not None and own.tenant == tenant else 0.0
        return max(0.0, self._reserved_s.get(tenant, 0.0) - less_s)

    def next_end_s(self, tenant: str, *, now_ns: int) -> float | None:
        """Seconds until the first of them is predicted to end; None without any whose end is known."""
        ends = [job.ends_at_ns for job in self._of_tenant.get(tenant, {}).values() if job.ends_at_ns]
        return max(0.0, (min(ends) - now_ns) / 1e9) if ends else None

    def tenants(self) -> list[str]:
        """Tenants that have any."""
        return sorted(self._of_tenant)


def _kind(job: OpenJob) -> tuple[str, str, str, str]:
    """What of a job decides where it stands."""
    return job.tenant, job.tier, job.pool, job.model
