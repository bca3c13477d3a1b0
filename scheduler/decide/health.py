"""Which nodes are kept out of rotation since what they did failed, and how gently nodes come into it. Pure.

A node that fails at once looks idle and would be sent everything. After FAILURES_IN_A_ROW it is ejected, for longer
each time it happens again (Envoy's outlier detection: 5 in a row, 30 s times their number). Failures are told by the
node itself, in its heartbeats, and by those who asked it. Whoever comes (back) into rotation gets a growing share of
the near-ties for a while (Envoy's slow start). When most of a group would be out, something else is wrong than they:
then nobody is (the panic threshold).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

FAILURES_IN_A_ROW = 5
EJECTED_S, LONGEST_EJECTED_S = 30.0, 300.0
SLOW_START_S, LEAST_WEIGHT = 30.0, 0.1
PANIC_BELOW = 0.5  # share of a group that must be left for ejections to be heeded
MAX_NODES = 8192
T = TypeVar("T")


@dataclass(slots=True)
class Health:
    """What is known of one node. `since_s`: when it came into rotation last; `ejections` fall again in good times."""

    since_s: float
    failures: int = 0  # in a row, as those who asked it say
    own_failures: int = 0  # in a row, as it says itself
    ejected_until_s: float = 0.0
    ejections: int = 0

    def ejected(self, now_s: float) -> bool:
        """Whether it is out of rotation now."""
        return now_s < self.ejected_until_s

    def weight(self, now_s: float) -> float:
        """Its share of near-ties, up to 1."""
        return min(1.0, max(LEAST_WEIGHT, (now_s - self.since_s) / SLOW_START_S))

    def eject(self, now_s: float) -> None:
        """Take it out of rotation, longer than the last time unless that is long ago."""
        if self.ejected(now_s):
            return
        good_s = max(0.0, now_s - self.ejected_until_s)
        self.ejections = max(0, self.ejections - int(good_s / LONGEST_EJECTED_S)) + 1
        self.ejected_until_s = now_s + min(LONGEST_EJECTED_S, EJECTED_S * self.ejections)
        self.since_s, self.failures = self.ejected_until_s, 0


class Healths:
    """The health of all nodes. `repr` shows who is out."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, Health] = OrderedDict()

    def __repr__(self) -> str:
        out = {node_id: health.ejected_until_s for node_id, health in self._nodes.items() if health.ejections}
        return f"Healths(nodes={len(self._nodes)}, ejected_until_s={out})"

    def enter(self, node_id: str, *, now_s: float) -> None:
        """A node was heard of for the first time, or has been started anew: what its earlier life did is forgotten."""
        self._nodes[node_id] = Health(since_s=now_s)
        self._nodes.move_to_end(node_id)
        while len(self._nodes) > MAX_NODES:
            self._nodes.popitem(last=False)

    def leave(self, node_id: str) -> None:
        """The node is gone for good."""
        self._nodes.pop(node_id, None)

    def hear(self, node_id: str, failed_in_row: int, *, now_s: float) -> None:
        """Its own word on how many generations have failed here since the last that did not.

        An ejected node is sent nothing, so the number stands; it counts again when it has grown.
        """
        health = self._nodes.get(node_id)
        if health is None:
            return
        grown, health.own_failures = failed_in_row > health.own_failures, failed_in_row
        if grown and failed_in_row >= FAILURES_IN_A_ROW:
            health.eject(now_s)

    def attempted(self, node_id: str, ok: bool, *, now_s: float) -> None:
        """The word of one who asked it; of nodes that were never heard of nothing is kept."""
        health = self._nodes.get(node_id)
        if health is None:
            return
        health.failures = 0 if ok else health.failures + 1
        if health.failures >= FAILURES_IN_A_ROW:
            health.eject(now_s)

    def ejected(self, node_id: str, *, now_s: float) -> bool:
        """Whether the node is out of rotation now."""
        health = self._nodes.get(node_id)
        return health is not None and health.ejected(now_s)

    def weight(self, node_id: str, *, now_s: float) -> float:
        """Its share of near-ties: grows to 1 in its first SLOW_START_S."""
        health = self._nodes.get(node_id)
        return health.weight(now_s) if health is not None else 1.0

    def in_rotation(self, group: Iterable[T], name: Callable[[T], str], *, now_s: float) -> list[T]:
        """Those of a group that are not ejected; all of them where that would leave less than PANIC_BELOW."""
        every = list(group)
        kept = [one for one in every if not self.ejected(name(one), now_s=now_s)]
        return kept if len(kept) >= PANIC_BELOW * len(every) else every
