"""Drafts that were sent to edges and are not over, as a balancer's sender would know them. Pure.

A proxy sees every answer; a scheduler hears of the ends in heartbeats, twice a second, which name the seconds of each
generation. An edge drafts one at a time in order of arrival, so from these and from when a draft was sent follows when
it ended: sooner and finer than the heartbeat came.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from adaptivegen.nodes import NodeReport
from scheduler.decide.node import ON_ITS_WAY_S

MAX_OPEN = 4096  # of one edge


@dataclass(slots=True)
class _Edge:
    """One edge: its life, the number of its last generation, when that ended, and when each open draft was sent."""

    life_ns: int = 0
    last: int = 0
    free_s: float = 0.0
    sent_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_OPEN))


class Underway:
    """What is under way, by edge. Times in seconds of one steady clock."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def __repr__(self) -> str:
        return f"Underway({ {name: len(edge.sent_s) for name, edge in self._edges.items()} })"

    def sent(self, edge_id: str, *, now_s: float) -> None:
        """A draft was sent there."""
        self._edges.setdefault(edge_id, _Edge()).sent_s.append(now_s)

    def hear(self, report: NodeReport, *, now_s: float) -> list[float | None]:
        """A heartbeat: how long each draft took that is known to be over now, from when it was sent; None of one that
        ended without a draft, as what an edge no longer has and has not finished did."""
        edge = self._edges.setdefault(report.node_id, _Edge())
        over: list[float | None] = []
        if report.started_at_ns != edge.life_ns:
            over.extend(None for _ in edge.sent_s if edge.life_ns)
            self._edges[report.node_id] = edge = _Edge(report.started_at_ns, 0, 0.0, edge.sent_s)
            if over:
                edge.sent_s.clear()
        for work in sorted(report.finished, key=lambda done: done.number):
            if work.number <= edge.last:
                continue
            edge.last = work.number
            if edge.sent_s:
                sent_s = edge.sent_s.popleft()
                edge.free_s = min(now_s, max(sent_s, edge.free_s) + work.seconds)
                over.append(max(work.seconds, edge.free_s - sent_s))
        held = report.in_flight + report.queued
        while len(edge.sent_s) > held and edge.sent_s[0] < now_s - ON_ITS_WAY_S:
            edge.sent_s.popleft()
            over.append(None)
        return over
