"""How soon drafts come when edges help one another by our placement, or by known load balancers, in simulated time.

`python -m benchmarks.compare_drafters`. EDGES edges draft one at a time, in order of arrival; two schedulers place,
each for half of the edges. They hear of the other's placements by heartbeats; ours also tell one another, as the
service does. A draft of another edge takes the handing over besides. A draft that fails at another edge is made at
home. Every policy sees the same arrivals, over RUNS seeds.

ours         `scheduler.decide`, as the service runs it: predictions, health, near-ties, exploration
the others   `scheduler.decide.baselines`

Prints, for each load and policy: median, 95 and 99 % quantile of the time from request to draft, and the mean patience
D of the QoE formula with its 95 % interval over the seeds. Nothing is timed: the figures do not depend on the machine.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from adaptivegen.nodes import FINISHED_TOLD, HEARTBEAT_S, FinishedWork, NodeReport
from benchmarks.drafters import CARDS, Baseline, Ours, Scheduler
from scheduler.decide.baselines import (
    AlwaysHome,
    Balancer,
    LeastRequest,
    PeakEwma,
    Prequal,
    RoundRobin,
    TwoChoices,
)
from scheduler.decide.qoe import QoeSettings, patience

RUNS = 5
EDGES = 8
LONG_S = 240.0
WARM_S = 40.0  # at the beginning, of which nothing is counted
DRAFT_S = 0.37
REPORT_TAKES_S = 0.01
NEWS_TAKES_S = 0.002  # from scheduler to scheduler
FAILS_AFTER_S = 0.005
Event = tuple[float, int, Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives where, and what the edges are like. busy: share of all edges' time; handover_s: to another edge."""

    busy: float = 0.6
    first_edge: float = 1 / EDGES  # share of what arrives at the first edge
    slow: int = 0  # edges that take three times as long
    burst: int = 0  # requests at once, at an edge drawn every ten seconds
    handover_s: float = 0.03
    flapping: bool = False  # the last edge fails at once for twenty seconds of every minute


LOADS = {
    "even": Load(),
    "one busy edge": Load(first_edge=0.5),
    "bursts": Load(busy=0.3, burst=12),
    "half of the edges three times as slow": Load(busy=0.7, slow=EDGES // 2),
    "edges half a second apart, one busy": Load(handover_s=0.5, first_edge=0.4),
    "one edge fails now and then": Load(flapping=True, first_edge=0.3),
}


NAMES = [f"edge-{number}" for number in range(EDGES)]
BALANCERS: dict[str, Callable[[], Balancer]] = {
    "always home": AlwaysHome,
    "round-robin": RoundRobin,
    "least request": LeastRequest,
    "two choices": TwoChoices,
    "Peak-EWMA": PeakEwma,
    "Prequal": Prequal,
}
POLICIES = ("ours", *BALANCERS)


@dataclass(slots=True)
class Edge:
    """One edge: a model and a queue."""

    name: str
    factor: float
    flapping: bool
    queue: deque[Callable[[bool], None]] = field(default_factory=deque)
    busy: bool = False
    begun_s: float = 0.0
    seq: int = 0
    made: int = 0
    finished: deque[FinishedWork] = field(default_factory=lambda: deque(maxlen=FINISHED_TOLD))
    links: dict[str, float] = field(default_factory=dict)
    failed_in_row: int = 0

    def fails(self, now_s: float) -> bool:
        return self.flapping and now_s % 60.0 >= 40.0

    def report(self, now_s: float) -> NodeReport:
        self.seq += 1
        return NodeReport(
            node_id=self.name,
            kind="edge",
            seq=self.seq,
            sent_at_ns=0,
            started_at_ns=1,
            grpc_address=f"{self.name}:1",
            lends=CARDS["draft"].digest,
            models=("draft",),
            in_flight=int(self.busy),
            queued=len(self.queue),
            remaining_s=(len(self.queue) + self.busy) * DRAFT_S,
            elapsed_s=now_s - self.begun_s if self.busy else 0.0,
            finished=tuple(self.finished),
            failed_in_row=self.failed_in_row,
            links=self.links,
        )


class System:
    """Edges and schedulers in virtual time."""

    def __init__(self, load: Load, policy: str, seed: int) -> None:
        self._load = load
        self._rng = random.Random(seed)  # of the world: the same for every policy as far as arrivals go
        self._work = random.Random(seed + 1)
        self.now_s = 0.0
        self._events: list[Event] = []
        self._order = itertools.count()
        self.edges = {
            name: Edge(name, 3.0 if number < load.slow else 1.0, load.flapping and number == EDGES - 1)
            for number, name in enumerate(NAMES)
        }
        self._schedulers: list[Scheduler] = [
            Ours(f"scheduler-{k}", random.Random(seed + 10 + k))
            if policy == "ours"
            else Baseline(BALANCERS[policy](), NAMES, random.Random(seed + 10 + k))
            for k in range(2)
        ]
        self.took_s: list[float] = []

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), act))

    def run(self) -> list[float]:
        """Times from request to draft."""
        for number, edge in enumerate(self.edges.values()):
            self.at(number * HEARTBEAT_S / EDGES, lambda edge=edge: self._beat(edge))  # type: ignore[misc]
        for number, (when_s, home) in enumerate(self._arrivals()):
            self.at(when_s, lambda number=number, home=home: self._ask(number, home))  # type: ignore[misc]
        while self._events:
            when_s, _, act = heapq.heappop(self._events)
            if when_s > LONG_S + 60.0:
                break
            self.now_s = when_s
            act()
        return self.took_s

    def _arrivals(self) -> list[tuple[float, str]]:
        load, rng, found = self._load, self._rng, []
        capacity = sum(1.0 / (edge.factor * DRAFT_S) for edge in self.edges.values())
        shares = [load.first_edge, *[(1.0 - load.first_edge) / (EDGES - 1)] * (EDGES - 1)]
        now_s = 1.0
        while (now_s := now_s + rng.expovariate(load.busy * capacity)) < LONG_S:
            found.append((now_s, rng.choices(NAMES, shares)[0]))
        for second in range(10, int(LONG_S), 10) if load.burst else ():
            home = rng.choice(NAMES)
            found += [(second + rng.random() * 0.2, home) for _ in range(load.burst)]
        return sorted(found)

    def _beat(self, edge: Edge) -> None:
        report = edge.report(self.now_s)
        for scheduler in self._schedulers:
            self.at(self.now_s + REPORT_TAKES_S, lambda s=scheduler: s.hear(report, self.now_s))  # type: ignore[misc]
        if self.now_s < LONG_S:
            self.at(self.now_s + HEARTBEAT_S, lambda: self._beat(edge))

    def _ask(self, number: int, home: str) -> None:
        scheduler = self._schedulers[NAMES.index(home) % 2]
        asked_s, where = self.now_s, scheduler.place(number, home, self.now_s)
        self._spread_news(scheduler)

        def there(made_by: str) -> None:
            took_s = self.now_s - asked_s
            if asked_s >= WARM_S:
                self.took_s.append(took_s)
            scheduler.ended(number, made_by, took_s, self.now_s)

        if where == home:
            self._draft(home, lambda ok: there(home))
            return
        link_s = self._load.handover_s * self._work.uniform(0.8, 1.2)

        def back(ok: bool) -> None:
            for told in self._schedulers:
                told.attempted(where, home, ok, self.now_s)
            if ok:
                self.edges[home].links[where] = link_s
                there(where)
            else:
                self._draft(home, lambda _: there(home))

        self.at(
            self.now_s + link_s / 2,
            lambda: self._draft(where, lambda ok: self.at(self.now_s + link_s / 2, lambda: back(ok))),
        )

    def _spread_news(self, placed: Scheduler) -> None:
        news = placed.news()
        for other in self._schedulers:
            if news is not None and other is not placed:
                self.at(self.now_s + NEWS_TAKES_S, lambda other=other: other.told(news, self.now_s))  # type: ignore[misc]

    def _draft(self, name: str, then: Callable[[bool], None]) -> None:
        edge = self.edges[name]
        edge.queue.append(then)
        self._next(edge)

    def _next(self, edge: Edge) -> None:
        if edge.busy or not edge.queue:
            return
        edge.busy, edge.begun_s, then = True, self.now_s, edge.queue.popleft()
        fails = edge.fails(self.now_s)
        work_s = FAILS_AFTER_S if fails else DRAFT_S * edge.factor * self._work.lognormvariate(0.0, 0.05)

        def over() -> None:
            edge.busy = False
            edge.failed_in_row = edge.failed_in_row + 1 if fails else 0
            if not fails:
                edge.made += 1
                done = FinishedWork(
                    number=edge.made,
                    model="draft",
                    width=128,
                    height=128,
                    frames=24,
                    steps=4,
                    guidance=1.0,
                    seconds=work_s,
                )
                edge.finished.append(done)
            self._next(edge)
            then(not fails)

        self.at(self.now_s + work_s, over)


def figures(load: Load, policy: str) -> list[float]:
    """Median, 95 and 99 % quantile of the times, mean patience and half of its interval, over all seeds."""
    settings = QoeSettings()
    runs = [sorted(System(load, policy, 100 * seed).run()) for seed in range(RUNS)]
    times = sorted(itertools.chain.from_iterable(runs))
    content = [
        statistics.fmean(
            patience(took_s, best_s=settings.draft_best_s, worst_s=settings.draft_worst_s) for took_s in run
        )
        for run in runs
    ]
    half = 2.776 * statistics.stdev(content) / math.sqrt(RUNS)  # Student's t, 4 degrees of freedom
    quantiles = [times[min(len(times) - 1, int(level * len(times)))] for level in (0.5, 0.95, 0.99)]
    return [*quantiles, statistics.fmean(content), half]


def main() -> None:
    """Print the table, in Markdown."""
    print("| load | policy | median | 95 % | 99 % | patience D |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, load in LOADS.items():
        for policy in POLICIES:
            median_s, most_s, nearly_all_s, content, half = figures(load, policy)
            print(
                f"| {name} | {policy} | {median_s:.2f} s | {most_s:.2f} s | {nearly_all_s:.2f} s"
                f" | {content:.3f} ± {half:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
