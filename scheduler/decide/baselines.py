"""Known load balancers behind one port, to measure our placement of drafts against. Pure.

Each picks one of the edges that can draft, by nothing but what its paper or its proxy uses; none knows model cards.
They serve comparisons: in simulated time (`benchmarks.compare_drafters`), and on a running system behind the port of
`placing` (`balanced`, `benchmarks.compare_live`).
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adaptivegen.nodes import NodeReport
from scheduler.decide.node import ON_ITS_WAY_S
from scheduler.decide.select import hot_above


class Balancer(Protocol):
    """Who gets the next draft. Told of every draft that it sent, of its end as its sender saw it, and of heartbeats."""

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """One of `edge_ids`; home: the edge that asks."""
        ...

    def sent(self, edge_id: str, *, now_s: float) -> None:
        """A draft was sent there."""
        ...

    def done(self, edge_id: str, *, took_s: float, now_s: float) -> None:
        """One that was sent there has ended, after so long."""
        ...

    def lost(self, edge_id: str, *, now_s: float) -> None:
        """One that was sent there has ended without a draft, and after what time is not known."""
        ...

    def hear(self, report: NodeReport, *, now_s: float) -> None:
        """A heartbeat."""
        ...


class Unaware:
    """Base of those that need none of what they are told."""

    def sent(self, edge_id: str, *, now_s: float) -> None:
        """See Balancer."""

    def done(self, edge_id: str, *, took_s: float, now_s: float) -> None:
        """See Balancer."""

    def lost(self, edge_id: str, *, now_s: float) -> None:
        """See Balancer."""

    def hear(self, report: NodeReport, *, now_s: float) -> None:
        """See Balancer."""


class AlwaysHome(Unaware):
    """The edge that asks drafts: no balancing at all."""

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """See Balancer; where home cannot draft, the first that can does."""
        return home if home in edge_ids else edge_ids[0]


class RoundRobin(Unaware):
    """One after another."""

    def __init__(self) -> None:
        self._next = 0

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """See Balancer."""
        self._next += 1
        return edge_ids[self._next % len(edge_ids)]


class Counting(Unaware):
    """Base of those that count what is under way by what they sent themselves."""

    def __init__(self) -> None:
        self.active: dict[str, int] = {}

    def sent(self, edge_id: str, *, now_s: float) -> None:
        """See Balancer."""
        self.active[edge_id] = self.active.get(edge_id, 0) + 1

    def done(self, edge_id: str, *, took_s: float, now_s: float) -> None:
        """See Balancer."""
        self.lost(edge_id, now_s=now_s)

    def lost(self, edge_id: str, *, now_s: float) -> None:
        """See Balancer."""
        self.active[edge_id] = max(0, self.active.get(edge_id, 0) - 1)


class LeastRequest(Counting):
    """The fewest requests under way of all, ties by chance (Envoy's full scan)."""

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """See Balancer."""
        least = min(self.active.get(edge_id, 0) for edge_id in edge_ids)
        return rng.choice([edge_id for edge_id in edge_ids if self.active.get(edge_id, 0) == least])


class TwoChoices(Counting):
    """The one with fewer requests under way of two drawn by chance (Mitzenmacher 2001; Envoy's default)."""

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """See Balancer."""
        drawn = rng.sample(edge_ids, min(2, len(edge_ids)))
        return min(drawn, key=lambda edge_id: self.active.get(edge_id, 0))


PENALTY_S = 1e9  # load of a node with requests under way of which none has come back yet (Finagle)
TAU_S = 50.0  # at least five times what a request takes, waiting included: 8.5 s for 95 % of the drafts in overload


@dataclass(slots=True)
class _Cost:
    value_s: float
    at_s: float

    def observe(self, took_s: float, *, tau_s: float, now_s: float) -> None:
        """A time was seen. To ask for the load is to have seen 0 s (Finagle), so what the next time is compared with
        has decayed until a load was last asked for."""
        kept = math.exp(-max(0.0, now_s - self.at_s) / tau_s)
        self.value_s = took_s if took_s > self.value_s else self.value_s * kept + took_s * (1.0 - kept)
        self.at_s = now_s


class PeakEwma(Counting):
    """Of two drawn by chance the one with less cost x (requests under way + 1); cost: a moving mean of the times that
    jumps up to every peak at once (Finagle). tau_s: the mean lifetime of what it has seen, several times what a request
    takes, with its waiting, since less forgets a slow node before there is news of it."""

    def __init__(self, *, tau_s: float = TAU_S) -> None:
        super().__init__()
        self._tau_s = tau_s
        self._costs: dict[str, _Cost] = {}

    def done(self, edge_id: str, *, took_s: float, now_s: float) -> None:
        """See Balancer."""
        super().done(edge_id, took_s=took_s, now_s=now_s)
        self._costs.setdefault(edge_id, _Cost(0.0, now_s)).observe(took_s, tau_s=self._tau_s, now_s=now_s)

    def load(self, edge_id: str, now_s: float) -> float:
        """What it is chosen by, which is less from one asking to the next: without news the cost decays, so that a node
        that was bad once is tried again. One of which nothing is known gets one request, and no second before that has
        come back."""
        cost, active = self._costs.get(edge_id), self.active.get(edge_id, 0)
        if cost is None:
            return PENALTY_S + active if active else 0.0
        cost.observe(0.0, tau_s=self._tau_s, now_s=now_s)
        return cost.value_s * (active + 1)

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """See Balancer."""
        drawn = rng.sample(edge_ids, min(2, len(edge_ids)))
        return min(drawn, key=lambda edge_id: self.load(edge_id, now_s))


@dataclass(slots=True)
class _Probe:
    """What a node said last, counted on by what was sent there since."""

    in_flight: int = 0
    latencies: dict[int, deque[float]] = field(default_factory=dict)

    def latency_s(self) -> float:
        """Median of the times seen with about so many in flight; 0 before there are any."""
        if not self.latencies:
            return 0.0
        nearest = min(self.latencies, key=lambda count: abs(count - self.in_flight))
        return statistics.median(self.latencies[nearest])


PROBES = 128  # of which the quantile is taken
HOT_QUANTILE = 0.84  # Q_RIF of the paper


class Prequal(Unaware):
    """The node with the least latency among those that are cold, which have no more requests in flight than a quantile
    of what probes have told of late; where none is, the one with the fewest (Wydrowski et al., NSDI'24). Heartbeats
    stand for probes: with so few nodes the last of every node is kept, and the sender counts on what it sends, also
    what was on its way when a probe was answered."""

    def __init__(self, *, hot_quantile: float = HOT_QUANTILE, kept: int = 16) -> None:
        self._hot_quantile = hot_quantile
        self._kept = kept
        self._probes: dict[str, _Probe] = {}
        self._sent_with: dict[str, deque[int]] = {}
        self._told: deque[int] = deque(maxlen=PROBES)
        self._sent_s: dict[str, deque[float]] = {}

    def hear(self, report: NodeReport, *, now_s: float) -> None:
        """See Balancer."""
        in_flight = report.in_flight + report.queued
        recent = [sent_s for sent_s in self._sent_s.get(report.node_id, ()) if now_s - sent_s < ON_ITS_WAY_S]
        self._probes.setdefault(report.node_id, _Probe()).in_flight = in_flight + len(recent)
        self._told.append(in_flight)

    def sent(self, edge_id: str, *, now_s: float) -> None:
        """See Balancer."""
        probe = self._probes.setdefault(edge_id, _Probe())
        self._sent_with.setdefault(edge_id, deque()).append(probe.in_flight)
        self._sent_s.setdefault(edge_id, deque(maxlen=PROBES)).append(now_s)
        probe.in_flight += 1

    def done(self, edge_id: str, *, took_s: float, now_s: float) -> None:
        """See Balancer."""
        waiting = self._sent_with.get(edge_id)
        if waiting:
            probe = self._probes.setdefault(edge_id, _Probe())
            probe.latencies.setdefault(waiting.popleft(), deque(maxlen=self._kept)).append(took_s)

    def lost(self, edge_id: str, *, now_s: float) -> None:
        """See Balancer."""
        waiting = self._sent_with.get(edge_id)
        if waiting:
            waiting.popleft()

    def pick(self, edge_ids: Sequence[str], *, home: str, now_s: float, rng: random.Random) -> str:
        """See Balancer."""
        probes = {edge_id: self._probes.get(edge_id, _Probe()) for edge_id in edge_ids}
        known = [*self._told, *(probe.in_flight for probe in probes.values())]
        limit = hot_above(known, self._hot_quantile)
        names = rng.sample(edge_ids, len(edge_ids))  # ties are broken by chance
        cold = [edge_id for edge_id in names if probes[edge_id].in_flight <= limit]
        if not cold:
            return min(names, key=lambda edge_id: probes[edge_id].in_flight)
        return min(cold, key=lambda edge_id: probes[edge_id].latency_s())
