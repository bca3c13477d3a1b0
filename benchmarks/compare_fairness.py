"""How tenants share a cloud that has too much to do, by the scheduler's own code, in simulated time.

`python -m benchmarks.compare_fairness`. WORKERS workers, one edge; requests are placed by `decide`, jobs wait in its
line, and a job takes what is predicted times a lognormal factor (sigma NOISE). Every policy sees the same requests,
over RUNS seeds. Compared are:

fair       turns as workers ask for them (`OpenJobs.next`), and refusals: what the scheduler does
fair only  the same turns, and nobody is refused
fifo       first come, first served, and nobody is refused: the queue's own order

Loads: `flood` is one tenant's 400 jobs at once beside ten tenants with a job every 40 s each; `overload` twice as much
work as the workers can do, of twenty tenants with tiers, half of the requests with a deadline. Who is refused asks
again once, at the time it was told.

Prints for each: the light tenants' wait in line (median and 95 %), the heavy one's 95 %, the work done per worker's
time, the share of requests refused at last, of deadlines met among all that had one, of requests that were admitted
when they asked again at the time they were told, and by how much predicted waits were off on average. Nothing is timed,
so the figures do not depend on the machine.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from adaptivegen.nodes import NodeReport
from adaptivegen.placement import PlacementQuery, Ticket, Tier
from benchmarks.cards import make_card
from scheduler.decide.decide import decide, record
from scheduler.decide.jobs import OpenJob
from scheduler.decide.quota import AdmissionSettings
from scheduler.decide.view import NodeTable, View

RUNS = 5
WORKERS = 4
NOISE = 0.2
BEAT_S = 0.5
HOUR_S = 3600.0
STEP_MS = 1250.0  # of 8 steps: a final of ten seconds
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a tenant. again: it was refused before."""

    number: int
    at_s: float
    tenant: str
    tier: Tier = "default"
    deadline_s: float | None = None
    again: bool = False
    refused_s: float = 0.0  # that it was told to wait before it asked again


@dataclass(slots=True)
class Seen:
    """What became of the requests of one run."""

    waits_s: dict[str, list[float]] = field(default_factory=dict)
    busy_s: float = 0.0
    ended_s: float = 0.0
    requests: int = 0
    refused: int = 0
    deadlines: int = 0
    met: int = 0
    asked_again: int = 0
    admitted_again: int = 0
    off: list[float] = field(default_factory=list)


class Cloud:
    """A view, its workers, and their time."""

    def __init__(self, rng: random.Random, *, fair: bool, refuses: bool) -> None:
        self._rng = rng
        self._fair = fair
        cards = {name: make_card(name, side=256, step_ms=STEP_MS) for name in ("draft", "cloud")}
        self.view = View(nodes=NodeTable(), cards=cards, decider="bench")
        self.view.admission = AdmissionSettings() if refuses else AdmissionSettings(max_wait_s=7 * 86400.0)
        self._free = list(range(WORKERS))
        self._at_hand: dict[int, tuple[str, float]] = {}  # by worker: the job, and when it ends
        self._queue: list[str] = []
        self._jobs: dict[str, tuple[Request, OpenJob]] = {}
        self._told: dict[str, float] = {}  # the predicted wait
        self._number = 0
        self.seen = Seen()
        self.beat(0.0)

    def beat(self, now_s: float) -> None:
        """All nodes report, as they do twice a second."""
        self._number += 1
        for worker in range(WORKERS):
            left_s = self._at_hand[worker][1] - now_s if worker in self._at_hand else 0.0
            report = NodeReport(
                node_id=f"worker-{worker}",
                kind="worker",
                seq=self._number,
                sent_at_ns=_ns(now_s),
                started_at_ns=1,
                pool="default",
                models=("cloud",),
                in_flight=1 if worker in self._at_hand else 0,
                remaining_s=max(0.0, left_s),
                at_hand=(self._at_hand[worker][0],) if worker in self._at_hand else (),
            )
            self.view.hear(report, now_ns=_ns(now_s))

    def ask(self, request: Request) -> float | None:
        """Place a request; seconds after which to ask again where it is refused."""
        now_s, seen = request.at_s, self.seen
        query = PlacementQuery(
            job_id=f"vid_{request.number:026d}",
            tenant=request.tenant,
            edge_id="edge-1",
            intent="render",
            draft_model="none",
            cloud_model="cloud",
            width=256,
            height=256,
            frames=24,
            tier=request.tier,
            deadline_s=request.deadline_s,
            keeps_id=True,
        )
        decision = decide(self.view, query, now_ns=_ns(now_s), rng=self._rng)
        seen.asked_again += request.again
        seen.requests += not request.again
        if request.deadline_s is not None and not request.again:
            seen.deadlines += 1
        job = record(self.view, query, decision, now_ns=_ns(now_s))
        if job is None:
            return decision.retry_after_s or 1.0
        seen.admitted_again += request.again
        self._jobs[job.job_id] = request, job
        chosen = decision.chosen()
        self._told[job.job_id] = (chosen.final_s or 0.0) - job.work_s if chosen is not None else 0.0
        self._queue.append(job.job_id)
        self._begin(now_s)
        return None

    def next_end_s(self) -> float:
        """When the next worker is free."""
        return min((ends_s for _, ends_s in self._at_hand.values()), default=math.inf)

    def end(self, now_s: float) -> None:
        """Whoever is through begins the next."""
        for worker, (job_id, ends_s) in list(self._at_hand.items()):
            if ends_s <= now_s:
                del self._at_hand[worker]
                self._free.append(worker)
                request, job = self._jobs.pop(job_id)
                self.view.jobs.settle(job_id, gpu_s=job.gpu_s, now_ns=_ns(now_s))
                self.seen.ended_s = now_s
                if request.deadline_s is not None and now_s - request.at_s + request.refused_s <= request.deadline_s:
                    self.seen.met += 1
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        while self._free and self._queue:
            worker = self._free.pop()
            job_id = self._next(worker, now_s)
            self._queue.remove(job_id)
            request, job = self._jobs[job_id]
            took_s = job.work_s * self._rng.lognormvariate(0.0, NOISE)
            self._at_hand[worker] = job_id, now_s + took_s
            self.seen.busy_s += took_s
            waited_s = now_s - request.at_s
            self.seen.waits_s.setdefault(request.tenant.partition("-")[0], []).append(waited_s)
            self.seen.off.append(abs(self._told[job_id] - waited_s))

    def _next(self, worker: int, now_s: float) -> str:
        first = self._queue[0]
        tenant = self._jobs[first][0].tenant
        ticket = Ticket(worker_id=f"worker-{worker}", pool="default", model="cloud", tenant=tenant, job_id=first)
        if not self._fair:
            self.view.jobs.shown(f"worker-{worker}", (first,), now_ns=_ns(now_s))
            return first
        job = self.view.jobs.next(ticket, now_ns=_ns(now_s))
        return job.job_id if job is not None else first


def _ns(now_s: float) -> int:
    return round((1_000_000.0 + now_s) * 1e9)


def flood(rng: random.Random) -> list[Request]:
    """One tenant's many jobs beside ten with few."""
    requests = [Request(number, 60.0, "heavy") for number in range(400)]
    for number in range(10):
        at_s = rng.uniform(0.0, 40.0)
        while at_s < 1200.0:
            requests.append(Request(len(requests), at_s, f"light-{number}"))
            at_s += rng.expovariate(1 / 40.0)
    return requests


def overload(rng: random.Random) -> list[Request]:
    """Twice what the workers can do, for an hour."""
    requests: list[Request] = []
    at_s, rate = 0.0, 2.0 * WORKERS / 10.15
    while at_s < HOUR_S:
        at_s += rng.expovariate(rate)
        number = rng.randrange(20)
        tier: Tier = "flex" if number < 6 else "default"
        deadline_s = DEADLINE_S if rng.random() < 0.5 else None
        tenant = "heavy" if number == 19 else f"light-{number}"
        requests.append(Request(len(requests), at_s, tenant, tier, deadline_s))
    return requests


LOADS: dict[str, Callable[[random.Random], list[Request]]] = {"flood": flood, "overload": overload}
POLICIES = {"fair": (True, True), "fair only": (True, False), "fifo": (False, False)}


def simulate(load: str, policy: str, seed: int) -> Seen:
    """One run."""
    fair, refuses = POLICIES[policy]
    cloud = Cloud(random.Random(seed + 1), fair=fair, refuses=refuses)
    coming = [(request.at_s, number, request) for number, request in enumerate(LOADS[load](random.Random(seed)))]
    heapq.heapify(coming)
    number, beat_s = len(coming), BEAT_S
    while coming or cloud.next_end_s() < math.inf:
        at_s = coming[0][0] if coming else math.inf
        now_s = min(at_s, cloud.next_end_s(), beat_s)
        if now_s == beat_s:
            cloud.beat(now_s)
            beat_s += BEAT_S
        elif now_s == at_s:
            request = heapq.heappop(coming)[2]
            retry_s = cloud.ask(request)
            if retry_s is None:
                continue
            if request.again:
                cloud.seen.refused += 1
                continue
            number += 1
            later = replace(request, at_s=now_s + retry_s, again=True, refused_s=retry_s)
            heapq.heappush(coming, (later.at_s, number, later))
        else:
            cloud.end(now_s)
    return cloud.seen


def quantile(values: list[float], share: float) -> float:
    """Of all runs' values, 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def line(load: str, policy: str) -> str:
    """A row of the table: means over the runs, quantiles over all their jobs."""
    runs = [simulate(load, policy, seed) for seed in range(RUNS)]
    light = [wait_s for run in runs for wait_s in run.waits_s.get("light", [])]
    heavy = [wait_s for run in runs for wait_s in run.waits_s.get("heavy", [])]
    busy = statistics.fmean(run.busy_s / (WORKERS * run.ended_s) for run in runs)
    refused = sum(run.refused for run in runs) / sum(run.requests for run in runs)
    deadlines, again = sum(run.deadlines for run in runs), sum(run.asked_again for run in runs)
    met = f"{sum(run.met for run in runs) / deadlines:.1%}" if deadlines else "-"
    right = f"{sum(run.admitted_again for run in runs) / again:.1%}" if again else "-"
    waits = f"{quantile(light, 0.5):.0f} s | {quantile(light, 0.95):.0f} s | {quantile(heavy, 0.95):.0f} s"
    off_s = statistics.fmean(one_s for run in runs for one_s in run.off)
    return f"| {load} | {policy} | {waits} | {busy:.2f} | {refused:.1%} | {met} | {right} | {off_s:.0f} s |"


def main() -> None:
    """Print the table."""
    waits = "light, median | light, 95 % | heavy, 95 %"
    print(f"| load | policy | {waits} | busy | refused | deadlines met | admitted again | wait off |")
    print("| --- " * 10 + "|")
    for load in LOADS:
        for policy in POLICIES:
            print(line(load, policy), flush=True)


if __name__ == "__main__":
    main()
