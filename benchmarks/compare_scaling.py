"""How pools fare that follow the scheduler's advice, or count otherwise, in simulated time.

`python -m benchmarks.compare_scaling`. A worker takes START_S to start and has one job at a time; one taken away ends
its job first. Every policy sees the same arrivals, over RUNS seeds. Compared are:

advice    `scheduler.decide.elastic`
backlog   ceil(work outstanding / (drain target x use)), the most of the last five minutes: no arrivals
messages  one worker for every MESSAGES_EACH jobs waiting or at hand, the most of the last five minutes: what a scaler
          does that counts a queue's messages
fixed     as many workers as the mean load needs at the use asked for

Prints, for each load and policy: worker seconds per second of work, the mean and 95 % quantile of the wait, the share
of jobs that waited for longer than the drain target, and how often an hour the wanted number changed. Nothing is timed,
so the figures do not depend on the machine.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from scheduler.decide.elastic import ElasticSettings, Load, Scaler

RUNS = 5
HOUR_S = 3600
START_S = 30
MESSAGES_EACH = 4
SETTINGS = ElasticSettings(max_workers=100)
Policy = Callable[[Load], int]


def arrivals(name: str, rng: random.Random) -> Iterator[list[float]]:
    """Seconds of work of the jobs that arrive in each second of an hour: Poisson, at a rate that the name says."""
    for second in range(HOUR_S):
        job_s, load = {
            "steady, 1 s jobs": (1.0, 5.0),
            "steady, 60 s jobs": (60.0, 5.0),
            "bursts": (5.0, 20.0 if second % 600 < 60 else 0.5),
            "day and night": (5.0, 6.0 - 5.0 * math.cos(2 * math.pi * second / HOUR_S)),
            "jump": (5.0, 1.0 if second < HOUR_S / 2 else 10.0),
        }[name]
        jobs, left = [], rng.expovariate(load / job_s)
        while left < 1.0:
            jobs.append(rng.lognormvariate(math.log(job_s), 0.3))
            left += rng.expovariate(load / job_s)
        yield jobs


LOADS = ("steady, 1 s jobs", "steady, 60 s jobs", "bursts", "day and night", "jump")


def advised() -> Policy:
    """The scheduler's own."""
    scaler = Scaler(SETTINGS)
    return lambda load: scaler.observe(load).workers


def held(count: Callable[[Load], float]) -> Policy:
    """A count, and fewer only after five minutes."""
    wanted: deque[tuple[float, int]] = deque()

    def policy(load: Load) -> int:
        wanted.append((load.at_s, min(SETTINGS.max_workers, max(1, math.ceil(count(load))))))
        while wanted[0][0] < load.at_s - SETTINGS.stabilise_s:
            wanted.popleft()
        return max(number for _, number in wanted)

    return policy


def policies(mean_load: float) -> dict[str, Policy]:
    """All that are compared, fresh."""
    per_worker_s = SETTINGS.drain_target_s * SETTINGS.utilisation
    return {
        "advice": advised(),
        "backlog": held(lambda load: load.outstanding_s / per_worker_s),
        "messages": held(lambda load: (load.waiting + load.busy_slots) / MESSAGES_EACH),
        "fixed": lambda load: math.ceil(mean_load / SETTINGS.utilisation),
    }


@dataclass
class Pool:
    """Workers and a queue in steps of a tenth of a second."""

    workers: int = 1
    starting: deque[float] = field(default_factory=deque)  # when each is there
    at_hand: list[float] = field(default_factory=list)
    queue: deque[tuple[float, float]] = field(default_factory=deque)  # arrived at, seconds of work
    waits_s: list[float] = field(default_factory=list)
    worker_s: float = 0.0

    def second(self, now_s: float, jobs: list[float]) -> None:
        """One second passes."""
        self.queue.extend((now_s, job_s) for job_s in jobs)
        while self.starting and self.starting[0] <= now_s:
            self.starting.popleft()
            self.workers += 1
        for tenth in range(10):
            self.at_hand = [left_s - 0.1 for left_s in self.at_hand if left_s > 0.1]
            while self.queue and len(self.at_hand) < self.workers:
                arrived_s, job_s = self.queue.popleft()
                self.waits_s.append(max(0.0, now_s + tenth / 10 - arrived_s))
                self.at_hand.append(job_s)
        self.worker_s += max(self.workers, len(self.at_hand)) + len(self.starting)

    def load(self, now_s: float) -> Load:
        """As a scheduler sees it."""
        busy, waiting_s = min(self.workers, len(self.at_hand)), sum(job_s for _, job_s in self.queue)
        return Load(now_s, self.workers, self.workers, busy, sum(self.at_hand), len(self.queue), waiting_s)

    def scale(self, wanted: int, now_s: float) -> None:
        """Start workers, or let go first those that have not started."""
        while self.workers + len(self.starting) < wanted:
            self.starting.append(now_s + START_S)
        while self.workers + len(self.starting) > wanted and self.starting:
            self.starting.pop()
        self.workers = min(self.workers, max(wanted, 0))


def run(load: str, policy: str, seed: int) -> tuple[float, float, float, float, float]:
    """Worker seconds per second of work, mean and 95 % wait, share beyond the target, changes an hour."""
    jobs = list(arrivals(load, random.Random(seed)))
    work_s = sum(map(sum, jobs))
    decide, pool, changes, before = policies(work_s / HOUR_S)[policy], Pool(), 0, 1
    if policy == "fixed":
        pool.workers = before = decide(pool.load(0.0))
    for second, arrived in enumerate(jobs):
        pool.second(float(second), arrived)
        wanted = decide(pool.load(float(second)))
        pool.scale(wanted, float(second))
        changes += wanted != before
        before = wanted
    waits_s = sorted([*pool.waits_s, *(HOUR_S - arrived_s for arrived_s, _ in pool.queue)])
    late = sum(wait_s > SETTINGS.drain_target_s for wait_s in waits_s) / len(waits_s)
    return pool.worker_s / work_s, statistics.fmean(waits_s), waits_s[len(waits_s) * 95 // 100], late, changes


def main() -> None:
    """Print the table, in Markdown."""
    print("| load | policy | workers' time per work | wait, mean | wait, 95 % | later than 30 s | changes an hour |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for load in LOADS:
        for policy in policies(1.0):
            found = [run(load, policy, seed) for seed in range(RUNS)]
            cost, mean_s, most_s, late, changes = (statistics.fmean(column) for column in zip(*found, strict=True))
            print(f"| {load} | {policy} | {cost:.2f} | {mean_s:.1f} s | {most_s:.1f} s | {late:.1%} | {changes:.0f} |")


if __name__ == "__main__":
    main()
