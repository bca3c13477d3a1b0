"""How requests are placed: the port behind which our decisions stand, and others to measure them against. Pure.

A service tells whatever stands there the same things and has every decision of it. What ours knows is in the view,
which operators, turns and quotas use as well; so whoever takes its place keeps the view true, too.
"""

from __future__ import annotations

import random
from typing import Literal, Protocol, get_args

from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Attempt, Decision, Outcome, PlacementQuery
from scheduler.decide.decide import decide, record
from scheduler.decide.jobs import OpenJob
from scheduler.decide.view import Verdict, View

PlacingName = Literal[
    "ours",
    "round_robin",
    "least_request",
    "two_choices",
    "peak_ewma",
    "prequal",
    "peak_ewma_turns",
    "always_edge",
    "always_cloud",
    "static_split",
]
PLACINGS: tuple[PlacingName, ...] = get_args(PlacingName)


class Placing(Protocol):
    """Decides on requests, and is told of all that a scheduler hears. Times in nanoseconds of one steady clock."""

    def decide(self, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Decision:
        """Choose; raises ModelNotFound and InvalidRequest as `decide.decide` does."""
        ...

    def record(self, query: PlacementQuery, decision: Decision, *, now_ns: int) -> OpenJob | None:
        """The decision goes out; returns the job that is open now, None where there is none."""
        ...

    def hear(self, report: NodeReport, *, now_ns: int) -> Verdict:
        """A heartbeat; see `View.hear`."""
        ...

    def ended(self, outcome: Outcome, *, now_ns: int) -> dict[str, float]:
        """A job is over; returns by how much it was off, by part, where anything was predicted; see `View.ended`."""
        ...

    def attempted(self, attempt: Attempt, *, now_ns: int) -> None:
        """How it went when one edge asked another."""
        ...


class Ours:
    """Plans by predicted times and quality of experience, drafts where they are soonest (docs/adr/0021)."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def decide(self, query: PlacementQuery, *, now_ns: int, rng: random.Random) -> Decision:
        """See Placing; changes nothing."""
        return decide(self._view, query, now_ns=now_ns, rng=rng)

    def record(self, query: PlacementQuery, decision: Decision, *, now_ns: int) -> OpenJob | None:
        """See Placing."""
        return record(self._view, query, decision, now_ns=now_ns)

    def hear(self, report: NodeReport, *, now_ns: int) -> Verdict:
        """See Placing."""
        return self._view.hear(report, now_ns=now_ns)

    def ended(self, outcome: Outcome, *, now_ns: int) -> dict[str, float]:
        """See Placing."""
        return self._view.ended(outcome, now_ns=now_ns)

    def attempted(self, attempt: Attempt, *, now_ns: int) -> None:
        """See Placing."""
        self._view.attempted(attempt, now_ns=now_ns)
