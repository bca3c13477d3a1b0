"""How many workers a pool should have, and which of them to let go first. Pure: times are told.

Counted is work, not messages, of which one may be a second and the next ten minutes. A pool must keep up with what
arrives, in seconds of work per second, and be through with what waits within `drain_target_s`, with its workers busy
for `utilisation` of the time. What arrives is not counted where requests are placed, since other schedulers place too:
it is what the workers were busy with, as all heartbeats tell, and what the waiting work grew by.

After Knative's autoscaler: a long window decides, unless a short one says that twice of what is there is needed. In
such a panic nothing is taken away. After Kubernetes' HorizontalPodAutoscaler: fewer workers are asked for only when
fewer would have been enough all through `stabilise_s`.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields

from adaptivegen.errors import SettingsInvalid
from scheduler.decide.node import Node
from scheduler.decide.view import View

MOST_WORKERS = 4096
MAX_SAMPLES = 4096  # of one pool's load, kept for a window
GAP_S = 10.0  # after which what was seen before says nothing of now
TO_WHOLE = 1e-9  # less than this above a whole number of workers is rounding


@dataclass(frozen=True, slots=True)
class ElasticSettings:
    """Times in seconds; utilisation is the share of the time that a worker should be busy."""

    drain_target_s: float = 30.0
    utilisation: float = 0.7
    stable_s: float = 60.0
    panic_s: float = 6.0
    panic_ratio: float = 2.0
    stabilise_s: float = 300.0
    min_workers: int = 1
    max_workers: int = 64

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value >= 0.0):
                raise SettingsInvalid(f"elastic {item.name} is {value}; allowed: 0 or more", param=item.name)
        for name in ("drain_target_s", "utilisation", "panic_s"):
            if getattr(self, name) == 0.0:
                raise SettingsInvalid(f"elastic {name} is 0; allowed: above 0", param=name)
        if self.utilisation > 1.0:
            raise SettingsInvalid(f"elastic utilisation is {self.utilisation}; allowed: up to 1", param="utilisation")
        if self.panic_ratio <= 1.0:
            raise SettingsInvalid(f"elastic panic_ratio is {self.panic_ratio}; allowed: above 1", param="panic_ratio")
        if self.panic_s > self.stable_s:
            limit = f"at most stable_s, {self.stable_s:g}"
            raise SettingsInvalid(f"elastic panic_s is {self.panic_s}; allowed: {limit}", param="panic_s")
        if not self.min_workers <= self.max_workers <= MOST_WORKERS:
            limit = f"min_workers ({self.min_workers}) to {MOST_WORKERS}"
            raise SettingsInvalid(f"elastic max_workers is {self.max_workers}; allowed: {limit}", param="max_workers")


@dataclass(frozen=True, slots=True)
class Load:
    """One pool at one moment.

    workers: healthy ones; slots: jobs they can have at hand, of which busy_slots have one; at_hand_s: predicted seconds
    left of these; waiting: jobs that no worker has taken, and waiting_s their predicted seconds.
    """

    at_s: float
    workers: int
    slots: int
    busy_slots: int
    at_hand_s: float
    waiting: int
    waiting_s: float

    @property
    def outstanding_s(self) -> float:
        """Seconds of work that the pool has not done yet."""
        return self.waiting_s + self.at_hand_s


@dataclass(frozen=True, slots=True)
class Advice:
    """How many workers a pool should have, and why. arriving: seconds of work per second."""

    load: Load
    workers: int
    arriving: float
    panic: bool
    reason: str


def pool_load(view: View, pool: str, workers: Iterable[Node], *, now_ns: int) -> Load:
    """The load of a pool of these workers; those that are leaving or silent do not count."""
    line = view.jobs.line(pool)
    healthy = [node for node in workers if node.condition(now_ns) == "healthy"]
    return Load(
        at_s=now_ns / 1e9,
        workers=len(healthy),
        slots=sum(node.slots for node in healthy),
        busy_slots=sum(node.busy_slots(now_ns) for node in healthy),
        at_hand_s=sum(at_s for node in healthy for at_s in view.free_at_s(node, now_ns=now_ns)),
        waiting=line.waiting,
        waiting_s=line.work_s,
    )


def by_pool(view: View) -> dict[str, list[Node]]:
    """The workers of every pool, in whatever condition; a pool that has none but jobs has an empty list."""
    pools: dict[str, list[Node]] = {pool: [] for pool in view.pools()}
    for node in view.nodes:
        if node.report.kind == "worker":
            pools[node.report.pool].append(node)
    return pools


class Scaler:
    """Advises one pool. Fed about once a second."""

    def __init__(self, settings: ElasticSettings | None = None) -> None:
        self._settings = settings or ElasticSettings()
        self._loads: deque[Load] = deque(maxlen=MAX_SAMPLES)
        self._enough: deque[tuple[float, int]] = deque()  # when so many were found enough, none less than a later one
        self._panic_until_s = -math.inf
        self._panic_workers = 0
        self._begun_s = 0.0

    def __repr__(self) -> str:
        return f"Scaler(samples={len(self._loads)}, panic_until_s={self._panic_until_s:.0f})"

    def observe(self, load: Load) -> Advice:
        """Take the load as it is now; one older than the last is taken as of then."""
        s = self._settings
        now_s = max(load.at_s, self._loads[-1].at_s) if self._loads else load.at_s
        if not self._loads or now_s - self._loads[-1].at_s > GAP_S:
            self._loads.clear()
            self._begun_s = now_s
        self._loads.append(load)
        while self._loads[0].at_s < now_s - s.stable_s:
            self._loads.popleft()
        arriving, growing = self._arriving(now_s)
        stable = self._needed(arriving, growing, now_s - s.stable_s)
        short = self._needed(arriving, growing, now_s - s.panic_s)
        if load.workers and short >= s.panic_ratio * load.workers:
            self._panic_until_s = now_s + s.stable_s
        panic = now_s < self._panic_until_s
        self._panic_workers = max(short, self._panic_workers) if panic else 0
        found = max(stable, self._panic_workers, 0 if load.workers else short)  # with none at all nothing is waited for
        if now_s - self._begun_s < s.stabilise_s:
            found = max(found, load.workers)  # what they were needed for before is not known
        workers = self._stabilised(min(s.max_workers, max(s.min_workers, found)), now_s)
        return Advice(load, workers, arriving, panic, self._reason(load, found, workers, arriving, panic))

    def _arriving(self, now_s: float) -> tuple[float, float]:
        """Seconds of work that arrived per second, and by how many of them the waiting work grew."""
        first, last = self._loads[0], self._loads[-1]
        busy = statistics.fmean(load.busy_slots for load in self._loads)
        jobs, fuller = last.waiting - first.waiting, max(first, last, key=lambda load: load.waiting)
        growing_s = jobs * fuller.waiting_s / max(1, fuller.waiting)  # by today's prediction of a job: it may change
        growing = growing_s / max(now_s - first.at_s, self._settings.panic_s)
        return max(0.0, busy + growing), max(0.0, growing)

    def _needed(self, arriving: float, growing: float, since_s: float) -> int:
        """Workers by the waiting work since then. For what waits never more than there are jobs: none is divided."""
        s, last = self._settings, self._loads[-1]
        waiting_s = statistics.fmean(load.waiting_s for load in self._loads if load.at_s >= since_s)
        queued = min(growing / s.utilisation + waiting_s / s.drain_target_s, last.waiting)
        slots = (arriving - growing) / s.utilisation + queued
        slots_each = last.slots / last.workers if last.workers and last.slots else 1.0
        return math.ceil(slots / slots_each - TO_WHOLE)

    def _stabilised(self, workers: int, now_s: float) -> int:
        """The most that was found enough within `stabilise_s`."""
        while self._enough and self._enough[-1][1] <= workers:
            self._enough.pop()
        self._enough.append((now_s, workers))
        while self._enough[0][0] < now_s - self._settings.stabilise_s:
            self._enough.popleft()
        return self._enough[0][1]

    def _reason(self, load: Load, found: int, workers: int, arriving: float, panic: bool) -> str:
        s = self._settings
        text = (
            f"{arriving:.1f} s of work arrive per second and {load.waiting_s:.0f} s wait, to be done in"
            f" {s.drain_target_s:g} s at {s.utilisation:.0%} use: {found} workers"
        )
        if panic:
            text += f"; panic: {s.panic_ratio:g} times of what was there was needed, and nothing is taken away"
        if found < s.min_workers or found > s.max_workers:
            text += f"; allowed are {s.min_workers} to {s.max_workers}"
        elif workers > found:
            text += f"; {workers} were needed within the last {s.stabilise_s:g} s"
        return text


@dataclass(frozen=True, slots=True)
class ScaleOrder:
    """What brings a pool to a number of workers: ids to drain, ids to put back, and how many must be started."""

    drain: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()
    missing: int = 0


def scale_order(
    view: View, workers: Iterable[Node], wanted: int, *, scaled_in: frozenset[str], now_ns: int
) -> ScaleOrder:
    """Which workers of one pool to drain or to put back. scaled_in: ids drained by such an order before.

    Those an operator drained by hand, those that are ending and those that are silent are left alone. Drained first is
    who has the least to lose: one that still loads, then one with the fewest places taken, then whose jobs end soonest
    (all that it has or was told, also behind others); among equals the youngest, whose caches are the coldest. The
    opposite end of the line is put back first.
    """
    alive = [node for node in workers if node.condition(now_ns) != "stale"]
    inside = sorted((node for node in alive if _serves(node)), key=lambda node: _to_lose(view, node, now_ns))
    outside = [n for n in alive if n.drained and n.report.node_id in scaled_in and not n.report.ending]
    outside.sort(key=lambda node: _to_lose(view, node, now_ns), reverse=True)
    surplus = len(inside) - wanted
    if surplus >= 0:
        return ScaleOrder(drain=tuple(node.report.node_id for node in inside[:surplus]))
    back = outside[:-surplus]
    return ScaleOrder(put_back=tuple(node.report.node_id for node in back), missing=-surplus - len(back))


def _serves(node: Node) -> bool:
    """Whether it is in rotation, or will be when its model is loaded."""
    return not node.drained and not node.report.draining


def _to_lose(view: View, node: Node, now_ns: int) -> tuple[bool, int, float, int, str]:
    report, free_s = node.report, view.free_at_s(node, now_ns=now_ns)
    busy = max(node.busy_slots(now_ns), sum(1 for left_s in free_s if left_s > 0))
    return report.ready, busy, max(free_s), -report.started_at_ns, report.node_id
