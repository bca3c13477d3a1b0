"""Models that nodes are loading, and when they should be there. Pure.

A node says how long it has been at it and how long it expects to be; how long the last load of that model took there,
as it was seen from here, counts for more. Nobody's word is good for ever: a load that is overdue, that is begun time
and again, or that is said to need unlikely long promises nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from adaptivegen.nodes import NodeReport

LONGEST_S = 600.0  # of a load that is waited for
OVERDUE = 2.0  # times what was expected
SLACK_S = 2.0  # that a load may always be late, and two reports of one may differ by
TAIL = 0.1  # of what it has had, that an outlasting load still needs at least
MOST_TRIES = 3  # in a row, of loads that did not end with a model that serves
MAX_LOADS = 8192  # of all nodes, that are remembered


@dataclass(slots=True)
class _Load:
    """One load under way, of one life of a node. begun_ns: by this machine's clock."""

    life: int
    begun_ns: int
    expected_s: float


class Loads:
    """By node and model: what is loaded now, how long that took last, how often it was begun since it last served."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Load] = {}
        self._took_s: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._tries: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __repr__(self) -> str:
        return f"Loads({sorted(self._open)})"

    def hear(self, report: NodeReport, *, now_ns: int) -> None:
        """Take a heartbeat that arrived now."""
        if not report.loading and not self._open:
            return
        told = {load.model: load for load in report.loading}
        for model, load in told.items():
            key, begun_ns = (report.node_id, model), now_ns - round(load.elapsed_s * 1e9)
            known = self._open.get(key)
            if known is None or known.life != report.started_at_ns or begun_ns > known.begun_ns + SLACK_S * 1e9:
                self._open[key] = _Load(report.started_at_ns, begun_ns, load.expected_s)
                self._tries[key] = self._tries.pop(key, 0) + 1
            else:
                known.begun_ns, known.expected_s = min(known.begun_ns, begun_ns), load.expected_s
        for key in [key for key in self._open if key[0] == report.node_id and key[1] not in told]:
            over = self._open.pop(key)
            if report.ready and key[1] in report.models and over.life == report.started_at_ns:
                self._took_s[key] = min(LONGEST_S, (now_ns - over.begun_ns) / 1e9)
                self._tries.pop(key, None)
        for known_ones in (self._took_s, self._tries):
            while len(known_ones) > MAX_LOADS:
                known_ones.popitem(last=False)

    def left_s(self, node_id: str, model: str, *, now_ns: int) -> float | None:
        """Seconds until a model should be loaded; None where it is not being loaded or nothing can be promised."""
        load = self._open.get((node_id, model))
        if load is None or self._tries.get((node_id, model), 1) > MOST_TRIES:
            return None
        expected_s = self._took_s.get((node_id, model), load.expected_s)
        elapsed_s = max(0.0, (now_ns - load.begun_ns) / 1e9)
        if expected_s > LONGEST_S or elapsed_s > max(OVERDUE * expected_s, expected_s + SLACK_S):
            return None
        return max(expected_s - elapsed_s, TAIL * elapsed_s)

    def forget(self, node_id: str) -> None:
        """The node is gone for good."""
        for known in (self._open, self._took_s, self._tries):
            for key in [key for key in known if key[0] == node_id]:
                del known[key]
