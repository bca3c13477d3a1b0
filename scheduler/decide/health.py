"""Which nodes are kept out of rotation since what they did failed, and how gently nodes come into it. Pure.

A node that fails at once looks idle and would be sent everything. After FAILURES_IN_A_ROW it is ejected, briefly, and
for twice as long each time it happens again: a fault may be over as soon as it came, and while one node is out the
others have its work, too. A node's own word, in its
heartbeats, counts for all. The word of an edge that asked it counts for that edge alone, since what failed may be the
way between the two, unless WITNESSES say the same; and never for what a node does for itself. Whoever comes (back) into
rotation gets a growing share of the near-ties for a while (Envoy's slow start). When most of a group would be out,
something else is wrong than they: then nobody is (the panic threshold).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

FAILURES_IN_A_ROW = 5
FORGIVEN_S = 60.0  # without a further failure; and so long in rotation, for each ejection before
EJECTED_S, LONGEST_EJECTED_S = 1.0, 300.0
DOUBLINGS = 9  # of EJECTED_S, which is then above LONGEST_EJECTED_S
DOUBTED_S = 5.0  # after its last failure
SLOW_START_S, LEAST_WEIGHT = 30.0, 0.1
PANIC_BELOW = 0.5  # share of a group that must be left for ejections to be heeded
WITNESSES = 2
MAX_NODES, MAX_WITNESSES = 8192, 64
T = TypeVar("T")


@dataclass(slots=True)
class Record:
    """What one source says of one node. since_s: when it came into rotation last; ejections fall in good times."""

    since_s: float
    failures: int = 0
    failed_s: float = 0.0
    ejected_until_s: float = 0.0
    ejections: int = 0

    def ejected(self, now_s: float) -> bool:
        """Whether it is out of rotation now."""
        return now_s < self.ejected_until_s

    def failed(self, now_s: float) -> None:
        """One more failure; those of long ago are forgiven, and those that come while it is out change nothing."""
        if self.ejected(now_s):
            return
        self.failures = self.failures + 1 if now_s - self.failed_s <= FORGIVEN_S else 1
        self.failed_s = now_s
        if self.failures >= FAILURES_IN_A_ROW:
            self.eject(now_s)

    def eject(self, now_s: float) -> None:
        """Take it out of rotation, longer than the last time unless that is long ago; back in it, the first failure
        takes it out again."""
        if self.ejected(now_s):
            return
        good_s = max(0.0, now_s - self.ejected_until_s)
        self.ejections = min(DOUBLINGS, max(0, self.ejections - int(good_s / FORGIVEN_S))) + 1
        self.ejected_until_s = now_s + min(LONGEST_EJECTED_S, EJECTED_S * 2.0 ** (self.ejections - 1))
        self.since_s = self.failed_s = self.ejected_until_s
        self.failures = FAILURES_IN_A_ROW - 1


@dataclass(slots=True)
class Health:
    """One node: by its own word, and by those who asked it, the last one at the end."""

    own: Record
    own_failures: int = 0
    own_failed_s: float = 0.0
    witnesses: OrderedDict[str, Record] = field(default_factory=OrderedDict)


class Healths:
    """The health of all nodes. `revision` grows with every ejection."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, Health] = OrderedDict()
        self._out_until_s = 0.0  # no record ejects anybody from then on: nearly always that is past
        self.revision = 0

    def __repr__(self) -> str:
        return f"Healths(nodes={len(self._nodes)}, revision={self.revision})"

    def enter(self, node_id: str, *, now_s: float) -> None:
        """A node was heard of for the first time, or has been started anew: it may work again, but how often it was
        ejected is not forgotten."""
        known = self._nodes.get(node_id)
        ejections = known.own.ejections if known is not None else 0
        self._nodes[node_id] = Health(Record(since_s=now_s, ejected_until_s=now_s, ejections=ejections))
        self._out_until_s = max(self._out_until_s, now_s)
        self._nodes.move_to_end(node_id)
        while len(self._nodes) > MAX_NODES:
            self._nodes.popitem(last=False)

    def leave(self, node_id: str) -> None:
        """The node is gone for good."""
        self._nodes.pop(node_id, None)

    def hear(self, node_id: str, failed_in_row: int, *, now_s: float) -> None:
        """Its own word on how many generations have failed here since the last that did not.

        An ejected node is sent next to nothing, so the number stands; it counts again when it has grown. When it is 0,
        something was made there since: what it had, its own or what waited there, too (docs/adr/0041).
        """
        health = self._nodes.get(node_id)
        if health is None:
            return
        grown, health.own_failures = failed_in_row > health.own_failures, failed_in_row
        if grown:
            health.own_failed_s = now_s
        if grown and failed_in_row >= FAILURES_IN_A_ROW and not health.own.ejected(now_s):
            health.own.eject(now_s)
            self._ejected(health.own)
        elif not failed_in_row:
            self._succeeded(health.own, now_s)

    def attempted(self, node_id: str, reporter: str, ok: bool, *, now_s: float) -> None:
        """The word of one who asked it; of nodes that were never heard of, and by a node of itself, nothing is kept."""
        health = self._nodes.get(node_id)
        if health is None or reporter == node_id:
            return
        if ok:
            if reporter in health.witnesses:
                health.witnesses[reporter].failures = 0
                self._succeeded(health.witnesses[reporter], now_s)
            return
        record = health.witnesses.setdefault(reporter, Record(since_s=health.own.since_s))
        health.witnesses.move_to_end(reporter)
        while len(health.witnesses) > MAX_WITNESSES:
            health.witnesses.popitem(last=False)
        before = record.ejected_until_s
        record.failed(now_s)
        if record.ejected_until_s != before:
            self._ejected(record)

    def _succeeded(self, record: Record, now_s: float) -> None:
        """Something was made there although it is out: then it need not be out any longer."""
        if record.ejected(now_s):
            record.ejected_until_s = record.since_s = now_s
            self.revision += 1

    def _ejected(self, record: Record) -> None:
        self._out_until_s = max(self._out_until_s, record.ejected_until_s)
        self.revision += 1

    def ejected(self, node_id: str, *, now_s: float, asker: str = "") -> bool:
        """Whether the node is out of rotation now; asker: the edge that would send it work, itself by default."""
        if now_s >= self._out_until_s:
            return False
        health = self._nodes.get(node_id)
        if health is None:
            return False
        if health.own.ejected(now_s) or asker == node_id:
            return health.own.ejected(now_s)
        out = [reporter for reporter, record in health.witnesses.items() if record.ejected(now_s)]
        return asker in out or len(out) >= WITNESSES

    def doubt(self, node_id: str, *, now_s: float, asker: str = "") -> float:
        """The chance, from 0 to 1, that what is sent there now fails: after some failures and no success since, that of
        Laplace's rule of succession, which fades in DOUBTED_S."""
        health = self._nodes.get(node_id)
        if health is None:
            return 0.0
        record = health.witnesses.get(asker)
        if record is None and not health.own_failures:
            return 0.0
        told = [(health.own_failures, health.own_failed_s)]
        told += [(record.failures, record.failed_s)] if record is not None and asker != node_id else []
        return max(
            (failures + 1) / (failures + 2) * min(1.0, max(0.0, 1.0 - (now_s - failed_s) / DOUBTED_S))
            if failures
            else 0.0
            for failures, failed_s in told
        )

    def weight(self, node_id: str, *, now_s: float, asker: str = "") -> float:
        """Its share of near-ties, up to 1: grows in its first SLOW_START_S."""
        health = self._nodes.get(node_id)
        if health is None:
            return 1.0
        record = health.witnesses.get(asker)
        since_s = max(health.own.since_s, record.since_s if record is not None else 0.0)
        return min(1.0, max(LEAST_WEIGHT, (now_s - since_s) / SLOW_START_S))

    def in_rotation(self, group: Iterable[T], name: Callable[[T], str], *, now_s: float, asker: str = "") -> list[T]:
        """Those of a group that are not ejected; all of them where that would leave less than PANIC_BELOW."""
        every = list(group)
        if now_s >= self._out_until_s:
            return every
        kept = [one for one in every if not self.ejected(name(one), now_s=now_s, asker=asker)]
        return kept if len(kept) >= PANIC_BELOW * len(every) else every
