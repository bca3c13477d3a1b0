"""What is asked when, and which nodes misbehave meanwhile: drawn from a seed, the same for every policy. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.live.conduct import Spell

EDGES = ("edge-1", "edge-2")
WORKERS = ("worker-1", "worker-2")
LOAD = 0.6  # of what the workers can do, if every request has a final that goes on from its draft
RATE_PER_S = 0.9  # of the Poisson arrivals, at this load
BURST, BURST_EVERY_S, BURST_WITHIN_S = 5, 10.0, 0.3  # the number at this load, too
PAUSE_SHARE = (
    1.2  # of the time of arrivals, by how much the load is above 1: until the next part, so that each begins alike
)
BUSY_EDGE = 0.65  # share of the Poisson arrivals that come to the first edge; a burst comes to one edge or the other
RENDERS, WITH_DEADLINE = 0.5, 0.5  # shares of all requests, and of the renders
DEADLINE_S = 4.0
FLAPS = ((0.10, 0.20), (0.30, 0.40))  # parts of the time in which the first edge's model fails at once
SLOW = (0.5, 1.0)  # the part in which the second edge's model takes SLOW_FACTOR times as long
SLOW_FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, `at_s` after the run has begun. part: of the run; deadline_s: set on some renders, which may then be
    reduced."""

    name: str
    at_s: float
    edge_id: str
    intent: Literal["iterate", "render"]
    deadline_s: float | None
    part: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One run in several parts with so many seconds of arrivals each. load: arrivals, as a share of what the workers
    can do; calm: all nodes behave."""

    parts: int
    seconds: float
    load: float = LOAD
    calm: bool = False

    @property
    def part_s(self) -> float:
        """How long a part takes: its arrivals, and in overload a pause in which what waits is done."""
        return self.seconds * (1.0 + PAUSE_SHARE * max(0.0, self.load - 1.0))

    def requests(self, seed: int) -> list[Request]:
        """All requests, each part with arrivals of its own."""
        found = []
        for part in range(self.parts):
            for one in arrivals(seed + part, self.seconds, self.load):
                found.append(replace(one, at_s=one.at_s + part * self.part_s, part=part))
        return found

    def spells(self, begin_s: float) -> dict[str, list[Spell]]:
        """How each node behaves, if the run begins then: in every part the first edge flaps, later the second is
        slow."""
        edge_1, edge_2 = EDGES
        found: dict[str, list[Spell]] = {name: [] for name in (*EDGES, *WORKERS)}
        for part in range(0 if self.calm else self.parts):
            part_at_s = begin_s + part * self.part_s
            for from_share, until_share in FLAPS:
                from_s, until_s = part_at_s + from_share * self.seconds, part_at_s + until_share * self.seconds
                found[edge_1].append(Spell(from_s, until_s, fails=True))
            from_s, until_s = (part_at_s + share * self.seconds for share in SLOW)
            found[edge_2].append(Spell(from_s, until_s, factor=SLOW_FACTOR))
        return found


def arrivals(seed: int, seconds: float, load: float = LOAD) -> list[Request]:
    """The requests of one part, by time."""
    rng = random.Random(seed)
    times: list[tuple[float, str]] = []
    now_s = 0.0
    while (now_s := now_s + rng.expovariate(RATE_PER_S * load / LOAD)) < seconds:
        times.append((now_s, EDGES[rng.random() >= BUSY_EDGE]))
    burst_s = BURST_EVERY_S / 2
    while burst_s < seconds:
        edge_id = rng.choice(EDGES)
        times += [(burst_s + rng.uniform(0.0, BURST_WITHIN_S), edge_id) for _ in range(round(BURST * load / LOAD))]
        burst_s += BURST_EVERY_S
    found = []
    for number, (at_s, edge_id) in enumerate(sorted(times)):
        render = rng.random() < RENDERS
        deadline = rng.random() < WITH_DEADLINE
        found.append(
            Request(
                name=f"request {seed} {number}",
                at_s=at_s,
                edge_id=edge_id,
                intent="render" if render else "iterate",
                deadline_s=DEADLINE_S if render and deadline else None,
            )
        )
    return found
